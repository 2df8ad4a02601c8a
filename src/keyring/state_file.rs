//! The file `state`: the ring of local KEKs and their use counters, authenticated under the node root (docs/formats.md, "State").
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | cluster: u16 length, bytes | generation u64 |
//! activated u64 | active: entry | pending: u16 count, entries | former: u16 count, each entry | since u64 | state u8 | MAC, 32 bytes
//! entry = KEK id, 16 bytes | created u64 | uses reserved u64
//! ```
//!
//! key_ids are not stored: in the mode without providers each is a function of cluster and KEK id, and the record of every KEK
//! that ever was stays in the file.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::ring::{Entry, Former, FormerState, Ring};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, RootId};

const HMAC_SHA256: u8 = 1;
const MAC_BYTES: usize = 32;
const SHA256_BLOCK_BYTES: usize = 64;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Grows by one with each write.
    pub generation: u64,
    /// All local KEKs.
    pub ring: Ring,
}

/// Why the file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Of another cluster.
    #[error("the state belongs to cluster `{0}`")]
    Cluster(String),
    /// Cut or changed.
    #[error("the state cannot be read")]
    Format(#[source] WireError),
    /// Changed by somebody without the node root.
    #[error("the state does not authenticate under this node's root")]
    Mac,
    /// Of another node root.
    #[error("the state belongs to node root {0}")]
    Root(RootId),
}

impl State {
    /// The payload of the file.
    pub(super) fn encode(&self, cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(HMAC_SHA256).raw(root.as_bytes()).bytes16(cluster.as_str().as_bytes()).u64(self.generation);
        w.u64(self.ring.activated());
        write_entry(&mut w, self.ring.active());
        w.u16(u16::from(self.ring.pending().is_some()));
        if let Some(entry) = self.ring.pending() {
            write_entry(&mut w, entry);
        }
        // 65,535 rotations are 16,000 years of them at the default age.
        w.u16(u16::try_from(self.ring.former().len()).unwrap_or(u16::MAX));
        for former in self.ring.former().iter().take(usize::from(u16::MAX)) {
            write_entry(&mut w, &former.entry);
            w.u64(former.since).u8(match former.state {
                FormerState::Deactivated => 1,
                FormerState::Compromised => 2,
                FormerState::Destroyed => 3,
            });
        }
        let tag = mac(mac_key, w.as_bytes()).finalize().into_bytes();
        w.raw(&tag).finish()
    }

    /// Authenticates and reads the payload.
    pub(super) fn decode(bytes: &[u8], cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Result<Self, StateError> {
        let (body, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(StateError::Format(WireError::Short("MAC")))?;
        let mut r = Reader::new(body);
        let stored_root = read_head(&mut r, cluster)?;
        if stored_root != *root {
            return Err(StateError::Root(stored_root));
        }
        mac(mac_key, body).verify(tag.into()).map_err(|_| StateError::Mac)?;
        read_body(r).map_err(StateError::Format)
    }
}

fn mac(key: &Key, bytes: &[u8]) -> Hmac<Sha256> {
    // RFC 2104 §2: a key shorter than the block is padded with zeros.
    let mut block = zeroize::Zeroizing::new([0; SHA256_BLOCK_BYTES]);
    block[..Key::LEN].copy_from_slice(key.expose());
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    mac.update(bytes);
    mac
}

fn read_head(r: &mut Reader<'_>, cluster: &ClusterId) -> Result<RootId, StateError> {
    if r.u8("algorithm").map_err(StateError::Format)? != HMAC_SHA256 {
        return Err(StateError::Format(WireError::BadValue("algorithm")));
    }
    let root = RootId::from_bytes(r.array("root id").map_err(StateError::Format)?);
    let stored = r.text16("cluster").map_err(StateError::Format)?;
    if stored != cluster.as_str() {
        return Err(StateError::Cluster(stored.to_owned()));
    }
    Ok(root)
}

fn read_body(mut r: Reader<'_>) -> Result<State, WireError> {
    let generation = r.u64("generation")?;
    let activated = r.u64("activated")?;
    let active = read_entry(&mut r)?;
    let pending = (0..r.u16("pending")?).map(|_| read_entry(&mut r)).collect::<Result<_, _>>()?;
    let former = (0..r.u16("former")?).map(|_| read_former(&mut r)).collect::<Result<_, _>>()?;
    r.end()?;
    let ring = Ring::from_parts(active, activated, pending, former).ok_or(WireError::BadValue("ring"))?;
    Ok(State { generation, ring })
}

fn write_entry(w: &mut Writer, entry: &Entry) {
    w.raw(entry.id.as_bytes()).u64(entry.created).u64(entry.uses_reserved);
}

fn read_entry(r: &mut Reader<'_>) -> Result<Entry, WireError> {
    let id = KekId::from_bytes(r.array("KEK id")?);
    Ok(Entry { id, created: r.u64("created")?, uses_reserved: r.u64("uses")? })
}

fn read_former(r: &mut Reader<'_>) -> Result<Former, WireError> {
    let entry = read_entry(r)?;
    let since = r.u64("since")?;
    let state = match r.u8("state")? {
        1 => FormerState::Deactivated,
        2 => FormerState::Compromised,
        3 => FormerState::Destroyed,
        _ => return Err(WireError::BadValue("state")),
    };
    Ok(Former { entry, since, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::copy_of(&[byte; 32]).unwrap()
    }

    fn entry(byte: u8) -> Entry {
        Entry { id: KekId::from_bytes([byte; 16]), created: u64::from(byte), uses_reserved: 65_536 }
    }

    fn state() -> State {
        let ring = Ring::new(entry(1), 5).with_pending(entry(2)).unwrap().activate(&entry(2).id, 6).unwrap();
        State { generation: 3, ring: ring.with_pending(entry(3)).unwrap() }
    }

    const ROOT: RootId = RootId::from_bytes([9; 16]);

    #[test]
    fn frozen_vector_of_version_1() {
        let cluster = "c1".parse().unwrap();
        let bytes = state().encode(&cluster, &ROOT, &key(7));
        assert_eq!(
            hex::encode(&bytes),
            "010909090909090909090909090909090900026331000000000000000300000000000000060202020202020202020202\
        020202020200000000000000020000000000010000000103030303030303030303030303030303000000000000000300\
        000000000100000001010101010101010101010101010101010000000000000001000000000001000000000000000000\
        06014acdaac2dbd21ed3397b4d08fd2fd730a7518a1c19fb46ef12f37508c71657d6"
        );
        assert_eq!(State::decode(&bytes, &cluster, &ROOT, &key(7)), Ok(state()));
    }

    #[test]
    fn a_state_of_another_cluster_or_root_is_named_and_a_changed_one_refused() {
        let (c1, c2): (ClusterId, ClusterId) = ("c1".parse().unwrap(), "c2".parse().unwrap());
        let bytes = state().encode(&c1, &ROOT, &key(7));
        assert_eq!(State::decode(&bytes, &c2, &ROOT, &key(7)), Err(StateError::Cluster("c1".into())));
        let other = RootId::from_bytes([8; 16]);
        assert_eq!(State::decode(&bytes, &c1, &other, &key(7)), Err(StateError::Root(ROOT)));
        assert_eq!(State::decode(&bytes, &c1, &ROOT, &key(6)), Err(StateError::Mac));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(State::decode(&bad, &c1, &ROOT, &key(7)).is_err(), "bit {bit}");
        }
    }
}
