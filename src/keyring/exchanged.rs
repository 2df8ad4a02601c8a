//! What kind of file somebody has brought: told by its first bytes alone, so that a mix-up is called by its name. Whether the file
//! is whole is for its reader.

use std::fmt;

use super::{bundle, member};
use crate::store::container::{self, Kind};
use crate::types::hex;

/// The files that operators carry between nodes and safes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Of `bundle make`, or of a member's `keys rotate --members`.
    Bundle,
    /// Of `members identity`.
    Identity,
    /// Of `bundle accept --receipt`, as it is in memory: on disk it is hexadecimal.
    Receipt,
    /// `recovery.age`, or the file of age in it.
    Recovery,
    /// Of `bundle request`.
    Request,
}

/// age-encryption.org/v1, "Header".
const AGE: &[u8] = b"age-encryption.org/";

impl FileKind {
    /// `None` for anything else.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let begins = |magic: &[u8]| bytes.starts_with(magic);
        let receipt = hex::encode(member::RECEIPT_MAGIC);
        match () {
            () if begins(bundle::REQUEST_MAGIC) => Some(Self::Request),
            () if begins(bundle::BUNDLE_MAGIC) => Some(Self::Bundle),
            () if begins(member::IDENTITY_MAGIC) => Some(Self::Identity),
            () if begins(member::RECEIPT_MAGIC) || begins(receipt.as_bytes()) => Some(Self::Receipt),
            () if begins(AGE) || container::claims(Kind::Recovery, bytes) => Some(Self::Recovery),
            () => None,
        }
    }
}

impl FileKind {
    /// The newest version; all before it are read too. Of a bundle the second one is for a member.
    pub const fn version(self) -> u16 {
        match self {
            Self::Bundle => member::BUNDLE_VERSION,
            Self::Identity => member::VERSION,
            Self::Receipt => member::RECEIPT_VERSION,
            Self::Recovery => Kind::Recovery.version() as u16,
            Self::Request => bundle::VERSION,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "a bundle",
            Self::Identity => "the identity of a node",
            Self::Receipt => "a receipt",
            Self::Recovery => "a recovery file",
            Self::Request => "a request",
        })
    }
}
