//! The outer wrapper of a duplicate, TPM 2.0 Part 1 §23.3.2.3: the seed shared with the parent by ephemeral ECDH, and under it
//! encryption and HMAC. Every algorithm is that of a parent with SHA-256 Name and AES-128-CFB.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use p256::elliptic_curve::point::AffineCoordinates;
use p256::{AffinePoint, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{POINT_BYTES, ParentPublic, ScalarError};
use crate::seal::tcg::Name;
use crate::types::Key;
use crate::types::wire::{Reader, WireError, Writer};

const SHA256_BLOCK_BYTES: usize = 64;
const AES_BLOCK_BYTES: usize = 16;

type Digest32 = Zeroizing<[u8; 32]>;

/// TPMS_ECC_POINT (Part 2 §11.2.5.2) that is on the curve, each coordinate padded to the size of the field (Part 1 Annex C.8).
pub(super) fn point(r: &mut Reader<'_>) -> Result<AffinePoint, WireError> {
    let x = coordinate(r, "x")?;
    let y = coordinate(r, "y")?;
    Option::from(AffinePoint::from_coordinates(&x, &y)).ok_or(WireError::BadValue("point"))
}

fn coordinate(r: &mut Reader<'_>, field: &'static str) -> Result<FieldBytes, WireError> {
    r.bytes16(field)?.try_into().map_err(|_| WireError::BadValue(field))
}

/// Seed and ephemeral point, Part 1 Annex C.6: one-pass Diffie-Hellman.
pub(super) fn exchange(parent: &ParentPublic, ephemeral: &Key) -> Result<(Digest32, [u8; POINT_BYTES]), ScalarError> {
    let mut bytes = FieldBytes::from(*ephemeral.expose());
    let scalar: Option<NonZeroScalar> = NonZeroScalar::from_repr(bytes).into();
    bytes.zeroize();
    let scalar = Zeroizing::new(scalar.ok_or(ScalarError)?);
    let scalar: &Scalar = scalar.as_ref();
    let mine = (ProjectivePoint::GENERATOR * scalar).to_affine();
    let mut projective = ProjectivePoint::from(parent.point) * scalar;
    let mut shared = projective.to_affine();
    projective.zeroize();
    let mut z = shared.x();
    shared.zeroize();
    let seed = kdfe(&z, "DUPLICATE", &mine.x(), &parent.point.x());
    z.zeroize();
    let mut encoded = [0; POINT_BYTES];
    encoded.copy_from_slice(&Writer::new().bytes16(&mine.x()).bytes16(&mine.y()).finish());
    Ok((seed, encoded))
}

/// Content of the TPM2B_PRIVATE: outer HMAC, and the sensitive area encrypted in its place.
pub(super) fn outer(seed: &[u8; 32], object: &Name, mut sensitive: Zeroizing<Vec<u8>>) -> Vec<u8> {
    let key = kdfa(seed, "STORAGE", object, 128);
    cfb(key.first_chunk().unwrap_or(&[0; AES_BLOCK_BYTES]), &mut sensitive);
    let hmac_key = kdfa(seed, "INTEGRITY", &[], 256);
    let tag = hmac(&hmac_key, &[&sensitive, object]);
    Writer::new().bytes16(&*tag).raw(&sensitive).finish()
}

/// KDFa with one counter, Part 1 §11.4.10.2 (NIST SP 800-108): a SHA-256 HMAC gives all bits that are asked for here.
fn kdfa(key: &[u8; 32], label: &str, context: &[u8], bits: u32) -> Digest32 {
    hmac(key, &[&1_u32.to_be_bytes(), label.as_bytes(), &[0], context, &bits.to_be_bytes()])
}

/// KDFe with one counter, Part 1 §11.4.10.3 (NIST SP 800-56A).
fn kdfe(z: &[u8], label: &str, ephemeral_x: &[u8], parent_x: &[u8]) -> Digest32 {
    let mut hash = Sha256::new();
    for part in [&1_u32.to_be_bytes(), z, label.as_bytes(), &[0], ephemeral_x, parent_x] {
        hash.update(part);
    }
    Zeroizing::new(hash.finalize().into())
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Digest32 {
    // RFC 2104 §2: a key shorter than the block is padded with zeros.
    let mut block = Zeroizing::new([0; SHA256_BLOCK_BYTES]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Encrypts in place: CFB with full feedback and a zero IV (NIST SP 800-38A §6.3), for a key that is used once.
fn cfb(key: &[u8; AES_BLOCK_BYTES], bytes: &mut [u8]) {
    let cipher = Aes128::new(key.into());
    let mut register = aes::Block::default();
    for chunk in bytes.chunks_mut(AES_BLOCK_BYTES) {
        cipher.encrypt_block(&mut register);
        chunk.iter_mut().zip(&register).for_each(|(byte, key)| *byte ^= key);
        register[..chunk.len()].copy_from_slice(chunk);
    }
    register.zeroize();
}
