//! The voice of our programs, on standard error.
//!
//! Rules: lower case, no final period; `PROGRAM: error: what` (with its causes), then one `PROGRAM: hint: what to do next`. Results go
//! to standard output and nothing else does. A closed pipe ends nothing with a panic.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{ConfigError, Problem};
use crate::types::{Chain, Explained};

/// An error for the operator. The exit code is that of the class.
pub fn error(program: &str, error: &dyn Explained) -> ExitCode {
    refusal(program, &Chain(error).to_string(), &[], error.hint());
    ExitCode::from(error.class().exit_code())
}

/// A configuration that cannot be used: every mistake on its own line.
pub fn config_error(program: &str, config: &ConfigError) -> ExitCode {
    refusal(program, &Chain(config).to_string(), config.problems(), config.hint());
    ExitCode::from(config.class().exit_code())
}

/// sysexits.h, for a command line that is none.
pub const EX_USAGE: u8 = 64;

/// Help or the version where they were asked for, on standard output; or what is wrong with the command line.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe leaves nobody to tell.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS }
}

/// An error with its causes in one line, what is wrong with the configuration, if that is why, and what to do next.
pub fn refusal(program: &str, error: &str, problems: &[Problem], hint: &str) {
    let out = &mut io::stderr();
    line(out, &format!("{program}: error: {error}"));
    for problem in problems {
        line(out, &format!("  {problem}"));
    }
    line(out, &format!("{program}: hint: {hint}"));
}

/// A warning for the operator.
pub fn warning(program: &str, text: &str) {
    line(&mut io::stderr(), &format!("{program}: warning: {text}"));
}

/// The next step after a [`warning`].
pub fn hint(program: &str, text: &str) {
    line(&mut io::stderr(), &format!("{program}: hint: {text}"));
}

/// A question to a person.
pub fn prompt(program: &str, text: &str) {
    line(&mut io::stderr(), &format!("{program}: {text}"));
}

/// Empties the terminal, for what is written there again and again (ECMA-48: CUP, ED 2).
pub fn clear() {
    let mut out = io::stdout();
    // Nobody is left to tell when the terminal is gone.
    let _ = out.write_all(b"\x1b[H\x1b[2J").and_then(|()| out.flush());
}

/// A line of the result.
pub fn result(text: &str) {
    line(&mut io::stdout(), text);
}

fn line(out: &mut impl Write, text: &str) {
    // Nobody is left to tell when the terminal is gone.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
