//! Why one of the programs has not done what was asked: the error with its causes, what kind it is, what to do next, the exit code.
//!
//! Every program ends with it ([`super::program`]); how it is put into JSON is the tool's matter.

use std::process::ExitCode;

use serde::Serialize;

use super::{ControlError, say};
use crate::config::{ConfigError, Problem};
use crate::seal::fault::code_in;
use crate::types::{Chain, Class, Explained};

/// See the module.
#[derive(Debug)]
#[must_use = "an error must be shown"]
pub(crate) struct Failed(Box<Told>);

#[derive(Debug, Serialize)]
struct Told {
    error: String,
    /// The error and what caused it, the root cause last.
    chain: Vec<String>,
    code: Option<&'static str>,
    class: &'static str,
    hint: String,
    exit: u8,
    /// Mistakes in the configuration.
    problems: Vec<Problem>,
}

/// sysexits.h, for a command line that is none.
pub(super) const EX_USAGE: u8 = 64;

impl Failed {
    pub(crate) fn new(error: &dyn Explained) -> Self {
        Self::of(Chain(error).said(), error.class(), error.hint())
    }

    fn of(chain: Vec<String>, class: Class, hint: &str) -> Self {
        // A library may end its text with a line break.
        let chain: Vec<String> = chain.iter().map(|cause| cause.trim_end().to_owned()).collect();
        let error = chain.join(": ");
        let (class, exit) = (class.label(), class.exit_code());
        let code = code_in(&error);
        let (hint, problems) = (hint.to_owned(), Vec::new());
        Self(Box::new(Told { error, chain, code, class, hint, exit, problems }))
    }

    pub(crate) fn config(error: &ConfigError) -> Self {
        let mut failed = Self::new(error);
        failed.0.problems = error.problems().to_vec();
        failed
    }

    /// Each with the place where it stands.
    pub(crate) fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.0.problems = problems;
        self
    }

    pub(crate) fn control(error: &ControlError) -> Self {
        match error {
            // What the daemon says is not ours, and has a chain of its own.
            ControlError::Refused(refusal) if !refusal.chain.is_empty() => {
                Self::of(refusal.chain.clone(), error.class(), error.hint())
            }
            _ => Self::new(error),
        }
    }

    /// A command line that is none.
    pub(crate) fn usage(error: &clap::Error) -> Self {
        let said = error.to_string();
        let is_help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let first = said.split("\n\n").next().filter(|_| !is_help).unwrap_or("error: a verb is missing");
        let words: Vec<&str> = first.split_whitespace().skip_while(|word| *word == "error:").collect();
        let usage = said.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("nodeseal VERB --help");
        Self(Box::new(Told {
            error: words.join(" "),
            chain: vec![words.join(" ")],
            code: None,
            class: "usage",
            hint: format!("usage: {usage}"),
            exit: EX_USAGE,
            problems: Vec::new(),
        }))
    }

    /// For a verb whose exit codes say something of their own.
    pub(crate) fn with_exit(mut self, exit: u8) -> Self {
        self.0.exit = exit;
        self
    }

    /// Tells people, and gives the exit code.
    pub(crate) fn tell(&self, program: &str) -> ExitCode {
        say::refusal(program, &self.0.error, &self.0.problems, &self.0.hint);
        ExitCode::from(self.0.exit)
    }

    /// The error and its causes in one line.
    pub(crate) fn text(&self) -> &str {
        &self.0.error
    }

    /// All that a program could want to know of it.
    pub(crate) fn fields(&self) -> impl Serialize + '_ {
        &*self.0
    }
}

impl<E: Explained> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(&error)
    }
}
