//! Why a verb has not done what was asked: two lines for people on standard error, and under `--json` one object on standard output
//! besides.

use std::ffi::OsString;
use std::process::ExitCode;

use serde::Serialize;

use super::PROGRAM;
use super::schema::{self, Schema};
pub(super) use crate::control::failed::Failed;
use crate::control::say;
pub(super) use crate::seal::fault::code_in;

#[derive(Serialize)]
struct Shown<T> {
    schema: Schema,
    #[serde(flatten)]
    failed: T,
}

/// Tells it, and gives the exit code.
pub(super) fn tell(failed: &Failed, json: bool) -> ExitCode {
    if json {
        print(failed);
    }
    failed.tell(PROGRAM)
}

/// For programs.
pub(super) fn print(failed: &Failed) {
    // Of strings and numbers alone: cannot fail.
    if let Ok(text) = serde_json::to_string(&Shown { schema: schema::ERROR, failed: failed.fields() }) {
        say::result(&text);
    }
}

/// A command line that is none, for programs, where they have asked for that. Help that was asked for is text.
pub(super) fn print_usage(error: &clap::Error, args: impl IntoIterator<Item = OsString>) {
    if error.use_stderr() && args.into_iter().take_while(|arg| arg != "--").any(|arg| arg == "--json") {
        print(&Failed::usage(error));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ctl::args::Cli;
    use crate::types::{Class, Explain};

    fn json(failed: &Failed) -> serde_json::Value {
        serde_json::to_value(failed.fields()).unwrap()
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
