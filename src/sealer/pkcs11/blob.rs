//! The sealed blob, pure bytes (docs/formats.md, "PKCS#11 blob"). Holds no secret: the token encrypted `text` under a key that
//! it does not give away, and everything else is public.
//!
//! [`Blob::decode`] is total over any bytes and refuses whatever [`Blob::encode`] would not have written. The checksum tells a
//! damaged file from a foreign one and is no authentication: `head` is authenticated by the token (AES-GCM, HMAC) and by the
//! payload itself.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `NSEALP11` |
//! | 2 | version, 1 |
//! | 1 | mechanism: 1 = AES-GCM, 2 = RSA-OAEP-SHA256, 3 = AES-CBC and HMAC-SHA256 |
//! | 2 + n | CKA_LABEL of the wrapping key, 1 to 64 bytes |
//! | 2 + n | its CKA_ID, 1 to 64 bytes |
//! | 2 + n each | the token's label, serial number, manufacturer and model, printable ASCII; for messages alone |
//! | | up to here: `head` |
//! | 12, 0 or 16 | IV, by mechanism |
//! | 2 + n | text: 80 bytes, or 256 to 1,024 with RSA |
//! | 32 or 0 | HMAC, mechanism 3 only |
//! | 32 | SHA-256 of all before |

use crate::seal::protocol::DeviceBlob;
use crate::sealer::settings::{Pkcs11Mechanism, Pkcs11Settings};
use crate::types::Checked;
use crate::types::wire::{Reader, WireError, Writer};

/// In the one version there is.
const FORMAT: Checked = Checked::new(DeviceBlob::PKCS11_MAGIC, 1);

/// Bytes of each text about the token: the longest of CK_TOKEN_INFO.
const FACT_MAX: usize = 32;

/// Payload and GCM tag, or payload and one block of padding (PKCS#7).
const AES_TEXT_BYTES: usize = 80;

/// A modulus of 2,048 to 8,192 bits.
const RSA_TEXT_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// HMAC-SHA256.
pub(super) const MAC_BYTES: usize = 32;

/// What is known before anything is encrypted, and what is authenticated with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) mechanism: Pkcs11Mechanism,
    pub(super) key_label: String,
    pub(super) key_id: Vec<u8>,
    /// Label, serial number, manufacturer and model of the token that sealed. For messages alone: a copy of its keys opens too.
    pub(super) token: [String; 4],
}

/// What the token made of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// As many bytes as the mechanism has.
    pub(super) iv: Vec<u8>,
    pub(super) text: Vec<u8>,
    /// Empty but for AES-CBC.
    pub(super) mac: Vec<u8>,
}

/// All that is needed to open again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub(super) head: Head,
    pub(super) sealed: Sealed,
}

impl Head {
    /// The bytes that begin the blob.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = FORMAT.begin();
        w.u8(self.mechanism as u8);
        w.bytes16(self.key_label.as_bytes()).bytes16(&self.key_id);
        for fact in &self.token {
            w.bytes16(fact.as_bytes());
        }
        w.finish()
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let number = r.u8("mechanism")?;
        let mechanism = Pkcs11Mechanism::ALL.into_iter().find(|mechanism| *mechanism as u8 == number);
        let mechanism = mechanism.ok_or(WireError::BadValue("mechanism"))?;
        let key_label = r.text16("key label")?.to_owned();
        let key_id = r.bytes16("key id")?.to_vec();
        for (name, len) in [("key label", key_label.len()), ("key id", key_id.len())] {
            if !(1..=Pkcs11Settings::KEY_NAME_MAX).contains(&len) {
                return Err(WireError::BadValue(name));
            }
        }
        if !is_printable(&key_label) {
            return Err(WireError::BadValue("key label"));
        }
        let mut token = <[String; 4]>::default();
        for (fact, name) in token.iter_mut().zip(["token label", "token serial", "manufacturer", "model"]) {
            *fact = r.text16(name)?.to_owned();
            if fact.len() > FACT_MAX || !is_printable(fact) {
                return Err(WireError::BadValue(name));
            }
        }
        Ok(Self { mechanism, key_label, key_id, token })
    }
}

impl Blob {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(&self.head.encode()).raw(&self.sealed.iv).bytes16(&self.sealed.text).raw(&self.sealed.mac);
        Checked::finish(w)
    }

    /// The mirror of [`Blob::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = FORMAT.read(bytes)?;
        let head = Head::decode(&mut r)?;
        let iv = r.take(iv_bytes(head.mechanism), "iv")?.to_vec();
        let text = r.bytes16("text")?.to_vec();
        let mac = r.take(mac_bytes(head.mechanism), "mac")?.to_vec();
        r.end()?;
        if !is_text_length(head.mechanism, text.len()) {
            return Err(WireError::BadValue("text"));
        }
        Ok(Self { head, sealed: Sealed { iv, text, mac } })
    }
}

/// Bytes of the IV.
pub(super) const fn iv_bytes(mechanism: Pkcs11Mechanism) -> usize {
    match mechanism {
        // NIST SP 800-38D §8.2.2.
        Pkcs11Mechanism::AesGcm => 12,
        Pkcs11Mechanism::RsaOaepSha256 => 0,
        Pkcs11Mechanism::AesCbcHmac => 16,
    }
}

const fn mac_bytes(mechanism: Pkcs11Mechanism) -> usize {
    match mechanism {
        Pkcs11Mechanism::AesGcm | Pkcs11Mechanism::RsaOaepSha256 => 0,
        Pkcs11Mechanism::AesCbcHmac => MAC_BYTES,
    }
}

fn is_text_length(mechanism: Pkcs11Mechanism, len: usize) -> bool {
    match mechanism {
        Pkcs11Mechanism::AesGcm | Pkcs11Mechanism::AesCbcHmac => len == AES_TEXT_BYTES,
        Pkcs11Mechanism::RsaOaepSha256 => RSA_TEXT_BYTES.contains(&len),
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// A text of the token's own, so that it can be stored and shown.
pub(super) fn printable(text: &str) -> String {
    let shown = text.trim().chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    shown.take(FACT_MAX).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests;
