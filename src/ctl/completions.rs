//! `nodeseal completions`: what a shell reads to complete our command lines. The packages bring the same.

use std::process::ExitCode;

use clap_complete::{Generator, Shell as Known, generate};

use super::PROGRAM;
use super::args::Shell;
use super::output::Done;
use crate::control::say;

const fn known(shell: Shell) -> Known {
    match shell {
        Shell::Bash => Known::Bash,
        Shell::Fish => Known::Fish,
        Shell::Zsh => Known::Zsh,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as every verb does")]
pub(super) fn run(shell: Shell) -> Done {
    say::result(text(known(shell)).trim_end());
    Ok(ExitCode::SUCCESS)
}

fn text(shell: Known) -> String {
    // `help VERB` would make it twice as long, and nobody completes it.
    let mut tool = super::command().disable_help_subcommand(true);
    let mut text = Vec::new();
    generate(shell, &mut tool, PROGRAM, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Name and content of a file for each shell.
pub fn completions() -> Vec<(String, String)> {
    let shells = [Shell::Bash, Shell::Fish, Shell::Zsh].map(known);
    shells.into_iter().map(|shell| (shell.file_name(PROGRAM), text(shell))).collect()
}
