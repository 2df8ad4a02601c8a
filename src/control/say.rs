//! The voice of our programs, on standard error.
//!
//! Rules: lower case, no final period; `PROGRAM: error: what` (with its causes), then one `PROGRAM: hint: what to do next`. Results go
//! to standard output and nothing else does. A closed pipe ends nothing with a panic.

use std::io::{self, Write};

use crate::config::Problem;

/// An error with its causes in one line, what is wrong with the configuration, if that is why, and what to do next.
pub(crate) fn refusal(program: &str, error: &str, problems: &[Problem], hint: &str) {
    let out = &mut io::stderr();
    line(out, &format!("{program}: error: {error}"));
    for problem in problems {
        line(out, &format!("  {problem}"));
    }
    line(out, &format!("{program}: hint: {hint}"));
}

/// A warning for the operator.
pub(crate) fn warning(program: &str, text: &str) {
    line(&mut io::stderr(), &format!("{program}: warning: {text}"));
}

/// The next step after a [`warning`].
pub(crate) fn hint(program: &str, text: &str) {
    line(&mut io::stderr(), &format!("{program}: hint: {text}"));
}

pub(crate) fn prompt(program: &str, text: &str) {
    line(&mut io::stderr(), &format!("{program}: {text}"));
}

/// Empties the terminal, for what is written there again and again (ECMA-48: CUP, ED 2).
pub(crate) fn clear() {
    let mut out = io::stdout();
    // Nobody is left to tell when the terminal is gone.
    let _ = out.write_all(b"\x1b[H\x1b[2J").and_then(|()| out.flush());
}

/// A line of the result.
pub(crate) fn result(text: &str) {
    line(&mut io::stdout(), text);
}

fn line(out: &mut impl Write, text: &str) {
    // Nobody is left to tell when the terminal is gone.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
