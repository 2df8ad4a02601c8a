//! What the key_id of a node with providers names, and what is remembered so that it is the same in outages and never comes back:
//! the part of `state` from version 3 on (docs/formats.md, "State"). Pure, and total over any bytes.
//!
//! ```text
//! roots    = reported u8 (0 = the local KEK, 1 = an epoch follows), epoch | left: u16 count, each key_id: u16 length, text |
//!            providers: u16 count, each record
//! epoch    = number u32 | parts: u16 count, each kind u8 | identity | version
//! record   = name | kind u8 | identity | version | left: u16 count, each identity | version
//! (identity, version, name: u16 length, text)
//! ```
//!
//! A key is what it is by kind and identity: there is one [`Record`] of each, and the names that providers have in the configuration are
//! labels on it. Several names on one record are several ways to one key. On disk each name has a record of its own, all alike but for
//! the name; a key that nobody has any more has one without a name.

use std::collections::BTreeSet;

use crate::provider::observed::Observed;
use crate::provider::{KeyIdentity, KeyState, KeyVersion, ProviderKind};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, KeyId};

/// A version of a key at a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Of the provider.
    pub kind: ProviderKind,
    /// Which key.
    pub identity: KeyIdentity,
    /// Which version.
    pub version: KeyVersion,
}

/// The versions of all keys that wrap new KEKs, in an order that depends on nothing but themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The operator's own, `write.epoch`: a new one makes another key_id of the same keys.
    pub number: u32,
    /// All of them.
    pub parts: BTreeSet<Part>,
}

impl Epoch {
    /// What is reported while it lasts.
    pub fn key_id(&self, cluster: &ClusterId) -> KeyId {
        let mut w = Writer::new();
        self.write(&mut w);
        KeyId::of_epoch(cluster, w.as_bytes())
    }

    fn write(&self, w: &mut Writer) {
        w.u32(self.number).u16(count(self.parts.len()));
        for Part { kind, identity, version } in &self.parts {
            w.u8(*kind as u8).bytes16(identity.as_str().as_bytes()).bytes16(version.as_str().as_bytes());
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let number = r.u32("epoch")?;
        let mut parts = BTreeSet::new();
        for _ in 0..r.u16("parts")? {
            let kind = read_kind(r)?;
            let KeyState { identity, version } = read_key(r)?;
            let part = Part { kind, identity, version };
            // One encoding of each epoch.
            if parts.last().is_some_and(|last| *last >= part) {
                return Err(WireError::BadValue("parts"));
            }
            parts.insert(part);
        }
        Ok(Self { number, parts })
    }
}

/// What the key_id names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reported {
    /// The active local KEK: no provider has ever wrapped one here, or none is to.
    #[default]
    LocalKek,
    /// Keys at providers.
    Epoch(Epoch),
}

impl Reported {
    /// The key_id.
    pub fn key_id(&self, cluster: &ClusterId, active: &KekId) -> KeyId {
        match self {
            Self::LocalKek => KeyId::of_local_kek(cluster, active),
            Self::Epoch(epoch) => epoch.key_id(cluster),
        }
    }
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the providers that are ways to it, as the configuration calls them. Each name stands on one record of a kind at most.
    pub names: BTreeSet<String>,
    /// Of the providers.
    pub kind: ProviderKind,
    /// The version that counts, and those that were left.
    pub observed: Observed,
}

impl Record {
    /// Which key.
    pub const fn identity(&self) -> &KeyIdentity {
        &self.observed.current().identity
    }

    /// Whether it is of this key.
    pub fn is_of(&self, kind: ProviderKind, identity: &KeyIdentity) -> bool {
        self.kind == kind && self.identity() == identity
    }

    /// Whether it is the key of the provider of that name and kind.
    pub fn is_named(&self, name: &str, kind: ProviderKind) -> bool {
        self.kind == kind && self.names.contains(name)
    }
}

/// Everything that is remembered of providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderMemory {
    /// Now.
    pub reported: Reported,
    /// key_ids of epochs that have ended. Those of local KEKs never come back by themselves.
    pub left: BTreeSet<KeyId>,
    /// By key, as they were met.
    pub records: Vec<Record>,
}

impl ProviderMemory {
    /// The record of the key that a provider was seen to have.
    pub fn record(&self, name: &str, kind: ProviderKind) -> Option<&Record> {
        self.records.iter().find(|record| record.is_named(name, kind))
    }

    /// The record of a key.
    pub fn of_key(&self, kind: ProviderKind, identity: &KeyIdentity) -> Option<&Record> {
        self.records.iter().find(|record| record.is_of(kind, identity))
    }

    /// The same, to be changed.
    pub fn of_key_mut(&mut self, kind: ProviderKind, identity: &KeyIdentity) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.is_of(kind, identity))
    }

    /// From now on the provider of this name is a way to this key, and to no other one. Names on the same key that are not
    /// `configured` any more have been replaced by it.
    pub fn put_name(&mut self, name: &str, kind: ProviderKind, seen: &KeyState, configured: impl Fn(&str) -> bool) {
        for record in self.records.iter_mut().filter(|record| record.kind == kind) {
            record.names.remove(name);
        }
        match self.of_key_mut(kind, &seen.identity) {
            Some(record) => {
                record.names.retain(|name| configured(name));
                record.names.insert(name.to_owned());
            }
            None => {
                // Releases up to 0.1 moved one record from key to key: what was left counts again.
                self.records.iter_mut().filter(|record| record.kind == kind).for_each(|record| {
                    record.observed.count_again(seen);
                });
                let names = BTreeSet::from([name.to_owned()]);
                self.records.push(Record { names, kind, observed: Observed::new(seen.clone()) });
            }
        }
    }

    /// Whether this version does not count any more: another one of its key does, or no provider has the key.
    pub fn was_left(&self, part: &Part) -> bool {
        let is_left = |record: &Record| match record.is_of(part.kind, &part.identity) {
            true if record.names.is_empty() => true,
            true | false => record.kind == part.kind && record.observed.has_left(&part.identity, &part.version),
        };
        self.records.iter().any(is_left)
    }

    /// Ends what is reported for something else. What was an epoch never comes back.
    #[must_use]
    pub fn report(&self, next: Reported, cluster: &ClusterId) -> Self {
        let mut roots = self.clone();
        if let Reported::Epoch(epoch) = std::mem::replace(&mut roots.reported, next) {
            roots.left.insert(epoch.key_id(cluster));
        }
        roots
    }

    pub(super) fn write(&self, w: &mut Writer) {
        match &self.reported {
            Reported::LocalKek => drop(w.u8(0)),
            Reported::Epoch(epoch) => {
                w.u8(1);
                epoch.write(w);
            }
        }
        w.u16(count(self.left.len()));
        for key_id in &self.left {
            w.bytes16(key_id.as_str().as_bytes());
        }
        let labels = |record: &Record| record.names.len().max(1);
        w.u16(count(self.records.iter().map(labels).sum()));
        for record in &self.records {
            for name in &record.names {
                record.write(name, w);
            }
            if record.names.is_empty() {
                record.write("", w);
            }
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let reported = match r.u8("reported")? {
            0 => Reported::LocalKek,
            1 => Reported::Epoch(Epoch::read(r)?),
            _ => return Err(WireError::BadValue("reported")),
        };
        let mut left = BTreeSet::new();
        for _ in 0..r.u16("left key_ids")? {
            let key_id: KeyId = r.text16("left key_id")?.parse().map_err(|_| WireError::BadValue("left key_id"))?;
            if left.last().is_some_and(|last| *last >= key_id) {
                return Err(WireError::BadValue("left key_ids"));
            }
            left.insert(key_id);
        }
        let mut records: Vec<Record> = Vec::new();
        for _ in 0..r.u16("providers")? {
            let (name, mut record) = read_record(r)?;
            if !name.is_empty() && !records.iter().any(|known| known.is_named(&name, record.kind)) {
                record.names.insert(name);
            }
            match records.iter_mut().find(|known| known.is_of(record.kind, record.identity())) {
                // Another way to the same key.
                Some(known) => {
                    known.names.append(&mut record.names);
                    known.observed.merge(record.observed);
                }
                None => records.push(record),
            }
        }
        Ok(Self { reported, left, records })
    }
}

impl Record {
    fn write(&self, name: &str, w: &mut Writer) {
        let KeyState { identity, version } = self.observed.current();
        w.bytes16(name.as_bytes()).u8(self.kind as u8);
        w.bytes16(identity.as_str().as_bytes()).bytes16(version.as_str().as_bytes());
        w.u16(count(self.observed.left().count()));
        for (identity, version) in self.observed.left() {
            w.bytes16(identity.as_bytes()).bytes16(version.as_bytes());
        }
    }
}

fn read_record(r: &mut Reader<'_>) -> Result<(String, Record), WireError> {
    let name = r.text16("provider")?.to_owned();
    let kind = read_kind(r)?;
    let current = read_key(r)?;
    let mut left: Vec<(String, String)> = Vec::new();
    for _ in 0..r.u16("left versions")? {
        let KeyState { identity, version } = read_key(r)?;
        let pair = (identity.as_str().to_owned(), version.as_str().to_owned());
        if left.last().is_some_and(|last| *last >= pair) {
            return Err(WireError::BadValue("left versions"));
        }
        left.push(pair);
    }
    Ok((name, Record { names: BTreeSet::new(), kind, observed: Observed::from_parts(current, left) }))
}

fn read_kind(r: &mut Reader<'_>) -> Result<ProviderKind, WireError> {
    ProviderKind::from_number(r.u8("kind")?).ok_or(WireError::BadValue("kind"))
}

fn read_key(r: &mut Reader<'_>) -> Result<KeyState, WireError> {
    let identity = KeyIdentity::new(r.text16("identity")?).map_err(|_| WireError::BadValue("identity"))?;
    let version = KeyVersion::new(r.text16("key version")?).map_err(|_| WireError::BadValue("key version"))?;
    Ok(KeyState { identity, version })
}

/// A rotation a day for 179 years.
fn count(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: ProviderKind, version: &str) -> Part {
        let (identity, version) = (KeyIdentity::new("k").unwrap(), KeyVersion::new(version).unwrap());
        Part { kind, identity, version }
    }

    fn epoch(parts: &[Part]) -> Epoch {
        Epoch { number: 0, parts: parts.iter().cloned().collect() }
    }

    #[test]
    fn a_key_id_depends_on_keys_and_versions_and_on_no_order() {
        let cluster = "c1".parse().unwrap();
        let (a, b) = (part(ProviderKind::Vault, "1"), part(ProviderKind::Aws, "1"));
        let one = epoch(&[a.clone(), b.clone()]).key_id(&cluster);
        // Frozen: all nodes of all releases report the same.
        assert_eq!(one.as_str(), "ns1-a99c644d253c75f417527f0530a7a12996b68545");
        assert_eq!(epoch(&[b.clone(), a.clone()]).key_id(&cluster), one);
        let others = [
            epoch(std::slice::from_ref(&a)),
            epoch(&[a.clone(), part(ProviderKind::Aws, "2")]),
            Epoch { number: 1, ..epoch(&[a, b]) },
        ];
        assert!(others.iter().all(|other| other.key_id(&cluster) != one));
    }

    fn state(identity: &str, version: &str) -> KeyState {
        KeyState { identity: KeyIdentity::new(identity).unwrap(), version: KeyVersion::new(version).unwrap() }
    }

    /// Names by key, where these are configured.
    fn put(roots: &mut ProviderMemory, configured: &[&str], name: &str, seen: &KeyState) {
        roots.put_name(name, ProviderKind::Vault, seen, |name| configured.contains(&name));
    }

    fn names(roots: &ProviderMemory, identity: &str) -> Vec<String> {
        let record = roots.of_key(ProviderKind::Vault, &KeyIdentity::new(identity).unwrap());
        record.map_or_else(Vec::new, |record| record.names.iter().cloned().collect())
    }

    #[test]
    fn a_name_is_a_label_that_a_key_keeps_until_it_has_another_one() {
        let mut roots = ProviderMemory::default();
        put(&mut roots, &["a"], "a", &state("k", "1"));
        put(&mut roots, &["b"], "b", &state("k", "2"));
        assert_eq!((names(&roots, "k"), roots.records.len()), (vec!["b".to_owned()], 1), "it was renamed");
        assert_eq!(roots.records[0].observed.current(), &state("k", "1"), "a name moves no version");
        put(&mut roots, &["b", "c"], "c", &state("k", "1"));
        assert_eq!(names(&roots, "k"), ["b", "c"], "two ways to one key");
        put(&mut roots, &["b", "c"], "b", &state("l", "1"));
        assert_eq!((names(&roots, "k"), names(&roots, "l")), (vec!["c".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn ways_to_one_key_are_read_back_as_one_record_and_one_of_nobody_too() {
        let mut roots = ProviderMemory::default();
        put(&mut roots, &["a", "b", "c"], "a", &state("k", "1"));
        put(&mut roots, &["a", "b", "c"], "b", &state("k", "1"));
        put(&mut roots, &["a", "b", "c"], "c", &state("l", "1"));
        put(&mut roots, &["a", "b", "c"], "c", &state("m", "1"));
        let part = |identity: &str| Part {
            kind: ProviderKind::Vault,
            identity: KeyIdentity::new(identity).unwrap(),
            version: KeyVersion::new("1").unwrap(),
        };
        assert!(roots.was_left(&part("l")) && !roots.was_left(&part("k")));
        let mut w = Writer::new();
        roots.write(&mut w);
        let bytes = w.finish();
        assert_eq!(ProviderMemory::read(&mut Reader::new(&bytes)), Ok(roots));
    }

    #[test]
    fn a_name_that_was_given_to_a_provider_of_another_kind_is_read_back_for_both() {
        let mut roots = ProviderMemory::default();
        for kind in [ProviderKind::Vault, ProviderKind::Aws] {
            roots.put_name("main", kind, &state("k", "1"), |name| name == "main");
        }
        let mut w = Writer::new();
        roots.write(&mut w);
        let read = ProviderMemory::read(&mut Reader::new(&w.finish())).unwrap();
        assert!(read.record("main", ProviderKind::Aws).is_some(), "a start without it would not know its key");
        assert_eq!(read, roots);
    }

    #[test]
    fn records_of_one_key_that_an_earlier_release_has_written_apart_become_one() {
        let left = [("k".to_owned(), "1".to_owned())];
        let record =
            |name: &str, observed| Record { names: [name.to_owned()].into(), kind: ProviderKind::Vault, observed };
        let apart = ProviderMemory {
            records: vec![
                record("a", Observed::new(state("k", "1"))),
                record("b", Observed::from_parts(state("k", "2"), left.clone())),
            ],
            ..ProviderMemory::default()
        };
        let mut w = Writer::new();
        apart.write(&mut w);
        let read = ProviderMemory::read(&mut Reader::new(&w.finish())).unwrap();
        let one = Record {
            names: ["a".to_owned(), "b".to_owned()].into(),
            ..record("", Observed::from_parts(state("k", "2"), left))
        };
        assert_eq!(read.records, [one]);
    }

    #[test]
    fn what_was_left_is_written_and_read_back() {
        let cluster = "c1".parse().unwrap();
        let first = epoch(&[part(ProviderKind::Vault, "1")]);
        let roots = ProviderMemory::default().report(Reported::Epoch(first.clone()), &cluster);
        let roots = roots.report(Reported::Epoch(epoch(&[part(ProviderKind::Vault, "2")])), &cluster);
        assert_eq!(roots.left, BTreeSet::from([first.key_id(&cluster)]));
        let mut w = Writer::new();
        roots.write(&mut w);
        let bytes = w.finish();
        assert_eq!(ProviderMemory::read(&mut Reader::new(&bytes)), Ok(roots));
        for cut in 0..bytes.len() {
            assert!(ProviderMemory::read(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }
}
