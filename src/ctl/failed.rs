//! Why a verb has not done what was asked: two lines for people on standard error, and under `--json` one object on standard output
//! besides.

use std::process::ExitCode;

use serde::Serialize;

use super::PROGRAM;
use super::schema::{self, Schema};
use crate::config::{ConfigError, Problem};
use crate::control::{ControlError, say};
pub(super) use crate::seal::fault::code_in;
use crate::types::{Chain, Class, Explained};

/// See the module.
#[derive(Debug)]
#[must_use = "an error must be shown"]
pub(super) struct Failed(Box<Told>);

#[derive(Debug, Serialize)]
struct Told {
    schema: Schema,
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

impl Failed {
    pub(super) fn new(error: &dyn Explained) -> Self {
        Self::of(Chain(error).said(), error.class(), error.hint())
    }

    fn of(chain: Vec<String>, class: Class, hint: &str) -> Self {
        // A library may end its text with a line break.
        let chain: Vec<String> = chain.iter().map(|cause| cause.trim_end().to_owned()).collect();
        let error = chain.join(": ");
        let (class, exit) = (class.label(), class.exit_code());
        let code = code_in(&error);
        let (hint, problems) = (hint.to_owned(), Vec::new());
        Self(Box::new(Told { schema: schema::ERROR, error, chain, code, class, hint, exit, problems }))
    }

    pub(super) fn config(error: &ConfigError) -> Self {
        let mut failed = Self::new(error);
        failed.0.problems = error.problems().to_vec();
        failed
    }

    pub(super) fn control(error: &ControlError) -> Self {
        match error {
            // What the daemon says is not ours, and has a chain of its own.
            ControlError::Refused(refusal) if !refusal.chain.is_empty() => {
                Self::of(refusal.chain.clone(), error.class(), error.hint())
            }
            _ => Self::new(error),
        }
    }

    /// A command line that is none. The text is for those who have asked for help with it.
    fn usage(error: &clap::Error) -> Self {
        let said = error.to_string();
        let is_help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let first = said.split("\n\n").next().filter(|_| !is_help).unwrap_or("error: a verb is missing");
        let words: Vec<&str> = first.split_whitespace().skip_while(|word| *word == "error:").collect();
        let usage = said.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("nodeseal VERB --help");
        Self(Box::new(Told {
            schema: schema::ERROR,
            error: words.join(" "),
            chain: vec![words.join(" ")],
            code: None,
            class: "usage",
            hint: format!("usage: {usage}"),
            exit: say::EX_USAGE,
            problems: Vec::new(),
        }))
    }

    /// For a verb whose exit codes say something of their own.
    pub(super) fn with_exit(mut self, exit: u8) -> Self {
        self.0.exit = exit;
        self
    }

    /// Tells it, and gives the exit code.
    pub(super) fn tell(&self, json: bool) -> ExitCode {
        if json {
            self.print();
        }
        self.tell_people()
    }

    /// The same beside an answer.
    pub(super) fn tell_people(&self) -> ExitCode {
        say::refusal(PROGRAM, &self.0.error, &self.0.problems, &self.0.hint);
        ExitCode::from(self.0.exit)
    }

    /// The error and its causes in one line.
    pub(super) fn text(&self) -> &str {
        &self.0.error
    }

    fn print(&self) {
        // Of strings and numbers alone: cannot fail.
        if let Ok(text) = serde_json::to_string(&self.0) {
            say::result(&text);
        }
    }
}

impl<E: Explained> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(&error)
    }
}

/// Help that was asked for, or a command line that is none: in the words of its reader.
pub(super) fn usage(error: &clap::Error, args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let exit = say::usage(error);
    if error.use_stderr() && args.into_iter().take_while(|arg| arg != "--").any(|arg| arg == "--json") {
        Failed::usage(error).print();
    }
    exit
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ctl::args::Cli;
    use crate::types::{Class, Explain};

    fn json(failed: &Failed) -> serde_json::Value {
        serde_json::to_value(&failed.0).unwrap()
    }

    #[test]
    fn a_failure_names_the_code_of_its_fault_and_no_other_word() {
        assert_eq!(code_in("the keys are closed: E-HSM-PIN: the token refused"), Some("E-HSM-PIN"));
        assert_eq!(code_in("E-AUTH"), Some("E-AUTH"));
        assert_eq!(code_in("E-AUTHOR, E-HSM and the file E-AUTH.txt2"), Some("E-AUTH"));
        assert_eq!(code_in("E-AUTHOR and E-HSM"), None);
    }

    #[test]
    fn a_failure_keeps_each_cause_and_the_exit_code_of_its_class() {
        #[derive(Debug, thiserror::Error)]
        #[error("the outer thing")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("the root"));
        let told = json(&Failed::new(&Explain::new(&error, Class::Denied, "do this")));
        assert_eq!(told["chain"], serde_json::json!(["the outer thing", "the root"]));
        assert_eq!((told["error"].as_str(), told["exit"].as_u64()), (Some("the outer thing: the root"), Some(77)));
        assert_eq!((told["class"].as_str(), told["hint"].as_str()), (Some("denied"), Some("do this")));
        assert!(told["code"].is_null());
    }

    #[test]
    fn a_command_line_that_is_none_is_told_in_one_line_with_its_usage() {
        for (args, said, usage) in [
            (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'", "nodeseal"),
            (&["keys", "retire"], "the following required arguments were not provided: <ID>", "nodeseal keys retire"),
            (&["keys"], "a verb is missing", "nodeseal keys"),
            (&[], "a verb is missing", "nodeseal"),
        ] {
            let Err(error) = Cli::try_parse_from([&["nodeseal"], args].concat()) else { panic!("{args:?}") };
            let told = json(&Failed::usage(&error));
            assert_eq!((told["error"].as_str(), told["exit"].as_u64()), (Some(said), Some(64)));
            assert!(told["hint"].as_str().unwrap().starts_with(&format!("usage: {usage}")), "{told}");
        }
    }
}
