//! What both daemons do first: command line, configuration, log, and the process itself.

use std::path::{Path, PathBuf};

use clap::{Arg, Command, value_parser};

use crate::audit::{Event, emit, log};
use crate::config::{self, Config, DEFAULT_PATH};
use crate::control::failed::Failed;
use crate::sandbox::{self, Confined, Needs, Policy, Settings, process};
use crate::types::{Class, Explain, Explained};

/// A checked configuration, with the log started and the process hardened.
pub(super) fn prepare(path: &Path) -> Result<Config, Failed> {
    let config = config::load(path).map_err(|error| Failed::config(&error))?;
    log::start(config.log_format, config.log_level);
    process::harden().map_err(|error| {
        Failed::new(&Explain::new(&error, Class::Internal, "the kernel refused what every kernel allows: see its log"))
    })?;
    Ok(config)
}

/// Irrevocable.
pub(super) fn confine(settings: &Settings, needs: &Needs, policy: Policy) -> Result<Confined, Failed> {
    sandbox::confine(settings, needs, policy)
        .map_err(|error| Failed::new(&Explain::new(&error, Class::Misconfigured, error.hint())))
}

/// For the log, once a process that serves is confined.
pub(super) fn tell(program: &'static str, confined: &Confined) {
    let enforced = confined.enforced();
    emit(&Event::SandboxApplied {
        program,
        uid: enforced.uid,
        no_capabilities: enforced.no_capabilities,
        landlock: &enforced.landlock,
        landlock_abi: enforced.landlock_abi,
        seccomp: &enforced.seccomp,
        memory: enforced.memory.map(sandbox::Protection::label),
        is_whole: enforced.is_whole(),
    });
}

/// The configuration's path.
pub(super) fn parse(command: Command) -> Result<PathBuf, clap::Error> {
    let matches = command.try_get_matches()?;
    Ok(matches.get_one::<PathBuf>("config").cloned().unwrap_or_else(|| DEFAULT_PATH.into()))
}

/// The command line of both daemons.
pub(super) fn command(program: &'static str, about: &'static str) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("NODESEAL_CONFIG")
        .default_value(DEFAULT_PATH)
        .value_parser(value_parser!(PathBuf))
        .help("The configuration");
    Command::new(program).about(about).version(env!("CARGO_PKG_VERSION")).arg(config)
}
