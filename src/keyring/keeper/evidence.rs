//! What was seen of etcd, on disk and in memory. A file that cannot be read is as good as none: a scan makes it again.

use super::{Keeper, Seen, trouble};
use crate::keyring::error::KeeperError;
use crate::keyring::evidence::{Evidence, FILE, Scan};
use crate::store::{Disk, Kind, LoadError, StateDir};
use crate::types::{ClusterId, Key, RootId};

impl<D: Disk + Clone> Keeper<'_, D> {
    pub(super) fn load_evidence(&mut self) {
        let mac_key = self.books.mac_key().copy();
        let (cluster, root_id) = (&self.settings.cluster, self.books.root_id());
        let read = |_, bytes: &[u8]| Evidence::decode(bytes, cluster, &root_id, &mac_key);
        match self.books.home.root.load(FILE, Kind::Evidence, read) {
            Ok(loaded) => self.evidence = loaded.value,
            Err(LoadError::Store(error)) if error.is_missing() => {}
            Err(LoadError::Store(error)) => trouble(LOAD, &KeeperError::Store(error)),
            Err(LoadError::Content(_)) => trouble(LOAD, &KeeperError::Store(self.books.home.root.damaged(FILE))),
        }
    }

    /// A scan that is complete.
    pub(super) fn scanned(&mut self, scan: Scan) -> Result<Seen, KeeperError> {
        if !scan.is_fit() {
            return Err(KeeperError::UnfitScan);
        }
        // Whoever looks into an empty prefix, or into another cluster's etcd, would prove that nothing needs anything.
        let roots = &self.state().roots;
        let mut keys = roots.records.iter().map(|record| (record.kind, record.identity()));
        let has_own = self.ring().entries().any(|(entry, _)| scan.objects_under(&entry.id) > 0)
            || keys.any(|(kind, identity)| scan.objects_by(kind, identity) > 0);
        if !has_own {
            return Err(KeeperError::ScanElsewhere);
        }
        self.keep_evidence(self.evidence.with(scan, (self.settings.now)()))
    }

    /// A recovery file was opened, to see whether it opens what etcd holds.
    pub(super) fn rehearsed(&mut self) -> Result<Seen, KeeperError> {
        let rehearsed = Some((self.settings.now)());
        self.keep_evidence(Evidence { rehearsed, ..self.evidence.clone() })
    }

    fn keep_evidence(&mut self, next: Evidence) -> Result<Seen, KeeperError> {
        let mac_key = self.books.mac_key().copy();
        let root_id = self.books.root_id();
        save(self.books.folder()?, &next, &self.settings.cluster, &root_id, &mac_key)?;
        self.evidence = next;
        Ok(self.seen())
    }

    pub(super) fn seen(&self) -> Seen {
        Seen { evidence: self.evidence.clone(), turned: self.turned() }
    }
}

/// In a folder of this root.
pub(super) fn save<D: Disk>(
    dir: &StateDir<D>,
    evidence: &Evidence,
    cluster: &ClusterId,
    root: &RootId,
    mac_key: &Key,
) -> Result<(), KeeperError> {
    let bytes = evidence.encode(cluster, root, mac_key);
    dir.replace_both(FILE, Kind::Evidence, &bytes).map_err(KeeperError::Store)
}

const LOAD: &str = "read what scans of etcd have seen";
