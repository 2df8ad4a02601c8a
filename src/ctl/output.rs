//! What all verbs do alike: load the configuration, ask the daemon, print JSON or text, say why not.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::PROGRAM;
use super::common::Common;
use super::failed::Failed;
use super::schema::Schema;
use crate::config::{self, Config};
use crate::control::consent::{Act, Consent};
use crate::control::{self, Answer, ControlError, Request, say};
use crate::keyring::Founding;
use crate::keyring::KeeperError;
use crate::keyring::keeper::Settings;
use crate::keyring::recovery::Recipient;
use crate::sandbox::{self, process};
use crate::seal::client::SealerClient;
use crate::store::{RealDisk, StoreError};
pub(super) use crate::types::clock::text as time;
use crate::types::{Class, Explain, Explained, clock};

/// The configuration. Its warnings are for `config check` and the log of nodeseald.
pub(super) fn load(common: &Common) -> Result<Config, Failed> {
    config::load(&common.config).map_err(|error| Failed::config(&error))
}

/// For verbs that hold keys themselves: no core dump, no tracing by others.
pub(super) fn harden() -> Result<(), Failed> {
    process::harden().map_err(|error| {
        Failed::new(&Explain::new(&error, Class::Internal, "the kernel refused what every kernel allows: see its log"))
    })
}

/// For verbs that read or write the state directory themselves: root does so as the user of the service, to whom all there belongs.
pub(super) fn act_as_owner(config: &Config) -> Result<(), Failed> {
    sandbox::become_owner(&config.state_dir).map_err(Failed::from)
}

/// The same for verbs that set a node up, where the directory may not be there yet.
pub(super) fn found_as_owner(config: &Config) -> Result<(), Failed> {
    sandbox::make_for_owner(&config.state_dir, config.sandbox.user.as_ref()).map_err(Failed::from)
}

/// What a set-up or a recovery works with, by this configuration.
pub(super) fn founding<'a>(
    config: &'a Config,
    sealer: &'a SealerClient,
    recipients: &'a [Recipient],
    replace_counter: bool,
) -> Founding<'a> {
    let (to, guard) = (config.seal.to(), config.seal.guard);
    Founding { cluster: &config.cluster, sealer, to, guard, replace_counter, recipients }
}

/// Seconds. A nodeseald that cannot open its keys has the state directory to itself while it tries, and not between two tries.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(5);
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// Tries for some seconds while another process has the state directory.
pub(super) fn once_free<T>(mut attempt: impl FnMut() -> Result<T, KeeperError>) -> Result<T, KeeperError> {
    let give_up = Instant::now() + IN_USE_TIMEOUT;
    loop {
        match attempt() {
            Err(KeeperError::Store(StoreError::InUse { .. })) if Instant::now() < give_up => {
                std::thread::sleep(IN_USE_PAUSE);
            }
            other => return other,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nodeseald runs, and has its keys in memory")]
struct KeysInMemory;

impl Explained for KeysInMemory {
    fn class(&self) -> Class {
        Class::Denied
    }

    fn hint(&self) -> &str {
        "what it has encrypted may open only under these keys. Prove the recovery file first: `nodeseal recover --verify`; or give its keys to another node: `nodeseal bundle make`; then stop nodeseald, and run this again"
    }
}

/// For verbs that give a node other keys: beside a daemon with keys in memory they would not be those that it goes on with.
pub(super) fn refuse_beside_open_keys(config: &Config) -> Result<(), Failed> {
    match control::ask(&config.control_socket, &Request::Status {}) {
        // One of an older release counts no keys once the state directory is gone.
        Ok(Answer::Status(status)) if status.keys_usable > 0 || status.key_id.is_some() => Err(KeysInMemory.into()),
        // Whoever may not ask may not write to the state directory either.
        Err(error) if error.class() == Class::Denied => Err(control_error(&error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The operator's word for what gives keys away or takes them over, which the daemon looks for. Where it cannot be given, the daemon says
/// what to do, and we say why: a full disk is not the wrong user.
pub(super) fn consent(config: &Config, export: Act<'_>) -> Option<Consent> {
    Consent::give(export, &config.state_dir)
        .inspect_err(|error| {
            let text = format!("cannot consent in the state directory {}: {error}", config.state_dir.display());
            say::warning(PROGRAM, &text);
        })
        .ok()
}

/// An answer of the running daemon.
pub(super) fn ask(config: &Config, request: &Request) -> Result<Answer, Failed> {
    control::ask(&config.control_socket, request).map_err(|error| control_error(&error))
}

/// What a verb comes to.
pub(super) type Done = Result<ExitCode, Failed>;

/// Whether there is one to be copied; in doubt there is.
pub(super) fn has_recovery_file(config: &Config) -> bool {
    match control::ask(&config.control_socket, &Request::Status {}) {
        Ok(Answer::Status(status)) => !status.keys_known || !status.recovery_recipients.is_empty(),
        Ok(_) | Err(_) => true,
    }
}

/// See [`Failed`].
pub(super) fn control_error(error: &ControlError) -> Failed {
    Failed::control(error)
}

/// The daemon answered something else than was asked.
pub(super) fn unfit() -> Failed {
    control_error(&ControlError::Protocol)
}

/// An answer as programs read it.
#[derive(Serialize)]
struct Named<'a, T> {
    schema: Schema,
    #[serde(flatten)]
    value: &'a T,
}

/// The answer of a verb that has changed something.
#[derive(Serialize)]
struct Changed<'a, T> {
    #[serde(flatten)]
    value: &'a T,
    next: &'a [String],
}

/// JSON of this schema when asked for, else text.
pub(super) fn print(common: &Common, schema: Schema, value: &impl Serialize, text: impl FnOnce() -> String) -> Done {
    if common.json {
        return print_json(&Named { schema, value });
    }
    say::result(text().trim_end());
    Ok(ExitCode::SUCCESS)
}

/// The same for what has changed something, with what is to be done next.
pub(super) fn print_done(
    common: &Common,
    schema: Schema,
    value: &impl Serialize,
    next: &[String],
    text: impl FnOnce() -> String,
) -> Done {
    if common.json {
        return print_json(&Named { schema, value: &Changed { value, next } });
    }
    let mut lines = text().trim_end().to_owned();
    for step in next {
        lines += &format!("\nnext: {step}");
    }
    say::result(&lines);
    Ok(ExitCode::SUCCESS)
}

/// What has a form of its own.
pub(super) fn print_json(value: &impl Serialize) -> Done {
    match serde_json::to_string(value) {
        Ok(json) => say::result(&json),
        Err(error) => return Err(Failed::new(&Explain::new(&error, Class::Internal, "report this"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// For verbs that open the keys themselves.
pub(super) fn keeper_settings(config: &Config) -> Settings {
    Settings {
        disk: RealDisk,
        state_dir: config.state_dir.clone(),
        cluster: config.cluster.clone(),
        sealer: config.sealer(),
        max_age: config.max_age,
        guard: config.seal.guard,
        pin_file: None,
        now: clock::now,
        is_synchronised: clock::is_synchronised,
    }
}

/// As in "1 KEK" and "2 KEKs".
pub(super) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
