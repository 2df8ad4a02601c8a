//! `nodeseal init`: sets this node up, offline, once.

use std::process::ExitCode;

use serde_json::json;

use super::args::Common;
use super::output::{fail, harden, load, print};
use crate::config::Config;
use crate::keyring::{self, KeeperError};
use crate::store::StateDir;
use crate::types::{KekId, KeyId, clock};

pub(super) fn run(common: &Common) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(code) = harden() {
        return code;
    }
    let kek = match set_up(&config) {
        Ok(kek) => kek,
        Err(error) => return fail(&error, error.class(), error.hint()),
    };
    let key_id = KeyId::of_local_kek(&config.cluster, &kek);
    let policy = config.seal.policy.to_string();
    print(common, &json!({ "kek": kek.to_string(), "key_id": key_id.as_str(), "seal_policy": policy }), || {
        format!(
            "this node is set up\n  cluster      {}\n  state        {}\n  seal policy  {policy}\n  local KEK    {kek}\n  key_id       {key_id}\n\
             back up the state directory: without it, or without this node's TPM, what is encrypted from now on is unreadable",
            config.cluster,
            config.state_dir.display(),
        )
    })
}

/// Also what `dev` does the first time.
pub(super) fn set_up(config: &Config) -> Result<KekId, KeeperError> {
    let dir = StateDir::create(&config.state_dir).map_err(KeeperError::Store)?;
    keyring::init(&dir, &config.cluster, &config.sealer(), config.seal.to(), clock::now())
}
