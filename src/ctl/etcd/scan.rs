//! `nodeseal etcd scan`. Exit 0: nothing was found; 1: findings; 2: the scan is not complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::args::{Open, ScanArgs};
use super::cluster::Cluster;
use super::names::Names;
use super::progress::Progress;
use super::report::{Found, Report, Row};
use super::table;
use crate::config::{self, Config};
use crate::control::{self, Answer, Asking, ControlError, Request, Status, say};
use crate::ctl::args::Common;
use crate::ctl::failed::Failed;
use crate::ctl::output::{Done, harden, load, print, unfit};
use crate::ctl::{PROGRAM, schema};
use crate::etcd::count::{COPIES_MAX, Count, Kek, Opener};
use crate::etcd::findings::{Current, findings};
use crate::etcd::question::{Question, Verdict};
use crate::etcd::resource::DEFAULT_PREFIX;
use crate::etcd::snapshot::{Hash, Snapshot, SnapshotError};
use crate::etcd::wanted::{Wanted, WantedError};
use crate::etcd::{Client, Endpoint, ReadError, Stored, TlsFiles};
use crate::keyring::evidence::{KekUse, KeyUse, Scan};
use crate::types::clock::{self, UnixSeconds};
use crate::types::{Chain, Class, Explain, Explained, hex, metric_hash};

const FINDINGS: u8 = 1;
const NOT_COMPLETE: u8 = 2;
/// A compaction removes the revision that is read: so often the scan begins again.
const TRIES: usize = 3;
/// Bytes of an EncryptionConfiguration.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

pub(super) fn run(common: &Common, args: &ScanArgs) -> Done {
    scan(common, args).map_err(|failed| failed.with_exit(NOT_COMPLETE))
}

fn scan(common: &Common, args: &ScanArgs) -> Done {
    // Objects that nobody has encrypted pass through, and the configuration may hold keys: no core dump.
    harden()?;
    let found = Cluster::find(Path::new("/"));
    let wanted = wanted(args, &found)?;
    let mut asked = Asked::new(common, args.open)?;
    let mut names = args.names.then(Names::default);
    let read = read(args, &found, &mut asked.opener, &mut names, !common.json)?;
    let wanted_path = wanted.as_ref().map(|(path, _)| path.clone());
    let wanted = wanted.map(|(_, wanted)| wanted);
    let ask = args.open.ask();
    let all = findings(read.count.groups(), wanted.as_ref(), &asked.current, ask);
    keep(asked.control_socket.as_deref(), &read);
    let report = Report {
        source: read.source,
        revision: Some(read.revision),
        complete: true,
        objects: read.count.objects,
        key_id_hash: asked.current.key_id.as_deref().map(metric_hash),
        encryption_config: wanted_path,
        groups: Row::all(&read.count, wanted.as_ref(), &asked.current),
        findings: Found::all(all, names.as_ref()),
    };
    print(common, schema::ETCD_SCAN, &report, || table::render(&report))?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) })
}

/// The daemon keeps what was seen of the whole of a running etcd: `keys list` shows it, and `keys retire` goes by it.
fn keep(socket: Option<&Path>, read: &Scanned) {
    let (Some(socket), Some(at)) = (socket, read.whole_at) else { return };
    let Some(scan) = seen(&read.count, at, read.revision) else { return };
    match control::ask(socket, &Request::EtcdScanned { scan: hex::encode(scan.encode()) }) {
        Ok(_) => {}
        // Under `--open none` nobody is needed.
        Err(error) if error.is_unreachable() => {}
        Err(error) => {
            let text =
                format!("nodeseald has not kept the result, so `keys retire` does not know it: {}", Chain(&error));
            say::warning(PROGRAM, &text);
            say::hint(PROGRAM, error.hint());
        }
    }
}

/// By KEK and by version of a provider's key. `None`: more than are told apart.
fn seen(count: &Count, at: UnixSeconds, revision: i64) -> Option<Scan> {
    let (mut keks, mut keys) = (BTreeMap::new(), BTreeMap::new());
    for group in count.groups() {
        if group.is_rest || group.copies.len() >= COPIES_MAX {
            return None;
        }
        if let Kek::Local(id) = group.kek {
            *keks.entry(id.to_string()).or_insert(0) += group.objects;
        }
        for (copy, objects) in &group.copies {
            let key = (copy.kind.label(), copy.identity.to_string(), copy.version.to_string());
            *keys.entry(key).or_insert(0) += objects;
        }
    }
    let keys = keys.into_iter().map(|((kind, identity, version), objects)| KeyUse {
        kind: kind.to_owned(),
        identity,
        version,
        objects,
    });
    Some(Scan {
        at,
        revision: revision.cast_unsigned(),
        objects: count.objects,
        keks: keks.into_iter().map(|(kek, objects)| KekUse { kek, objects }).collect(),
        keys: keys.collect(),
    })
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

fn away(error: &ControlError) -> Failed {
    if error.is_unreachable() {
        let hint = "start nodeseald; or count without asking whether objects open: --open none";
        return Failed::new(&Explain::new(error, Class::Unavailable, hint));
    }
    Failed::control(error)
}

fn status(config: &Config) -> Result<Current, ControlError> {
    match control::ask(&config.control_socket, &Request::Status {})? {
        Answer::Status(status) => Ok(current(*status)),
        _ => Err(ControlError::Protocol),
    }
}

fn current(status: Status) -> Current {
    let writes = |role: &str| role != "decrypt-only";
    let mut keys: Vec<_> =
        status.providers.iter().filter(|row| writes(&row.role)).filter_map(|row| row.key.as_ref()).collect();
    keys.sort();
    keys.dedup();
    Current { copies: keys.len(), key_id: status.key_id.clone(), endpoint: Some(format!("unix://{}", status.socket)) }
}

/// The file that kube-apiserver reads, and what it says.
fn wanted(args: &ScanArgs, found: &Cluster) -> Result<Option<(String, Wanted)>, Failed> {
    let named = args.encryption_config.as_deref();
    // Of this machine's cluster, and not of the one that a snapshot or another etcd is of.
    let is_own = args.source.snapshot.is_none() && args.source.endpoints.is_empty();
    let Some(path) = named.or(found.encryption_config.as_deref().filter(|_| is_own)) else { return Ok(None) };
    let text = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > CONFIG_MAX_BYTES => {
            return Err(WantedError::Content("the file is longer than 1 MiB").into());
        }
        // Keys of other transformers may stand in it.
        Ok(_) => std::fs::read_to_string(path).map(Zeroizing::new),
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => Ok(Some((path.display().to_string(), Wanted::parse(&text)?))),
        Err(error) if named.is_some() => {
            let hint = "name the file of kube-apiserver's --encryption-provider-config, and run this as root";
            Err(Failed::new(&Explain::new(&error, Class::Misconfigured, hint)))
        }
        Err(error) => {
            let text = format!("cannot read {}: {error}", path.display());
            say::warning(PROGRAM, &text);
            Ok(None)
        }
    }
}

/// What was read.
struct Scanned {
    source: String,
    revision: i64,
    count: Count,
    /// When the scan began, if it was of the whole of a running etcd.
    whole_at: Option<UnixSeconds>,
}

fn read(
    args: &ScanArgs,
    found: &Cluster,
    opener: &mut Option<Asking>,
    names: &mut Option<Names>,
    is_shown: bool,
) -> Result<Scanned, Failed> {
    let is_found = args.source.endpoints.is_empty() && args.source.snapshot.is_none();
    let prefix = found.prefix.as_deref().filter(|_| is_found).unwrap_or(&args.source.prefix);
    let taking = Taking {
        count: Count::new(prefix, args.open.ask()),
        opener: MaybeAsking(opener.as_mut()),
        names: names.as_mut(),
    };
    // `/registry/secrets/` is a part, and of resources that lie elsewhere nothing is seen.
    let is_whole = (prefix == DEFAULT_PREFIX || found.prefix.as_deref() == Some(prefix)) && !found.is_divided;
    if is_found && found.is_divided {
        let text = "kube-apiserver keeps some resources in another etcd (--etcd-servers-overrides): scan that one too, with --endpoints";
        say::warning(PROGRAM, text);
    }
    match &args.source.snapshot {
        Some(path) => read_file(path, prefix, taking, is_shown),
        None if is_found => read_live(found.endpoints.clone(), found.tls.as_ref(), prefix, is_whole, taking, is_shown),
        None => {
            read_live(args.source.endpoints.clone(), args.source.tls().as_ref(), prefix, is_whole, taking, is_shown)
        }
    }
}

fn read_file(path: &Path, prefix: &str, mut taking: Taking<'_>, is_shown: bool) -> Result<Scanned, Failed> {
    let snapshot = Snapshot::open(path)?;
    let mut progress = Progress::new(snapshot.entries(), is_shown);
    let mut take = |stored: Stored<'_>| taking.take(stored, &mut progress).map_err(FileError::Asking);
    match snapshot.each(prefix.as_bytes(), &mut take) {
        Ok(()) => {}
        Err(FileError::Asking(error)) => return Err(Failed::control(&error)),
        Err(FileError::File(error)) => return Err(error.into()),
    }
    let hash = match snapshot.hash() {
        Hash::Checked => "snapshot, hash checked",
        Hash::Absent => "database of a member, without a hash",
    };
    let source = format!("{} ({hash})", path.display());
    Ok(Scanned { source, revision: snapshot.revision(), count: taking.count, whole_at: None })
}

enum FileError {
    File(SnapshotError),
    Asking(ControlError),
}

impl From<SnapshotError> for FileError {
    fn from(error: SnapshotError) -> Self {
        Self::File(error)
    }
}

fn read_live(
    endpoints: Vec<Endpoint>,
    tls: Option<&TlsFiles>,
    prefix: &str,
    is_whole: bool,
    mut taking: Taking<'_>,
    is_shown: bool,
) -> Result<Scanned, Failed> {
    let source = endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut client = Client::new(endpoints, tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(&Explain::new(&error, Class::Unavailable, "try again")))?;
    let mut compacted = None;
    for _ in 0..TRIES {
        let at = clock::now();
        let (revision, total) = runtime.block_on(client.count(prefix.as_bytes()))?;
        let mut progress = Progress::new(total, is_shown);
        let mut take = |stored: Stored<'_>| taking.take(stored, &mut progress);
        match runtime.block_on(client.each(prefix.as_bytes(), revision, &mut take)) {
            Ok(()) => {
                let whole_at = Some(at).filter(|_| is_whole);
                return Ok(Scanned { source, revision, count: taking.count, whole_at });
            }
            Err(ReadError::Taker(error)) => return Err(Failed::control(&error)),
            Err(ReadError::Source(error)) if error.is_compacted() => compacted = Some(error),
            Err(ReadError::Source(error)) => return Err(error.into()),
        }
        taking.begin_again();
    }
    Err(compacted.map_or_else(unfit, Failed::from))
}

/// What is done with each object.
struct Taking<'a> {
    count: Count,
    opener: MaybeAsking<'a>,
    names: Option<&'a mut Names>,
}

impl Taking<'_> {
    fn take(&mut self, stored: Stored<'_>, progress: &mut Progress) -> Result<(), ControlError> {
        let counted = self.count.take(stored, &mut self.opener)?;
        if let Some(names) = self.names.as_deref_mut() {
            names.take(counted, stored.key);
        }
        progress.step();
        Ok(())
    }

    fn begin_again(&mut self) {
        self.count.begin_again();
        if let Some(names) = self.names.as_deref_mut() {
            *names = Names::default();
        }
    }
}

/// Nobody is asked under `--open none`.
struct MaybeAsking<'a>(Option<&'a mut Asking>);

impl Opener for MaybeAsking<'_> {
    type Error = ControlError;

    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, ControlError> {
        self.0.as_deref_mut().map_or(Ok(Verdict::NotAsked), |asking| asking.open(question))
    }
}
