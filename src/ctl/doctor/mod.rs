//! `nodeseal doctor`: one table of checks of this node, with the daemon up, down, and before `init`.
//!
//! It looks and changes nothing: no file is written, no lock is taken, the device is asked one question, and no secret is read but
//! the EncryptionConfiguration, of which names alone are kept. What the daemon tells of itself is taken from it. Each check has its
//! time, and all together have theirs, so that a file system that hangs is a finding and not a tool that hangs.
//!
//! Exit 0: no check failed; 1: one did; 2: the doctor could not run.

#[cfg(feature = "etcd")]
mod apiserver;
mod check;
mod finding;
mod general;
#[cfg(feature = "etcd")]
mod kubernetes;
mod node;
mod platform;
mod report;
mod run;
mod scene;
mod table;
#[cfg(test)]
mod tests;
mod units;

use std::process::ExitCode;

use clap::Args;

use self::check::Check;
use self::finding::Outcome;
use self::report::Report;
use self::scene::Scene;
use super::common::Common;
use super::failed::Failed;
use super::output::{Done, harden, print};
use super::schema;
use crate::types::{Class, Explained};

const FAILS: u8 = 1;
const NOT_RUN: u8 = 2;

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Only these checks, by their ids
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
}

/// A check as the documentation has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoctorRow {
    /// `ND-nnn`, for good.
    pub id: &'static str,
    /// What it looks at.
    pub title: &'static str,
    /// What suffers if it fails.
    pub impact: &'static str,
    /// Where more is said, below `docs/`.
    pub page: &'static str,
}

/// The table, for the documentation's test.
pub fn doctor_rows() -> Vec<DoctorRow> {
    let row =
        |check: &Check| DoctorRow { id: check.id, title: check.title, impact: check.impact.label(), page: check.page };
    table::all().into_iter().map(row).collect()
}

/// `--only` names none.
#[derive(Debug, thiserror::Error)]
#[error("there is no check {0:?}")]
struct Unknown(String);

impl Explained for Unknown {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        "docs/operations/doctor.md lists every check; `nodeseal doctor` runs all of them"
    }
}

pub(super) fn run(common: &Common, args: &DoctorArgs) -> Done {
    examine(common, args).map_err(|failed| failed.with_exit(NOT_RUN))
}

fn examine(common: &Common, args: &DoctorArgs) -> Done {
    let checks = chosen(&args.only)?;
    // The EncryptionConfiguration may hold keys: no core dump.
    harden()?;
    let report = Report::new(run::all(Scene::of_machine(common), &checks));
    print(common, schema::DOCTOR, &report, || report.render(report::is_coloured()))?;
    Ok(if report.count(Outcome::Fail) > 0 { ExitCode::from(FAILS) } else { ExitCode::SUCCESS })
}

/// In the order of the table.
fn chosen(only: &[String]) -> Result<Vec<&'static Check>, Failed> {
    let all = table::all();
    let is_named = |check: &&Check| only.iter().any(|id| id.eq_ignore_ascii_case(check.id));
    match only.iter().find(|id| !all.iter().any(|check| id.eq_ignore_ascii_case(check.id))) {
        Some(id) => Err(Unknown(id.clone()).into()),
        None if only.is_empty() => Ok(all),
        None => Ok(all.into_iter().filter(is_named).collect()),
    }
}
