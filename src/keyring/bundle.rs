//! Bundles: how a keyring goes to another control-plane node such that only that node's TPM opens it (docs/formats.md, "Bundle").
//!
//! The receiving node makes a [`BundleRequest`] with the public part of its TPM's storage key and a nonce; a node that has the keys makes a
//! [`Bundle`] for it. Pure bytes: nothing here asks a device or a clock.
//!
//! Refuses, with a reason of its own each: another cluster, another request (a bundle opens once, since its request is destroyed
//! by accepting it), one that has expired. Who asked, and who answered, is decided by the operators, who compare fingerprints: a
//! storage key alone proves no TPM, and anybody could encrypt keys of his own to it.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::export::Export;
pub use super::fingerprint::{FileDigest, FingerprintError, digest, fingerprint, is_fingerprint, read_fingerprint};
use super::uses::SHARERS_MAX;
use crate::envelope::{BoundCipher, NONCE_BYTES};
use crate::seal::agree::{self, HALF_BYTES};
use crate::seal::duplicate::{ParentError, ScalarError};
use crate::seal::host_secret::expand;
use crate::seal::protocol::Auth;
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Class, ClusterId, Explained, Key, Secret};

/// The open request of a node, inside of its state directory.
pub const REQUEST_FILE: &str = "bundle.request";

/// How long a request, and every bundle for it, is good: a working day of an operator with two terminals, and a night.
pub const VALID_SECONDS: u64 = 24 * 3600;

pub(super) const REQUEST_MAGIC: &[u8; 8] = b"NSEALBRQ";
pub(super) const BUNDLE_MAGIC: &[u8; 8] = b"NSEALBND";
pub(super) const VERSION: u16 = 1;
const NODE_MAX_BYTES: usize = 255;

/// The secret half of a request, beside it in the state directory of the node that asks.
const SECRET_BYTES: usize = Key::LEN;

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRequest {
    /// Where the keys are valid.
    pub cluster: ClusterId,
    /// Makes each request a new one.
    pub nonce: [u8; 32],
    /// By the clock of the node that asks, which alone judges it.
    pub expires: UnixSeconds,
    /// Host name, for the operator's eyes alone.
    pub node: String,
    /// Public half of the key agreement; its secret half never leaves the disk of the node that asks.
    pub half: [u8; HALF_BYTES],
    /// TPMT_PUBLIC of the storage root key.
    pub parent: Vec<u8>,
}

/// A request that is open on this node.
pub struct OpenRequest {
    /// The request's file.
    pub digest: FileDigest,
    secret: Key,
    expires: Option<UnixSeconds>,
}

/// Keys on their way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Where the keys are valid.
    pub cluster: ClusterId,
    /// The request that it answers.
    pub request: FileDigest,
    /// As the request says.
    pub expires: UnixSeconds,
    /// The transport key, for the other TPM alone.
    pub duplicate: Vec<u8>,
    half: [u8; HALF_BYTES],
    nonce: [u8; NONCE_BYTES],
    text: Vec<u8>,
}

/// Why a request or a bundle is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Of another cluster.
    #[error("it belongs to cluster `{0}`")]
    Cluster(String),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// The operator's fingerprint is of another file.
    #[error("its fingerprint is not the one that was given")]
    Fingerprint,
    /// Damaged, or another file.
    #[error("it cannot be read")]
    Format(#[source] WireError),
    /// No request is open here.
    #[error("this node has no open request: each bundle is accepted once")]
    NoRequest,
    /// The part of the limit that is a sharer's is more than half used up already.
    #[error("the active KEK has encrypted too much to be shared: this node would soon be without uses")]
    NoUsesLeft,
    /// It answers another request.
    #[error("it answers another request, not the open one of this node")]
    OtherRequest,
    /// A bundle for a member that was on its way for too long.
    #[error("it has expired")]
    StandingExpired,
    /// For another member, or for this one under another node root.
    #[error("it is for another node, or for this one under another node root")]
    NotForThisNode,
    /// Who signed it is no member here.
    #[error("its maker, {0}, is not a member of this node")]
    NoMember(String),
    /// A bundle for a member has a signature, and a fingerprint is for the others.
    #[error("it answers a request, so its fingerprint has to be compared")]
    NoFingerprint,
    /// Of a storage root key that nothing can be made for.
    #[error("keys cannot be encrypted to this TPM's storage key")]
    Parent(#[source] ParentError),
    /// It was changed, or somebody else signed it.
    #[error("its signature does not hold")]
    Signature,
    /// Drawn once in four thousand million times.
    #[error("no key can be agreed on")]
    Scalar(#[source] ScalarError),
    /// Each more would need a smaller part of the limit than all count against.
    #[error("{SHARERS_MAX} nodes already share the active KEK; that is the limit")]
    Sharers,
    /// The tag does not fit.
    #[error("its content was changed")]
    Tag,
}

impl Explained for BundleError {
    fn class(&self) -> Class {
        match self {
            Self::Format(_) | Self::Signature | Self::Tag => Class::Corrupt,
            Self::Parent(error) => error.class(),
            Self::Scalar(error) => error.class(),
            Self::Cluster(_)
            | Self::Expired
            | Self::Fingerprint
            | Self::NoFingerprint
            | Self::NoMember(_)
            | Self::NoRequest
            | Self::NotForThisNode
            | Self::NoUsesLeft
            | Self::OtherRequest
            | Self::Sharers
            | Self::StandingExpired => Class::Denied,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Cluster(_) => "`cluster` in nodeseal.toml must be the same on both nodes",
            Self::Expired | Self::NoRequest | Self::OtherRequest => {
                "on the node that needs the keys: `nodeseal bundle request`; then a new bundle from that request"
            }
            Self::Fingerprint => {
                "read it again on the other node: `nodeseal bundle show FILE`; if that fingerprint is refused too, the file was replaced in transit"
            }
            Self::NoUsesLeft => "rotate first: `nodeseal keys rotate`, then `nodeseal keys activate`",
            Self::Sharers => {
                "make a KEK that fewer nodes share: `nodeseal keys rotate`, then give bundles only to those nodes"
            }
            Self::Scalar(error) => error.hint(),
            Self::NoFingerprint => "add --fingerprint with what `nodeseal bundle make` printed on the other node",
            Self::NoMember(_) => {
                "on the other node: `nodeseal members identity --out FILE`; then here: `nodeseal members add FILE`"
            }
            Self::NotForThisNode => {
                "use the file with this node's name; after `rotate-root` or `recover` on this node, add its new identity on the others: `nodeseal members identity`"
            }
            Self::Parent(error) => error.hint(),
            Self::StandingExpired => "on the node that gives: run `nodeseal keys rotate --members DIR` again",
            Self::Format(_) | Self::Signature | Self::Tag => "copy the file once more, as binary",
        }
    }
}

/// Refuses a file that is not the one that two operators compared. Case and hyphens do not count.
pub fn check_fingerprint(file: &[u8], given: &str) -> Result<(), BundleError> {
    if is_fingerprint(file, given) { Ok(()) } else { Err(BundleError::Fingerprint) }
}

/// Whether so many nodes, this one and the one that gets the bundle among them, may share a KEK.
pub fn check_sharers(nodes: u8) -> Result<(), BundleError> {
    if u64::from(nodes) <= SHARERS_MAX { Ok(()) } else { Err(BundleError::Sharers) }
}

/// Whether a KEK that no other node has yet may be shared: half of a sharer's part must be left. One that is shared already counts
/// against that part already, and the bundle that brings its successor must not be refused.
pub fn check_uses(active_uses: u64, hard_limit_when_shared: u64) -> Result<(), BundleError> {
    if active_uses <= hard_limit_when_shared / 2 { Ok(()) } else { Err(BundleError::NoUsesLeft) }
}

/// What opens the duplicate in the other TPM: bound to the one request.
pub fn auth(request: &FileDigest) -> Auth {
    let bytes = Sha256::new().chain_update(b"nodeseal bundle auth v1\0").chain_update(request).finalize();
    Auth::new(Key::of(&bytes.0))
}

impl BundleRequest {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(REQUEST_MAGIC).u16(VERSION).bytes16(self.cluster.as_str().as_bytes()).raw(&self.nonce).u64(self.expires);
        w.bytes16(self.node.as_bytes()).raw(&self.half).bytes16(&self.parent);
        let sum = digest(w.as_bytes());
        w.raw(&sum).finish()
    }

    /// Total over any bytes.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        Self::read(file).map_err(BundleError::Format)
    }

    fn read(file: &[u8]) -> Result<Self, WireError> {
        let (body, sum) = file.split_last_chunk::<32>().ok_or(WireError::Short("checksum"))?;
        let mut r = Reader::new(body);
        read_head(&mut r, REQUEST_MAGIC)?;
        if digest(body) != *sum {
            return Err(WireError::BadValue("checksum"));
        }
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let (nonce, expires) = (r.array("nonce")?, r.time("expires")?);
        let node = r.text16("node")?;
        if node.len() > NODE_MAX_BYTES || !node.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WireError::BadValue("node"));
        }
        let (node, half) = (node.to_owned(), r.array("public half")?);
        let parent = r.bytes16("parent")?.to_vec();
        r.end()?;
        Ok(Self { cluster, nonce, expires, node, half, parent })
    }

    /// Whether keys of this cluster may be made for it now.
    pub fn check(&self, cluster: &ClusterId, now: UnixSeconds) -> Result<(), BundleError> {
        check(&self.cluster, cluster, self.expires, now)
    }
}

impl OpenRequest {
    /// Nobody answers it any more.
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires.is_some_and(|expires| expires < now)
    }

    /// What the node that asks keeps: the file, and the secret half behind it.
    pub fn encode(file: &[u8], secret: &Key) -> Secret {
        let mut bytes = Vec::with_capacity(file.len() + SECRET_BYTES);
        bytes.extend_from_slice(file);
        bytes.extend_from_slice(secret.expose());
        Secret::new(bytes)
    }

    /// The mirror of [`OpenRequest::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        const SHORT: BundleError = BundleError::Format(WireError::Short("secret half"));
        let (file, secret) = bytes.split_last_chunk::<SECRET_BYTES>().ok_or(SHORT)?;
        let expires = BundleRequest::decode(file).ok().map(|request| request.expires);
        Ok(Self { digest: digest(file), secret: Key::copy_of(secret).ok_or(SHORT)?, expires })
    }
}

/// What the node that gives draws for one bundle.
pub struct Drawn {
    /// The key that the other TPM opens.
    pub transport: Key,
    /// The secret half of the agreement.
    pub secret: Key,
    /// Of the encryption.
    pub nonce: [u8; NONCE_BYTES],
}

impl Bundle {
    /// Encrypts under a key that is used once, and that takes the other node's TPM and its disk to derive.
    pub fn seal(
        request: &BundleRequest,
        digest: FileDigest,
        duplicate: Vec<u8>,
        drawn: &Drawn,
        export: &Export,
    ) -> Result<Self, BundleError> {
        let half = agree::public_half(&drawn.secret).map_err(BundleError::Scalar)?;
        let shared = agree::agree(&drawn.secret, &request.half).map_err(BundleError::Format)?;
        let mut bundle = Self {
            cluster: export.cluster.clone(),
            request: digest,
            expires: request.expires,
            duplicate,
            half,
            nonce: drawn.nonce,
            text: Vec::new(),
        };
        let mut text = Vec::new();
        BoundCipher(&text_key(&drawn.transport, &shared, &digest))
            .seal(&drawn.nonce, &bundle.head(), export.encode_unsigned().expose(), &mut text)
            .map_err(|_| BundleError::Tag)?;
        bundle.text = text;
        Ok(bundle)
    }

    /// The keyring inside.
    pub fn open(&self, transport: &Key, request: &OpenRequest) -> Result<Export, BundleError> {
        let shared = agree::agree(&request.secret, &self.half).map_err(BundleError::Format)?;
        let key = text_key(transport, &shared, &self.request);
        let plain = BoundCipher(&key).open(&self.nonce, &self.head(), &self.text).map_err(|_| BundleError::Tag)?;
        let export = Export::decode_unsigned(plain.expose()).map_err(BundleError::Format)?;
        if export.cluster == self.cluster { Ok(export) } else { Err(BundleError::Cluster(export.cluster.to_string())) }
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut file = self.head();
        file.extend_from_slice(&self.nonce);
        file.extend_from_slice(&self.text);
        file
    }

    /// Total over any bytes.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        Self::read(file).map_err(BundleError::Format)
    }

    fn read(file: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(file);
        read_head(&mut r, BUNDLE_MAGIC)?;
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let (request, expires) = (r.array("request")?, r.time("expires")?);
        let duplicate = r.bytes16("duplicate")?.to_vec();
        let (half, nonce) = (r.array("public half")?, r.array("nonce")?);
        Ok(Self { cluster, request, expires, duplicate, half, nonce, text: r.rest().to_vec() })
    }

    /// Whether it answers this open request, here and now.
    pub fn check(&self, cluster: &ClusterId, request: &FileDigest, now: UnixSeconds) -> Result<(), BundleError> {
        check(&self.cluster, cluster, self.expires, now)?;
        if self.request == *request { Ok(()) } else { Err(BundleError::OtherRequest) }
    }

    fn head(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(BUNDLE_MAGIC).u16(VERSION).bytes16(self.cluster.as_str().as_bytes()).raw(&self.request).u64(self.expires);
        w.bytes16(&self.duplicate).raw(&self.half).finish()
    }
}

/// HKDF-SHA256 of both shares: what the TPM gives, and what the disk gives. Neither alone opens a bundle.
fn text_key(transport: &Key, shared: &Key, request: &FileDigest) -> Key {
    let mut ikm = Zeroizing::new([0; 2 * Key::LEN]);
    ikm[..Key::LEN].copy_from_slice(transport.expose());
    ikm[Key::LEN..].copy_from_slice(shared.expose());
    expand(&Hkdf::<Sha256>::new(Some(request), &*ikm), b"nodeseal bundle v1")
}

fn read_head(r: &mut Reader<'_>, magic: &[u8; 8]) -> Result<(), WireError> {
    if r.array("magic")? != *magic {
        return Err(WireError::BadValue("magic"));
    }
    if r.u16("version")? != VERSION {
        return Err(WireError::BadValue("version"));
    }
    Ok(())
}

fn check(of: &ClusterId, cluster: &ClusterId, expires: UnixSeconds, now: UnixSeconds) -> Result<(), BundleError> {
    if of != cluster {
        return Err(BundleError::Cluster(of.to_string()));
    }
    if now >= expires { Err(BundleError::Expired) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
