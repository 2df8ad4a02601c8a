//! Identities, each parsed once: whoever holds one need not check it again.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::hex;
use super::text::checked_text;

/// Why a text or some bytes are not the identity they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A cluster name outside of the allowed form.
    #[error("a cluster id is 1 to {max} characters of a-z, 0-9, '-', '.' and '_', beginning with a letter or digit", max = ClusterId::MAX_BYTES)]
    Cluster,
    /// A credential's name outside of the allowed form.
    #[error("a credential's name is 1 to {max} characters of a-z, 0-9, '-', '.' and '_', beginning with a letter or digit", max = CredentialName::MAX_BYTES)]
    Credential,
    /// A node's name outside of the allowed form.
    #[error("the name of a node is 1 to {max} characters of a-z, 0-9, '-', '.' and '_', beginning with a letter or digit", max = MemberName::MAX_BYTES)]
    Member,
    /// Not 32 lower-case hexadecimal digits.
    #[error("an id is 32 hexadecimal digits")]
    Hex,
    /// Not one of our key_ids.
    #[error("Nodeseal's key_ids are \"ns1-\" and 40 hexadecimal digits")]
    KeyId,
    /// A request uid that is empty, too long or not printable.
    #[error("a request uid is 1 to {max} visible ASCII characters", max = RequestUid::MAX_BYTES)]
    Uid,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $error:ident) => {
        checked_text! {
            $(#[$doc])*
            #[derive(PartialOrd, Ord, Hash)]
            $name, IdError, |text| {
                let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
                let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let fits = starts_well && text.len() <= Self::MAX_BYTES && text.bytes().all(allowed);
                fits.then_some(()).ok_or(IdError::$error)
            }
        }

        impl $name {
            /// Bytes. Short enough for every AAD, log line, file name and file header.
            pub const MAX_BYTES: usize = 63;
        }
    };
}

name! {
    /// Names the cluster in every key_id and AAD, so that nothing can be moved between clusters.
    ClusterId, Cluster
}

name! {
    /// Names a credential, which is also its file's name.
    CredentialName, Credential
}

name! {
    /// Names another node of the cluster, and its files.
    MemberName, Member
}

/// 16 random bytes, shown as 32 hexadecimal digits.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 16;

            /// Wraps bytes that were drawn at random or read from a stored format.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes as stored.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                hex::decode_array(text).map(Self).map_err(|_| IdError::Hex)
            }
        }
    };
}

random_id! {
    /// Identity of one local KEK for all its life.
    KekId
}
random_id! {
    /// Identity of one node root; the salt of its derivation.
    RootId
}

/// What kube-apiserver sees and stores in clear beside every object: `ns1-` and the first 20 bytes of a SHA-256, in hex.
///
/// api.proto v2 allows less than 1 kB and demands that the value is public, stable and never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    const PREFIX: &'static str = "ns1-";
    const DIGEST_BYTES: usize = 20;

    /// The key_id of a node without providers: it names the local KEK itself (docs/decisions/key-id.md).
    pub fn of_local_kek(cluster: &ClusterId, kek: &KekId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"nodeseal key_id v1\0local\0");
        hash.update(cluster.as_str().as_bytes());
        hash.update(b"\0");
        hash.update(kek.as_bytes());
        Self(format!("{}{}", Self::PREFIX, hex::encode(&hash.finalize()[..Self::DIGEST_BYTES])))
    }

    /// The key_id of nodes with providers: it names the providers' keys, here as the bytes of their epoch, so that all nodes of one
    /// configuration report the same (docs/decisions/key-id.md).
    pub fn of_epoch(cluster: &ClusterId, epoch: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"nodeseal key_id v1\0providers\0");
        hash.update(cluster.as_str().as_bytes());
        hash.update(b"\0");
        hash.update(epoch);
        Self(format!("{}{}", Self::PREFIX, hex::encode(&hash.finalize()[..Self::DIGEST_BYTES])))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `sha256:` and the hash of the text: how kube-apiserver shows a key_id in its metrics and logs.
    pub fn metric_hash(&self) -> String {
        metric_hash(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(IdError::KeyId)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() == 2 * Self::DIGEST_BYTES && digits.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::KeyId)
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The same of a key_id of any plugin.
pub fn metric_hash(key_id: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(key_id.as_bytes())))
}

/// The uid that kube-apiserver gives to one v2 operation. Safe to log: visible ASCII only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestUid<'a>(&'a str);

impl<'a> RequestUid<'a> {
    /// Bytes. kube-apiserver sends a UUID (36); the rest is room for other clients.
    pub const MAX_BYTES: usize = 128;

    /// Checks what the caller sent.
    pub fn parse(text: &'a str) -> Result<Self, IdError> {
        if !text.is_empty() && text.len() <= Self::MAX_BYTES && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(IdError::Uid)
        }
    }

    /// The text itself.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_a_short_plain_name() {
        for good in ["prod-eu-1", "a", "0.b_c"] {
            assert_eq!(good.parse::<ClusterId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "Prod", "a b", "a\0b", "ü", &"a".repeat(64)] {
            assert_eq!(bad.parse::<ClusterId>(), Err(IdError::Cluster), "{bad:?}");
        }
    }

    #[test]
    fn a_key_id_differs_by_cluster_and_by_kek_and_parses_back() {
        let (a, b): (ClusterId, ClusterId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (one, two) = (KekId::from_bytes([1; 16]), KekId::from_bytes([2; 16]));
        let ids = [KeyId::of_local_kek(&a, &one), KeyId::of_local_kek(&a, &two), KeyId::of_local_kek(&b, &one)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        for id in ids {
            assert_eq!(id.as_str().parse::<KeyId>().unwrap(), id);
        }
    }

    #[test]
    fn the_metric_hash_is_the_one_that_kube_apiserver_shows() {
        // SHA-256 of "ns1-" and forty zeros, from coreutils' sha256sum.
        let id: KeyId = "ns1-0000000000000000000000000000000000000000".parse().unwrap();
        assert_eq!(id.metric_hash(), "sha256:2b1adeca6149f34536b33a36fc8381e24832ba8e992ad6265b11c8b3d26808c7");
    }

    #[test]
    fn a_request_uid_cannot_break_a_log_line() {
        assert!(RequestUid::parse("5f0c3a52-6f8e-4c7e-9a2b-0d6d8a8b8b8b").is_ok());
        for bad in ["", "a b", "a\nb", "\u{1b}[31m", &"a".repeat(129)] {
            assert!(RequestUid::parse(bad).is_err(), "{bad:?}");
        }
    }
}
