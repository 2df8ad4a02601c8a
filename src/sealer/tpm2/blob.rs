//! The sealed blob, pure bytes (docs/formats.md, "TPM blob"); `seal::tpm_head` has its first rows. Holds no secret: the TPM encrypted `private` under its storage
//! root key, and everything else is public.
//!
//! [`Blob::decode`] is total over any bytes and refuses whatever [`Blob::encode`] would not have written: the C library behind
//! tss-esapi sees lengths only that were checked here. The checksum tells a damaged file from a foreign one and is no
//! authentication: an edited blob that passes all checks here is refused by the TPM.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `NSEALTPM` |
//! | 2 | version, 1 |
//! | 1 | algorithms, 1: KEYEDHASH object with SHA-256 Name, SHA-256 policy session |
//! | 4 | handle of the storage root key |
//! | 1 | its template: 1 = ECC P-256, 2 = RSA 2048, 0 = another program's |
//! | 34 | its Name |
//! | 1, or 6 | policy: kind 0; or kind 1, bank (1 = SHA-256, 2 = SHA-384), u32 mask of PCRs |
//! | 32 or 48 each | the chosen PCRs' values at sealing, ascending by number |
//! | 32 | policy digest, which follows from the two rows above |
//! | 2 + 78 | the object's TPMT_PUBLIC: known but for the 32 bytes of `unique` |
//! | 2 + n | the object's private part, 1 to 1,024 bytes |
//! | 2 + n | the TPM's manufacturer, at most 32 bytes, printable ASCII; for messages alone |
//! | 2 + n | its firmware version at sealing, likewise |
//! | 32 | SHA-256 of all before |
//!
//! A later policy takes a new kind, and whatever it stores follows its kind; other changes take a new version.

use super::policy::{self, PolicyDigest};
use super::template::{self, SrkTemplate};
use crate::seal::tcg::Name;
use crate::seal::tpm_head::TpmHead;
use crate::sealer::settings::OWNER_PERSISTENT_HANDLES;
use crate::types::SealPolicy;
use crate::types::wire::{Reader, WireError};

/// Bytes of a TPM2B_PRIVATE's content. 32 sealed bytes give about 158; the size is the TPM maker's choice.
const PRIVATE_MAX: usize = 1024;

/// Bytes of the texts about the TPM.
const TEXT_MAX: usize = 32;

/// All that is needed to open again, and what tells why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Where the storage root key was.
    pub(super) parent_handle: u32,
    /// Its template; `None` if another program made it by one of its own.
    pub(super) parent_template: Option<SrkTemplate>,
    /// Its Name, pinned.
    pub(super) parent_name: Name,
    /// What the object is bound to.
    pub(super) policy: SealPolicy,
    /// The chosen registers at sealing, ascending by number.
    pub(super) pcr_values: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the object.
    pub(super) public: Vec<u8>,
    /// Content of its TPM2B_PRIVATE.
    pub(super) private: Vec<u8>,
    /// As the TPM named itself. For messages alone.
    pub(super) manufacturer: String,
    /// Its firmware then. For messages alone.
    pub(super) firmware: String,
}

impl Blob {
    /// The policy digest, which is inside `public` too.
    pub(super) fn policy_digest(&self) -> PolicyDigest {
        policy::digest(&self.policy, &self.pcr_values)
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let head = TpmHead {
            parent_handle: self.parent_handle,
            parent_template: self.parent_template.map_or(0, |template| template as u8),
            parent_name: self.parent_name,
            policy: self.policy,
        };
        head.write(|w| {
            self.pcr_values.iter().for_each(|value| {
                w.raw(value);
            });
            w.raw(&self.policy_digest()).bytes16(&self.public).bytes16(&self.private);
            w.bytes16(self.manufacturer.as_bytes()).bytes16(self.firmware.as_bytes());
        })
    }

    /// The mirror of [`Blob::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (head, mut r) = TpmHead::read(bytes)?;
        let blob = Self::decode_fields(head, &mut r)?;
        r.end()?;
        Ok(blob)
    }

    fn decode_fields(head: TpmHead, r: &mut Reader<'_>) -> Result<Self, WireError> {
        let TpmHead { parent_handle, parent_template, parent_name, policy } = head;
        if !OWNER_PERSISTENT_HANDLES.contains(&parent_handle) {
            return Err(WireError::BadValue("parent handle"));
        }
        let parent_template = match parent_template {
            0 => None,
            1 => Some(SrkTemplate::EccP256),
            2 => Some(SrkTemplate::Rsa2048),
            _ => return Err(WireError::BadValue("parent template")),
        };
        let pcr_values = match &policy {
            SealPolicy::None => Vec::new(),
            SealPolicy::Pcr { bank, pcrs } => {
                let value = |_| r.take(policy::bank_bytes(*bank), "pcr value").map(<[u8]>::to_vec);
                pcrs.numbers().map(value).collect::<Result<_, _>>()?
            }
        };
        let digest: PolicyDigest = r.array("policy digest")?;
        let public = r.bytes16("public")?.to_vec();
        let private = r.bytes16("private")?.to_vec();
        let manufacturer = text(r, "manufacturer")?;
        let firmware = text(r, "firmware")?;
        let blob = Self {
            parent_handle,
            parent_template,
            parent_name,
            policy,
            pcr_values,
            public,
            private,
            manufacturer,
            firmware,
        };
        if digest != blob.policy_digest() {
            return Err(WireError::BadValue("policy digest"));
        }
        if !template::is_sealed(&blob.public, &digest) {
            return Err(WireError::BadValue("public"));
        }
        if !(1..=PRIVATE_MAX).contains(&blob.private.len()) {
            return Err(WireError::BadValue("private"));
        }
        Ok(blob)
    }
}

fn text(r: &mut Reader<'_>, field: &'static str) -> Result<String, WireError> {
    let text = r.text16(field)?;
    if text.len() <= TEXT_MAX && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        Ok(text.to_owned())
    } else {
        Err(WireError::BadValue(field))
    }
}

#[cfg(test)]
mod tests;
