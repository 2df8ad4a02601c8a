//! The bytes that kube-apiserver stores for us: how a DEK or seed is encrypted under a local KEK (docs/formats.md, "Envelope").
//!
//! Pure: no IO, no clock, no randomness, no key of its own. What it refuses: anything that is not byte for byte what
//! [`Sealing`] wrote for the same cluster, API version, key_id and wraps. Which KEK a text needs is said by [`Parsed::kek_id`].
//!
//! ```text
//! head  = "NSL" | format 1 | api (1 = v1beta1, 2 = v2) | algorithm (1 = AES-256-GCM) | KEK id, 16 bytes
//! check = first 8 bytes of SHA-256("nodeseal check v1\0" | context | head)
//! v2    = head | check | nonce, 12 bytes | ciphertext and tag
//! v1    = head | check | key_id: u8 length, bytes | wraps: u16 count, then name and bytes, u16 length each | nonce | ciphertext and tag
//! ```
//!
//! `check` is no security (the tag is): it tells a text that was damaged or comes from elsewhere from one that is whole but
//! whose KEK nobody here has, since the operator's next step differs.
//!
//! ```
//! use nodeseal::envelope::{Api, Binding, EnvelopeError, Sealing, Wraps, parse_v2};
//! use nodeseal::types::KekId;
//!
//! let (cluster, kek, id) = ("c1".parse()?, [7; 32], KekId::from_bytes([1; 16]));
//! let to = Binding { cluster: &cluster, key_id: "k1", wraps: &Wraps::default() };
//! // The nonce comes in: this module knows no randomness.
//! let text = Sealing::new(Api::V2, &id, &to)?.seal(&kek, [3; 12], b"seed of the API server")?;
//!
//! let parsed = parse_v2(&cluster, "k1", Wraps::default(), &text)?;
//! assert_eq!(parsed.kek_id(), &id);
//! assert_eq!(parsed.open(&kek)?.expose(), b"seed of the API server");
//! assert_eq!(parsed.open(&[8; 32]).err(), Some(EnvelopeError::Authentication));
//! // Stored beside another key_id it is known to be from elsewhere before any KEK is looked for.
//! assert_eq!(parse_v2(&cluster, "k2", Wraps::default(), &text).err(), Some(EnvelopeError::Elsewhere));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aead;
mod wraps;

pub use aead::{AeadError, BoundCipher, NONCE_BYTES, TAG_BYTES};
pub use wraps::{WRAPS_MAX_BYTES, WrapError, Wraps};

use sha2::{Digest, Sha256};

pub use crate::types::Api;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, Secret};

/// Bytes. kmsv2/envelope.go in k8s.io/apiserver, `encryptedDEKSourceMaxSize`: 1 kB.
pub const V2_CIPHERTEXT_MAX_BYTES: usize = 1024;
/// Bytes. envelope.go in k8s.io/apiserver writes the length of a v1 text as a uint16.
pub const V1_CIPHERTEXT_MAX_BYTES: usize = 65_535;
/// Bytes. kmsv2/envelope.go in k8s.io/apiserver, `KeyIDMaxSize`: 1 kB.
pub const KEY_ID_MAX_BYTES: usize = 1024;

const MAGIC: &[u8; 3] = b"NSL";
/// How key_ids begin ([`crate::types::KeyId`]).
const KEY_ID_START: &str = "ns1-";
/// Of every text.
pub const FORMAT: u8 = 1;
const AES_256_GCM: u8 = 1;
const AAD_LABEL: &[u8] = b"nodeseal aad v1\0";
const HEAD_BYTES: usize = 3 + 1 + 1 + 1 + KekId::LEN;
const CHECK_BYTES: usize = 8;

/// Why a text cannot be opened. The caller learns none of this, only that it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The tag does not fit: changed, or the annotations are not those it was made with.
    #[error("the ciphertext or its annotations do not authenticate")]
    Authentication,
    /// Not for this cluster, API or key_id, or changed in its head.
    #[error("the ciphertext was made for another cluster, API version or key_id, or its head was changed")]
    Elsewhere,
    /// Not our format at all.
    #[error("the ciphertext is not in Nodeseal's format")]
    Format(#[source] WireError),
    /// The plaintext would make too long a text.
    #[error("the plaintext is empty or too long")]
    PlaintextLength,
    /// The list of wraps.
    #[error("the wraps cannot be read")]
    Wraps(#[source] WrapError),
}

/// A text whose head was read and fits; what is left is to find the KEK and [`Parsed::open`].
pub struct Parsed<'a> {
    kek_id: KekId,
    key_id: &'a str,
    aad: Vec<u8>,
    nonce: [u8; NONCE_BYTES],
    body: &'a [u8],
    wraps: Wraps<'a>,
}

/// What a text is bound to beside its KEK.
pub struct Binding<'a> {
    /// No other cluster opens it.
    pub cluster: &'a ClusterId,
    /// What was reported with it.
    pub key_id: &'a str,
    /// What travels beside it (v2) or inside of it (v1).
    pub wraps: &'a Wraps<'a>,
}

/// How the texts of one KEK begin, and what they are bound to. The same for all of them, and so made once.
pub struct Sealing {
    opening: Vec<u8>,
    aad: Vec<u8>,
    most: usize,
}

impl Sealing {
    /// In v2 the wraps travel in the annotations, outside of the text. In v1 they and the key_id travel inside, since that API has
    /// no other place for them.
    pub fn new(api: Api, kek_id: &KekId, to: &Binding<'_>) -> Result<Self, EnvelopeError> {
        let head = head(api, kek_id);
        let bound = bound(to.cluster, to.key_id, &head);
        let mut opening = Writer::new();
        opening.raw(&head).raw(&check(&bound));
        let most = match api {
            Api::V2 => V2_CIPHERTEXT_MAX_BYTES,
            Api::V1 => {
                let too_long = |_| EnvelopeError::Format(WireError::BadValue("key_id"));
                opening.u8(u8::try_from(to.key_id.len()).map_err(too_long)?).raw(to.key_id.as_bytes());
                to.wraps.write(&mut opening);
                V1_CIPHERTEXT_MAX_BYTES
            }
        };
        let aad = aad(bound, to.wraps);
        Ok(Self { opening: opening.finish(), aad, most })
    }

    /// Encrypts. The nonce is random and never used twice with one KEK.
    pub fn seal(
        &self,
        kek: &[u8; Key::LEN],
        nonce: [u8; NONCE_BYTES],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, EnvelopeError> {
        let len = self.opening.len() + NONCE_BYTES + plaintext.len() + TAG_BYTES;
        if plaintext.is_empty() || len > self.most {
            return Err(EnvelopeError::PlaintextLength);
        }
        let mut text = Vec::with_capacity(len);
        text.extend_from_slice(&self.opening);
        text.extend_from_slice(&nonce);
        aead::seal(kek, &nonce, &self.aad, plaintext, &mut text).map_err(|_| EnvelopeError::PlaintextLength)?;
        Ok(text)
    }
}

/// Reads a v2 text as kube-apiserver hands it back, with the key_id and annotations that it stored beside it.
pub fn parse_v2<'a>(
    cluster: &ClusterId,
    key_id: &'a str,
    wraps: Wraps<'a>,
    text: &'a [u8],
) -> Result<Parsed<'a>, EnvelopeError> {
    let mut reader = Reader::new(text);
    let (head, kek_id, stored_check) = read_head(&mut reader, Api::V2)?;
    let bound = bound(cluster, key_id, &head);
    if stored_check != check(&bound) {
        return Err(EnvelopeError::Elsewhere);
    }
    finish(reader, bound, key_id, kek_id, wraps)
}

/// Reads a v1 text, which describes itself.
pub fn parse_v1<'a>(cluster: &ClusterId, text: &'a [u8]) -> Result<Parsed<'a>, EnvelopeError> {
    let mut reader = Reader::new(text);
    let (head, kek_id, stored_check) = read_head(&mut reader, Api::V1)?;
    let key_id = read_key_id(&mut reader)?;
    let bound = bound(cluster, key_id, &head);
    if stored_check != check(&bound) {
        return Err(EnvelopeError::Elsewhere);
    }
    let wraps = Wraps::read(&mut reader).map_err(EnvelopeError::Wraps)?;
    finish(reader, bound, key_id, kek_id, wraps)
}

/// Of v1, where it is inside of the text.
fn read_key_id<'a>(reader: &mut Reader<'a>) -> Result<&'a str, EnvelopeError> {
    let len = reader.u8("key_id").map_err(EnvelopeError::Format)?;
    let key_id = reader.take(usize::from(len), "key_id").map_err(EnvelopeError::Format)?;
    std::str::from_utf8(key_id).map_err(|_| EnvelopeError::Format(WireError::BadValue("key_id")))
}

/// The KEK that a text of this API names, of whichever cluster. `None` for what Nodeseal has not made.
pub fn kek_id_in(api: Api, text: &[u8]) -> Option<KekId> {
    read_head(&mut Reader::new(text), api).ok().map(|(_, kek_id, _)| kek_id)
}

/// Whether something of a text or of the key_id beside it is as Nodeseal writes it, in whichever format: a later release may have written
/// it, or somebody has changed it. It is then no text of another plugin.
pub fn is_like_ours(text: &[u8], key_id: Option<&str>) -> bool {
    text.starts_with(MAGIC) || key_id.is_some_and(|key_id| key_id.starts_with(KEY_ID_START))
}

/// What a v1 text of Nodeseal says of itself, of whichever cluster: the key_id, and the wraps. Not authenticated.
pub fn inside_v1(text: &[u8]) -> Option<(&str, Wraps<'_>)> {
    let mut reader = Reader::new(text);
    read_head(&mut reader, Api::V1).ok()?;
    let key_id = read_key_id(&mut reader).ok()?;
    Some((key_id, Wraps::read(&mut reader).ok()?))
}

impl<'a> Parsed<'a> {
    /// The KEK that the text names.
    pub fn kek_id(&self) -> &KekId {
        &self.kek_id
    }

    /// What was reported with it.
    pub fn key_id(&self) -> &'a str {
        self.key_id
    }

    /// Copies of that KEK made by providers, authenticated only by [`Parsed::open`].
    pub fn wraps(&self) -> &Wraps<'a> {
        &self.wraps
    }

    /// The plaintext.
    pub fn open(&self, kek: &[u8; Key::LEN]) -> Result<Secret, EnvelopeError> {
        aead::open(kek, &self.nonce, &self.aad, self.body).map_err(|_| EnvelopeError::Authentication)
    }
}

fn head(api: Api, kek_id: &KekId) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..3].copy_from_slice(MAGIC);
    head[3..6].copy_from_slice(&[FORMAT, api as u8, AES_256_GCM]);
    head[6..].copy_from_slice(kek_id.as_bytes());
    head
}

fn read_head(reader: &mut Reader<'_>, api: Api) -> Result<([u8; HEAD_BYTES], KekId, [u8; CHECK_BYTES]), EnvelopeError> {
    let stored: [u8; HEAD_BYTES] = reader.array("head").map_err(EnvelopeError::Format)?;
    let mut kek_id = [0; KekId::LEN];
    kek_id.copy_from_slice(&stored[HEAD_BYTES - KekId::LEN..]);
    let kek_id = KekId::from_bytes(kek_id);
    if stored != head(api, &kek_id) {
        return Err(EnvelopeError::Format(WireError::BadValue("head")));
    }
    let check = reader.array("check").map_err(EnvelopeError::Format)?;
    Ok((stored, kek_id, check))
}

fn finish<'a>(
    mut reader: Reader<'a>,
    bound: Writer,
    key_id: &'a str,
    kek_id: KekId,
    wraps: Wraps<'a>,
) -> Result<Parsed<'a>, EnvelopeError> {
    let nonce = reader.array("nonce").map_err(EnvelopeError::Format)?;
    let body = reader.rest();
    if body.len() <= TAG_BYTES {
        return Err(EnvelopeError::Format(WireError::Short("ciphertext")));
    }
    let aad = aad(bound, &wraps);
    Ok(Parsed { kek_id, key_id, aad, nonce, body, wraps })
}

/// Cluster, key_id and head (and with it API version and KEK), as the tag is bound to them. Both digests are made of these bytes.
fn bound(cluster: &ClusterId, key_id: &str, head: &[u8]) -> Writer {
    let mut bound = Writer::new();
    bound.raw(AAD_LABEL).bytes16(cluster.as_str().as_bytes()).bytes16(key_id.as_bytes()).raw(head);
    bound
}

fn check(bound: &Writer) -> [u8; CHECK_BYTES] {
    let hash = Sha256::new().chain_update(b"nodeseal check v1\0").chain_update(&bound.as_bytes()[AAD_LABEL.len()..]);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
    check
}

/// And the wraps.
fn aad(mut bound: Writer, wraps: &Wraps<'_>) -> Vec<u8> {
    bound.raw(&wraps.digest()).finish()
}

#[cfg(test)]
mod tests;
