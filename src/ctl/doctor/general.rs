//! The configuration, the set-up, and what the running daemon says of itself.

use std::io::ErrorKind;

use super::check::Check;
use super::finding::{Finding, Impact, Looked};
use super::scene::{Scene, Told, Unread};
use crate::config::ConfigError;
use crate::control::needs::needs;
use crate::ctl::failed::code_in;
use crate::types::{Chain, Explained};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ND-001",
        title: "the configuration can be used",
        impact: Impact::Boot,
        page: "configuration.md",
        look: configuration,
    },
    Check {
        id: "ND-002",
        title: "the node is set up",
        impact: Impact::Boot,
        page: "operations/install.md",
        look: set_up,
    },
    Check {
        id: "ND-003",
        title: "nodeseald serves",
        impact: Impact::Serving,
        page: "operations/faults.md",
        look: serves,
    },
    Check {
        id: "ND-004",
        title: "the keys would open at the next start",
        impact: Impact::Boot,
        page: "operations/faults.md",
        look: would_open,
    },
    Check {
        id: "ND-005",
        title: "nothing waits for the operator",
        impact: Impact::Serving,
        page: "operations/verbs.md",
        look: waits,
    },
    Check {
        id: "ND-006",
        title: "nodeseald is confined",
        impact: Impact::Confidentiality,
        page: "operations/hardening.md",
        look: confined,
    },
];

fn configuration(scene: &Scene) -> Looked {
    let config = match &scene.config {
        Ok(config) => config,
        // The daemon's user may read it, and this one need not.
        Err(ConfigError::Read { path, source }) if source.kind() == ErrorKind::PermissionDenied => {
            return Ok(Unread::Denied.skipped(path));
        }
        Err(error) => return Ok(Finding::fail(format!("{}{}", Chain(error), error.few()), error.hint())),
    };
    let path = config.path.display();
    Ok(match config.warnings.as_slice() {
        [] => Finding::pass(format!("{path} is fine")),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Finding::warn(format!("{first}{more}"), "nodeseal config check shows all warnings")
        }
    })
}

fn set_up(scene: &Scene) -> Looked {
    let folder = scene.config()?.state_dir.display();
    Ok(match scene.is_set_up() {
        Some(true) => Finding::pass(format!("there are keys in {folder}")),
        Some(false) => Finding::warn(format!("{folder} holds no keys yet"), "nodeseal init, or nodeseal recover"),
        None => Finding::skip(format!("{folder} is closed to this user: run it as root")),
    })
}

fn serves(scene: &Scene) -> Looked {
    Ok(match scene.told() {
        Told::Status(status) if status.healthy => {
            Finding::pass(format!("release {}, for {} s", status.version, status.uptime_seconds))
        }
        Told::Status(status) => {
            let why = match (&status.seal_error, status.awaits_bundle) {
                (Some(error), _) => {
                    let code = code_in(error).map_or_else(String::new, |code| format!(" ({code})"));
                    format!("the keys are closed{code}: {error}")
                }
                (None, true) => "this node waits for a bundle from another one".to_owned(),
                (None, false) => "it would refuse an Encrypt".to_owned(),
            };
            Finding::fail(why, status.seal_hint.as_deref().unwrap_or("nodeseal status says what is missing"))
        }
        Told::Away(_) if scene.is_set_up() == Some(false) => Finding::skip("nodeseald does not run before `init`"),
        Told::Away(_) if scene.config.is_err() => {
            Finding::skip("no configuration names a socket on which it answers (ND-001)")
        }
        Told::Away(why) => Finding::fail(why, "systemctl start nodeseal.service; then see its log"),
        Told::Silent { why, hint } => Finding::warn(why, hint),
    })
}

fn would_open(scene: &Scene) -> Looked {
    Ok(match scene.status()?.would_open {
        Some(true) => Finding::pass("the device has opened the node root when it was last asked"),
        Some(false) => Finding::fail(
            "the device did not open the node root when it was last asked",
            "do not reboot; nodeseal status --deep says why",
        ),
        None => Finding::skip("the keys are not open, so nothing is known of it"),
    })
}

fn waits(scene: &Scene) -> Looked {
    let status = scene.status()?;
    let waiting = needs(status, scene.config.is_err());
    Ok(match waiting.as_slice() {
        [] => Finding::pass("nodeseald asks for nothing"),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Finding::warn(format!("{}{more}", first.what), format!("{}; nodeseal status shows all", first.todo))
        }
    })
}

fn confined(scene: &Scene) -> Looked {
    let Some(sandbox) = &scene.status()?.sandbox else {
        return Ok(Finding::skip("this nodeseald is of an older release, which does not tell"));
    };
    Ok(match sandbox.is_whole() {
        true => Finding::pass(sandbox.to_string()),
        false => Finding::warn(sandbox.to_string(), "see ND-106 for the kernel, and sandbox.mode in the configuration"),
    })
}
