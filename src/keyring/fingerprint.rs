//! How people tell one file of ours from another: eight groups of hexadecimal digits that two of them compare.

use sha2::{Digest, Sha256};

use crate::types::hex;

/// SHA-256 of a file.
pub type FileDigest = [u8; 32];

/// SHA-256 of the file.
pub fn digest(file: &[u8]) -> FileDigest {
    Sha256::digest(file).into()
}

/// For people: the first 160 bits of [`digest`], in eight groups.
pub fn fingerprint(file: &[u8]) -> String {
    let hex = hex::encode(&digest(file)[..20]);
    let groups: Vec<&str> = (0..8).filter_map(|group| hex.get(group * 5..group * 5 + 5)).collect();
    groups.join("-")
}

/// Whether it is the fingerprint of these bytes, as people write it.
pub fn is_fingerprint(bytes: &[u8], given: &str) -> bool {
    plain(&fingerprint(bytes)) == plain(given)
}

fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Digits of a fingerprint.
const FINGERPRINT_DIGITS: usize = 40;

/// Not a fingerprint of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a fingerprint: write eight groups of five hexadecimal digits")]
pub struct FingerprintError;

/// As an operator has typed it, if it can be the fingerprint of something.
pub fn read_fingerprint(given: &str) -> Result<String, FingerprintError> {
    let digits = plain(given);
    let is_one = digits.len() == FINGERPRINT_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { Ok(given.to_owned()) } else { Err(FingerprintError) }
}
