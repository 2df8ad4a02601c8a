//! What both daemons do first: command line, configuration, log, and the process itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};

use crate::audit::log;
use crate::config::{self, Config, DEFAULT_PATH};
use crate::control::say;
use crate::sandbox::process;
use crate::types::Class;

/// A checked configuration, with the log started and the process hardened; or the exit code after the reason was said.
pub(super) fn prepare(program: &'static str, about: &'static str) -> Result<Config, ExitCode> {
    let path = parse(program, about)?;
    let config = config::load(&path).map_err(|error| say::config_error(program, &error))?;
    log::start(config.log_format, config.log_level);
    process::harden().map_err(|error| {
        say::error(program, &error, Class::Internal, "the kernel refused what every kernel allows: see its log")
    })?;
    Ok(config)
}

/// The configuration's path, or the exit code after help, version or a mistake was printed.
fn parse(program: &'static str, about: &'static str) -> Result<PathBuf, ExitCode> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("NODESEAL_CONFIG")
        .default_value(DEFAULT_PATH)
        .value_parser(value_parser!(PathBuf))
        .help("The configuration");
    let command = Command::new(program).about(about).version(env!("CARGO_PKG_VERSION")).arg(config);
    match command.try_get_matches() {
        Ok(matches) => Ok(matches.get_one::<PathBuf>("config").cloned().unwrap_or_else(|| DEFAULT_PATH.into())),
        Err(error) => {
            // Help or usage; a closed pipe leaves nobody to tell.
            let _ = error.print();
            Err(if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS })
        }
    }
}

/// sysexits.h
const EX_USAGE: u8 = 64;
