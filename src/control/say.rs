//! The voice of our programs, on standard error.
//!
//! Rules: lower case, no final period; `PROGRAM: error: what` (with its causes), then one `PROGRAM: hint: what to do next`. Results go
//! to standard output and nothing else does. A closed pipe ends nothing with a panic.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::types::{Chain, Class};

/// An error for the operator. The exit code is that of the class.
pub fn error(program: &str, error: &dyn Error, class: Class, hint: &str) -> ExitCode {
    line(&mut io::stderr(), &format!("{program}: error: {}", Chain(error)));
    line(&mut io::stderr(), &format!("{program}: hint: {hint}"));
    ExitCode::from(class.exit_code())
}

/// A configuration that cannot be used: every mistake on its own line.
pub fn config_error(program: &str, config: &ConfigError) -> ExitCode {
    line(&mut io::stderr(), &format!("{program}: error: {}", Chain(config)));
    for problem in config.problems() {
        line(&mut io::stderr(), &format!("  {problem}"));
    }
    line(&mut io::stderr(), &format!("{program}: hint: {}", config.hint()));
    ExitCode::from(config.class().exit_code())
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

/// A line of the result.
pub fn result(text: &str) {
    line(&mut io::stdout(), text);
}

fn line(out: &mut impl Write, text: &str) {
    // Nobody is left to tell when the terminal is gone.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
