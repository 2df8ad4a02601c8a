//! `nodeseal etcd triage`: why each object does not open, and what brings it back. Exit 0: every object that was looked at opens; 1: some do
//! not; 2: it is not known of all of them.
//!
//! It reads etcd or a snapshot and asks nodeseald about each object with its own bytes, as `nodeseal etcd scan --open all` does. A file that
//! names objects only limits which are looked at: what they are is read again, since a provider may be back by now. It changes nothing and
//! deletes nothing. Of what nothing opens it prints the call that would.

mod call;
mod named;
mod report;
mod sick;
mod why;

use std::path::Path;
use std::process::ExitCode;

use self::named::Named;
use self::report::{Report, Row};
use self::sick::Ward;
use self::why::Known;
use super::args::{Open, TriageArgs};
use super::cluster::Cluster;
use super::scan::{NOT_COMPLETE, away, current, wanted};
use super::source::{Place, read};
use crate::control::{self, Answer, Asking, Request, Status};
use crate::ctl::common::Common;
use crate::ctl::failed::Failed;
use crate::ctl::output::{Done, harden, load, print, unfit};
use crate::ctl::schema;
use crate::etcd::count::Group;
use crate::etcd::findings::is_readable;
use crate::etcd::wanted::Wanted;
use crate::keyring::keeper::KekRow;

/// Some objects do not open.
const NOT_ALL_OPEN: u8 = 1;

pub(super) fn run(common: &Common, args: &TriageArgs) -> Done {
    let report = triage(common, args).map_err(|failed| failed.with_exit(NOT_COMPLETE))?;
    print(common, schema::ETCD_TRIAGE, &report, || report.render())?;
    Ok(match (report.complete, report.is_clean()) {
        (false, true) => ExitCode::from(NOT_COMPLETE),
        (_, false) => ExitCode::from(NOT_ALL_OPEN),
        (true, true) => ExitCode::SUCCESS,
    })
}

fn triage(common: &Common, args: &TriageArgs) -> Result<Report, Failed> {
    // Objects that nobody has encrypted pass through: no core dump.
    harden()?;
    let named = named(args)?;
    let found = Cluster::find(Path::new("/"));
    let wanted = wanted(&args.source, args.encryption_config.as_deref(), &found)?.map(|(_, wanted)| wanted);
    let (status, keks, opener) = ask(common)?;
    let current = current(&status);
    let known = Known::new(&keks, &status.providers, &args.lost);
    let mut ward = Ward::new(named.as_ref(), wanted.as_ref(), &current, &known);
    let read = read(&args.source, Open::All, &found, &mut Some(opener), Some(&mut ward), !common.json)?;
    let all = All {
        groups: read.count.groups(),
        wanted: wanted.as_ref(),
        known: &known,
        api_prefix: &Place::new(&args.source, &found).api_prefix,
    };
    Ok(all.report(read.source, read.revision, named.as_ref(), &ward))
}

fn named(args: &TriageArgs) -> Result<Option<Named>, Failed> {
    match (&args.scan, &args.read_errors) {
        (Some(scan), _) => named::of_scan(scan).map(Some),
        (None, Some(errors)) => named::of_read_errors(errors).map(Some),
        (None, None) => Ok(None),
    }
}

/// What nodeseald knows of providers and KEKs, and who says whether objects open.
fn ask(common: &Common) -> Result<(Box<Status>, Vec<KekRow>, Asking), Failed> {
    let socket = load(common)?.control_socket;
    let asked = |request| control::ask(&socket, &request).map_err(|error| away(&error));
    let Answer::Status(status) = asked(Request::Status {})? else { return Err(unfit()) };
    let Answer::Keys(table) = asked(Request::KeysList {})? else { return Err(unfit()) };
    let opener = Asking::begin(&socket).map_err(|error| away(&error))?;
    Ok((status, table.keys, opener))
}

/// What the objects are judged by.
struct All<'a> {
    groups: &'a [Group],
    wanted: Option<&'a Wanted>,
    known: &'a Known,
    api_prefix: &'a str,
}

impl All<'_> {
    fn report(&self, source: String, revision: i64, named: Option<&Named>, ward: &Ward<'_>) -> Report {
        let found = ward.objects.iter().map(|sick| {
            let group = &self.groups[sick.group];
            let why = why::why(group, sick.verdict, is_readable(group, self.wanted), self.known);
            Row::of(sick, group, why, self.api_prefix)
        });
        let gone = ward.gone().into_iter().map(|key| Row::gone(key, self.api_prefix));
        let mut objects: Vec<Row> = found.chain(gone).collect();
        objects.sort_by(|a, b| (a.reason, &a.key).cmp(&(b.reason, &b.key)));
        let mut notes = named.map(|named| named.notes.clone()).unwrap_or_default();
        let of_others: u64 = ward.of_others.iter().map(|at| self.groups[*at].objects).sum();
        if of_others > 0 {
            notes.push(format!("{of_others} objects are for another KMS plugin to open, and were not judged"));
        }
        Report::new(source, revision, ward, objects, notes, named.is_some_and(|named| !named.notes.is_empty()))
    }
}

#[cfg(test)]
mod tests;
