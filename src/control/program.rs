//! How each of the programs begins and ends.
//!
//! A command line that is none ends it with its usage, help and version end it with what was asked for; else it does its work, and
//! has said why when it could not. What is still on its way to the log is written before the process ends.

use std::process::ExitCode;

use super::failed::{EX_USAGE, Failed};
use crate::audit::log;

/// One program from its command line to its exit code.
pub(crate) fn main<T>(
    program: &str,
    line: Result<T, clap::Error>,
    work: impl FnOnce(T) -> Result<ExitCode, Failed>,
) -> ExitCode {
    let code = match line {
        Ok(asked) => work(asked).unwrap_or_else(|failed| failed.tell(program)),
        Err(error) => usage(&error),
    };
    log::flush();
    code
}

/// Help or the version where they were asked for, on standard output; or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe leaves nobody to tell.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}
