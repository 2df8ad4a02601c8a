//! The file `state`: the ring of local KEKs and their use counters, authenticated under the node root (docs/formats.md, "State").
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | cluster: u16 length, bytes | generation u64 |
//! written u64 | guard: u8, and if 1: NV index u32, expected u64 | recovery recipients: u8 count, each u16 length, bytes |
//! roots, as `epoch` has it |
//! ring, as `ring::bytes` has it | MAC, 32 bytes
//! ```
//!
//! Version 1, which the first release wrote, has not the line from `written` on, and version 2 not that of the roots.
//!
//! key_ids of local KEKs are not stored: each is a function of cluster and KEK id, and the record of every KEK that ever was stays
//! in the file. Those of providers' keys are: what was left must not come back.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::epoch::Roots;
use super::recovery::Recipient;
use super::ring::Ring;
use super::ring::bytes::{VERSION_1, VERSION_2, read_ring, write_ring};
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, Key, RootId};

pub(super) const HMAC_SHA256: u8 = 1;
pub(super) const MAC_BYTES: usize = 32;
const SHA256_BLOCK_BYTES: usize = 64;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Grows by one with each write.
    pub generation: u64,
    /// When it was written.
    pub written: UnixSeconds,
    /// What tells an old copy of this file, if the operator wants that.
    pub guard: Option<Guard>,
    /// Whom the recovery file is encrypted to. Empty: the operator refused one.
    pub recipients: Vec<Recipient>,
    /// What the key_id names, and what is known of providers.
    pub roots: Roots,
    /// All local KEKs.
    pub ring: Ring,
}

/// The TPM's counter that this file must agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// NV index.
    pub index: u32,
    /// What the counter reads, or is about to read, when this file is the newest.
    pub expected: u64,
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
    pub fn encode(&self, cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(HMAC_SHA256).raw(root.as_bytes()).bytes16(cluster.as_str().as_bytes()).u64(self.generation);
        w.u64(self.written);
        match self.guard {
            None => w.u8(0),
            Some(Guard { index, expected }) => w.u8(1).u32(index).u64(expected),
        };
        w.u8(u8::try_from(self.recipients.len()).unwrap_or(u8::MAX));
        for recipient in self.recipients.iter().take(usize::from(u8::MAX)) {
            w.bytes16(recipient.to_string().as_bytes());
        }
        self.roots.write(&mut w);
        write_ring(&mut w, &self.ring);
        let tag = mac(mac_key, &[w.as_bytes()]).finalize();
        w.raw(&tag).finish()
    }

    /// Authenticates and reads the payload.
    pub fn decode(
        version: u8,
        bytes: &[u8],
        cluster: &ClusterId,
        root: &RootId,
        mac_key: &Key,
    ) -> Result<Self, StateError> {
        let (body, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(StateError::Format(WireError::Short("MAC")))?;
        let mut r = Reader::new(body);
        let stored_root = read_head(&mut r, cluster)?;
        if stored_root != *root {
            return Err(StateError::Root(stored_root));
        }
        if !mac(mac_key, &[body]).is(tag) {
            return Err(StateError::Mac);
        }
        read_body(version, r).map_err(StateError::Format)
    }
}

/// A MAC that is about to be written or compared.
pub(super) struct Tag(Hmac<Sha256>);

impl Tag {
    pub(super) fn finalize(self) -> [u8; MAC_BYTES] {
        self.0.finalize().into_bytes().into()
    }

    /// In constant time.
    pub(super) fn is(self, stored: &[u8; MAC_BYTES]) -> bool {
        self.0.verify(stored.into()).is_ok()
    }
}

/// Over all pieces, one behind the other.
pub(super) fn mac(key: &Key, pieces: &[&[u8]]) -> Tag {
    // RFC 2104 §2: a key shorter than the block is padded with zeros.
    let mut block = zeroize::Zeroizing::new([0; SHA256_BLOCK_BYTES]);
    block[..Key::LEN].copy_from_slice(key.expose());
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    pieces.iter().for_each(|piece| mac.update(piece));
    Tag(mac)
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

fn read_body(version: u8, mut r: Reader<'_>) -> Result<State, WireError> {
    let generation = r.u64("generation")?;
    let (written, guard, recipients) = match version {
        VERSION_1 => (0, None, Vec::new()),
        _ => (r.u64("written")?, read_guard(&mut r)?, read_recipients(&mut r)?),
    };
    let roots = match version {
        VERSION_1 | VERSION_2 => Roots::default(),
        _ => Roots::read(&mut r)?,
    };
    let ring = read_ring(version, &mut r)?;
    r.end()?;
    Ok(State { generation, written, guard, recipients, roots, ring })
}

fn read_guard(r: &mut Reader<'_>) -> Result<Option<Guard>, WireError> {
    match r.u8("guard")? {
        0 => Ok(None),
        1 => Ok(Some(Guard { index: r.u32("guard index")?, expected: r.u64("guard value")? })),
        _ => Err(WireError::BadValue("guard")),
    }
}

fn read_recipients(r: &mut Reader<'_>) -> Result<Vec<Recipient>, WireError> {
    let one = |r: &mut Reader<'_>| {
        let text = r.text16("recipient")?;
        // Operators may write spaces around one; a state has it in one way.
        let same = |recipient: &Recipient| recipient.to_string() == text;
        text.parse().ok().filter(same).ok_or(WireError::BadValue("recipient"))
    };
    (0..r.u8("recipients")?).map(|_| one(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::epoch::{Epoch, Part, Record, Reported};
    use super::super::ring::Entry;
    use super::*;
    use crate::provider::observed::Observed;
    use crate::provider::{KeyIdentity, KeyState, KeyVersion, ProviderKind};
    use crate::types::KekId;

    fn key(byte: u8) -> Key {
        Key::copy_of(&[byte; 32]).unwrap()
    }

    fn entry(byte: u8) -> Entry {
        Entry { id: KekId::from_bytes([byte; 16]), created: u64::from(byte), uses_reserved: 65_536, shared: false }
    }

    fn state() -> State {
        let ring = Ring::new(entry(1), 5).with_pending(entry(2)).unwrap().activate(&entry(2).id, 6).unwrap();
        State {
            generation: 3,
            written: 8,
            guard: Some(Guard { index: 0x0180_4E53, expected: 4 }),
            recipients: vec![RECIPIENT.parse().unwrap()],
            roots: roots(),
            ring: ring.with_pending(entry(3)).unwrap().all_shared(),
        }
    }

    fn roots() -> Roots {
        let cluster = "c1".parse().unwrap();
        let key = |version: &str| KeyState {
            identity: KeyIdentity::new("transit/k@1").unwrap(),
            version: KeyVersion::new(version).unwrap(),
        };
        let epoch = |version: &str| {
            let KeyState { identity, version } = key(version);
            Reported::Epoch(Epoch { number: 0, parts: [Part { kind: ProviderKind::Vault, identity, version }].into() })
        };
        let observed = Observed::from_parts(key("2"), [("transit/k@1".to_owned(), "1".to_owned())]);
        let records = vec![Record { name: "vault".into(), kind: ProviderKind::Vault, observed }];
        Roots { records, ..Roots::default() }.report(epoch("1"), &cluster).report(epoch("2"), &cluster)
    }

    /// The test key of age's specification.
    const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

    const ROOT: RootId = RootId::from_bytes([9; 16]);

    /// As release 0.1 wrote it.
    const VERSION_1_BYTES: &str = "010909090909090909090909090909090900026331000000000000000300000000000000060202020202020202020202\
        020202020200000000000000020000000000010000000103030303030303030303030303030303000000000000000300\
        000000000100000001010101010101010101010101010101010000000000000001000000000001000000000000000000\
        06014acdaac2dbd21ed3397b4d08fd2fd730a7518a1c19fb46ef12f37508c71657d6";

    #[test]
    fn a_state_of_version_1_is_read() {
        let bytes = hex::decode(VERSION_1_BYTES).unwrap();
        let state = State::decode(1, &bytes, &"c1".parse().unwrap(), &ROOT, &key(7)).unwrap();
        let ring = Ring::new(entry(1), 5).with_pending(entry(2)).unwrap().activate(&entry(2).id, 6).unwrap();
        let ring = ring.with_pending(entry(3)).unwrap();
        let roots = Roots::default();
        assert_eq!(state, State { generation: 3, written: 0, guard: None, recipients: Vec::new(), roots, ring });
    }

    #[test]
    fn a_state_of_version_2_is_read() {
        let bytes = hex::decode(VERSION_2_BYTES).unwrap();
        let read = State::decode(2, &bytes, &"c1".parse().unwrap(), &ROOT, &key(7));
        assert_eq!(read, Ok(State { roots: Roots::default(), ..state() }));
    }

    const VERSION_2_BYTES: &str = "010909090909090909090909090909090900026331000000000000000300000000000000080101804e53000000000000\
             000401003e616765317a766b7967326c717a726161326c6e6a7671656a33326e6b75753075657332733832687a727965\
             38363978656578766e37336571756e756a776a0000000000000006020202020202020202020202020202020000000000\
             000002000000000001000001000103030303030303030303030303030303000000000000000300000000000100000100\
             01010101010101010101010101010101010000000000000001000000000001000001000000000000000601e76df69fc1\
             ce7cd50ea76e09472c0dea61fc8886a7c6feda43af87903f101a10";

    #[test]
    fn frozen_vector_of_version_3() {
        let cluster = "c1".parse().unwrap();
        let bytes = state().encode(&cluster, &ROOT, &key(7));
        assert_eq!(
            hex::encode(&bytes),
            "010909090909090909090909090909090900026331000000000000000300000000000000080101804e530000000000\
             00000401003e616765317a766b7967326c717a726161326c6e6a7671656a33326e6b75753075657332733832687a72\
             796538363978656578766e37336571756e756a776a0100000000000101000b7472616e7369742f6b40310001320001\
             002c6e73312d6631336638623363343138306463306233336438363035626234623166383430383864343266303800\
             0100057661756c7401000b7472616e7369742f6b40310001320001000b7472616e7369742f6b403100013100000000\
             0000000602020202020202020202020202020202000000000000000200000000000100000100010303030303030303\
             0303030303030303000000000000000300000000000100000100010101010101010101010101010101010100000000\
             000000010000000000010000010000000000000006014fb3e00fb7b46b9559d9159b05095e4c429e31f95f72390658\
             bc08a18d32ef90"
        );
        assert_eq!(State::decode(3, &bytes, &cluster, &ROOT, &key(7)), Ok(state()));
    }

    #[test]
    fn a_recipient_that_we_would_write_otherwise_is_refused() {
        let cluster = "c1".parse().unwrap();
        let bytes = state().encode(&cluster, &ROOT, &key(7));
        let at = bytes.windows(RECIPIENT.len()).position(|window| window == RECIPIENT.as_bytes()).unwrap();
        let mut body = bytes[..bytes.len() - MAC_BYTES].to_vec();
        body[at - 1] += 1;
        body.insert(at, b' ');
        let tag = mac(&key(7), &[&body]).finalize();
        let refused = State::decode(3, &[&body[..], &tag].concat(), &cluster, &ROOT, &key(7));
        assert_eq!(refused, Err(StateError::Format(WireError::BadValue("recipient"))));
    }

    #[test]
    fn a_state_of_another_cluster_or_root_is_named_and_a_changed_one_refused() {
        let (c1, c2): (ClusterId, ClusterId) = ("c1".parse().unwrap(), "c2".parse().unwrap());
        let bytes = state().encode(&c1, &ROOT, &key(7));
        assert_eq!(State::decode(3, &bytes, &c2, &ROOT, &key(7)), Err(StateError::Cluster("c1".into())));
        let other = RootId::from_bytes([8; 16]);
        assert_eq!(State::decode(3, &bytes, &c1, &other, &key(7)), Err(StateError::Root(ROOT)));
        assert_eq!(State::decode(3, &bytes, &c1, &ROOT, &key(6)), Err(StateError::Mac));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(State::decode(3, &bad, &c1, &ROOT, &key(7)).is_err(), "bit {bit}");
        }
    }
}
