//! The storage root key to make a duplicate for: a TPMT_PUBLIC (TPM 2.0 Part 2 §12.2.4), read totally and refused unless every
//! field is one that we can wrap for.

use p256::AffinePoint;

use super::wrap;
use crate::seal::tcg::object::{DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN};
use crate::seal::tcg::{Name, alg, name};
use crate::types::wire::{Reader, WireError};
use crate::types::{Class, Explained};

/// AES, 128 bits, CFB: every PC Client TPM's storage keys.
const AES_128_CFB: [u8; 6] = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43];

/// A key that was made in its TPM, never leaves it, and does nothing but hold others.
const NEEDED: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT;

/// The public part of another machine's storage root key. What it says of itself is not proved by it.
#[derive(Clone, Debug)]
pub struct ParentPublic {
    bytes: Vec<u8>,
    pub(super) point: AffinePoint,
}

/// Why nothing can be made for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParentError {
    /// The bytes are no public area.
    #[error("the storage root key's public area cannot be read")]
    Format(#[source] WireError),
    /// A key of that algorithm is not wrapped for.
    #[error("the storage root key is an RSA key, and bundles are made for ECC P-256 keys only")]
    Rsa,
    /// Another kind of key.
    #[error("the key is not a storage root key that a bundle can be made for: {0}")]
    Unfit(&'static str),
}

impl Explained for ParentError {
    fn class(&self) -> Class {
        match self {
            Self::Format(_) => Class::Corrupt,
            Self::Rsa | Self::Unfit(_) => Class::Misconfigured,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Format(_) => "make the request again on the new node and copy it whole",
            Self::Rsa | Self::Unfit(_) => {
                "on the new node, let parent_handle under [seal.tpm2] name a free handle, where an ECC P-256 storage key is then made, run `nodeseal reseal --new-parent`, and make the request again"
            }
        }
    }
}

impl ParentPublic {
    /// Total over any bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParentError> {
        let mut r = Reader::new(bytes);
        let algorithm = r.u16("type").map_err(ParentError::Format)?;
        match algorithm {
            alg::ECC => {}
            alg::RSA => return Err(ParentError::Rsa),
            _ => return Err(ParentError::Unfit("it is not an asymmetric key")),
        }
        let point = ecc(&mut r)?;
        r.end().map_err(ParentError::Format)?;
        Ok(Self { bytes: bytes.to_vec(), point })
    }

    /// The Name: algorithm and SHA-256 of the public area (Part 1 §16).
    pub fn name(&self) -> Name {
        name(&self.bytes)
    }

    /// As it was parsed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Everything behind the type.
fn ecc(r: &mut Reader<'_>) -> Result<AffinePoint, ParentError> {
    if r.u16("name algorithm").map_err(ParentError::Format)? != alg::SHA256 {
        return Err(ParentError::Unfit("its name algorithm is not SHA-256"));
    }
    let attributes = r.u32("attributes").map_err(ParentError::Format)?;
    if attributes & NEEDED != NEEDED || attributes & SIGN != 0 {
        return Err(ParentError::Unfit(
            "its attributes are not those of a storage key (restricted, decrypt, fixedTPM, fixedParent, sensitiveDataOrigin)",
        ));
    }
    // Of the name algorithm's size, or none (Part 2 §12.2.4).
    if !matches!(r.bytes16("policy").map_err(ParentError::Format)?.len(), 0 | 32) {
        return Err(ParentError::Format(WireError::BadValue("policy")));
    }
    if r.array("symmetric").map_err(ParentError::Format)? != AES_128_CFB {
        return Err(ParentError::Unfit("it does not protect with AES-128-CFB"));
    }
    if r.u16("scheme").map_err(ParentError::Format)? != alg::NULL {
        return Err(ParentError::Unfit("it has a scheme of its own"));
    }
    if r.u16("curve").map_err(ParentError::Format)? != alg::NIST_P256 {
        return Err(ParentError::Unfit("its curve is not NIST P-256"));
    }
    if r.u16("kdf").map_err(ParentError::Format)? != alg::NULL {
        return Err(ParentError::Unfit("it has a key derivation of its own"));
    }
    wrap::point(r).map_err(ParentError::Format)
}
