//! A bundle for a member: its keys are agreed on with the member's identity, and it is signed by the node that gives.
//!
//! As with a bundle that was asked for, it takes the other node's TPM and its disk to open. Other than that one it can be opened
//! again as long as it is valid, so that an acceptance that was cut is simply repeated; an older keyring than the node's own is
//! refused by the ring, and nothing that was destroyed comes back.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Identity, MemberKeys, check_signed, read_magic, split};
use crate::envelope::{BoundCipher, NONCE_BYTES};
use crate::keyring::bundle::{BUNDLE_MAGIC, BundleError, Drawn};
use crate::keyring::export::Export;
use crate::keyring::maker::Maker;
use crate::seal::agree::{self, HALF_BYTES};
use crate::seal::host_secret::expand;
use crate::seal::protocol::Auth;
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, Key};

/// How long a bundle for a member is good: a week, in which a node that was down can be brought up again.
pub const STANDING_VALID_SECONDS: u64 = 7 * 24 * 3600;

pub(in crate::keyring) const VERSION: u16 = 2;
const LABEL: &[u8] = b"nodeseal member bundle v2\0";

/// Keys on their way to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where the keys are valid.
    pub cluster: ClusterId,
    /// Whom it is for.
    pub to: Maker,
    /// Who gives.
    pub from: Maker,
    /// By the clock of the node that gives; the other one judges it.
    pub expires: UnixSeconds,
    /// The transport key, for the other TPM alone.
    pub duplicate: Vec<u8>,
    half: [u8; HALF_BYTES],
    nonce: [u8; NONCE_BYTES],
    text: Vec<u8>,
}

/// Bound to the member and to the one bundle.
fn auth(to: &Maker, half: &[u8; HALF_BYTES]) -> Auth {
    let hash = Sha256::new().chain_update(b"nodeseal member bundle auth v2\0");
    let bytes = hash.chain_update(to.as_bytes()).chain_update(half).finalize();
    Auth::new(Key::of(&bytes.0))
}

impl Standing {
    /// Whether the file says that it is one.
    pub fn is_one(file: &[u8]) -> bool {
        read_magic(&mut Reader::new(file), BUNDLE_MAGIC, VERSION).is_ok()
    }

    /// What opens the duplicate in the other TPM.
    pub fn auth(&self) -> Auth {
        auth(&self.to, &self.half)
    }

    /// The same, before there is a bundle.
    pub fn auth_of(to: &Maker, drawn: &Drawn) -> Result<Auth, BundleError> {
        Ok(auth(to, &agree::public_half(&drawn.secret).map_err(BundleError::Scalar)?))
    }

    /// The file: encrypted under a key that is used once, and signed.
    pub fn seal(
        to: &Identity,
        keys: &MemberKeys,
        duplicate: Vec<u8>,
        drawn: &Drawn,
        expires: UnixSeconds,
        export: &Export,
    ) -> Result<Vec<u8>, BundleError> {
        let half = agree::public_half(&drawn.secret).map_err(BundleError::Scalar)?;
        let shared = agree::agree(&drawn.secret, &to.half).map_err(BundleError::Format)?;
        let mut standing = Self {
            cluster: export.cluster.clone(),
            to: to.maker,
            from: keys.maker(),
            expires,
            duplicate,
            half,
            nonce: drawn.nonce,
            text: Vec::new(),
        };
        let mut text = Vec::new();
        BoundCipher(&standing.text_key(&drawn.transport, &shared))
            .seal(&drawn.nonce, &standing.head(), export.encode_unsigned().expose(), &mut text)
            .map_err(|_| BundleError::Tag)?;
        standing.text = text;
        let mut file = standing.head();
        file.extend_from_slice(&standing.nonce);
        file.extend_from_slice(&standing.text);
        Ok(keys.signed(LABEL, file))
    }

    /// Total over any bytes. The signature holds for whom it names, who need not be anybody.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        let (body, signature) = split(file)?;
        let standing = Self::read(body).map_err(BundleError::Format)?;
        check_signed(&standing.from, LABEL, body, signature)?;
        Ok(standing)
    }

    fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        read_magic(&mut r, BUNDLE_MAGIC, VERSION)?;
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let to = Maker::from_bytes(r.array("receiver")?);
        let from = Maker::from_bytes(r.array("giver")?);
        let (expires, duplicate) = (r.time("expires")?, r.bytes16("duplicate")?.to_vec());
        let (half, nonce) = (r.array("public half")?, r.array("nonce")?);
        Ok(Self { cluster, to, from, expires, duplicate, half, nonce, text: r.rest().to_vec() })
    }

    /// Whether it is for this node, here and now.
    pub fn check(&self, cluster: &ClusterId, own: &Maker, now: UnixSeconds) -> Result<(), BundleError> {
        if self.cluster != *cluster {
            return Err(BundleError::Cluster(self.cluster.to_string()));
        }
        if self.to != *own {
            return Err(BundleError::NotForThisNode);
        }
        if now >= self.expires { Err(BundleError::StandingExpired) } else { Ok(()) }
    }

    /// The keyring inside.
    pub fn open(&self, transport: &Key, keys: &MemberKeys) -> Result<Export, BundleError> {
        let shared = agree::agree(&keys.agreement, &self.half).map_err(BundleError::Format)?;
        let key = self.text_key(transport, &shared);
        let plain = BoundCipher(&key).open(&self.nonce, &self.head(), &self.text).map_err(|_| BundleError::Tag)?;
        let export = Export::decode_unsigned(plain.expose()).map_err(BundleError::Format)?;
        if export.cluster == self.cluster { Ok(export) } else { Err(BundleError::Cluster(export.cluster.to_string())) }
    }

    fn head(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(BUNDLE_MAGIC).u16(VERSION).bytes16(self.cluster.as_str().as_bytes());
        w.raw(self.to.as_bytes()).raw(self.from.as_bytes()).u64(self.expires);
        w.bytes16(&self.duplicate).raw(&self.half).finish()
    }

    /// HKDF-SHA256 of both shares: what the TPM gives, and what the disk gives. Neither alone opens a bundle.
    fn text_key(&self, transport: &Key, shared: &Key) -> Key {
        let mut ikm = Zeroizing::new([0; 2 * Key::LEN]);
        ikm[..Key::LEN].copy_from_slice(transport.expose());
        ikm[Key::LEN..].copy_from_slice(shared.expose());
        let salt = Sha256::digest([&self.to.as_bytes()[..], &self.half].concat());
        expand(&Hkdf::<Sha256>::new(Some(&salt), &*ikm), b"nodeseal member bundle v2")
    }
}
