//! `[[provider]]`, `[write]` and `[decrypt]`, checked. Knows the file alone: whether a provider can be reached and does what it
//! should, is found out when it is opened. Each kind has a file of its own.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod kms_plugin;
#[cfg(feature = "pkcs11")]
mod pkcs11;
pub(super) mod raw;
mod table;
#[cfg(feature = "vault")]
mod vault;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::raw::{Decrypt, Write};
use self::table::Table;
use super::Seal;
use super::check::Problems;
use crate::keyring::rooted::{OnOutage, Rules};
#[cfg(any(feature = "azure", feature = "vault"))]
use crate::provider::Roots;
#[cfg(feature = "http-client")]
use crate::provider::SYSTEM_ROOTS;
use crate::provider::set::{Role, Strategy};
use crate::provider::{ProviderError, ProviderKind};
#[cfg(feature = "http-client")]
use crate::sandbox::Access;
use crate::sandbox::Needs;
use crate::seal::credential;
use crate::types::{CredentialName, Secret};

/// All annotations of a text have 32 KiB, a wrap up to 5 (`envelope::WRAPS_MAX_BYTES`, `provider::wrapped`).
const PROVIDERS_MAX: usize = 6;
const KINDS: &str = "\"vault\", \"aws\", \"azure\", \"pkcs11\" or \"kms-plugin\"";
/// Characters of a provider's name, which stands in logs and metrics.
const NAME_MAX: usize = 63;
/// Of one call with its login. What a request of kube-apiserver waits for is bounded besides (`provider::set::ATTEMPT`).
const TIMEOUT: Duration = Duration::from_secs(5);
const ACTIVATION_DELAY: Duration = Duration::from_secs(120);
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// In mode "direct", where nothing can be written without them.
const DIRECT_OUTAGE: Duration = Duration::from_secs(300);

/// Everything about providers.
#[derive(Clone, Debug)]
pub struct Providers {
    /// In the order of the file.
    pub list: Vec<Provider>,
    /// Who is asked to open a wrap.
    pub strategy: Strategy,
    /// Of `[write]` and `[local_kek]`.
    pub rules: Rules,
}

/// One provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// As the operator calls it.
    pub name: String,
    /// What it does for new KEKs.
    pub role: Role,
    /// Its kind's own.
    pub settings: Settings,
    /// Sealed credentials that it logs in with.
    pub credentials: Vec<CredentialName>,
    /// Files that it is made of: certificate authorities.
    pub files: Vec<PathBuf>,
    /// Files that it reads at each login, so that one that is replaced needs nothing done: tokens.
    pub tokens: Vec<PathBuf>,
    /// The table as it was written, without name and role: equal text, equal provider.
    pub written: String,
    /// The same without limits, which need no proof.
    pub proved: String,
}

impl Provider {
    /// Whether this could be the credential that it logs in with, as far as can be said without asking it.
    pub fn check_credential(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        match &self.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(settings) => settings.auth.check_form(name, content),
            #[cfg(feature = "aws")]
            Settings::Aws(settings) => settings.auth.check_form(name, content),
            #[cfg(feature = "azure")]
            Settings::Azure(settings) => settings.auth.check_form(name, content),
            #[cfg(feature = "pkcs11")]
            Settings::Pkcs11(_) => Ok(()),
            Settings::KmsPlugin(_) => {
                // These kinds seal nothing.
                let _ = (name, content);
                Ok(())
            }
        }
    }

    /// What others make for it alone, and may make anew: its files and its socket.
    pub fn own_needs(&self) -> Needs {
        let own = match &self.settings {
            Settings::KmsPlugin(settings) => Needs::default().socket(&settings.socket),
            #[cfg(any(feature = "vault", feature = "aws", feature = "azure", feature = "pkcs11"))]
            _ => Needs::default(),
        };
        self.files.iter().chain(&self.tokens).fold(own, |needs, file| needs.replaced_file(file, "a file of a provider"))
    }

    /// Of the machine, for as long as it is used.
    pub fn needs(&self) -> Needs {
        let of_its_kind = match &self.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(settings) => settings.needs(),
            #[cfg(feature = "aws")]
            Settings::Aws(settings) => settings.needs(),
            #[cfg(feature = "azure")]
            Settings::Azure(settings) => settings.needs(),
            // The sealer reaches the token.
            #[cfg(feature = "pkcs11")]
            Settings::Pkcs11(_) => Needs::default(),
            Settings::KmsPlugin(_) => Needs::default(),
        };
        of_its_kind.and(self.own_needs())
    }
}

/// What a provider of any kind that is compiled in may need. Ports are the operator's to choose at his servers, so it is all of them;
/// authorities and tokens are where others keep them fresh. What lies elsewhere is `sandbox.allow_paths`.
pub(super) fn any_provider() -> Needs {
    // Sockets of other plugins; the sealer reaches the token.
    let needs = Needs::default().any_socket();
    #[cfg(feature = "http-client")]
    let needs = ["/etc", "/run"].iter().fold(needs.name_service().system_roots().any_port(), |needs, folder| {
        needs.path(Path::new(folder), Access::Read, "files of providers")
    });
    #[cfg(feature = "aws")]
    let needs = crate::provider::aws::default_chain(needs);
    needs
}

impl Provider {
    /// All that it is made of besides its table. The roots of the system may be installed or renewed while it runs. Credentials lie in
    /// the folder of the node root, and are left out where that is not known.
    pub fn made_of(&self, folder: Option<&Path>) -> Vec<PathBuf> {
        let names = self.credentials.iter().map(credential::file_name);
        let sealed = folder.into_iter().flat_map(|folder| names.clone().map(|name| folder.join(name)));
        let roots: &[&str] = match &self.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(settings) if settings.roots == Roots::System => &SYSTEM_ROOTS,
            #[cfg(feature = "aws")]
            Settings::Aws(settings) if settings.ca_file.is_none() => &SYSTEM_ROOTS,
            #[cfg(feature = "azure")]
            Settings::Azure(settings) if settings.roots == Roots::System => &SYSTEM_ROOTS,
            _ => &[],
        };
        sealed.chain(self.files.iter().cloned()).chain(roots.iter().map(PathBuf::from)).collect()
    }
}

/// What a kind needs to be opened. Holds no secret.
#[derive(Clone, Debug)]
pub enum Settings {
    /// HashiCorp Vault or OpenBao.
    #[cfg(feature = "vault")]
    Vault(Box<crate::provider::vault::VaultSettings>),
    /// AWS KMS.
    #[cfg(feature = "aws")]
    Aws(Box<crate::provider::aws::AwsSettings>),
    /// Azure Key Vault or Managed HSM.
    #[cfg(feature = "azure")]
    Azure(Box<crate::provider::azure::AzureSettings>),
    /// A key in a token that nodes share.
    #[cfg(feature = "pkcs11")]
    Pkcs11(Box<crate::provider::pkcs11::Pkcs11KekSettings>),
    /// Another KMS plugin.
    KmsPlugin(Box<crate::provider::kms_plugin::KmsPluginSettings>),
}

/// `None` if there is a mistake; `Some(None)` if there are no providers.
#[expect(clippy::option_option, reason = "a mistake, no providers, providers")]
pub(super) fn check(
    problems: &mut Problems,
    warnings: &mut Problems,
    tables: Option<Vec<toml::Table>>,
    write: Option<Write>,
    decrypt: Option<Decrypt>,
    has_local_kek: bool,
) -> Option<Option<Providers>> {
    let tables = tables.unwrap_or_default();
    if tables.is_empty() {
        let tables = [("write", write.is_some()), ("decrypt", decrypt.is_some())];
        for (key, _) in tables.iter().filter(|(_, present)| *present) {
            problems.add(key, "has no effect without a [[provider]]");
        }
        if !has_local_kek {
            problems.add("local_kek.enabled", "without a local KEK there must be a [[provider]]");
        }
        return problems.is_empty().then_some(None);
    }
    if tables.len() > PROVIDERS_MAX {
        problems.add("provider", format!("there are {}; at most {PROVIDERS_MAX} are allowed", tables.len()));
    }
    let mut names = BTreeSet::new();
    let count = tables.len();
    let list: Vec<Provider> = tables
        .into_iter()
        .enumerate()
        .filter_map(|(index, table)| one(&mut Table::new(problems, format!("provider[{index}]"), table), &mut names))
        .collect();
    let strategy = check_strategy(problems, decrypt.unwrap_or_default());
    warn_of_ways(warnings, &list);
    let rules = check_rules(problems, warnings, write.unwrap_or_default(), has_local_kek, &list);
    (list.len() == count).then_some(Some(Providers { list, strategy: strategy?, rules: rules? }))
}

fn one(table: &mut Table<'_>, names: &mut BTreeSet<String>) -> Option<Provider> {
    let name = table.text("name", "choose a name, for logs and status");
    let required = table.flag("required", true);
    let writes = table.flag("write", true);
    let (written, proved) = (table.written(&[]), table.written(&["timeout"]));
    let kind = table.text("kind", KINDS);
    let name = name.filter(|name| {
        let fits = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match (fits, !fits || names.insert(name.clone())) {
            (true, true) => return true,
            (true, false) => table.problem("name", format!("{name:?} is used twice")),
            (false, _) => table.problem("name", format!("is 1 to {NAME_MAX} characters of a-z, 0-9 and '-'")),
        }
        false
    });
    let role = match (required?, writes?) {
        (_, false) => Role::DecryptOnly,
        (true, true) => Role::Required,
        (false, true) => Role::Optional,
    };
    let found = match kind?.as_str() {
        #[cfg(feature = "vault")]
        "vault" => vault::check(table),
        #[cfg(feature = "aws")]
        "aws" => aws::check(table),
        #[cfg(feature = "azure")]
        "azure" => azure::check(table),
        #[cfg(feature = "pkcs11")]
        "pkcs11" => pkcs11::check(table),
        "kms-plugin" => kms_plugin::check(table),
        other => {
            let known = [
                ProviderKind::Vault,
                ProviderKind::Aws,
                ProviderKind::Azure,
                ProviderKind::Pkcs11,
                ProviderKind::KmsPlugin,
            ];
            match known.iter().any(|kind| kind.label() == other) {
                true => table.problem("kind", format!("{other:?} is not compiled into this build")),
                false => table.problem("kind", format!("unknown kind {other:?}: write {KINDS}")),
            }
            None
        }
    }?;
    let Found { settings, credentials, files, tokens } = found;
    Some(Provider { name: name?, role, settings, credentials, files, tokens, written, proved })
}

/// What providers need of the rest of the file.
#[cfg_attr(not(feature = "pkcs11"), expect(unused_variables, reason = "only a key in a token needs a token"))]
pub(super) fn check_beside(
    problems: &mut Problems,
    warnings: &mut Problems,
    list: &[Provider],
    seal: &Seal,
    own_sockets: &[&Path],
) {
    for (index, provider) in list.iter().enumerate() {
        match &provider.settings {
            #[cfg(feature = "vault")]
            Settings::Vault(_) => {}
            #[cfg(feature = "aws")]
            Settings::Aws(_) => {}
            #[cfg(feature = "azure")]
            Settings::Azure(_) => {}
            #[cfg(feature = "pkcs11")]
            Settings::Pkcs11(settings) => {
                let key = format!("provider[{index}].key_label");
                match &seal.pkcs11 {
                    None => problems
                        .add(&key, "kind \"pkcs11\" needs [seal.pkcs11], which says which module, token and PIN"),
                    Some(token) if token.key_label == settings.key.label() => {
                        problems.add(&key, "is the label of the key that seals the node root: give this key its own");
                    }
                    Some(_) if seal.socket.is_none() => {
                        warnings.add("seal.socket", "without it every request to the token logs in again");
                    }
                    Some(_) => {}
                }
            }
            Settings::KmsPlugin(settings) if own_sockets.contains(&settings.socket.as_path()) => {
                problems.add(
                    &format!("provider[{index}].socket"),
                    "is Nodeseal's own socket: write the socket of the other plugin",
                );
            }
            Settings::KmsPlugin(_) => {}
        }
    }
}

/// What a kind makes of its table.
struct Found {
    settings: Settings,
    credentials: Vec<CredentialName>,
    files: Vec<PathBuf>,
    tokens: Vec<PathBuf>,
}

fn check_strategy(problems: &mut Problems, decrypt: Decrypt) -> Option<Strategy> {
    match decrypt.strategy.as_deref() {
        None | Some("fastest") => Some(Strategy::Fastest),
        Some("ordered") => Some(Strategy::Ordered),
        Some("round-robin") => Some(Strategy::RoundRobin),
        Some(other) => {
            problems.add("decrypt.strategy", format!("{other:?} is none of \"fastest\", \"ordered\", \"round-robin\""));
            None
        }
    }
}

/// How many keys those that write have between them, as far as the file tells: two ways to one key wrap no KEK twice.
fn keys_of(list: &[Provider]) -> usize {
    let mut seen: Vec<&Provider> = Vec::new();
    for provider in list.iter().filter(|provider| provider.role != Role::DecryptOnly) {
        if !seen.iter().any(|other| is_same_key(&other.settings, &provider.settings)) {
            seen.push(provider);
        }
    }
    seen.len()
}

/// As far as the tables tell. Whether two servers are one, only they can.
fn is_same_key(a: &Settings, b: &Settings) -> bool {
    match (a, b) {
        #[cfg(feature = "vault")]
        (Settings::Vault(a), Settings::Vault(b)) => {
            (&a.address, &a.namespace, &a.mount, &a.key) == (&b.address, &b.namespace, &b.mount, &b.key)
        }
        #[cfg(feature = "aws")]
        (Settings::Aws(a), Settings::Aws(b)) => a.key.is_same_as(&b.key),
        #[cfg(feature = "azure")]
        (Settings::Azure(a), Settings::Azure(b)) => (&a.vault, &a.key) == (&b.vault, &b.key),
        #[cfg(feature = "pkcs11")]
        (Settings::Pkcs11(a), Settings::Pkcs11(b)) => a.key == b.key,
        (Settings::KmsPlugin(a), Settings::KmsPlugin(b)) => a.key == b.key,
        #[cfg(any(feature = "vault", feature = "aws", feature = "azure", feature = "pkcs11"))]
        _ => false,
    }
}

/// Two ways to one key are fine, and may be a mistake: between them they make one copy.
fn warn_of_ways(warnings: &mut Problems, list: &[Provider]) {
    for (index, provider) in list.iter().enumerate() {
        let first = list[..index].iter().find(|first| is_same_key(&first.settings, &provider.settings));
        if let Some(first) = first {
            let said = format!("names the key of `{}`: these are two ways to one key, which counts once", first.name);
            warnings.add(&format!("provider[{index}]"), said);
        }
    }
}

fn check_rules(
    problems: &mut Problems,
    warnings: &mut Problems,
    write: Write,
    local_kek: bool,
    list: &[Provider],
) -> Option<Rules> {
    let Write { min_wraps, epoch, on_outage, activation_delay, probe_every } = write;
    let writers = list.iter().filter(|provider| provider.role != Role::DecryptOnly).count();
    if writers == 0 && !list.is_empty() && !local_kek {
        problems.add(
            "provider",
            "every [[provider]] has write = false, and without a local KEK nothing would encrypt: leave `write` out of one of them",
        );
    }
    let min_wraps = usize::try_from(min_wraps.unwrap_or(1)).ok().filter(|min| (1..=writers.max(1)).contains(min));
    if min_wraps.is_none() {
        problems.add("write.min_wraps", format!("is 1 to {}, the number of providers that write", writers.max(1)));
    }
    let keys = keys_of(list);
    if min_wraps.is_some_and(|min| min > keys.max(1)) {
        let plural = if keys == 1 { "" } else { "s" };
        problems.add("write.min_wraps", format!("is more than the {keys} key{plural} of the providers that write"));
    }
    let epoch = u32::try_from(epoch.unwrap_or(0)).ok();
    if epoch.is_none() {
        problems.add("write.epoch", "is a number from 0 to 4294967295");
    }
    let on_outage = match on_outage.as_deref() {
        None if local_kek => Some(OnOutage::Coast),
        None => Some(OnOutage::StopWritesAfter(DIRECT_OUTAGE)),
        Some("coast") => Some(OnOutage::Coast),
        Some(text) => {
            let limit = text.strip_prefix("stop-writes-after ").and_then(|time| humantime::parse_duration(time).ok());
            if limit.is_none() {
                problems.add("write.on_outage", format!("{text:?} is neither \"coast\" nor \"stop-writes-after 10m\""));
            }
            limit.map(OnOutage::StopWritesAfter)
        }
    };
    let activation_delay = duration(problems, "write.activation_delay", activation_delay, ACTIVATION_DELAY, 0..=86_400);
    let probe_every = duration(problems, "write.probe_every", probe_every, PROBE_EVERY, 1..=3600);
    if probe_every.is_some_and(|every| every < PROBE_EVERY) {
        warnings.add("write.probe_every", "with more than one probe a minute, a provider may rate-limit this node");
    }
    Some(Rules {
        local_kek,
        min_wraps: min_wraps?,
        epoch: epoch?,
        on_outage: on_outage?,
        activation_delay: activation_delay?,
        probe_every: probe_every?,
    })
}

/// `bounds` in seconds.
fn duration(
    problems: &mut Problems,
    key: &str,
    text: Option<String>,
    default: Duration,
    bounds: std::ops::RangeInclusive<u64>,
) -> Option<Duration> {
    let Some(text) = text else { return Some(default) };
    let time = humantime::parse_duration(&text).ok().filter(|time| bounds.contains(&time.as_secs()));
    if time.is_none() {
        let [low, high] = [bounds.start(), bounds.end()].map(|seconds| Duration::from_secs(*seconds));
        let [low, high] = [low, high].map(|time| humantime::format_duration(time).to_string());
        problems.add(key, format!("{text:?} is not a time from {low} to {high}, such as \"2m\""));
    }
    time
}
