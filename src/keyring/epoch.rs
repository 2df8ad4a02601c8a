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

/// What is known of one provider's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In the configuration. A hint where to look first, and nothing more.
    pub name: String,
    /// Of the provider.
    pub kind: ProviderKind,
    /// The version that counts, and those that were left.
    pub observed: Observed,
}

/// Everything that is remembered of providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Now.
    pub reported: Reported,
    /// key_ids of epochs that have ended. Those of local KEKs never come back by themselves.
    pub left: BTreeSet<KeyId>,
    /// By provider, as they were met.
    pub records: Vec<Record>,
}

impl Roots {
    /// The record of a provider: of its name and kind.
    pub fn record(&self, name: &str, kind: ProviderKind) -> Option<&Record> {
        self.records.iter().find(|record| record.name == name && record.kind == kind)
    }

    /// The same, to be changed; a provider that was renamed brings its record along by the identity of its key.
    pub fn record_mut(&mut self, name: &str, kind: ProviderKind, seen: &KeyIdentity) -> Option<&mut Record> {
        let by_name = |record: &Record| record.name == name && record.kind == kind;
        let by_key = |record: &Record| record.kind == kind && record.observed.current().identity == *seen;
        let at = self.records.iter().position(by_name).or_else(|| self.records.iter().position(by_key))?;
        let record = &mut self.records[at];
        name.clone_into(&mut record.name);
        Some(record)
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
        w.u16(count(self.records.len()));
        for Record { name, kind, observed } in &self.records {
            let KeyState { identity, version } = observed.current();
            w.bytes16(name.as_bytes()).u8(*kind as u8);
            w.bytes16(identity.as_str().as_bytes()).bytes16(version.as_str().as_bytes());
            w.u16(count(observed.left().count()));
            for (identity, version) in observed.left() {
                w.bytes16(identity.as_bytes()).bytes16(version.as_bytes());
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
        let records = (0..r.u16("providers")?).map(|_| read_record(r)).collect::<Result<_, _>>()?;
        Ok(Self { reported, left, records })
    }
}

fn read_record(r: &mut Reader<'_>) -> Result<Record, WireError> {
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
    Ok(Record { name, kind, observed: Observed::from_parts(current, left) })
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

    #[test]
    fn a_renamed_provider_keeps_its_record_and_a_new_key_of_a_name_stays_with_it() {
        let state = |identity: &str| KeyState {
            identity: KeyIdentity::new(identity).unwrap(),
            version: KeyVersion::new("1").unwrap(),
        };
        let record = Record { name: "a".into(), kind: ProviderKind::Vault, observed: Observed::new(state("k")) };
        let mut roots = Roots { records: vec![record], ..Roots::default() };
        let found = |roots: &mut Roots, name: &str, identity: &str| {
            roots.record_mut(name, ProviderKind::Vault, &KeyIdentity::new(identity).unwrap()).is_some()
        };
        assert!(!found(&mut roots, "b", "other"));
        assert!(found(&mut roots, "b", "k") && found(&mut roots, "b", "other"));
        assert!(roots.record("b", ProviderKind::Vault).is_some() && roots.record("a", ProviderKind::Vault).is_none());
    }

    #[test]
    fn what_was_left_is_written_and_read_back() {
        let cluster = "c1".parse().unwrap();
        let first = epoch(&[part(ProviderKind::Vault, "1")]);
        let roots = Roots::default().report(Reported::Epoch(first.clone()), &cluster);
        let roots = roots.report(Reported::Epoch(epoch(&[part(ProviderKind::Vault, "2")])), &cluster);
        assert_eq!(roots.left, BTreeSet::from([first.key_id(&cluster)]));
        let mut w = Writer::new();
        roots.write(&mut w);
        let bytes = w.finish();
        assert_eq!(Roots::read(&mut Reader::new(&bytes)), Ok(roots));
        for cut in 0..bytes.len() {
            assert!(Roots::read(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }
}
