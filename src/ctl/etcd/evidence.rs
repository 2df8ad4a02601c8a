//! What nodeseald keeps of a scan: which KEKs and which versions of providers' keys something stored still needs, and how much was made by
//! another plugin. `keys retire` destroys a
//! KEK on it, so it speaks for a destruction only if it is of all keys of a running etcd, and if it was seen of every object which KEK it may
//! need. What any other scan of a running etcd has seen is kept as well, and only counts against a destruction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::{Of, Scanned};
use crate::control::{self, ControlError, Request};
use crate::etcd::count::{COPIES_MAX, Count, Kek, Means};
use crate::keyring::evidence::{KekUse, KeyUse, ROWS_MAX, Reach, Scan};
use crate::types::clock::UnixSeconds;
use crate::types::hex;

/// Why a scan proves of no key that nothing needs it.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotKept {
    #[error("it is of a file, and says nothing of what was written since")]
    File,
    #[error("it is of a part of etcd (--prefix)")]
    Part,
    #[error("kube-apiserver keeps some resources in another etcd (--etcd-servers-overrides)")]
    Divided,
    #[error("{0} cannot be read, so it is not known whether kube-apiserver keeps some resources in another etcd")]
    Unclear(PathBuf),
    #[error("it has more resources, keys or copies than can be told apart")]
    TooMany,
    #[error("it is not known which KEK {0} of its objects need: they are damaged, or this release cannot read them")]
    Unread(u64),
    #[error("nodeseald does not run here, or --config does not name its configuration")]
    Away,
    #[error("nodeseald has refused it")]
    Refused(#[source] ControlError),
}

/// Gives what was seen of a running etcd to nodeseald: `keys list` shows it.
pub(super) fn keep(socket: Option<&Path>, scanned: &Scanned) -> Result<(), NotKept> {
    let (scan, why) = match of(scanned) {
        Seen::All(scan) => (scan, None),
        Seen::Some(scan, why) => (scan, Some(why)),
        Seen::Nothing(why) => return Err(why),
    };
    let request = Request::EtcdScanned { scan: hex::encode(scan.encode()) };
    match (control::ask(socket.ok_or(NotKept::Away)?, &request), why) {
        (Ok(_), None) => Ok(()),
        (Ok(_), Some(why)) => Err(why),
        // Under `--open none` nobody is needed.
        (Err(error), _) if error.is_unreachable() => Err(NotKept::Away),
        (Err(_), Some(why)) => Err(why),
        (Err(error), None) => Err(NotKept::Refused(error)),
    }
}

/// What a scan has seen of a running etcd.
pub(super) enum Seen {
    /// All that there is.
    All(Scan),
    /// What is there at least.
    Some(Scan, NotKept),
    Nothing(NotKept),
}

/// What nodeseald is given.
pub(super) fn of(scanned: &Scanned) -> Seen {
    let why = match &scanned.of {
        Of::Whole => None,
        // What was stored then.
        Of::File => return Seen::Nothing(NotKept::File),
        Of::Part => Some(NotKept::Part),
        Of::Divided => Some(NotKept::Divided),
        Of::Unclear { manifest } => Some(NotKept::Unclear(manifest.clone())),
    };
    let (mut scan, unread) = seen(&scanned.count, scanned.at, scanned.revision);
    match (unread, why) {
        (Some(unread), _) => Seen::Some(Scan { reach: Reach::Unclear, ..scan }, unread),
        (None, None) => Seen::All(scan),
        (None, Some(why)) => {
            scan.reach = Reach::Part;
            match scan.keks.is_empty() && scan.keys.is_empty() && scan.foreign == 0 {
                true => Seen::Nothing(why),
                false => Seen::Some(scan, why),
            }
        }
    }
}

/// By KEK and by version of a provider's key; and why it is not known of every object which key it needs.
pub(super) fn seen(count: &Count, at: UnixSeconds, revision: i64) -> (Scan, Option<NotKept>) {
    let (mut keks, mut keys, mut foreign) = (BTreeMap::new(), BTreeMap::new(), 0);
    let unread = count.groups().iter().filter(|group| group.is_unread() && !group.is_rest());
    let unread: u64 = unread.map(|group| group.objects).sum();
    let mut why = (unread > 0).then_some(NotKept::Unread(unread));
    for group in count.groups() {
        if group.is_rest() || group.copies.len() >= COPIES_MAX {
            why = Some(NotKept::TooMany);
        }
        match group.kek {
            Kek::Local(id) => *keks.entry(id.to_string()).or_insert(0) += group.objects,
            Kek::None if matches!(group.means, Means::KmsV1 | Means::KmsV2) => foreign += group.objects,
            Kek::None | Kek::Once | Kek::Unread => {}
        }
        for (copy, objects) in &group.copies {
            let key = (copy.kind.label(), copy.identity.to_string(), copy.version.to_string());
            *keys.entry(key).or_insert(0) += objects;
        }
    }
    if keks.len() > ROWS_MAX || keys.len() > ROWS_MAX {
        why = Some(NotKept::TooMany);
    }
    let keys = keys.into_iter().map(|((kind, identity, version), objects)| KeyUse {
        kind: kind.to_owned(),
        identity,
        version,
        objects,
    });
    let scan = Scan {
        at,
        revision: revision.cast_unsigned(),
        objects: count.objects,
        foreign,
        reach: Reach::Whole,
        keks: keks.into_iter().map(|(kek, objects)| KekUse { kek, objects }).take(ROWS_MAX).collect(),
        keys: keys.take(ROWS_MAX).collect(),
    };
    (scan, why)
}
