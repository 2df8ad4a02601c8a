//! The files `keyring/<KEK id>.kek`: one local KEK each, encrypted under a key of the node root (docs/formats.md, "Local KEK").
//!
//! ```text
//! algorithm u8 (1 = AES-256-GCM) | root id | KEK id | created u64 | nonce, 12 bytes | KEK and tag, 48 bytes
//! ```
//!
//! Everything before the nonce, and the cluster, is bound by the tag: a file renamed, moved to another node or cluster, or given
//! another age does not open.

use crate::envelope::{BoundCipher, NONCE_BYTES};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, RootId};

use crate::types::clock::UnixSeconds;

const AES_256_GCM: u8 = 1;

/// Why a file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KekFileError {
    /// Cut or of another format.
    #[error("the sealed local KEK cannot be read")]
    Format(#[source] WireError),
    /// Of another node root.
    #[error("the sealed local KEK belongs to node root {0}")]
    Root(RootId),
    /// Changed, or of another cluster.
    #[error("the sealed local KEK does not open under this node's root")]
    Tag,
}

/// Which KEK, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KekLabel {
    /// Its identity.
    pub id: KekId,
    /// When it was made.
    pub created: UnixSeconds,
}

/// Name of the file inside of the state directory.
pub(super) fn file_name(id: &KekId) -> String {
    format!("{DIR}/{id}{SUFFIX}")
}

/// The folder of these files.
pub(super) const DIR: &str = "keyring";
/// Their ending.
pub(super) const SUFFIX: &str = ".kek";

/// The payload of the file.
pub fn seal(
    kek: &Key,
    label: &KekLabel,
    cluster: &ClusterId,
    root: &RootId,
    wrapping_key: &Key,
    nonce: [u8; NONCE_BYTES],
) -> Result<Vec<u8>, KekFileError> {
    let head = head(label, root);
    let mut bytes = Writer::new();
    bytes.raw(&head).raw(&nonce);
    let mut bytes = bytes.finish();
    BoundCipher(wrapping_key)
        .seal(&nonce, &aad(&head, cluster), kek.expose(), &mut bytes)
        .map_err(|_| KekFileError::Tag)?;
    Ok(bytes)
}

/// Reads and opens the payload.
pub fn open(
    bytes: &[u8],
    cluster: &ClusterId,
    root: &RootId,
    wrapping_key: &Key,
) -> Result<(KekLabel, Key), KekFileError> {
    let Parsed { root: stored_root, label, nonce, text } = parse(bytes).map_err(KekFileError::Format)?;
    if stored_root != *root {
        return Err(KekFileError::Root(stored_root));
    }
    let aad = aad(&head(&label, root), cluster);
    let plain = BoundCipher(wrapping_key).open(&nonce, &aad, text).map_err(|_| KekFileError::Tag)?;
    let kek = Key::copy_of(plain.expose()).ok_or(KekFileError::Format(WireError::BadValue("KEK")))?;
    Ok((label, kek))
}

fn head(label: &KekLabel, root: &RootId) -> Vec<u8> {
    let mut head = Writer::new();
    head.u8(AES_256_GCM).raw(root.as_bytes()).raw(label.id.as_bytes()).u64(label.created).finish()
}

struct Parsed<'a> {
    root: RootId,
    label: KekLabel,
    nonce: [u8; NONCE_BYTES],
    text: &'a [u8],
}

fn parse(bytes: &[u8]) -> Result<Parsed<'_>, WireError> {
    let mut r = Reader::new(bytes);
    if r.u8("algorithm")? != AES_256_GCM {
        return Err(WireError::BadValue("algorithm"));
    }
    let root = RootId::from_bytes(r.array("root id")?);
    let id = KekId::from_bytes(r.array("KEK id")?);
    let created = r.time("created")?;
    Ok(Parsed { root, label: KekLabel { id, created }, nonce: r.array("nonce")?, text: r.rest() })
}

fn aad(head: &[u8], cluster: &ClusterId) -> Vec<u8> {
    let mut aad = Writer::new();
    aad.raw(b"nodeseal kek file v1\0").bytes16(cluster.as_str().as_bytes()).raw(head).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    fn key(byte: u8) -> Key {
        Key::copy_of(&[byte; 32]).unwrap()
    }

    const LABEL: KekLabel = KekLabel { id: KekId::from_bytes([2; 16]), created: 1_700_000_000 };
    const ROOT: RootId = RootId::from_bytes([3; 16]);

    #[test]
    fn frozen_vector_of_version_1() {
        let cluster = "c1".parse().unwrap();
        let bytes = seal(&key(1), &LABEL, &cluster, &ROOT, &key(4), [5; 12]).unwrap();
        assert_eq!(
            hex::encode(&bytes),
            "010303030303030303030303030303030302020202020202020202020202020202000000006553f10005050505050505\
        0505050505c43870e8a8e6ab75d5d6088bbbd3433671d46c6a6778e6f7813cc787526a9aa2278b68da1256e778a6f5d3\
        08ae5bb3f6"
        );
        let (label, kek) = open(&bytes, &cluster, &ROOT, &key(4)).unwrap();
        assert_eq!((label, kek.expose()), (LABEL, &[1; 32]));
    }

    #[test]
    fn any_flipped_bit_and_any_other_place_fails_closed() {
        let (c1, c2): (ClusterId, ClusterId) = ("c1".parse().unwrap(), "c2".parse().unwrap());
        let good = seal(&key(1), &LABEL, &c1, &ROOT, &key(4), [5; 12]).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, &c1, &ROOT, &key(4)).is_err(), "bit {bit}");
        }
        assert!(open(&good, &c2, &ROOT, &key(4)).is_err());
        assert!(open(&good, &c1, &RootId::from_bytes([4; 16]), &key(4)).is_err());
        assert!(open(&good, &c1, &ROOT, &key(5)).is_err());
    }
}
