//! `nodeseal reseal`: seals the same node root anew, by any device and under the configured policy, and makes anew what goes with
//! it: the counter that guards the state directory, the recipients of the recovery file. No key changes; kube-apiserver notices
//! nothing.
//!
//! Through the running daemon; without one, and for a state directory that the guard refuses, directly.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, ResealArgs};
use super::output::{control_error, fail, harden, keeper_settings, load, print, unfit};
use super::recipients::code_text;
use crate::config::{Config, OrderError};
use crate::control::{self, Answer, Request};
use crate::keyring::KeeperError;
use crate::keyring::keeper::{ResealOrder, with_keeper};
use crate::types::Class;

pub(super) fn run(common: &Common, args: &ResealArgs) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(code) = harden() {
        return code;
    }
    let recovery = match args.recovery.read() {
        Ok(recovery) => recovery,
        Err(error) => return fail(&error, Class::Misconfigured, OrderError::HINT),
    };
    let recipients: Option<Vec<String>> =
        recovery.as_ref().map(|recovery| recovery.recipients.iter().map(ToString::to_string).collect());
    let order = match config.seal.order(args.to.as_deref(), recipients.clone()) {
        Ok(order) => order,
        Err(error) => return fail(&error, Class::Misconfigured, OrderError::HINT),
    };
    let wanted = order.to.backend();
    let answer = match args.accept_rollback {
        true => Err(None),
        false => {
            control::ask(&config.control_socket, &Request::Reseal { to: args.to.clone(), recipients }).map_err(Some)
        }
    };
    let (backend, policy) = match answer {
        Ok(Answer::Resealed { backend, policy }) => (backend, policy),
        Ok(_) => return unfit(),
        Err(Some(error)) if !error.is_unreachable() => return control_error(&error),
        Err(_) => match offline(&config, order, args.accept_rollback) {
            Ok(resealed) => resealed,
            Err(error) => return fail(&error, error.class(), error.hint()),
        },
    };
    let code = recovery.and_then(|recovery| recovery.code);
    let shown = code.as_ref().and_then(|code| std::str::from_utf8(code.expose()).ok());
    print(common, &json!({ "seal_backend": backend, "seal_policy": policy, "recovery_code": shown }), || {
        let reminder = match wanted == config.seal.backend {
            true => String::new(),
            false => {
                format!("\nwrite backend = \"{wanted}\" under [seal]: the next `reseal` goes to the configured device")
            }
        };
        format!("the node root is sealed anew by {backend}; policy {policy}{reminder}{}", code_text(code.as_ref()))
    })
}

fn offline(config: &Config, order: ResealOrder, accept_rollback: bool) -> Result<(String, String), KeeperError> {
    let root = with_keeper(&keeper_settings(config), accept_rollback, |keeper| keeper.reseal(order))?;
    Ok((root.backend().map_or_else(String::new, |backend| backend.to_string()), root.policy.to_string()))
}
