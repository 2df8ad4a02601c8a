//! The host secret: 32 bytes in `node/host.key`, one half of what opens the node root.
//!
//! Alone it opens nothing. It never goes to the sealer: what goes there is the authorisation value made from it, so that whoever
//! listens on the bus, or takes the sealer over, still lacks this half.

use hkdf::Hkdf;
use sha2::Sha256;

use super::protocol::Auth;
use crate::store::{Disk, Kind, LoadError, Loaded, StateDir, StoreError};
use crate::types::random::RandomError;
use crate::types::{Key, RootId};

/// The node's own half.
pub struct HostSecret(Key);

/// The file holds something else than 32 bytes.
#[derive(Debug, thiserror::Error)]
#[error("the host secret is not 32 bytes long")]
pub struct LengthError;

impl HostSecret {
    /// Inside of the state directory.
    pub const FILE: &'static str = "node/host.key";

    /// Fresh, for a node that is set up.
    pub fn random() -> Result<Self, RandomError> {
        Key::random().map(Self)
    }

    /// Reads it from the state directory.
    pub fn load<D: Disk>(dir: &StateDir<D>) -> Result<Loaded<Self>, LoadError<LengthError>> {
        dir.load(Self::FILE, Kind::HostSecret, |_, bytes| Key::copy_of(bytes).map(Self).ok_or(LengthError))
    }

    /// Writes it to the state directory, with a spare copy: it never changes, and without it nothing opens.
    pub fn save<D: Disk>(&self, dir: &StateDir<D>) -> Result<(), StoreError> {
        dir.replace_both(Self::FILE, Kind::HostSecret, self.0.expose())
    }

    /// The value that the sealed object asks for (TPM 2.0 Part 3, TPM2_PolicyAuthValue).
    pub fn auth(&self, root: &RootId) -> Auth {
        Auth::new(self.derive(root, b"nodeseal device auth v1"))
    }

    /// The input of the node root's derivation.
    pub(super) fn expose(&self) -> &[u8; Key::LEN] {
        self.0.expose()
    }

    fn derive(&self, root: &RootId, info: &[u8]) -> Key {
        expand(&Hkdf::<Sha256>::new(Some(root.as_bytes()), self.0.expose()), info)
    }
}

#[cfg(test)]
impl HostSecret {
    pub(super) fn for_test(byte: u8) -> Self {
        Self(Key::of(&[byte; Key::LEN]))
    }
}

/// HKDF-SHA256 Expand to 32 bytes (RFC 5869 §2.3), which one hash output always covers.
pub fn expand(hkdf: &Hkdf<Sha256>, info: &[u8]) -> Key {
    let filled = Key::fill(|out| hkdf.expand(info, out));
    match filled {
        Ok(key) => key,
        // Only above 255 hash outputs (RFC 5869 §2.3); 32 bytes are one.
        Err(_) => unreachable!("32 bytes are within HKDF's limit"),
    }
}
