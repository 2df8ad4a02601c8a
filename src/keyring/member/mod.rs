//! Members: the other nodes of a cluster whose identity was compared once, and which give each other keys from then on without
//! another comparison (docs/formats.md, "Members").
//!
//! An [`Identity`] is what a node shows of itself: its TPM's storage key, a half of a key agreement and a key for signatures. The
//! last two follow from the node root, so that another root is another identity. It is signed by itself, which proves that
//! whoever made it had all of it; that it is the right node is what two operators compare, by its fingerprint.
//!
//! Refuses: another cluster, a signature that does not hold, a name that would lead out of a folder. Pure bytes: nothing here asks
//! a device or a disk.

mod receipt;
mod standing;
mod stored;

use hkdf::Hkdf;
use sha2::Sha256;

pub use self::receipt::Receipt;
pub(super) use self::receipt::{MAGIC as RECEIPT_MAGIC, VERSION as RECEIPT_VERSION};
pub(super) use self::standing::VERSION as BUNDLE_VERSION;
pub use self::standing::{STANDING_VALID_SECONDS, Standing};
pub use self::stored::{DIR, Known, SUFFIX, file_name};
use super::bundle::BundleError;
use super::maker::{Maker, MakerKey, SIGNATURE_BYTES};
use crate::seal::agree::{self, HALF_BYTES};
use crate::seal::duplicate::ParentPublic;
use crate::seal::host_secret::expand;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, Key, MemberName};

pub(super) const IDENTITY_MAGIC: &[u8; 8] = b"NSEALMBR";
const IDENTITY_LABEL: &[u8] = b"nodeseal member v1\0";
pub(super) const VERSION: u16 = 1;

/// What a node shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where it is valid.
    pub cluster: ClusterId,
    /// What the node calls itself; names its bundles.
    pub name: MemberName,
    /// Its part of every key agreement.
    pub half: [u8; HALF_BYTES],
    /// TPMT_PUBLIC of its storage root key.
    pub parent: Vec<u8>,
    /// Checks its signatures.
    pub maker: Maker,
}

/// The secret side of an identity. Wiped on drop.
pub struct MemberKeys {
    signing: MakerKey,
    agreement: Key,
}

impl MemberKeys {
    /// From the seed that the node root gives (`NodeRoot::member_seed`).
    pub fn new(seed: &Key) -> Result<Self, BundleError> {
        let hkdf = Hkdf::<Sha256>::new(None, seed.expose());
        let signing = MakerKey::new(&expand(&hkdf, b"nodeseal member signing v1"));
        // One number in four thousand million is no scalar of the group.
        let agreement = expand(&hkdf, b"nodeseal member agreement v1");
        agree::public_half(&agreement).map_err(BundleError::Scalar)?;
        Ok(Self { signing, agreement })
    }

    /// Whose signatures these are.
    pub fn maker(&self) -> Maker {
        self.signing.maker()
    }

    /// The file that the other nodes are given. The same node root and storage key give the same file.
    pub fn identity(&self, cluster: &ClusterId, name: MemberName, parent: Vec<u8>) -> Result<Vec<u8>, BundleError> {
        let half = agree::public_half(&self.agreement).map_err(BundleError::Scalar)?;
        let identity = Identity { cluster: cluster.clone(), name, half, parent, maker: self.maker() };
        Ok(self.signed(IDENTITY_LABEL, identity.head()))
    }

    fn signed(&self, label: &[u8], mut text: Vec<u8>) -> Vec<u8> {
        let signature = self.signing.sign(&[label, &text].concat());
        text.extend_from_slice(&signature);
        text
    }
}

impl Identity {
    fn head(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(IDENTITY_MAGIC).u16(VERSION).bytes16(self.cluster.as_str().as_bytes());
        w.bytes16(self.name.as_str().as_bytes()).raw(&self.half).bytes16(&self.parent).raw(self.maker.as_bytes());
        w.finish()
    }

    /// Total over any bytes.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        let (body, signature) = split(file)?;
        let identity = Self::read(body).map_err(BundleError::Format)?;
        check_signed(&identity.maker, IDENTITY_LABEL, body, signature)?;
        Ok(identity)
    }

    fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        read_magic(&mut r, IDENTITY_MAGIC, VERSION)?;
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let name = r.text16("name")?.parse().map_err(|_| WireError::BadValue("name"))?;
        let (half, parent) = (r.array("public half")?, r.bytes16("parent")?.to_vec());
        let maker = Maker::from_bytes(r.array("signing key")?);
        r.end()?;
        Ok(Self { cluster, name, half, parent, maker })
    }

    /// Whether keys of this cluster can be given to it at all.
    pub fn check(&self, cluster: &ClusterId) -> Result<ParentPublic, BundleError> {
        if self.cluster != *cluster {
            return Err(BundleError::Cluster(self.cluster.to_string()));
        }
        ParentPublic::parse(&self.parent).map_err(BundleError::Parent)
    }
}

fn read_magic(r: &mut Reader<'_>, magic: &[u8; 8], version: u16) -> Result<(), WireError> {
    if r.array("magic")? != *magic {
        return Err(WireError::BadValue("magic"));
    }
    if r.u16("version")? != version {
        return Err(WireError::BadValue("version"));
    }
    Ok(())
}

/// What is signed, and the signature behind it.
fn split(file: &[u8]) -> Result<(&[u8], &[u8; SIGNATURE_BYTES]), BundleError> {
    file.split_last_chunk::<SIGNATURE_BYTES>().ok_or(BundleError::Format(WireError::Short("signature")))
}

fn check_signed(
    maker: &Maker,
    label: &[u8],
    text: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), BundleError> {
    if maker.has_signed(&[label, text].concat(), signature) { Ok(()) } else { Err(BundleError::Signature) }
}

#[cfg(test)]
mod tests;
