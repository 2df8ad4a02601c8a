//! Secret bytes on their way from one place to another: wiped on drop, no `Debug`, no `Clone`, no `Deref`.
//!
//! Keys that stay for the life of the process live in locked pages instead (`sandbox::memory`).

use secrecy::{ExposeSecret, SecretBox};
use subtle::ConstantTimeEq;

use super::random::{self, RandomError};

/// Some secret bytes: a password, a plaintext. `expose` is the only way in, and it is greppable.
pub struct Secret(SecretBox<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the vector is wiped when this drops.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// Copies the bytes. The caller's copy stays the caller's to wipe.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// The bytes, for as short as possible.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Equality in constant time for equal lengths.
    pub fn same_as(&self, other: &[u8]) -> bool {
        self.expose().ct_eq(other).into()
    }
}

/// 32 secret bytes: an AES-256 key or the input of a derivation.
pub struct Key(SecretBox<[u8; Key::LEN]>);

impl Key {
    /// Bytes: AES-256.
    pub const LEN: usize = 32;

    /// Fresh from the kernel's generator.
    pub fn random() -> Result<Self, RandomError> {
        Self::fill(random::fill)
    }

    /// Lets `write` fill the bytes in place, so that no copy is left on the stack of the caller.
    pub fn fill<E>(write: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut result = Ok(());
        let key = SecretBox::init_with_mut(|bytes: &mut [u8; Self::LEN]| result = write(bytes));
        result.map(|()| Self(key))
    }

    /// Copies the bytes if there are exactly 32.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::of)
    }

    /// Copies the bytes. The caller's copy stays the caller's to wipe.
    pub fn of(bytes: &[u8; Self::LEN]) -> Self {
        Self(SecretBox::init_with_mut(|inner: &mut [u8; Self::LEN]| inner.copy_from_slice(bytes)))
    }

    /// Another copy, said aloud: a key has no `Clone`.
    pub fn duplicate(&self) -> Self {
        Self::of(self.expose())
    }

    /// The bytes, for as short as possible.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_takes_exactly_32_bytes() {
        assert!(Key::copy_of(&[7; 31]).is_none() && Key::copy_of(&[7; 33]).is_none());
        assert_eq!(Key::copy_of(&[7; 32]).unwrap().expose(), &[7; 32]);
    }

    #[test]
    fn two_random_keys_differ() {
        assert_ne!(Key::random().unwrap().expose(), Key::random().unwrap().expose());
    }

    #[test]
    fn secrets_compare_by_content_and_length() {
        let secret = Secret::copy_of(b"abc");
        assert!(secret.same_as(b"abc") && !secret.same_as(b"abd") && !secret.same_as(b"abcd"));
    }
}
