//! `nodeseal etcd scan`. Exit 0: nothing was found; 1: findings; 2: the scan is not complete.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{LiveArgs, Open, ScanArgs, SourceArgs};
use super::cluster::Cluster;
use super::evidence::{NotKept, keep};
use super::names::Names;
use super::report::{Found, Report, Row};
use super::source::{Notice, Scanned, read};
use super::table;
use crate::config::{self, Config};
use crate::control::{self, Answer, Asking, ControlError, Request, Status, say};
use crate::ctl::common::Common;
use crate::ctl::failed::Failed;
use crate::ctl::output::{Done, counted, harden, load, print};
use crate::ctl::{PROGRAM, schema};
use crate::etcd::findings::{Current, NOTHING_SEEN, absent, findings, not_judged};
use crate::etcd::wanted::{Wanted, WantedError, Writer, socket};
use crate::types::{Chain, Class, Explain, Explained, metric_hash, read_regular_text};

const FINDINGS: u8 = 1;
pub(super) const NOT_COMPLETE: u8 = 2;
/// Bytes of an EncryptionConfiguration.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

pub(super) fn run(common: &Common, args: &ScanArgs) -> Done {
    let report = scan(common, args).map_err(|failed| failed.with_exit(NOT_COMPLETE))?;
    print(common, schema::ETCD_SCAN, &report, || table::render(&report))?;
    Ok(ExitCode::from(exit(&report)))
}

/// What a scan of a running etcd says, for a verb that scans as well.
pub(in super::super) struct Scan {
    pub(in super::super) value: serde_json::Value,
    pub(in super::super) text: String,
    pub(in super::super) exit: u8,
    /// It proves of a KEK that it has not seen that nothing needs it.
    pub(in super::super) is_kept: bool,
}

/// The same as `nodeseal etcd scan` with these arguments alone.
pub(in super::super) fn scan_live(
    common: &Common,
    live: &LiveArgs,
    encryption_config: Option<PathBuf>,
) -> Result<Scan, Failed> {
    let source = SourceArgs { live: live.clone(), snapshot: None, prefix: None, etcd_prefix: None };
    let report = scan(common, &ScanArgs { source, encryption_config, open: Open::Seeds, names: false })?;
    let value = serde_json::to_value(&report);
    let value = value.map_err(|error| Failed::new(&Explain::new(&error, Class::Internal, "report this")))?;
    Ok(Scan { value, text: table::render(&report), exit: exit(&report), is_kept: report.kept })
}

fn exit(report: &Report) -> u8 {
    match report.findings.iter().any(|found| found.finding.id == NOTHING_SEEN) {
        true => NOT_COMPLETE,
        false if report.findings.is_empty() => 0,
        false => FINDINGS,
    }
}

fn scan(common: &Common, args: &ScanArgs) -> Result<Report, Failed> {
    // Objects that nobody has encrypted pass through, and the configuration may hold keys: no core dump.
    harden()?;
    let found = Cluster::find(Path::new("/"));
    let wanted = wanted(&args.source, args.encryption_config.as_deref(), &found)?;
    let mut asked = Asked::new(common, args.open)?;
    let mut names = args.names.then(Names::default);
    let notice = names.as_mut().map(|names| -> &mut dyn Notice { names });
    let read = read(&args.source, args.open, &found, &mut asked.opener, notice, !common.json)?;
    let wanted_path = wanted.as_ref().map(|(path, _)| path.clone());
    let wanted = wanted.map(|(_, wanted)| wanted);
    let all = findings(read.count.groups(), wanted.as_ref(), &asked.current, args.open.ask());
    let is_seen = !all.iter().any(|finding| finding.id == NOTHING_SEEN);
    let not_kept = keep(asked.control_socket.as_deref(), &read).err();
    if let Some(NotKept::Refused(error)) = &not_kept {
        let text = format!("nodeseald has not kept the result, so `keys retire` does not know it: {}", Chain(error));
        say::warning(PROGRAM, &text);
        say::hint(PROGRAM, error.hint());
    }
    let report = Report {
        notes: notes(&read, wanted.as_ref(), &asked.current),
        source: read.source,
        revision: Some(read.revision),
        complete: read.part.is_none() && is_seen,
        part: read.part,
        objects: read.count.objects,
        key_id_hash: asked.current.key_id.as_deref().map(metric_hash),
        encryption_config: wanted_path,
        kept: not_kept.is_none(),
        not_kept: not_kept.map(|why| Chain(&why).to_string()),
        groups: Row::all(&read.count, wanted.as_ref(), &asked.current),
        findings: Found::all(all, names.as_ref()),
    };
    Ok(report)
}

/// What no finding says, and what nobody should take for healthy either.
fn notes(read: &Scanned, wanted: Option<&Wanted>, current: &Current) -> Vec<String> {
    let objects = |count: u64| counted(usize::try_from(count).unwrap_or(usize::MAX), "object");
    let not_judged = not_judged(read.count.groups(), wanted, current);
    let mut notes: Vec<_> = not_judged
        .iter()
        .map(|one| format!("not judged: {} of {} {}", objects(one.objects), one.resource, one.why))
        .collect();
    // A part has no objects of the other resources.
    if let (Some(wanted), None) = (wanted, &read.part) {
        let absent = absent(read.count.groups(), wanted);
        notes.extend(absent.iter().map(|name| format!("the configuration names {name}, and no object of it was seen")));
    }
    notes
}

/// Who says whether objects open, and what this node reports.
struct Asked {
    opener: Option<Asking>,
    current: Current,
    control_socket: Option<PathBuf>,
}

impl Asked {
    fn new(common: &Common, open: Open) -> Result<Self, Failed> {
        if open == Open::None {
            // Without the daemon less is known, and nothing is refused.
            let config = config::load(&common.config).ok();
            let current = config.as_ref().and_then(|config| status(config).ok()).unwrap_or_default();
            return Ok(Self { opener: None, current, control_socket: config.map(|config| config.control_socket) });
        }
        let config = load(common)?;
        let current = status(&config).map_err(|error| away(&error))?;
        let opener = Asking::begin(&config.control_socket).map_err(|error| away(&error))?;
        Ok(Self { opener: Some(opener), current, control_socket: Some(config.control_socket) })
    }
}

pub(super) fn away(error: &ControlError) -> Failed {
    if error.is_unreachable() {
        let hint = "start nodeseald; or count without asking whether objects open: --open none";
        return Failed::new(&Explain::new(error, Class::Unavailable, hint));
    }
    Failed::control(error)
}

fn status(config: &Config) -> Result<Current, ControlError> {
    match control::ask(&config.control_socket, &Request::Status {})? {
        Answer::Status(status) => Ok(current(&status)),
        _ => Err(ControlError::Protocol),
    }
}

pub(super) fn current(status: &Status) -> Current {
    let writes = |role: &str| role != "decrypt-only";
    let mut keys: Vec<_> =
        status.providers.iter().filter(|row| writes(&row.role)).filter_map(|row| row.key.as_ref()).collect();
    keys.sort();
    keys.dedup();
    Current { copies: keys.len(), key_id: status.key_id.clone(), endpoint: Some(resolved(&status.socket)) }
}

/// A socket by the path that it has without symbolic links, as far as this machine has it.
fn resolved(endpoint: &str) -> String {
    let path = PathBuf::from(socket(endpoint));
    let of_folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let path = path.canonicalize().ok().or_else(of_folder).unwrap_or(path.clone());
    format!("unix://{}", path.display())
}

/// The file that kube-apiserver reads, and what it says.
pub(super) fn wanted(
    source: &SourceArgs,
    named: Option<&Path>,
    found: &Cluster,
) -> Result<Option<(String, Wanted)>, Failed> {
    // Of this machine's cluster, and not of the one that a snapshot or another etcd is of.
    let is_own = source.snapshot.is_none() && source.live.endpoints.is_empty();
    match named.or(found.encryption_config.as_deref().filter(|_| is_own)) {
        Some(path) => read_wanted(path).map(Some),
        None => Ok(None),
    }
}

/// That file, or the one of this machine's kube-apiserver.
pub(in super::super) fn encryption_config(named: Option<&Path>) -> Result<Option<(String, Wanted)>, Failed> {
    let found = Cluster::find(Path::new("/")).encryption_config;
    named.or(found.as_deref()).map(read_wanted).transpose()
}

/// Whether kube-apiserver is told to ask the plugin on this socket.
pub(in super::super) fn is_asked(wanted: &Wanted, endpoint: &str) -> bool {
    let own = resolved(endpoint);
    let is_own = |writer: &&Writer| matches!(writer, Writer::Kms { endpoint, .. } if *endpoint == own);
    wanted.names().iter().flat_map(|name| wanted.named(name)).any(|writer| is_own(&writer))
}

fn read_wanted(path: &Path) -> Result<(String, Wanted), Failed> {
    // Keys of other transformers may stand in it.
    let text = match read_regular_text(path, CONFIG_MAX_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            return Err(WantedError::Content("the file is longer than 1 MiB").into());
        }
        other => other,
    };
    match text {
        Ok(text) => Ok((path.display().to_string(), Wanted::parse(&text)?.with_sockets(resolved))),
        // Without it nothing can be said of most objects.
        Err(error) => {
            let error = std::io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
            let hint = "run this as root, and name the file of kube-apiserver's --encryption-provider-config with --encryption-config";
            Err(Failed::new(&Explain::new(&error, Class::Misconfigured, hint)))
        }
    }
}
