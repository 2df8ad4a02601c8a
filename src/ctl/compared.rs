//! How the keys of a recovery file compare with those of the node that runs.

use crate::keyring::export::Export;
use crate::keyring::keeper::KeyTable;

/// How the keys of a file compare with those of the running node, by their ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// The node has them, the file has not.
    pub(super) missing: Vec<String>,
    /// Both have one of this id, and not the same.
    pub(super) other: Vec<String>,
    /// Neither the file nor the node's memory has them.
    pub(super) lost: Vec<String>,
    /// The file has them, the node never had.
    pub(super) unknown: Vec<String>,
    /// The file has them, the node has destroyed its own.
    pub(super) destroyed: Vec<String>,
}

impl Compared {
    /// The file has all that the node has, and what it has is the same.
    #[cfg(feature = "etcd")]
    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.other.is_empty() && self.lost.is_empty() && self.unknown.is_empty()
    }

    pub(super) fn new(export: &Export, table: &KeyTable) -> Self {
        const DESTROYED: &str = "destroyed";
        let mut compared = Self::default();
        let keys: Vec<(String, String)> =
            export.checks().into_iter().map(|(id, check)| (id.to_string(), check)).collect();
        for row in table.keys.iter().filter(|row| row.state != DESTROYED) {
            match keys.iter().find(|(id, _)| *id == row.id) {
                // What does not open here either is no reason to overwrite a copy that may have it.
                None if row.check.is_empty() => compared.lost.push(row.id.clone()),
                None => compared.missing.push(row.id.clone()),
                // Of a key that is not in memory, or by a daemon of an older release, nothing is said.
                Some((_, check)) if !row.check.is_empty() && *check != row.check => compared.other.push(row.id.clone()),
                Some(_) => {}
            }
        }
        for (id, _) in keys {
            match table.keys.iter().find(|row| row.id == id) {
                None => compared.unknown.push(id),
                Some(row) if row.state == DESTROYED => compared.destroyed.push(id),
                Some(_) => {}
            }
        }
        compared
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        if self.missing.is_empty() && self.other.is_empty() {
            lines.push("it has every KEK that this node has".to_owned());
        }
        for (ids, said, of) in [
            (&self.other, "it has other keys under", "ids of this node"),
            (&self.missing, "it lacks", "KEKs that this node has"),
            (&self.lost, "it lacks, as this node does (keep older copies, which may have them),", "KEKs"),
            (&self.unknown, "it has", "KEKs that this node does not know"),
            (&self.destroyed, "it has", "KEKs that this node has destroyed"),
        ] {
            if !ids.is_empty() {
                lines.push(format!("{said} {} {of}: {}", ids.len(), ids.join(" ")));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::keyring::epoch::ProviderMemory;
    use crate::keyring::keeper::KekRow;
    use crate::keyring::ring::{Entry, Ring};
    use crate::types::{KekId, Key};

    pub(in crate::ctl) fn export() -> Export {
        let entry = |byte| Entry { id: KekId::from_bytes([byte; 16]), created: 1, uses_reserved: 2, shared: false };
        let ring = Ring::new(entry(1), 1).with_pending(entry(2)).unwrap();
        let keys = [1, 2].map(|byte| (entry(byte).id, Key::copy_of(&[byte; 32]).unwrap())).into();
        Export {
            cluster: "c1".parse().unwrap(),
            written: 3,
            roots: ProviderMemory::default(),
            ring,
            keys,
            copies: Vec::new(),
        }
    }

    /// As the node has them that made the export.
    fn table() -> KeyTable {
        let row = |(id, check): (KekId, String)| KekRow {
            must_be_shared: false,
            opened: None,
            may_return: false,
            under_key_id: false,
            objects: None,
            scanned: None,
            unneeded_since: None,
            written_until: 0,
            id: id.to_string(),
            state: "active".into(),
            key_id: String::new(),
            created: 1,
            since: 1,
            uses: 2,
            shared: false,
            wraps: 0,
            check,
        };
        KeyTable { key_id: String::new(), keys: export().checks().into_iter().map(row).collect() }
    }

    #[test]
    fn a_file_with_this_nodes_keys_is_told_from_one_with_others_of_the_same_ids() {
        assert_eq!(Compared::new(&export(), &table()), Compared::default());
        let mut forged = export();
        forged.keys[1].1 = Key::copy_of(&[9; 32]).unwrap();
        let compared = Compared::new(&forged, &table());
        assert_eq!(compared, Compared { other: vec!["02".repeat(16)], ..Compared::default() });
        assert!(!compared.text().contains("every KEK"), "{}", compared.text());
        // A daemon of an older release, or a key that is not in memory.
        let mut bare = table();
        bare.keys.iter_mut().for_each(|row| row.check.clear());
        assert_eq!(Compared::new(&forged, &bare), Compared::default());
    }

    #[test]
    fn keys_that_the_file_has_too_much_or_too_little_are_listed() {
        let mut running = table();
        running.keys[0].id = "03".repeat(16);
        running.keys[1].state = "destroyed".into();
        let compared = Compared::new(&export(), &running);
        let (missing, unknown, destroyed) = (vec!["03".repeat(16)], vec!["01".repeat(16)], vec!["02".repeat(16)]);
        assert_eq!(compared, Compared { missing, unknown, destroyed, ..Compared::default() });
        for id in ["01", "02", "03"] {
            assert!(compared.text().contains(&id.repeat(16)), "{}", compared.text());
        }
    }
}
