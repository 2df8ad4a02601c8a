//! The whole keyring as bytes, keys in clear: what a recovery file and a bundle hold inside of their encryption (docs/formats.md,
//! "Keyring export"). Pure, and total over any bytes.
//!
//! ```text
//! "NSEALEXP" | version u16 (1) | cluster: u16 length, bytes | written u64 | ring, as in `state` version 4 |
//! keys: u16 count, each KEK id, 16 bytes | KEK, 32 bytes
//!
//! "NSEALEXP" | version u16 (2) | cluster: u16 length, bytes | written u64 | roots, as in `state` version 3 |
//! ring and keys, as in version 1 | copies: u16 count, each KEK id | short to wraps, as in a file of wraps |
//! maker, 32 bytes | signature, 64 bytes
//! ```
//!
//! Version 1 is what a bundle holds to this day: what a node remembers of its providers is its own and does not travel. A recovery
//! file holds version 2, and one of an older release version 1.
//!
//! Destroyed KEKs are listed in the ring and have no key; a KEK whose sealed copy did not open has none either.

use super::attached::Check;
use super::epoch::ProviderMemory;
use super::maker::{MAKER_BYTES, Maker, MakerKey, SIGNATURE_BYTES};
use super::ring::bytes::{VERSION_4, read_ring, write_ring};
use super::ring::{KekState, Ring};
use super::wraps_file::WrapSet;
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, Secret};

const MAGIC: &[u8; 8] = b"NSEALEXP";
const UNSIGNED: u16 = 1;
const SIGNED: u16 = 2;
/// The newest version; all before it are read too.
pub const NEWEST: u16 = SIGNED;

/// A keyring outside of its state directory.
pub struct Export {
    /// Where it is valid.
    pub cluster: ClusterId,
    /// When it was taken.
    pub written: UnixSeconds,
    /// What its node remembers of providers. Nothing in version 1.
    pub roots: ProviderMemory,
    /// All KEKs.
    pub ring: Ring,
    /// Their keys.
    pub keys: Vec<(KekId, Key)>,
    /// The providers' copies of KEKs that encrypt or are about to. None in version 1.
    pub copies: Vec<(KekId, WrapSet)>,
}

impl Export {
    /// What goes to another node: version 1, without memory and copies. As secret as the keys.
    pub fn encode_unsigned(&self) -> Secret {
        let mut head = self.head(UNSIGNED);
        // A KEK that was given up and not left, for another node would take it for one that nobody turns to any more.
        write_ring(&mut head, &self.ring);
        self.with_keys(&head.finish(), &[])
    }

    /// What the node keeps for itself: version 2, everything, signed. As secret as the keys.
    pub fn encode_signed(&self, maker: &MakerKey) -> Secret {
        let mut head = self.head(SIGNED);
        self.roots.write(&mut head);
        write_ring(&mut head, &self.ring);
        let mut tail = Writer::new();
        let count = u16::try_from(self.copies.len()).unwrap_or(u16::MAX);
        tail.u16(count);
        for (id, set) in self.copies.iter().take(usize::from(count)) {
            tail.raw(id.as_bytes());
            set.write(&mut tail);
        }
        tail.raw(maker.maker().as_bytes());
        let text = self.with_keys(&head.finish(), tail.as_bytes());
        let mut bytes = Vec::with_capacity(text.expose().len() + SIGNATURE_BYTES);
        bytes.extend_from_slice(text.expose());
        bytes.extend_from_slice(&maker.sign(text.expose()));
        Secret::new(bytes)
    }

    fn head(&self, version: u16) -> Writer {
        let mut head = Writer::new();
        head.raw(MAGIC).u16(version).bytes16(self.cluster.as_str().as_bytes()).u64(self.written);
        head
    }

    fn with_keys(&self, head: &[u8], tail: &[u8]) -> Secret {
        // Never grows: a buffer that moves leaves keys behind.
        let keys = self.keys.len() * (KekId::LEN + Key::LEN);
        let mut bytes = Vec::with_capacity(head.len() + 2 + keys + tail.len());
        bytes.extend_from_slice(head);
        // The ring holds at most 131,072 KEKs, the state file far fewer (`store::container::PAYLOAD_MAX_BYTES`).
        let count = u16::try_from(self.keys.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for (id, key) in self.keys.iter().take(usize::from(count)) {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(key.expose());
        }
        bytes.extend_from_slice(tail);
        Secret::new(bytes)
    }

    /// The mirror of [`Export::encode_unsigned`]. Refuses keys that the ring does not list, twice or as destroyed ones.
    pub fn decode_unsigned(bytes: &[u8]) -> Result<Self, WireError> {
        match Self::decode(bytes)? {
            (export, None) => Ok(export),
            (_, Some(_)) => Err(WireError::BadValue("version")),
        }
    }

    /// Either version, and who made it, if it says so. Whether that is who it should be is for the operator to say.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Option<Maker>), WireError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != *MAGIC {
            return Err(WireError::BadValue("magic"));
        }
        match r.u16("version")? {
            UNSIGNED => Ok((Self::read(UNSIGNED, r)?, None)),
            SIGNED => {
                let (text, signature) =
                    bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(WireError::Short("signature"))?;
                let (_, maker) = text.split_last_chunk::<MAKER_BYTES>().ok_or(WireError::Short("maker"))?;
                let maker = Maker::from_bytes(*maker);
                if !maker.has_signed(text, signature) {
                    return Err(WireError::BadValue("signature"));
                }
                Ok((Self::read(SIGNED, r)?, Some(maker)))
            }
            _ => Err(WireError::BadValue("version")),
        }
    }

    fn read(version: u16, mut r: Reader<'_>) -> Result<Self, WireError> {
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let written = r.time("written")?;
        let roots = if version == UNSIGNED { ProviderMemory::default() } else { ProviderMemory::read(&mut r)? };
        // Version 2 of a ring has nothing that version 4 has not.
        let ring = read_ring(VERSION_4, &mut r)?;
        let is_listed =
            |id: &KekId| ring.entries().any(|(entry, state)| entry.id == *id && state != KekState::Destroyed);
        let mut keys: Vec<(KekId, Key)> = Vec::new();
        for _ in 0..r.u16("keys")? {
            let id = KekId::from_bytes(r.array("KEK id")?);
            let key = Key::copy_of(r.take(Key::LEN, "KEK")?).ok_or(WireError::Short("KEK"))?;
            if !is_listed(&id) || keys.iter().any(|(known, _)| *known == id) {
                return Err(WireError::BadValue("KEK"));
            }
            keys.push((id, key));
        }
        let mut copies: Vec<(KekId, WrapSet)> = Vec::new();
        if version != UNSIGNED {
            for _ in 0..r.u16("copies")? {
                let id = KekId::from_bytes(r.array("KEK id of copies")?);
                let set = WrapSet::read(&mut r)?;
                if !is_listed(&id) || copies.iter().any(|(known, _)| *known == id) {
                    return Err(WireError::BadValue("copies"));
                }
                copies.push((id, set));
            }
            r.take(MAKER_BYTES + SIGNATURE_BYTES, "signature")?;
        }
        r.end()?;
        Ok(Self { cluster, written, roots, ring, keys, copies })
    }

    /// KEKs that should decrypt and whose key is not in here.
    pub fn lacking(&self) -> Vec<KekId> {
        let has = |id: &KekId| self.keys.iter().any(|(known, _)| known == id);
        let wanted = self.ring.entries().filter(|(_, state)| *state != KekState::Destroyed);
        wanted.map(|(entry, _)| entry.id).filter(|id| !has(id)).collect()
    }

    /// The check value of each key, in hexadecimal, as `KekRow` has it. It tells one key from another, and nothing of either.
    pub fn checks(&self) -> Vec<(KekId, String)> {
        self.keys.iter().map(|(id, key)| (*id, Check::of(id, key.expose()).to_hex())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::{Epoch, Part, Record, Reported};
    use super::super::ring::{Entry, RetireTo};
    use super::*;
    use crate::provider::observed::Observed;
    use crate::provider::{KeyIdentity, KeyState, KeyVersion, ProviderKind, Wrapped};
    use crate::types::hex;

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
        let (roots, copies) = (ProviderMemory::default(), Vec::new());
        Export { cluster: "c1".parse().unwrap(), written: 8, roots, ring, keys, copies }
    }

    /// With what version 2 has more.
    fn rooted() -> Export {
        let cluster = "c1".parse().unwrap();
        let at = |version: &str| (KeyIdentity::new("k").unwrap(), KeyVersion::new(version).unwrap());
        let epoch = |version: &str| {
            let (identity, version) = at(version);
            Reported::Epoch(Epoch { number: 0, parts: [Part { kind: ProviderKind::Vault, identity, version }].into() })
        };
        let (identity, version) = at("2");
        let observed = Observed::new(KeyState { identity: identity.clone(), version: version.clone() });
        let records = vec![Record { names: ["vault".to_owned()].into(), kind: ProviderKind::Vault, observed }];
        let roots = ProviderMemory { records, ..ProviderMemory::default() }
            .report(epoch("1"), &cluster)
            .report(epoch("2"), &cluster);
        let wrap = Wrapped::new(ProviderKind::Vault, identity, version, b"t".to_vec()).unwrap();
        let copies = vec![(entry(2).id, WrapSet { wraps: vec![wrap], born: 1, short: 7 })];
        Export { roots, copies, ..export() }
    }

    fn maker() -> MakerKey {
        MakerKey::new(&key(9))
    }

    #[test]
    fn frozen_vector_of_version_1() {
        let bytes = rooted().encode_unsigned();
        assert_eq!(
            hex::encode(bytes.expose()),
            "4e5345414c45585000010002633100000000000000080000000000000006020202020202020202020202020202020000\
             000000000002000000000000000901000000020101010101010101010101010101010100000000000000010000000000\
             000009000000000000000006010303030303030303030303030303030300000000000000030000000000000009000000\
             000000000007030002010101010101010101010101010101010b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
             0b0b0b0b0b0b0b0b0b020202020202020202020202020202020c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\
             0c0c0c0c0c0c0c0c0c"
        );
        let (back, maker) = Export::decode(bytes.expose()).unwrap();
        assert_eq!((&back.roots, back.copies.len(), maker), (&ProviderMemory::default(), 0, None));
        assert_eq!((back.written, &back.ring, back.lacking()), (8, &export().ring, vec![]));
        assert!(back.keys.iter().zip(export().keys).all(|(a, b)| a.0 == b.0 && a.1.expose() == b.1.expose()));
    }

    #[test]
    fn keys_that_the_ring_does_not_list_or_calls_destroyed_are_refused() {
        for stranger in [entry(9).id, entry(3).id, entry(1).id] {
            let mut bad = export();
            bad.keys.push((stranger, key(1)));
            for bytes in [bad.encode_unsigned(), bad.encode_signed(&maker())] {
                assert_eq!(Export::decode(bytes.expose()).err(), Some(WireError::BadValue("KEK")));
            }
            let mut bad = rooted();
            let again = if stranger == entry(1).id { entry(2).id } else { stranger };
            bad.copies.push((again, WrapSet::default()));
            let refused = Export::decode(bad.encode_signed(&maker()).expose()).err();
            assert_eq!(refused, Some(WireError::BadValue("copies")));
        }
        for good in [export().encode_unsigned(), rooted().encode_signed(&maker())] {
            for cut in 0..good.expose().len() {
                assert!(Export::decode(&good.expose()[..cut]).is_err());
            }
        }
    }

    #[test]
    fn frozen_vector_of_version_2_and_any_flipped_bit_is_refused() {
        let bytes = rooted().encode_signed(&maker());
        assert_eq!(
            hex::encode(bytes.expose()),
            "4e5345414c4558500002000263310000000000000008010000000000010100016b0001320001002c6e73312d32663165\
             383631643834346132663632316561346132353832333233313731363563333733363563000100057661756c74010001\
             6b0001320000000000000000000602020202020202020202020202020202000000000000000200000000000000090100\
             000002010101010101010101010101010101010000000000000001000000000000000900000000000000000601030303\
             030303030303030303030303030000000000000003000000000000000900000000000000000703000201010101010101\
             0101010101010101010b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b02020202020202\
             0202020202020202020c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c00010202020202\
             0202020202020202020202000000000000000700010001000f4e535752010100016b000132000174fd1724385aa0c75b\
             64fb78cd602fa1d991fdebf76b13c58ed702eac835e9f6184ba10d0b457735ad95e116013cf5a9ea653b7789112e2fce\
             9234e90958c5469febeca1e58d4ddef1bea14a3fac5f5d16a523cb37e34d1a4da6be69b913058e00"
        );
        let (back, made_by) = Export::decode(bytes.expose()).unwrap();
        assert_eq!((back.roots, back.ring, back.copies), (rooted().roots, rooted().ring, rooted().copies));
        assert_eq!(made_by, Some(maker().maker()));
        for bit in (0..bytes.expose().len() * 8).step_by(3) {
            let mut bad = bytes.expose().to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Export::decode(&bad).is_err(), "bit {bit}");
        }
        let refused = Export::decode_unsigned(bytes.expose()).err();
        assert_eq!(refused, Some(WireError::BadValue("version")), "a bundle brings no memory along");
    }

    #[test]
    fn a_file_that_somebody_else_has_signed_names_somebody_else() {
        let other = MakerKey::new(&key(8));
        let (_, made_by) = Export::decode(rooted().encode_signed(&other).expose()).unwrap();
        assert_eq!(made_by, Some(other.maker()));
        assert!(!other.maker().is(&maker().maker().fingerprint()));
        assert!(other.maker().is(&other.maker().fingerprint().to_uppercase().replace('-', " ")));
    }

    #[test]
    fn numbers_that_no_node_writes_are_refused() {
        const LAST: u64 = 253_402_300_799;
        let ring = |created, uses_reserved, activated, since| {
            let entry = |byte| Entry { created, uses_reserved, ..entry(byte) };
            let ring = Ring::new(entry(1), since).with_pending(entry(2)).unwrap();
            let ring = ring.activate(&entry(2).id, since).unwrap();
            Ring::from_parts(ring.active().clone(), activated, Vec::new(), ring.former().to_vec()).unwrap()
        };
        let read = |written, ring| {
            let export = Export { written, ring, keys: Vec::new(), ..export() };
            let unsigned = Export::decode(export.encode_unsigned().expose()).map(|(read, _)| read.written);
            assert_eq!(Export::decode(export.encode_signed(&maker()).expose()).map(|(read, _)| read.written), unsigned);
            unsigned
        };
        let good = ring(LAST, 1 << 32, LAST, LAST);
        assert_eq!(read(LAST, good.clone()), Ok(LAST));
        for (written, ring, field) in [
            (LAST + 1, good, "written"),
            (LAST, ring(LAST + 1, 0, 0, 0), "created"),
            (LAST, ring(0, u64::MAX, 0, 0), "uses"),
            (LAST, ring(0, 0, LAST + 1, 0), "activated"),
            (LAST, ring(0, 0, 0, u64::MAX), "since"),
        ] {
            assert_eq!(read(written, ring), Err(WireError::BadValue(field)));
        }
    }

    #[test]
    fn no_sum_of_texts_short_of_copies_overflows() {
        let mut bad = rooted();
        bad.copies[0].1.short = u64::MAX;
        let refused = Export::decode(bad.encode_signed(&maker()).expose()).err();
        assert_eq!(refused, Some(WireError::BadValue("short")));
    }

    #[test]
    fn a_kek_that_was_found_is_one_in_a_recovery_file_and_in_a_bundle() {
        let found = Export { ring: export().ring.with_found(entry(7), 9), ..export() };
        let maker = MakerKey::new(&key(1));
        let (back, _) = Export::decode(found.encode_signed(&maker).expose()).unwrap();
        assert_eq!(back.ring, found.ring);
        let back = Export::decode_unsigned(found.encode_unsigned().expose()).unwrap();
        assert_eq!(back.ring, found.ring);
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut bare = export();
        bare.keys.clear();
        assert_eq!(bare.lacking().len(), 2, "not the destroyed one");
    }
}
