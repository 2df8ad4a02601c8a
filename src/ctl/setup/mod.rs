//! `nodeseal setup`: from a handful of values, everything that a cluster needs to encrypt, as files in a folder. Nothing on the machine is
//! changed beside that folder, and nothing is written over anything.
//!
//! * Values come from a terminal or from a TOML file, and are checked into types ([`words`]) that mean themselves in every language which
//!   is written here. No secret is asked for or written: logins are sealed on each node by `nodeseal credentials seal`.
//! * The files are those of the pages below docs/. A test holds both together.
//! * The nodeseal.toml that is written was read by the code that the daemons start with.

mod ask;
mod folder;
mod kubernetes;
mod node;
mod providers;
mod readme;
#[cfg(test)]
mod tests;
mod values;
mod words;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use self::ask::{AskError, Asker};
use self::folder::Made;
use self::values::{Raw, Values};
use super::common::Common;
use super::failed::Failed;
use super::output::{Done, counted, print, print_done};
use super::schema;
use crate::config;
use crate::control::say;
use crate::types::{Class, Explained};

#[derive(Args)]
pub(super) struct SetupArgs {
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Values as TOML, instead of questions
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Only compare the folder with what would be written [default values: those in it]
    #[arg(long)]
    check: bool,
}

/// Bytes. Some dozen short values.
const VALUES_MAX_BYTES: u64 = 64 * 1024;
/// In the folder.
const VALUES: &str = "values.toml";

#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error("no values, and no terminal to ask for them")]
    NoTerminal,
    #[error("the questions were not answered")]
    Ask(#[source] AskError),
    #[error("cannot read the values in {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not TOML with the values of a set-up", path = path.display())]
    Syntax {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("the values have {}", counted(*mistakes, "mistake"))]
    Values { mistakes: usize },
}

impl Explained for SetupError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::NoTerminal => "name a file with --values; docs/operations/setup.md has one to begin with",
            Self::Ask(_) => "run it again; nothing was written",
            Self::Read { .. } => "name a readable file with --values",
            Self::Syntax { .. } | Self::Values { .. } => {
                "correct the values; docs/operations/setup.md says what each may be. Nothing was written"
            }
        }
    }
}

pub(super) fn run(common: &Common, args: &SetupArgs) -> Done {
    let values = Values::check(&raw(args)?)
        .map_err(|problems| Failed::new(&SetupError::Values { mistakes: problems.len() }).with_problems(problems))?;
    let files = files(&values)?;
    if args.check { check(common, args, &files) } else { write(common, args, &files) }
}

fn raw(args: &SetupArgs) -> Result<Raw, Failed> {
    match &args.values {
        Some(path) => read(path),
        None if args.check => read(&args.output.join(VALUES)),
        None if io::stdin().is_terminal() => {
            let mut tell = |text: &str| say::prompt(super::PROGRAM, text);
            let asked = Asker { from: io::stdin().lock(), tell: &mut tell }.all();
            asked.map_err(|error| SetupError::Ask(error).into())
        }
        None => Err(SetupError::NoTerminal.into()),
    }
}

fn read(path: &Path) -> Result<Raw, Failed> {
    let fail = |source| SetupError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(fail)?;
    file.take(VALUES_MAX_BYTES).read_to_string(&mut text).map_err(fail)?;
    toml::from_str(&text).map_err(|source| SetupError::Syntax { path: path.to_owned(), source }.into())
}

/// Everything, in the order of the folder.
fn files(values: &Values) -> Result<Vec<Made>, Failed> {
    let toml = node::toml(values);
    let config = config::parse(Path::new("nodeseal.toml"), &toml).map_err(|error| Failed::config(&error))?;
    let mut all = vec![("README.md", readme::text(values)), (VALUES, values.written.clone()), ("nodeseal.toml", toml)];
    all.extend(kubernetes::encryption(values, &config));
    all.extend(kubernetes::apiserver(values.kubernetes));
    if let Some(vault) = &values.vault {
        all.push(("vault/policy.hcl", providers::vault_policy(vault)));
        all.push(("vault/setup.sh", providers::vault_script(vault)));
    }
    if let Some(aws) = &values.aws {
        all.push(("aws/key-policy.json", providers::aws_key_policy(aws, &values.cluster)));
        all.push(("aws/iam-policy.json", providers::aws_iam_policy(aws, &values.cluster)));
    }
    if let Some(azure) = &values.azure {
        all.push(("azure/role-assignment.sh", providers::azure_role(azure)));
    }
    Ok(all.into_iter().map(|(name, text)| Made { name, text }).collect())
}

fn write(common: &Common, args: &SetupArgs, files: &[Made]) -> Done {
    folder::write(&args.output, files)?;
    let names: Vec<&str> = files.iter().map(|made| made.name).collect();
    let next = [format!("read {}, which has the commands in order", args.output.join("README.md").display())];
    let value = json!({ "folder": args.output, "files": names });
    print_done(common, schema::SETUP, &value, &next, || {
        format!("{} written to {}:\n  {}", counted(names.len(), "file"), args.output.display(), names.join("\n  "))
    })
}

fn check(common: &Common, args: &SetupArgs, files: &[Made]) -> Done {
    let found = folder::compare(&args.output, files)?;
    let value = json!({ "folder": args.output, "same": found.is_empty(), "files": found });
    print(common, schema::SETUP_CHECK, &value, || match found.is_empty() {
        true => format!("{} is as these values give it", args.output.display()),
        false => found.iter().map(|one| format!("{} {}\n", one.file, one.state.text())).collect(),
    })?;
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
