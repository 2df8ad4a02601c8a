//! `nodeseal init`: sets this node up, offline, once.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, InitArgs};
use super::output::{become_owner, fail, harden, load, print};
use super::recipients::code_text;
use crate::config::{Config, OrderError};
use crate::keyring::recovery::Recipient;
use crate::keyring::{self, Founding, KeeperError};
use crate::store::StateDir;
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
    if let Err(code) = become_owner(&config) {
        return code;
    }
    let kek = match set_up(&config, &recovery.recipients) {
        Ok(kek) => kek,
        Err(error) => return fail(&error, error.class(), error.hint()),
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
pub(super) fn set_up(config: &Config, recipients: &[Recipient]) -> Result<KekId, KeeperError> {
    let dir = StateDir::create(&config.state_dir).map_err(KeeperError::Store)?;
    let sealer = config.sealer();
    let founding = Founding {
        cluster: &config.cluster,
        sealer: &sealer,
        to: config.seal.to(),
        guard: config.seal.guard,
        recipients,
    };
    keyring::init(&dir, &founding, clock::now())
}
