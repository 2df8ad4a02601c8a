//! A key made for another machine's TPM: in software, from nothing but the public part of that TPM's storage root key, so that
//! no other TPM, and nobody between, can open it (docs/formats.md, "Duplicate").
//!
//! It is what TPM2_Duplicate would give (TPM 2.0 Part 1 §23.3.2), made without a TPM: a KEYEDHASH object that holds the key,
//! wrapped for the new parent by an ephemeral ECDH. TPM2_Import takes it in, and its policy lets nobody duplicate it again.
//!
//! Pure: no TPM, no file, and randomness is passed in. That `parent` is the right TPM's key, and a TPM's at all, is not known
//! here: the operator compares the Names. Decoding is total over any bytes and refuses whatever encoding would not have written,
//! so that the C library behind the import sees lengths and points only that were checked here.

mod parent;
mod wrap;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use self::parent::{ParentError, ParentPublic};
use super::protocol::Auth;
use super::tcg::{Name, alg, command, name, object};
use crate::types::random::RandomError;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Checked, Class, Explained, Key};

/// In the one version there is.
const FORMAT: Checked = Checked::new(b"NSEALDUP", 1);

/// KEYEDHASH object and P-256 parent with SHA-256 Names, no inner wrapper.
const ALGORITHM: u8 = 1;

/// TPMA_OBJECT (Part 2 §8.3): noDA alone. TPM2_Import takes no fixedTPM and no fixedParent; without userWithAuth the only way in
/// is the policy.
const ATTRIBUTES: u32 = object::NO_DA;

/// TPMT_SENSITIVE without its authValue: type, the sizes of three buffers, seed and key (Part 2 §12.3.2).
const SENSITIVE_LEAST: usize = 2 + 3 * 2 + 2 * Key::LEN;

/// Before the encrypted part of `private`: the outer HMAC as a TPM2B_DIGEST.
const OUTER_HMAC_BYTES: usize = 2 + 32;

/// The encrypted part is a TPM2B_SENSITIVE, and an authValue has up to 32 bytes.
const PRIVATE_BYTES: std::ops::RangeInclusive<usize> =
    OUTER_HMAC_BYTES + 2 + SENSITIVE_LEAST..=OUTER_HMAC_BYTES + 2 + SENSITIVE_LEAST + Key::LEN;

/// Two coordinates, each a TPM2B_ECC_PARAMETER.
const POINT_BYTES: usize = 2 * (2 + 32);

/// The random bytes of one duplicate. Used once: whoever knows them opens it.
pub struct Randomness {
    ephemeral: Key,
    seed: Key,
}

impl Randomness {
    /// The ephemeral private key, and the seed of the object (Part 1 §27).
    pub const fn new(ephemeral: Key, seed: Key) -> Self {
        Self { ephemeral, seed }
    }

    /// Fresh from the kernel's generator.
    pub fn fresh() -> Result<Self, RandomError> {
        Ok(Self { ephemeral: Key::random()?, seed: Key::random()? })
    }
}

/// The random bytes are no private key of the curve, which one draw in four thousand million is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random bytes are no private key of the curve")]
pub struct ScalarError;

impl Explained for ScalarError {
    fn class(&self) -> Class {
        Class::Unavailable
    }

    fn hint(&self) -> &str {
        "run the command again: it draws new ones; if it fails again, distrust the machine's random generator"
    }
}

/// What only one TPM opens. Holds no secret in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    parent_name: Name,
    public: Vec<u8>,
    private: Vec<u8>,
    encrypted_seed: [u8; POINT_BYTES],
}

/// Wraps `secret` for the TPM that holds `parent`. That TPM gives it to whoever has `auth`.
pub fn duplicate(
    parent: &ParentPublic,
    secret: &Key,
    auth: &Auth,
    random: &Randomness,
) -> Result<Duplicate, ScalarError> {
    let (seed, encrypted_seed) = wrap::exchange(parent, &random.ephemeral)?;
    let public = public(&unique(&random.seed, secret));
    let private = wrap::outer(&seed, &name(&public), sensitive(auth, &random.seed, secret));
    Ok(Duplicate { parent_name: parent.name(), public, private, encrypted_seed })
}

impl Duplicate {
    /// The bytes to store or send, below 400.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = FORMAT.begin();
        w.u8(ALGORITHM).raw(&self.parent_name);
        w.bytes16(&self.public).bytes16(&self.private).bytes16(&self.encrypted_seed);
        Checked::finish(w)
    }

    /// The mirror of [`Duplicate::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = FORMAT.read(bytes)?;
        if r.u8("algorithm")? != ALGORITHM {
            return Err(WireError::BadValue("algorithm"));
        }
        let parent_name: Name = r.array("parent name")?;
        let public = r.bytes16("public")?;
        let private = r.bytes16("private")?;
        let encrypted_seed = r.bytes16("encrypted seed")?;
        r.end()?;
        if parent_name[..2] != alg::SHA256.to_be_bytes() {
            return Err(WireError::BadValue("parent name"));
        }
        if public_of(public).is_none() {
            return Err(WireError::BadValue("public"));
        }
        if !PRIVATE_BYTES.contains(&private.len()) || private[..2] != [0, 32] {
            return Err(WireError::BadValue("private"));
        }
        let encrypted_seed: [u8; POINT_BYTES] =
            encrypted_seed.try_into().map_err(|_| WireError::BadValue("encrypted seed"))?;
        let mut point = Reader::new(&encrypted_seed);
        if wrap::point(&mut point).is_err() {
            return Err(WireError::BadValue("encrypted seed"));
        }
        Ok(Self { parent_name, public: public.to_vec(), private: private.to_vec(), encrypted_seed })
    }

    /// Name of the storage root key that it was made for.
    pub const fn parent_name(&self) -> &Name {
        &self.parent_name
    }

    /// TPMT_PUBLIC of the object.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Content of the TPM2B_PRIVATE for TPM2_Import.
    pub fn private(&self) -> &[u8] {
        &self.private
    }

    /// Content of the TPM2B_ENCRYPTED_SECRET for TPM2_Import: the ephemeral point.
    pub const fn encrypted_seed(&self) -> &[u8] {
        &self.encrypted_seed
    }
}

/// TPMT_PUBLIC, Part 2 §12.2.4.
fn public(unique: &[u8; 32]) -> Vec<u8> {
    // policyDigest' = H(policyDigest ‖ command code), Part 1 §19.7: what a seal without PCRs has. No part of it allows
    // TPM2_Duplicate, which asks for PolicyCommandCode or PolicyDuplicationSelect.
    let policy = Sha256::new().chain_update([0; 32]).chain_update(command::POLICY_AUTH_VALUE.to_be_bytes()).finalize();
    let mut w = Writer::new();
    w.u16(alg::KEYEDHASH).u16(alg::SHA256).u32(ATTRIBUTES).bytes16(&policy).u16(alg::NULL).bytes16(unique).finish()
}

/// `unique`, if every other byte is what [`public`] writes.
fn public_of(bytes: &[u8]) -> Option<&[u8; 32]> {
    let unique = bytes.last_chunk()?;
    (public(unique) == bytes).then_some(unique)
}

/// H(seed ‖ data), Part 1 §27.
fn unique(seed: &Key, secret: &Key) -> [u8; 32] {
    Sha256::new().chain_update(seed.expose()).chain_update(secret.expose()).finalize().into()
}

/// TPM2B_SENSITIVE (Part 2 §12.3.2), in a vector that never grows, so that no copy of it is left.
fn sensitive(auth: &Auth, seed: &Key, secret: &Key) -> Zeroizing<Vec<u8>> {
    let auth = trimmed(auth.expose());
    let mut bytes = Zeroizing::new(Vec::with_capacity(*PRIVATE_BYTES.end()));
    let number = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
    bytes.extend_from_slice(&number(SENSITIVE_LEAST + auth.len()));
    bytes.extend_from_slice(&alg::KEYEDHASH.to_be_bytes());
    for buffer in [auth, seed.expose(), secret.expose()] {
        bytes.extend_from_slice(&number(buffer.len()));
        bytes.extend_from_slice(buffer);
    }
    bytes
}

/// As a TPM compares it (Part 1 §19.6.4.3). The length of `private` tells how many zero bytes there were, of 32 random ones.
fn trimmed(auth: &[u8]) -> &[u8] {
    let zeros = auth.iter().rev().take_while(|byte| **byte == 0).count();
    &auth[..auth.len() - zeros]
}

#[cfg(test)]
mod tests;
