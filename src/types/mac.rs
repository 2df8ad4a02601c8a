//! HMAC-SHA256 (RFC 2104), for whoever authenticates something of its own.

use hmac::{Hmac, KeyInit};
use sha2::Sha256;

/// To be fed with `Mac::chain_update`.
pub type HmacSha256 = Hmac<Sha256>;

/// Takes a key of any length (RFC 2104 §2).
pub fn hmac_sha256(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes any key"))
}
