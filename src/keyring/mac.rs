//! The MAC behind each file that a node's own key protects, and the number by which such a file names it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::types::Key;

pub(super) const HMAC_SHA256: u8 = 1;
pub(super) const MAC_BYTES: usize = 32;
const SHA256_BLOCK_BYTES: usize = 64;

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
