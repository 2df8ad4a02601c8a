//! The wrapper of every file in the state directory (docs/formats.md, "Container"). Pure and total over any bytes.
//!
//! ```text
//! "NODESEAL" | kind u8 | version u8 | algorithm u8 (1 = SHA-256) | length u32 | payload | SHA-256 of all before
//! ```
//!
//! The digest finds torn and rotten files. It is no protection from an attacker: what needs that authenticates its own payload.

use sha2::{Digest, Sha256};

use super::Damage;
use crate::types::wire::{Reader, Writer};

const MAGIC: &[u8; 8] = b"NODESEAL";
const SHA256: u8 = 1;
const DIGEST_BYTES: usize = 32;

/// Bytes. The largest payload is the state of a few thousand keys.
pub const PAYLOAD_MAX_BYTES: usize = 1024 * 1024;

/// What a file holds. The number is stored and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `node/host.key`
    HostSecret = 1,
    /// `node/root.seal`
    NodeRoot = 2,
    /// `keyring/*.kek`
    LocalKek = 3,
    /// `state`
    State = 4,
    /// `init.pending`
    InitMarker = 5,
    /// `recovery.age`
    Recovery = 6,
    /// `bundle.request`
    BundleRequest = 7,
    /// `credentials/*.cred`
    Credential = 8,
    /// `keyring/*.wraps`
    Wraps = 9,
    /// `current`
    Current = 11,
    /// `members/*.member`
    Member = 12,
    /// `evidence`
    Evidence = 13,
}

impl Kind {
    /// The version that we write, and the newest that we read.
    pub const fn version(self) -> u8 {
        match self {
            Self::State => 4,
            Self::HostSecret
            | Self::NodeRoot
            | Self::LocalKek
            | Self::InitMarker
            | Self::Recovery
            | Self::BundleRequest
            | Self::Credential
            | Self::Wraps
            | Self::Current
            | Self::Member
            | Self::Evidence => 1,
        }
    }
}

/// The bytes of the whole file.
pub fn wrap(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    // Payloads are far below u32::MAX: one that is longer than PAYLOAD_MAX_BYTES is not written.
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    writer.raw(MAGIC).u8(kind as u8).u8(kind.version()).u8(SHA256).u32(len).raw(payload);
    let digest = Sha256::digest(writer.as_bytes());
    writer.raw(&digest).finish()
}

/// Whether it says that it is a file of this kind. The rest of it may be anything.
pub fn claims(kind: Kind, bytes: &[u8]) -> bool {
    bytes.strip_prefix(MAGIC).is_some_and(|rest| rest.first() == Some(&(kind as u8)))
}

/// Version and payload, if the bytes are a whole file of this kind in a version that we read.
pub fn unwrap(kind: Kind, bytes: &[u8]) -> Result<(u8, &[u8]), Damage> {
    let mut reader = Reader::new(bytes);
    let short = |_| Damage::Torn;
    if reader.array::<8>("magic").map_err(short)? != *MAGIC {
        return Err(Damage::Foreign);
    }
    let stored_kind = reader.u8("kind").map_err(short)?;
    let version = reader.u8("version").map_err(short)?;
    let algorithm = reader.u8("algorithm").map_err(short)?;
    let len = reader.u32("length").map_err(short)?;
    let len = usize::try_from(len).ok().filter(|len| *len <= PAYLOAD_MAX_BYTES).ok_or(Damage::Torn)?;
    let payload = reader.take(len, "payload").map_err(short)?;
    let digest = reader.array::<DIGEST_BYTES>("digest").map_err(short)?;
    reader.end().map_err(short)?;
    if Sha256::digest(&bytes[..bytes.len() - DIGEST_BYTES])[..] != digest {
        return Err(Damage::Torn);
    }
    if stored_kind != kind as u8 {
        return Err(Damage::Foreign);
    }
    // The first version of every kind is 1.
    if version == 0 {
        return Err(Damage::Foreign);
    }
    if version > kind.version() || algorithm != SHA256 {
        return Err(Damage::Newer(version));
    }
    Ok((version, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    #[test]
    fn frozen_vectors_of_a_state_of_every_version() {
        // Computed by hand with sha256sum.
        let one =
            "4e4f44455345414c0401010000000361626399c5d32234a910b1d3dd304818866d4eebf3e375d489819bee36e8b98ae59e40";
        let two =
            "4e4f44455345414c040201000000036162639c0a68f054e49f5a74cea96ee93af6d8362c50ad07f0a608ee076a2637b56fb3";
        let three =
            "4e4f44455345414c040301000000036162634542cc5c4889eb08860aee92c66de48be12f22c4680f4a43c3915b2d99640b52";
        let four =
            "4e4f44455345414c04040100000003616263c49b0ecf4ca495275572a9711b2bc1f626a2bdc1a64fed5ec8cf3dda6f021574";
        assert_eq!(hex::encode(wrap(Kind::State, b"abc")), four);
        for (version, bytes) in [(1, one), (2, two), (3, three), (4, four)] {
            assert_eq!(unwrap(Kind::State, &hex::decode(bytes).unwrap()), Ok((version, &b"abc"[..])));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_damage() {
        let good = wrap(Kind::NodeRoot, b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(Kind::NodeRoot, &bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(unwrap(Kind::NodeRoot, &good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = wrap(Kind::State, b"abc");
        bytes[9] = 5;
        let body = bytes.len() - DIGEST_BYTES;
        let digest = Sha256::digest(&bytes[..body]);
        bytes[body..].copy_from_slice(&digest);
        assert_eq!(unwrap(Kind::State, &bytes), Err(Damage::Newer(5)));
        bytes[9] = 0;
        let digest = Sha256::digest(&bytes[..body]);
        bytes[body..].copy_from_slice(&digest);
        assert_eq!(unwrap(Kind::State, &bytes), Err(Damage::Foreign), "no release wrote a version 0");
        assert_eq!(unwrap(Kind::LocalKek, &wrap(Kind::State, b"abc")), Err(Damage::Foreign));
    }
}
