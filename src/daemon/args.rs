//! The command line of the two daemons: where the configuration is, and nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};

use crate::config::DEFAULT_PATH;

/// The configuration's path, or the exit code after help, version or a mistake was printed.
pub(super) fn parse(program: &'static str, about: &'static str) -> Result<PathBuf, ExitCode> {
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
