//! The whole keyring as bytes, keys in clear: what a recovery file and a bundle hold inside of their encryption (docs/formats.md,
//! "Keyring export"). Pure, and total over any bytes.
//!
//! ```text
//! "NSEALEXP" | version u16 (1) | cluster: u16 length, bytes | written u64 | ring, as in `state` version 2 |
//! keys: u16 count, each KEK id, 16 bytes | KEK, 32 bytes
//! ```
//!
//! Destroyed KEKs are listed in the ring and have no key; a KEK whose sealed copy did not open has none either.

use super::ring::bytes::{VERSION_2, read_ring, write_ring};
use super::ring::{KekState, Ring};
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, Secret};

const MAGIC: &[u8; 8] = b"NSEALEXP";
const VERSION: u16 = 1;

/// A keyring outside of its state directory.
pub struct Export {
    /// Where it is valid.
    pub cluster: ClusterId,
    /// When it was taken.
    pub written: UnixSeconds,
    /// All KEKs.
    pub ring: Ring,
    /// Their keys.
    pub keys: Vec<(KekId, Key)>,
}

impl Export {
    /// The bytes, which are as secret as the keys.
    pub fn encode(&self) -> Secret {
        let mut head = Writer::new();
        head.raw(MAGIC).u16(VERSION).bytes16(self.cluster.as_str().as_bytes()).u64(self.written);
        write_ring(&mut head, &self.ring);
        let head = head.finish();
        // Never grows: a buffer that moves leaves keys behind.
        let mut bytes = Vec::with_capacity(head.len() + 2 + self.keys.len() * (KekId::LEN + Key::LEN));
        bytes.extend_from_slice(&head);
        // The ring holds at most 131,072 KEKs, the state file far fewer (`store::container::PAYLOAD_MAX_BYTES`).
        let count = u16::try_from(self.keys.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for (id, key) in self.keys.iter().take(usize::from(count)) {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(key.expose());
        }
        Secret::new(bytes)
    }

    /// The mirror of [`Export::encode`]. Refuses keys that the ring does not list, twice or as destroyed ones.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != *MAGIC {
            return Err(WireError::BadValue("magic"));
        }
        if r.u16("version")? != VERSION {
            return Err(WireError::BadValue("version"));
        }
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let written = r.u64("written")?;
        let ring = read_ring(VERSION_2, &mut r)?;
        let mut keys: Vec<(KekId, Key)> = Vec::new();
        for _ in 0..r.u16("keys")? {
            let id = KekId::from_bytes(r.array("KEK id")?);
            let key = Key::copy_of(r.take(Key::LEN, "KEK")?).ok_or(WireError::Short("KEK"))?;
            let is_listed = ring.entries().any(|(entry, state)| entry.id == id && state != KekState::Destroyed);
            if !is_listed || keys.iter().any(|(known, _)| *known == id) {
                return Err(WireError::BadValue("KEK"));
            }
            keys.push((id, key));
        }
        r.end()?;
        Ok(Self { cluster, written, ring, keys })
    }

    /// KEKs that should decrypt and whose key is not in here.
    pub fn lacking(&self) -> Vec<KekId> {
        let has = |id: &KekId| self.keys.iter().any(|(known, _)| known == id);
        let wanted = self.ring.entries().filter(|(_, state)| *state != KekState::Destroyed);
        wanted.map(|(entry, _)| entry.id).filter(|id| !has(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::{Entry, RetireTo};
    use super::*;

    fn entry(byte: u8) -> Entry {
        Entry { id: KekId::from_bytes([byte; 16]), created: u64::from(byte), uses_reserved: 9, shared: byte == 2 }
    }

    fn key(byte: u8) -> Key {
        Key::copy_of(&[byte; 32]).unwrap()
    }

    fn export() -> Export {
        let ring = Ring::new(entry(1), 5).with_pending(entry(2)).unwrap().activate(&entry(2).id, 6).unwrap();
        let ring = ring.with_pending(entry(3)).unwrap().retire(&entry(3).id, RetireTo::Destroyed, 7).unwrap();
        let keys = vec![(entry(1).id, key(11)), (entry(2).id, key(12))];
        Export { cluster: "c1".parse().unwrap(), written: 8, ring, keys }
    }

    #[test]
    fn frozen_vector_of_version_1() {
        let bytes = export().encode();
        assert_eq!(
            hex::encode(bytes.expose()),
            "4e5345414c45585000010002633100000000000000080000000000000006020202020202020202020202020202020000\
             000000000002000000000000000901000000020101010101010101010101010101010100000000000000010000000000\
             000009000000000000000006010303030303030303030303030303030300000000000000030000000000000009000000\
             000000000007030002010101010101010101010101010101010b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
             0b0b0b0b0b0b0b0b0b020202020202020202020202020202020c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\
             0c0c0c0c0c0c0c0c0c"
        );
        let back = Export::decode(bytes.expose()).unwrap();
        assert_eq!((back.written, &back.ring, back.lacking()), (8, &export().ring, vec![]));
        assert!(back.keys.iter().zip(export().keys).all(|(a, b)| a.0 == b.0 && a.1.expose() == b.1.expose()));
    }

    #[test]
    fn keys_that_the_ring_does_not_list_or_calls_destroyed_are_refused() {
        for stranger in [entry(9).id, entry(3).id, entry(1).id] {
            let mut bad = export();
            bad.keys.push((stranger, key(1)));
            assert_eq!(Export::decode(bad.encode().expose()).err(), Some(WireError::BadValue("KEK")));
        }
        let good = export().encode();
        for cut in 0..good.expose().len() {
            assert!(Export::decode(&good.expose()[..cut]).is_err());
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut bare = export();
        bare.keys.clear();
        assert_eq!(bare.lacking().len(), 2, "not the destroyed one");
    }
}
