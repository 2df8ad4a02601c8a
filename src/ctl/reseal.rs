//! `nodeseal reseal`: seals the same node root anew under the configured policy. No key changes; kube-apiserver notices nothing.
//!
//! Through the running daemon; without one, directly, with the state directory locked.

use std::process::ExitCode;

use serde_json::json;

use super::args::Common;
use super::output::{control_error, fail, harden, load, print, unfit};
use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::seal::root::{NodeRoot, RootError};
use crate::store::StateDir;

pub(super) fn run(common: &Common) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(code) = harden() {
        return code;
    }
    let policy = match control::ask(&config.control_socket, &Request::Reseal {}) {
        Ok(Answer::Resealed { policy }) => policy,
        Ok(_) => return unfit(),
        Err(error) if error.is_unreachable() => match offline(&config) {
            Ok(policy) => policy,
            Err(error) => return fail(&error, error.class(), error.hint()),
        },
        Err(error) => return control_error(&error),
    };
    print(common, &json!({ "seal_policy": policy }), || format!("the node root is sealed anew; policy {policy}"))
}

fn offline(config: &Config) -> Result<String, RootError> {
    let dir = StateDir::open(&config.state_dir).map_err(RootError::Store)?;
    NodeRoot::reseal(&dir, &config.sealer(), config.seal.to()).map(|sealed| sealed.policy.to_string())
}
