//! `nodeseal init`: sets this node up, offline, once.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, InitArgs};
use super::output::{fail, found_as_owner, founding, harden, load, once_free, print, refuse_beside_open_keys};
use super::recipients::{Recovery, code_text, keep_code};
use crate::config::{Config, OrderError};
use crate::keyring::home::CURRENT;
use crate::keyring::recovery::Recipient;
use crate::keyring::{self, KeeperError};
use crate::store::{StateDir, StoreError};
use crate::types::{Class, KekId, KeyId, clock};

#[derive(Debug, thiserror::Error)]
#[error("nothing was said about recovery")]
struct Unsaid;

pub(super) fn run(common: &Common, args: &InitArgs) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(code) = harden() {
        return code;
    }
    let recovery = match args.recovery.read() {
        Ok(Some(recovery)) => recovery,
        Ok(None) => return fail(&Unsaid, Class::Misconfigured, UNSAID_HINT),
        Err(error) => return fail(&error, Class::Misconfigured, OrderError::HINT),
    };
    let lost = if is_set_up(&config) { Ok(()) } else { refuse_beside_open_keys(&config) };
    if let Err(code) = lost.and_then(|()| found_as_owner(&config)) {
        return code;
    }
    if args.join {
        return join(common, &config, &recovery, args.replace_counter);
    }
    let kek = match set_up(&config, &recovery.recipients, args.replace_counter) {
        Ok(kek) => kek,
        Err(error) => {
            keep_code(recovery.code.as_ref());
            return refuse(&config, error, false);
        }
    };
    let key_id = KeyId::of_local_kek(&config.cluster, &kek);
    let (device, policy) = (config.seal.backend, config.seal.to().policy().to_string());
    let code = recovery.code.as_ref().and_then(|code| std::str::from_utf8(code.expose()).ok());
    let value = json!({
        "kek": kek.to_string(),
        "key_id": key_id.as_str(),
        "seal_backend": device.label(),
        "seal_policy": policy,
        "recovery_recipients": recovery.recipients.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "recovery_code": code,
    });
    print(common, &value, || {
        format!(
            "this node is set up\n  cluster      {}\n  state        {}\n  sealed by    {device}, policy {policy}\n  local KEK    {kek}\n  key_id       {key_id}\n{}{}",
            config.cluster,
            config.state_dir.display(),
            advice(&recovery.recipients, &config),
            code_text(recovery.code.as_ref()),
        )
    })
}

fn join(common: &Common, config: &Config, recovery: &Recovery, replace_counter: bool) -> ExitCode {
    let sealer = config.sealer();
    let founding = founding(config, &sealer, &recovery.recipients, replace_counter);
    let dir = once_free(|| StateDir::create(&config.state_dir).map_err(KeeperError::Store));
    let code = recovery.code.as_ref().and_then(|code| std::str::from_utf8(code.expose()).ok());
    let value = json!({ "kek": null, "seal_backend": config.seal.backend.label(), "recovery_code": code });
    match dir.and_then(|dir| keyring::join(&dir, &founding, clock::now())) {
        Ok(()) => print(common, &value, || {
            format!(
                "this node is set up without a key, and encrypts nothing before it has one\n  cluster      {}\n  \
                 sealed by    {}\nnext: start nodeseald; then nodeseal bundle request --out FILE, and \
                 nodeseal bundle make FILE on a node that has the keys{}",
                config.cluster,
                config.seal.backend,
                code_text(recovery.code.as_ref()),
            )
        }),
        Err(error) => {
            keep_code(recovery.code.as_ref());
            refuse(config, error, true)
        }
    }
}

/// Whether a node root counts here. Half of an `init` may look the same.
fn is_set_up(config: &Config) -> bool {
    config.state_dir.join(CURRENT).exists()
}

fn refuse(config: &Config, error: KeeperError, is_join: bool) -> ExitCode {
    let error = match error {
        // A daemon that has the directory in use, with a node in it.
        KeeperError::Store(StoreError::InUse { .. }) if is_set_up(config) => KeeperError::AlreadySetUp,
        other => other,
    };
    let hint = if is_join && matches!(error, KeeperError::AlreadySetUp) { TAKE_HINT } else { error.hint() };
    fail(&error, error.class(), hint)
}

const TAKE_HINT: &str = "it can take the keys of another node all the same: `nodeseal bundle request --out FILE` here, and `nodeseal bundle make FILE` there";

const UNSAID_HINT: &str = "give --recovery-recipient AGE1… (made by `age-keygen`), or --recovery-code to have a code printed, or --no-recovery: then a lost device loses all keys";

fn advice(recipients: &[Recipient], config: &Config) -> String {
    let state = config.state_dir.display();
    if recipients.is_empty() {
        return format!(
            "back up {state}: without it, or without this device, what is encrypted from now on is unreadable"
        );
    }
    format!(
        "copy {state}/recovery.age to another place now and after every `keys rotate`: with it and the recovery key all keys come back"
    )
}

/// Also what `dev` does the first time.
pub(super) fn set_up(config: &Config, recipients: &[Recipient], replace_counter: bool) -> Result<KekId, KeeperError> {
    let dir = once_free(|| StateDir::create(&config.state_dir).map_err(KeeperError::Store))?;
    let sealer = config.sealer();
    let founding = founding(config, &sealer, recipients, replace_counter);
    keyring::init(&dir, &founding, clock::now())
}
