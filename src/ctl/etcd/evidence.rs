//! What nodeseald keeps of a scan: which KEKs and which versions of providers' keys something stored still needs, and how much was made by
//! another plugin. `keys retire` destroys a
//! KEK on it, so it is made only of all keys of a running etcd, and only if it was seen of every object which KEK it may need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::{Of, Scanned};
use crate::control::{self, ControlError, Request};
use crate::etcd::count::{COPIES_MAX, Count, Kek, Means};
use crate::keyring::evidence::{KekUse, KeyUse, Scan};
use crate::types::clock::UnixSeconds;
use crate::types::hex;

/// Why nothing of a scan is kept.
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

/// Gives what was seen of the whole of a running etcd to nodeseald: `keys list` shows it.
pub(super) fn keep(socket: Option<&Path>, scanned: &Scanned) -> Result<(), NotKept> {
    let scan = of(scanned)?;
    let request = Request::EtcdScanned { scan: hex::encode(scan.encode()) };
    match control::ask(socket.ok_or(NotKept::Away)?, &request) {
        Ok(_) => Ok(()),
        // Under `--open none` nobody is needed.
        Err(error) if error.is_unreachable() => Err(NotKept::Away),
        Err(error) => Err(NotKept::Refused(error)),
    }
}

/// What nodeseald is given.
pub(super) fn of(scanned: &Scanned) -> Result<Scan, NotKept> {
    match &scanned.of {
        Of::Whole => seen(&scanned.count, scanned.at, scanned.revision),
        Of::File => Err(NotKept::File),
        Of::Part => Err(NotKept::Part),
        Of::Divided => Err(NotKept::Divided),
        Of::Unclear { manifest } => Err(NotKept::Unclear(manifest.clone())),
    }
}

/// By KEK and by version of a provider's key.
pub(super) fn seen(count: &Count, at: UnixSeconds, revision: i64) -> Result<Scan, NotKept> {
    let (mut keks, mut keys, mut foreign) = (BTreeMap::new(), BTreeMap::new(), 0);
    let unread = count.groups().iter().filter(|group| group.is_unread() && !group.is_rest());
    let unread: u64 = unread.map(|group| group.objects).sum();
    if unread > 0 {
        return Err(NotKept::Unread(unread));
    }
    for group in count.groups() {
        if group.is_rest() || group.copies.len() >= COPIES_MAX {
            return Err(NotKept::TooMany);
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
    let keys = keys.into_iter().map(|((kind, identity, version), objects)| KeyUse {
        kind: kind.to_owned(),
        identity,
        version,
        objects,
    });
    Ok(Scan {
        at,
        revision: revision.cast_unsigned(),
        objects: count.objects,
        foreign,
        keks: keks.into_iter().map(|(kek, objects)| KekUse { kek, objects }).collect(),
        keys: keys.collect(),
    })
}
