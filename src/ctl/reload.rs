//! `nodeseal reload`: the same as SIGHUP, with an answer.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, ReloadArgs};
use super::output::{ask, load, print, unfit};
use crate::control::{Answer, Request};

pub(super) fn run(common: &Common, args: &ReloadArgs) -> ExitCode {
    // Its mistakes are shown before the daemon is asked.
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match ask(&config, &Request::Reload { abandon: args.abandon }) {
        Ok(Answer::Reloaded { pending }) => {
            print(common, &json!({ "reloaded": true, "pending": pending }), || match pending.as_slice() {
                [] => "the new configuration runs".to_owned(),
                _ => {
                    let lines: String = pending.iter().map(|pending| format!("\n  {pending}")).collect();
                    format!("the new configuration runs, but not all of it:{lines}")
                }
            })
        }
        Ok(_) => unfit(),
        Err(code) => code,
    }
}
