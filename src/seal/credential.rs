//! The files `credentials/<name>.cred`: what a provider logs in with, encrypted under a key of the node root (docs/formats.md,
//! "Credential"). Pure bytes.
//!
//! ```text
//! algorithm u8 (1 = AES-256-GCM) | root id | name: u16 length, bytes | sealed u64 | nonce, 12 bytes | content and tag
//! ```
//!
//! Everything before the nonce, and the cluster, is bound by the tag: a file that was renamed, or moved to another node or cluster,
//! does not open. Refuses an empty content and one above [`CONTENT_MAX_BYTES`].

use crate::envelope::{BoundCipher, NONCE_BYTES};
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Class, ClusterId, CredentialName, Explained, Key, RootId, Secret};

const AES_256_GCM: u8 = 1;

/// Bytes. A TLS client certificate with its chain and its key has about ten thousand.
pub const CONTENT_MAX_BYTES: usize = 64 * 1024;

/// The folder of these files.
pub const DIR: &str = "credentials";
/// Their ending.
pub const SUFFIX: &str = ".cred";

/// Why a credential is not sealed, or does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Cut or of another format.
    #[error("the sealed credential cannot be read")]
    Format(#[source] WireError),
    /// Empty or too long.
    #[error("a credential has 1 to {CONTENT_MAX_BYTES} bytes")]
    Length,
    /// Of another node root.
    #[error("the sealed credential belongs to node root {0}")]
    Root(RootId),
    /// Changed, renamed, or of another cluster.
    #[error("the sealed credential does not open under this node's root")]
    Tag,
}

impl Explained for CredentialError {
    fn class(&self) -> Class {
        match self {
            Self::Format(_) | Self::Tag => Class::Corrupt,
            Self::Length => Class::Misconfigured,
            Self::Root(_) => Class::Denied,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Length => "give the credential on standard input or with --fd",
            Self::Format(_) | Self::Root(_) | Self::Tag => {
                "issue the credential again at the provider and seal it on this node: `nodeseal credentials seal NAME`"
            }
        }
    }
}

/// What a file says in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: CredentialName,
    /// When it was sealed.
    pub sealed: UnixSeconds,
}

/// Name of the file inside of the state directory.
pub fn file_name(name: &CredentialName) -> String {
    format!("{DIR}/{name}{SUFFIX}")
}

/// The payload of the file.
pub fn seal(
    content: &Secret,
    label: &Label,
    cluster: &ClusterId,
    root: &RootId,
    key: &Key,
    nonce: [u8; NONCE_BYTES],
) -> Result<Vec<u8>, CredentialError> {
    if !(1..=CONTENT_MAX_BYTES).contains(&content.expose().len()) {
        return Err(CredentialError::Length);
    }
    let head = head(label, root);
    let mut bytes = [&head[..], &nonce].concat();
    BoundCipher(key)
        .seal(&nonce, &aad(&head, cluster), content.expose(), &mut bytes)
        .map_err(|_| CredentialError::Tag)?;
    Ok(bytes)
}

/// Opens the payload of the file of this name.
pub fn open(
    bytes: &[u8],
    name: &CredentialName,
    cluster: &ClusterId,
    root: &RootId,
    key: &Key,
) -> Result<Secret, CredentialError> {
    let mut r = Reader::new(bytes);
    let (stored_root, label) = read_head(&mut r).map_err(CredentialError::Format)?;
    if stored_root != *root {
        return Err(CredentialError::Root(stored_root));
    }
    if label.name != *name {
        return Err(CredentialError::Tag);
    }
    let nonce = r.array("nonce").map_err(CredentialError::Format)?;
    let aad = aad(&head(&label, root), cluster);
    BoundCipher(key).open(&nonce, &aad, r.rest()).map_err(|_| CredentialError::Tag)
}

/// What no other sealing has: its nonce.
pub fn nonce(bytes: &[u8]) -> Result<[u8; NONCE_BYTES], CredentialError> {
    let mut r = Reader::new(bytes);
    read_head(&mut r).and_then(|_| r.array("nonce")).map_err(CredentialError::Format)
}

/// What the payload says in clear; it is authentic only when it opens.
pub fn label(bytes: &[u8]) -> Result<Label, CredentialError> {
    read_head(&mut Reader::new(bytes)).map(|(_, label)| label).map_err(CredentialError::Format)
}

fn read_head(r: &mut Reader<'_>) -> Result<(RootId, Label), WireError> {
    if r.u8("algorithm")? != AES_256_GCM {
        return Err(WireError::BadValue("algorithm"));
    }
    let root = RootId::from_bytes(r.array("root id")?);
    let name = r.text16("name")?.parse().map_err(|_| WireError::BadValue("name"))?;
    Ok((root, Label { name, sealed: r.time("sealed")? }))
}

fn head(label: &Label, root: &RootId) -> Vec<u8> {
    let mut head = Writer::new();
    head.u8(AES_256_GCM).raw(root.as_bytes()).bytes16(label.name.as_str().as_bytes()).u64(label.sealed).finish()
}

fn aad(head: &[u8], cluster: &ClusterId) -> Vec<u8> {
    let mut aad = Writer::new();
    aad.raw(b"nodeseal credential v1\0").bytes16(cluster.as_str().as_bytes()).raw(head).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    const ROOT: RootId = RootId::from_bytes([3; 16]);

    fn key(byte: u8) -> Key {
        Key::copy_of(&[byte; 32]).unwrap()
    }

    fn name(name: &str) -> CredentialName {
        name.parse().unwrap()
    }

    fn cluster(name: &str) -> ClusterId {
        name.parse().unwrap()
    }

    fn sealed() -> Vec<u8> {
        let label = Label { name: name("vault"), sealed: 1_700_000_000 };
        seal(&Secret::copy_of(b"s.token"), &label, &cluster("c1"), &ROOT, &key(4), [5; 12]).unwrap()
    }

    #[test]
    fn frozen_vector_of_version_1() {
        assert_eq!(
            hex::encode(sealed()),
            "010303030303030303030303030303030300057661756c74000000006553f100050505050505050505050505b6170586\
             c282c4a42d35d8842b5f0a7675d003bd0025ea"
        );
        let back = open(&sealed(), &name("vault"), &cluster("c1"), &ROOT, &key(4)).unwrap();
        assert!(back.same_as(b"s.token"));
        assert_eq!(label(&sealed()), Ok(Label { name: name("vault"), sealed: 1_700_000_000 }));
    }

    #[test]
    fn another_name_node_cluster_or_key_and_any_flipped_bit_fails_closed() {
        let good = sealed();
        let open = |bytes: &[u8], n, c, root: &RootId, k| open(bytes, &name(n), &cluster(c), root, &key(k)).err();
        assert_eq!(open(&good, "aws", "c1", &ROOT, 4), Some(CredentialError::Tag));
        assert_eq!(open(&good, "vault", "c2", &ROOT, 4), Some(CredentialError::Tag));
        assert_eq!(open(&good, "vault", "c1", &ROOT, 5), Some(CredentialError::Tag));
        assert_eq!(open(&good, "vault", "c1", &RootId::from_bytes([4; 16]), 4), Some(CredentialError::Root(ROOT)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, "vault", "c1", &ROOT, 4).is_some(), "bit {bit}");
        }
    }

    #[test]
    fn nothing_and_too_much_are_no_credential() {
        let label = Label { name: name("a"), sealed: 0 };
        for content in [Vec::new(), vec![1; CONTENT_MAX_BYTES + 1]] {
            let sealed = seal(&Secret::new(content), &label, &cluster("c1"), &ROOT, &key(1), [0; 12]);
            assert_eq!(sealed, Err(CredentialError::Length));
        }
    }
}
