//! Writes what a package brings beside the programs: manual pages and completions for three shells.
//!
//! A page for each verb from its help, one for each daemon from its own, and nodeseal.toml(5) from docs/configuration.md. What no help
//! text says (files, signals, exit codes) is in [`sections`]. A package of its own, so that none of this is in the programs.
#![allow(clippy::disallowed_methods, reason = "what is written is made anew at will")]

mod page;
mod roff;
mod sections;

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

/// Where the page of the configuration is, seen from this package.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: manuals FOLDER")?);
    if folder.exists() {
        // A verb that is no more leaves no page behind.
        fs::remove_dir_all(&folder)?;
    }
    for name in ["man1", "man5", "man8", "completions"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for (name, text) in nodeseal::ctl::completions() {
        fs::write(folder.join("completions").join(name), text)?;
    }
    let mut tool = nodeseal::ctl::command().disable_help_subcommand(true);
    tool.build();
    verbs(&tool, &folder.join("man1"))?;
    for daemon in [nodeseal::daemon::command(), nodeseal::daemon::sealer::command()] {
        program(daemon, "8", &folder.join("man8"))?;
    }
    let text = page::manual(&fs::read_to_string(CONFIGURATION)?, env!("CARGO_PKG_VERSION"));
    fs::write(folder.join("man5/nodeseal.toml.5"), text)?;
    Ok(())
}

/// A page for this command and for each below it.
fn verbs(command: &Command, folder: &Path) -> Result<(), Box<dyn Error>> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        verbs(verb, folder)?;
    }
    program(command.clone(), "1", folder)
}

fn program(command: Command, section: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let manual = concat!("Nodeseal ", env!("CARGO_PKG_VERSION"));
    let mut file = File::create(folder.join(format!("{name}.{section}")))?;
    Man::new(command).section(section).manual("Nodeseal").source(manual).render(&mut file)?;
    sections::append(&name, &mut file)?;
    Ok(())
}
