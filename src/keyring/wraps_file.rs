//! The files `keyring/<KEK id>.wraps`: the copies of one local KEK that providers made, authenticated under the node root
//! (docs/formats.md, "Wraps").
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | cluster: u16 length, bytes | KEK id | short u64 | born u16 |
//! wraps: u16 count, each u16 length, bytes | MAC, 32 bytes
//! ```
//!
//! `born`: how many of the copies, from the first on, every text of this KEK carries. `short`: how many texts may have been given
//! out with no more than those. A file that is lost costs nothing but asking the
//! providers once more.

use crate::keyring::mac::{HMAC_SHA256, MAC_BYTES, mac};
use crate::keyring::uses::USES_END;
use crate::provider::{KeyIdentity, ProviderKind, Wrapped};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, RootId};

const LABEL: &[u8] = b"nodeseal wraps v1\0";

/// The ending of these files.
pub(super) const SUFFIX: &str = ".wraps";

/// Name of the file inside of the state directory.
pub(super) fn file_name(id: &KekId) -> String {
    format!("{}/{id}{SUFFIX}", super::kek_file::DIR)
}

/// The copies of one KEK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrapSet {
    /// At most one for each key.
    pub wraps: Vec<Wrapped>,
    /// The first so many are those that every text carries.
    pub born: usize,
    /// Texts that were given out with fewer than all; an upper bound.
    pub short: u64,
}

impl WrapSet {
    /// Whether a key has made one of them.
    pub fn has(&self, kind: ProviderKind, identity: &KeyIdentity) -> bool {
        self.wraps.iter().any(|wrap| wrap.is_by(kind, identity))
    }

    /// Adds a copy, in place of an older one by the same key.
    pub fn add(&mut self, wrap: Wrapped) {
        match self.wraps.iter_mut().find(|old| old.is_by(wrap.kind, &wrap.identity)) {
            Some(old) => *old = wrap,
            None => self.wraps.push(wrap),
        }
    }

    /// The copies by which every text of this KEK can be opened elsewhere.
    pub fn of_every_text(&self) -> &[Wrapped] {
        if self.short == 0 { &self.wraps } else { &self.wraps[..self.born] }
    }

    /// The payload of the file.
    pub fn encode(&self, id: &KekId, cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Vec<u8> {
        let mut w = head(id, cluster, root);
        self.write(&mut w);
        let tag = mac(mac_key, &[LABEL, w.as_bytes()]).finalize();
        w.raw(&tag).finish()
    }

    /// Authenticates and reads the payload. A file of another KEK, node or cluster is as good as a damaged one.
    pub fn decode(
        bytes: &[u8],
        id: &KekId,
        cluster: &ClusterId,
        root: &RootId,
        mac_key: &Key,
    ) -> Result<Self, WireError> {
        let (body, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(WireError::Short("MAC"))?;
        if !mac(mac_key, &[LABEL, body]).is(tag) {
            return Err(WireError::BadValue("MAC"));
        }
        let head = head(id, cluster, root).finish();
        let mut r = Reader::new(body.strip_prefix(&head[..]).ok_or(WireError::BadValue("KEK"))?);
        let set = Self::read(&mut r)?;
        r.end()?;
        Ok(set)
    }

    /// The fields from `short` to the last of the wraps.
    pub(super) fn write(&self, w: &mut Writer) {
        w.u64(self.short)
            .u16(u16::try_from(self.born).unwrap_or(u16::MAX))
            .u16(u16::try_from(self.wraps.len()).unwrap_or(u16::MAX));
        for wrap in &self.wraps {
            w.bytes16(&wrap.encode());
        }
    }

    /// The mirror of [`WrapSet::write`].
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (short, born) = (r.u64("short")?, usize::from(r.u16("born")?));
        if short >= USES_END {
            return Err(WireError::BadValue("short"));
        }
        let wraps: Vec<_> =
            (0..r.u16("wraps")?).map(|_| Wrapped::decode(r.bytes16("wrap")?)).collect::<Result<_, _>>()?;
        if born > wraps.len() {
            return Err(WireError::BadValue("born"));
        }
        Ok(Self { wraps, born, short })
    }
}

fn head(id: &KekId, cluster: &ClusterId, root: &RootId) -> Writer {
    let mut w = Writer::new();
    w.u8(HMAC_SHA256).raw(root.as_bytes()).bytes16(cluster.as_str().as_bytes()).raw(id.as_bytes());
    w
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::KeyVersion;
    use crate::types::hex;

    fn key(byte: u8) -> Key {
        Key::copy_of(&[byte; 32]).unwrap()
    }

    fn wrap(identity: &str, text: &[u8]) -> Wrapped {
        let (identity, version) = (KeyIdentity::new(identity).unwrap(), KeyVersion::new("3").unwrap());
        Wrapped::new(ProviderKind::Aws, identity, version, text.to_vec()).unwrap()
    }

    #[test]
    fn frozen_vector_of_version_1_and_no_other_place_takes_it() {
        let set = WrapSet { wraps: vec![wrap("k", b"t")], born: 1, short: 7 };
        let (id, root) = (KekId::from_bytes([2; 16]), RootId::from_bytes([3; 16]));
        let (c1, c2) = ("c1".parse().unwrap(), "c2".parse().unwrap());
        let bytes = set.encode(&id, &c1, &root, &key(4));
        assert_eq!(
            hex::encode(&bytes),
            "0103030303030303030303030303030303000263310202020202020202020202020202020200000000000000070001\
             0001000f4e535752010200016b000133000174adf081bbce155fd0543ff34f4e6da9604c662f9492b7f585af1d4f86\
             7317a581"
        );
        assert_eq!(WrapSet::decode(&bytes, &id, &c1, &root, &key(4)), Ok(set));
        assert!(WrapSet::decode(&bytes, &KekId::from_bytes([9; 16]), &c1, &root, &key(4)).is_err());
        assert!(WrapSet::decode(&bytes, &id, &c2, &root, &key(4)).is_err());
        assert!(WrapSet::decode(&bytes, &id, &c1, &root, &key(5)).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(WrapSet::decode(&bad, &id, &c1, &root, &key(4)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn one_key_has_one_copy() {
        let mut set = WrapSet::default();
        ["1", "2", "3"].iter().for_each(|text| set.add(wrap("k", text.as_bytes())));
        set.add(wrap("other", b"4"));
        assert_eq!(set.wraps, [wrap("k", b"3"), wrap("other", b"4")]);
    }
}
