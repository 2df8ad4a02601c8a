//! `nodeseal init`: sets this node up, offline, once.

use serde_json::json;

use super::args::{Common, InitArgs};
use super::failed::Failed;
use super::next::START;
use super::output::{Done, found_as_owner, founding, harden, load, once_free, print_done, refuse_beside_open_keys};
use super::recipients::{PROVE, Recovery, code_text, keep_code, shown};
use super::schema;
use crate::config::Config;
use crate::keyring::files::CURRENT;
use crate::keyring::recovery::Recipient;
use crate::keyring::{self, KeeperError};
use crate::store::{StateDir, StoreError};
use crate::types::{Class, Explain, Explained, KekId, KeyId, clock};

#[derive(Debug, thiserror::Error)]
#[error("choose how the keys can be recovered")]
struct Unsaid;

pub(super) fn run(common: &Common, args: &InitArgs) -> Done {
    let config = load(common)?;
    harden()?;
    let recovery = match args.recovery.read() {
        Ok(Some(recovery)) => recovery,
        Ok(None) => return Err(Failed::new(&Explain::new(&Unsaid, Class::Misconfigured, UNSAID_HINT))),
        Err(error) => return Err(error.into()),
    };
    let was_set_up = is_set_up(&config);
    if !was_set_up {
        refuse_beside_open_keys(&config)?;
    }
    found_as_owner(&config)?;
    let kek = match args.join {
        true => join(&config, &recovery, args.replace_counter).map(|()| None),
        false => set_up(&config, &recovery.recipients, args.replace_counter).map(Some),
    };
    match kek {
        Ok(kek) => report(common, &config, &recovery, kek.as_ref()),
        Err(error) => {
            // Nothing is encrypted to it on a node that was set up before.
            if !was_set_up {
                keep_code(recovery.code.as_ref());
            }
            Err(refuse(&config, error, args.join))
        }
    }
}

/// Without a KEK the node waits for those of another one.
fn report(common: &Common, config: &Config, recovery: &Recovery, kek: Option<&KekId>) -> Done {
    let key_id = kek.map(|kek| KeyId::of_local_kek(&config.cluster, kek));
    let (device, policy) = (config.seal.backend, config.seal.to().policy().to_string());
    let value = json!({
        "kek": kek.map(ToString::to_string),
        "key_id": key_id.as_ref().map(KeyId::as_str),
        "seal_backend": device.label(),
        "seal_policy": policy,
        "recovery_recipients": recovery.recipients.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "recovery_code": shown(recovery.code.as_ref()),
    });
    print_done(common, schema::INIT, &value, &next(config, recovery, kek.is_some()), || {
        let cluster = &config.cluster;
        let what = match kek.zip(key_id.as_ref()) {
            None => "this node is set up without a key, and encrypts nothing until it has one".to_owned(),
            Some((kek, key_id)) => format!("this node is set up\n  local KEK    {kek}\n  key_id       {key_id}"),
        };
        let state = config.state_dir.display();
        format!(
            "{what}\n  cluster      {cluster}\n  state        {state}\n  sealed by    {device}, policy {policy}\n{}",
            code_text(recovery.code.as_ref()),
        )
    })
}

fn next(config: &Config, recovery: &Recovery, has_kek: bool) -> Vec<String> {
    let state = config.state_dir.display();
    let mut next = match (recovery.recipients.is_empty(), has_kek) {
        (true, _) => vec![format!(
            "back up {state}: without it, or without this device, what is encrypted from now on is unreadable"
        )],
        (false, false) => Vec::new(),
        (false, true) => vec![format!(
            "copy {state}/recovery.age to another place, now and after every `keys rotate`: with it and the recovery key all keys come back"
        )],
    };
    next.extend(recovery.code.as_ref().map(|_| PROVE.to_owned()).filter(|_| has_kek));
    match has_kek {
        true => next.push(START.to_owned()),
        false => next.push(
            "start nodeseald; then here: nodeseal bundle request --out FILE; then on a node that has the keys: nodeseal bundle make FILE --fingerprint GROUPS --out FILE"
                .to_owned(),
        ),
    }
    next
}

fn join(config: &Config, recovery: &Recovery, replace_counter: bool) -> Result<(), KeeperError> {
    let sealer = config.sealer();
    let founding = founding(config, &sealer, &recovery.recipients, replace_counter);
    let dir = once_free(|| StateDir::create(&config.state_dir).map_err(KeeperError::Store))?;
    keyring::join(&dir, &founding, clock::now())
}

/// Whether a node root counts here. Half of an `init` may look the same.
fn is_set_up(config: &Config) -> bool {
    config.state_dir.join(CURRENT).exists()
}

fn refuse(config: &Config, error: KeeperError, is_join: bool) -> Failed {
    let error = match error {
        // A daemon that has the directory in use, with a node in it.
        KeeperError::Store(StoreError::InUse { .. }) if is_set_up(config) => KeeperError::AlreadySetUp,
        other => other,
    };
    let hint = if is_join && matches!(error, KeeperError::AlreadySetUp) { TAKE_HINT } else { error.hint() };
    Failed::new(&Explain::new(&error, error.class(), hint))
}

const TAKE_HINT: &str = "it can take the keys of another node all the same: `nodeseal bundle request --out FILE` here, and `nodeseal bundle make FILE --fingerprint GROUPS --out FILE` there";

const UNSAID_HINT: &str = if cfg!(not(feature = "recovery")) {
    "use --no-recovery: this build makes no recovery file, so if the device is lost, all keys are lost"
} else {
    "use --recovery-recipient AGE1… (from `age-keygen`), or --recovery-code to print a code, or --no-recovery: then if the device is lost, all keys are lost"
};

/// Also what `dev` does the first time.
pub(super) fn set_up(config: &Config, recipients: &[Recipient], replace_counter: bool) -> Result<KekId, KeeperError> {
    let dir = once_free(|| StateDir::create(&config.state_dir).map_err(KeeperError::Store))?;
    let sealer = config.sealer();
    let founding = founding(config, &sealer, recipients, replace_counter);
    keyring::init(&dir, &founding, clock::now())
}
