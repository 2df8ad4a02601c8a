//! Every value that is written into a file of another language, as a type of its own. None of them can hold a quote, a space, a backslash,
//! `$`, `*`, `+`, `{` or a control character, and none begins with `-`: so each means itself in HCL, JSON, YAML, TOML and a shell, where it
//! stands and without escaping. What is looser than that where Nodeseal itself reads it (names of roles of IAM) is refused here.

use std::fmt;
use std::str::FromStr;

/// Why a text is not what its place needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write {0} as {1}")]
pub(super) struct WordError(&'static str, &'static str);

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(super) struct $name(String);

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                let check: fn(&str) -> Result<(), WordError> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn fits(fits: bool, what: &'static str, form: &'static str) -> Result<(), WordError> {
    if fits { Ok(()) } else { Err(WordError(what, form)) }
}

/// Bytes. Longer than any name that the three providers take, and short enough for every line.
const MAX_BYTES: usize = 253;

fn name(text: &str, more: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && text.len() <= MAX_BYTES && !text.contains("..") && text.bytes().all(plain)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// `https://HOST` or `https://HOST:PORT`; in clear only to this machine, where a proxy of Vault listens.
fn is_address(text: &str) -> bool {
    let host_and_port = |place: &str| match place.split_once(':') {
        Some((host, port)) => name(host, b"-.") && is_port(port),
        None => name(place, b"-."),
    };
    let at_home = || text.strip_prefix("http://127.0.0.1:").is_some_and(is_port);
    text.strip_prefix("https://").is_some_and(host_and_port) || at_home()
}

word! {
    /// Where Vault listens.
    VaultAddress, |text| fits(is_address(text), "the address", "https://HOST or https://HOST:PORT")
}

word! {
    /// A key or a role of Vault.
    VaultName, |text| {
        fits(name(text, b"-_."), "the name", "letters, digits, '-', '_' and '.', beginning with a letter or digit")
    }
}

word! {
    /// A mount or a namespace of Vault.
    VaultPath, |text| {
        let good = text.len() <= MAX_BYTES && text.split('/').all(|part| name(part, b"-_."));
        fits(good, "the path", "names with '/' between them, and none at the ends")
    }
}

word! {
    /// A PEM file on the nodes.
    FilePath, |text| {
        let good = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| name(part, b"-_.")));
        fits(good, "the file", "an absolute path of letters, digits, '-', '_' and '.'")
    }
}

/// Partition, region, account and resource of an ARN of this service.
fn arn<'a>(text: &'a str, service: &str) -> Option<[&'a str; 4]> {
    let parts: Vec<&str> = text.split(':').collect();
    let ["arn", partition, of, region, account, resource] = parts[..] else { return None };
    let good = partition == "aws" || partition.strip_prefix("aws-").is_some_and(|rest| name(rest, b"-"));
    let good_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (good && of == service && good_account && text.len() <= MAX_BYTES).then_some([partition, region, account, resource])
}

word! {
    /// A key of AWS KMS itself. A policy that names an alias allows nothing, so an alias is refused.
    KeyArn, |text| {
        let good = arn(text, "kms").is_some_and(|[_, region, _, resource]| {
            name(region, b"-") && resource.strip_prefix("key/").is_some_and(|id| name(id, b"-"))
        });
        fits(good, "the key", "its ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias")
    }
}

impl KeyArn {
    /// `arn`, partition, `kms`, region, account, resource: the type holds six.
    fn part(&self, index: usize) -> &str {
        self.0.split(':').nth(index).unwrap_or_default()
    }

    pub(super) fn partition(&self) -> &str {
        self.part(1)
    }

    pub(super) fn region(&self) -> &str {
        self.part(3)
    }

    pub(super) fn account(&self) -> &str {
        self.part(4)
    }
}

word! {
    /// Who logs in at AWS: a user, whose keys are sealed, or the role of the machine.
    LoginArn, |text| {
        let of = |resource: &str| resource.split_once('/').is_some_and(|(kind, rest)| {
            matches!(kind, "user" | "role") && rest.split('/').all(|part| name(part, b"-_.@"))
        });
        let good = arn(text, "iam").is_some_and(|[_, region, _, resource]| region.is_empty() && of(resource));
        fits(good, "the login", "arn:aws:iam::ACCOUNT:user/NAME or arn:aws:iam::ACCOUNT:role/NAME")
    }
}

impl LoginArn {
    pub(super) fn is_user(&self) -> bool {
        self.0.contains(":user/")
    }

    /// `user` or `role`.
    pub(super) fn kind(&self) -> &'static str {
        if self.is_user() { "user" } else { "role" }
    }

    /// Without the path before it, as the commands of IAM take it.
    pub(super) fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn account(&self) -> &str {
        self.0.split(':').nth(4).unwrap_or_default()
    }
}

/// Of a vault or a managed HSM in each cloud that Nodeseal knows the login of.
const AZURE: [&str; 5] = [
    ".vault.azure.net",
    ".managedhsm.azure.net",
    ".vault.usgovcloudapi.net",
    ".managedhsm.usgovcloudapi.net",
    ".vault.azure.cn",
];

word! {
    /// A vault or a managed HSM of Azure.
    AzureVault, |text| {
        let host = text.strip_prefix("https://").unwrap_or_default();
        let good = AZURE.iter().any(|end| host.strip_suffix(end).is_some_and(|first| name(first, b"-")));
        fits(good, "the vault", "https://NAME.vault.azure.net or https://NAME.managedhsm.azure.net")
    }
}

impl AzureVault {
    pub(super) fn is_hsm(&self) -> bool {
        self.0.contains(".managedhsm.")
    }

    /// The first label of its host.
    pub(super) fn name(&self) -> &str {
        self.0.trim_start_matches("https://").split('.').next().unwrap_or_default()
    }
}

word! {
    /// A key of Azure, without a version.
    AzureKey, |text| {
        fits(name(text, b"-") && text.len() <= 127, "the key", "its name alone, of letters, digits and '-'")
    }
}

word! {
    /// A tenant, an application or a principal of Entra ID.
    Guid, |text| {
        let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        let good = lengths == [8, 4, 4, 4, 12] && text.split('-').all(hex);
        fits(good, "the id", "a GUID as 00000000-0000-0000-0000-000000000000")
    }
}
