//! `nodeseal status`: what the running daemon says of itself. Exit code 69 when an Encrypt would be refused.

use std::process::ExitCode;

use super::args::Common;
use super::output::{ask, load, print, unfit};
use crate::control::{Answer, Request, Status, say};
use crate::types::Class;

pub(super) fn run(common: &Common) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let status = match ask(&config, &Request::Status {}) {
        Ok(Answer::Status(status)) => status,
        Ok(_) => return unfit(),
        Err(code) => return code,
    };
    let code = print(common, &status, || render(&status));
    if status.healthy {
        return code;
    }
    say::warning(super::PROGRAM, "the keys are not unsealed: see the log of nodeseald for the reason and its remedy");
    ExitCode::from(Class::Unavailable.exit_code())
}

fn render(status: &Status) -> String {
    let none = || "none".to_owned();
    let mut lines = vec![
        ("health", if status.healthy { "ok".to_owned() } else { "not ready".to_owned() }),
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("uptime", format!("{} s", status.uptime_seconds)),
        ("cluster", status.cluster.clone()),
        ("socket", status.socket.clone()),
        ("key_id", status.key_id.clone().unwrap_or_else(none)),
        ("key_id hash", status.key_id_hash.clone().unwrap_or_else(none)),
        ("uses", status.uses.map_or_else(none, |uses| uses.to_string())),
        ("keys", format!("{}, {} of them usable", status.keys, status.keys_usable)),
        ("seal policy", status.seal_policy.clone()),
    ];
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}
