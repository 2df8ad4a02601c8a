//! Where a scan reads: a running etcd, or a file. Every key of it, unless a part was asked for.

use std::path::{Path, PathBuf};

use super::args::{Open, SourceArgs};
use super::cluster::Cluster;
use super::progress::Progress;
use crate::control::{Asking, ControlError, say};
use crate::ctl::PROGRAM;
use crate::ctl::failed::Failed;
use crate::ctl::output::unfit;
use crate::etcd::count::{Count, Counted, Group, Opener};
use crate::etcd::question::{Question, Verdict};
use crate::etcd::resource::{DEFAULT_PREFIX, api_prefix};
use crate::etcd::snapshot::{Hash, Snapshot, SnapshotError};
use crate::etcd::{Client, Endpoint, Keys, ReadError, Stored, TlsFiles};
use crate::types::clock::{self, UnixSeconds};
use crate::types::{Class, Explain};

/// A compaction removes the revision that is read: so often the scan begins again.
const TRIES: usize = 3;

/// What was read.
pub(super) struct Scanned {
    pub(super) source: String,
    /// When the scan began.
    pub(super) at: UnixSeconds,
    pub(super) revision: i64,
    pub(super) count: Count,
    /// The beginning of the keys that were read, if it was not all of them.
    pub(super) part: Option<String>,
    pub(super) of: Of,
}

/// Whether that was all of a kube-apiserver's etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// It was, and running.
    Whole,
    File,
    Part,
    /// Some resources lie in another one.
    Divided,
    /// Nobody knows.
    Unclear {
        /// That would say it.
        manifest: PathBuf,
    },
}

/// Who is told of each object, besides the count.
pub(super) trait Notice {
    /// All keys that it wants begin so, if it does not want all.
    fn below(&self) -> Option<String> {
        None
    }

    /// Whether an object is counted and asked for at all.
    fn wants(&self, _key: &[u8]) -> bool {
        true
    }

    fn take(&mut self, counted: Counted, group: &Group, stored: Stored<'_>);

    /// Forgets all objects.
    fn begin_again(&mut self);
}

/// Which keys are read, and how their place is understood.
pub(super) struct Place {
    /// kube-apiserver's, with a slash at both ends.
    pub(super) api_prefix: String,
    /// `None`: all keys, whatever lies beside the prefix.
    part: Option<String>,
}

impl Place {
    pub(super) fn new(args: &SourceArgs, found: &Cluster) -> Self {
        let part = args.prefix.clone().filter(|part| !part.is_empty());
        let known = || found.prefix.clone().unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        let named = args.etcd_prefix.as_deref().map(api_prefix);
        let api_prefix = named.unwrap_or_else(|| match &part {
            None => known(),
            Some(part) => {
                // `/registry` is the prefix as well, by the way in which kube-apiserver's flag is written.
                let is_below = |prefix: &String| format!("{part}/").starts_with(prefix.as_str());
                let first = || part.split('/').find(|element| !element.is_empty()).map_or_else(known, api_prefix);
                [known(), DEFAULT_PREFIX.to_owned()].into_iter().find(is_below).unwrap_or_else(first)
            }
        });
        Self { api_prefix, part }
    }
}

pub(super) fn read<'n>(
    args: &SourceArgs,
    open: Open,
    found: &Cluster,
    opener: &'n mut Option<Asking>,
    notice: Option<&'n mut dyn Notice>,
    is_shown: bool,
) -> Result<Scanned, Failed> {
    let Place { api_prefix, part } = Place::new(args, found);
    let part = part.or_else(|| notice.as_ref()?.below());
    let taking = Taking { count: Count::new(&api_prefix, open.ask()), opener: MaybeAsking(opener.as_mut()), notice };
    if let Some(path) = &args.snapshot {
        return read_file(path, part, taking, is_shown);
    }
    let is_found = args.live.endpoints.is_empty();
    if is_found && found.is_divided {
        let text = "kube-apiserver keeps some resources in another etcd (--etcd-servers-overrides): scan that one too, with --endpoints";
        say::warning(PROGRAM, text);
    }
    let of = match (&part, &found.unread) {
        (Some(_), _) => Of::Part,
        (None, _) if found.is_divided => Of::Divided,
        // What was seen goes before what is said.
        (None, Some(_)) if args.live.undivided => Of::Whole,
        (None, Some(manifest)) => Of::Unclear { manifest: manifest.clone() },
        (None, None) => Of::Whole,
    };
    let (endpoints, tls) = match is_found {
        true => (found.endpoints.clone(), found.tls.clone()),
        false => (args.live.endpoints.clone(), args.live.tls()),
    };
    read_live(endpoints, tls.as_ref(), (part, of), taking, is_shown)
}

fn read_file(path: &Path, part: Option<String>, mut taking: Taking<'_>, is_shown: bool) -> Result<Scanned, Failed> {
    let at = clock::now();
    let snapshot = Snapshot::open(path)?;
    let mut progress = Progress::new(snapshot.entries(), is_shown);
    let mut take = |stored: Stored<'_>| taking.take(stored, &mut progress).map_err(FileError::Asking);
    match snapshot.each(part.as_deref().unwrap_or_default().as_bytes(), &mut take) {
        Ok(()) => {}
        Err(FileError::Asking(error)) => return Err(Failed::control(&error)),
        Err(FileError::File(error)) => return Err(error.into()),
    }
    let hash = match snapshot.hash() {
        Hash::Checked => "snapshot, hash checked",
        Hash::Absent => "database of a member, without a hash",
    };
    let source = format!("{} ({hash})", path.display());
    Ok(Scanned { source, at, revision: snapshot.revision(), count: taking.count, part, of: Of::File })
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
    (part, of): (Option<String>, Of),
    mut taking: Taking<'_>,
    is_shown: bool,
) -> Result<Scanned, Failed> {
    let source = endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut client = Client::new(endpoints, tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(&Explain::new(&error, Class::Unavailable, "try again")))?;
    let keys = part.as_ref().map_or(Keys::All, |part| Keys::Below(part.as_bytes().to_vec()));
    let mut compacted = None;
    for _ in 0..TRIES {
        let at = clock::now();
        let read = runtime.block_on(async {
            let state = client.state(&keys).await.map_err(ReadError::Source)?;
            let mut progress = Progress::new(state.objects(), is_shown);
            client.each(&state, &mut |stored: Stored<'_>| taking.take(stored, &mut progress)).await?;
            Ok(state.revision())
        });
        match read {
            Ok(revision) => {
                return Ok(Scanned { source, at, revision, count: taking.count, part, of });
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
    notice: Option<&'a mut dyn Notice>,
}

impl Taking<'_> {
    fn take(&mut self, stored: Stored<'_>, progress: &mut Progress) -> Result<(), ControlError> {
        progress.step();
        if self.notice.as_ref().is_some_and(|notice| !notice.wants(stored.key)) {
            return Ok(());
        }
        let counted = self.count.take(stored, &mut self.opener)?;
        if let Some(notice) = &mut self.notice {
            notice.take(counted, &self.count.groups()[counted.group], stored);
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.count.begin_again();
        if let Some(notice) = &mut self.notice {
            notice.begin_again();
        }
    }
}

/// Nobody is asked under `--open none`.
pub(super) struct MaybeAsking<'a>(pub(super) Option<&'a mut Asking>);

impl Opener for MaybeAsking<'_> {
    type Error = ControlError;

    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, ControlError> {
        self.0.as_deref_mut().map_or(Ok(Verdict::NotAsked), |asking| asking.open(question))
    }
}
