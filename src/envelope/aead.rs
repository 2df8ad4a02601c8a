//! AES-256-GCM with a 96-bit nonce that the caller drew at random (NIST SP 800-38D §8.2.2), at most 2^32 times a key.
//!
//! The expanded key lives on the stack of one call. The aes crate wipes it at its end (feature `zeroize`) where it lies by then; the
//! copies that moves have left are overwritten with the rest of the stack below (`types::stack`).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};

use crate::types::stack::{self, CIPHER_BYTES};
use crate::types::{Key, Secret};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// The tag does not fit, or the text is longer than AES-GCM allows (64 GiB).
#[derive(Debug, thiserror::Error)]
#[error("the tag does not fit")]
pub struct AeadError;

/// Appends ciphertext and tag to `out`.
pub(super) fn seal(
    key: &[u8; Key::LEN],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), AeadError> {
    let start = out.len();
    out.resize(start + plaintext.len(), 0);
    let buffer = InOutBuf::new(plaintext, &mut out[start..]).map_err(|_| AeadError)?;
    let tag = stack::wiped::<CIPHER_BYTES, _>(|| {
        Aes256Gcm::new(key.into()).encrypt_inout_detached(&Nonce::from(*nonce), aad, buffer)
    });
    let tag = tag.map_err(|_| AeadError)?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// The plaintext of ciphertext and tag.
pub(super) fn open(
    key: &[u8; Key::LEN],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    text: &[u8],
) -> Result<Secret, AeadError> {
    let (body, tag) = text.split_last_chunk::<TAG_BYTES>().ok_or(AeadError)?;
    let mut plain = vec![0; body.len()];
    let buffer = InOutBuf::new(body, &mut plain).map_err(|_| AeadError)?;
    let opened = stack::wiped::<CIPHER_BYTES, _>(|| {
        Aes256Gcm::new(key.into()).decrypt_inout_detached(&Nonce::from(*nonce), aad, buffer, &Tag::from(*tag))
    });
    opened.map_err(|_| AeadError)?;
    Ok(Secret::new(plain))
}

/// AES-256-GCM for the other formats of ours that hold a key.
pub struct BoundCipher<'a>(pub &'a Key);

impl BoundCipher<'_> {
    /// Appends ciphertext and tag to `out`.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), AeadError> {
        seal(self.0.expose(), nonce, aad, plaintext, out)
    }

    /// The plaintext of ciphertext and tag.
    pub fn open(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &[u8]) -> Result<Secret, AeadError> {
        open(self.0.expose(), nonce, aad, text)
    }
}
