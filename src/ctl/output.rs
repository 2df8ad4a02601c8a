//! What all verbs do alike: load the configuration, ask the daemon, print JSON or text, turn an error into an exit code.

use std::error::Error;
use std::process::ExitCode;

use serde::Serialize;

use super::PROGRAM;
use super::args::Common;
use crate::config::{self, Config};
use crate::control::{self, Answer, ControlError, Request, say};
use crate::keyring::keeper::Settings;
use crate::sandbox::{self, process};
use crate::store::RealDisk;
use crate::types::{Class, clock};

/// The configuration. Its warnings are for `config check` and the log of nodeseald.
pub(super) fn load(common: &Common) -> Result<Config, ExitCode> {
    config::load(&common.config).map_err(|error| say::config_error(PROGRAM, &error))
}

/// For verbs that hold keys themselves: no core dump, no tracing by others.
pub(super) fn harden() -> Result<(), ExitCode> {
    process::harden()
        .map_err(|error| fail(&error, Class::Internal, "the kernel refused what every kernel allows: see its log"))
}

/// For verbs that write to the state directory themselves: root does so as the user of the service, to whom all there belongs.
pub(super) fn become_owner(config: &Config) -> Result<(), ExitCode> {
    sandbox::become_owner(&config.state_dir, config.sandbox.user.as_ref()).map_err(|error| {
        fail(
            &error,
            Class::Denied,
            "give the state directory to the user of the service, mode 0700, and run this as root or as that user",
        )
    })
}

/// An answer of the running daemon.
pub(super) fn ask(config: &Config, request: &Request) -> Result<Answer, ExitCode> {
    control::ask(&config.control_socket, request).map_err(|error| control_error(&error))
}

/// See [`fail`].
pub(super) fn control_error(error: &ControlError) -> ExitCode {
    fail(error, error.class(), error.hint())
}

/// An error in the tool's voice.
pub(super) fn fail(error: &dyn Error, class: Class, hint: &str) -> ExitCode {
    say::error(PROGRAM, error, class, hint)
}

/// The daemon answered something else than was asked.
pub(super) fn unfit() -> ExitCode {
    control_error(&ControlError::Protocol)
}

/// JSON when asked for, else text.
pub(super) fn print(common: &Common, value: &impl Serialize, text: impl FnOnce() -> String) -> ExitCode {
    if common.json {
        match serde_json::to_string(value) {
            Ok(json) => say::result(&json),
            Err(error) => return fail(&error, Class::Internal, "report this"),
        }
    } else {
        say::result(text().trim_end());
    }
    ExitCode::SUCCESS
}

/// For verbs that open the keys themselves.
pub(super) fn keeper_settings(config: &Config) -> Settings {
    Settings {
        disk: RealDisk,
        state_dir: config.state_dir.clone(),
        cluster: config.cluster.clone(),
        sealer: config.sealer(),
        max_age: config.max_age,
        guarded: config.seal.guard.is_some(),
        now: clock::now,
    }
}

/// UTC, to the second.
pub(super) fn time(unix_seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
