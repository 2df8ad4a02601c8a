//! How kube-apiserver stores an object: which transformer wrote it, and what a KMS transformer put beside the ciphertext.
//!
//! Sources: the prefixes of k8s.io/apiserver `pkg/server/options/encryptionconfig/config.go`, the message `EncryptedObject` of
//! `pkg/storage/value/encrypt/envelope/kmstypes/v2/api.proto`, and the v1 layout of `envelope.go` beside it. Pure and total over
//! any bytes: what looks like a transformer's and cannot be read is [`Encryption::Damaged`], never plain.

use std::collections::BTreeMap;

use super::proto::{Fields, NotAMessage};
use crate::envelope::{self, Api, KEY_ID_MAX_BYTES, V2_CIPHERTEXT_MAX_BYTES, WRAPS_MAX_BYTES};
use crate::types::KekId;

/// Every prefix of a transformer begins so.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// Bytes that are kept of a provider's name: kube-apiserver sets no bound, and reads objects with names of any length.
const NAME_MAX_BYTES: usize = 512;
/// `EncryptedDEKSourceType` of api.proto.
const AES_GCM_KEY: u64 = 0;
const HKDF_SEED: u64 = 1;

/// What an object is stored as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption<'a> {
    /// `k8s:enc:kms:v2:`
    KmsV2(KmsV2<'a>),
    /// `k8s:enc:kms:v1:`
    KmsV1(KmsV1<'a>),
    /// A transformer with a key in kube-apiserver's own configuration.
    Local {
        /// `aescbc`, `aesgcm` or `secretbox`.
        kind: LocalKind,
        /// The name of its key.
        key: &'a str,
    },
    /// Not encrypted.
    Plain(Plain),
    /// Begins as encrypted objects do, and by no transformer that is known here.
    Unknown,
    /// By a KMS transformer, and cannot be read.
    Damaged(Damage),
}

/// The transformers that keep their keys in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalKind {
    /// AES-CBC
    AesCbc,
    /// AES-GCM
    AesGcm,
    /// XSalsa20-Poly1305
    Secretbox,
}

impl LocalKind {
    /// As in the EncryptionConfiguration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AesCbc => "aescbc",
            Self::AesGcm => "aesgcm",
            Self::Secretbox => "secretbox",
        }
    }
}

/// How an object lies there that nobody has encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plain {
    /// `k8s\0` and Protocol Buffers.
    Protobuf,
    /// Custom resources.
    Json,
    /// With the tag of RFC 8949 §3.4.6.
    Cbor,
    /// Nothing that kube-apiserver writes.
    Other,
}

/// Why a KMS object cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Damage {
    /// The provider's name does not end, or is no text.
    #[error("the provider's name in its prefix cannot be read")]
    Name,
    /// Cut, or no message.
    #[error("what follows the prefix is cut or no message of a KMS transformer")]
    Message,
    /// kmsv2/envelope.go, `validateEncryptedObject`.
    #[error("a field of it is empty or longer than kube-apiserver allows")]
    Field,
    /// A type of seed that Kubernetes 1.36 does not know.
    #[error("its type of seed is unknown")]
    SourceType,
}

/// What a v2 transformer stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsV2<'a> {
    /// In the EncryptionConfiguration; the beginning of a name that is very long.
    pub provider: &'a str,
    /// The object itself, under the seed or DEK.
    pub data: &'a [u8],
    /// Of the plugin, when it was written.
    pub key_id: &'a str,
    /// Seed or DEK, encrypted by the plugin.
    pub source: &'a [u8],
    /// Beside it, by the plugin.
    pub annotations: BTreeMap<&'a str, &'a [u8]>,
    /// What the source is.
    pub kind: SourceKind,
}

/// What the plugin has encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// The AES-256 key of this object alone (before Kubernetes 1.29).
    Key,
    /// A seed, from which HKDF-SHA256 makes a key for each object.
    Seed,
}

/// What a v1 transformer stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsV1<'a> {
    /// In the EncryptionConfiguration.
    pub provider: &'a str,
    /// The DEK, encrypted by the plugin.
    pub source: &'a [u8],
    /// The object itself, under the DEK.
    pub data: &'a [u8],
}

impl<'a> Encryption<'a> {
    /// Of one stored value.
    pub fn of(value: &'a [u8]) -> Self {
        let Some(rest) = value.strip_prefix(ENCRYPTED) else { return Self::Plain(Plain::of(value)) };
        let damaged = |damage| Self::Damaged(damage);
        if let Some(rest) = rest.strip_prefix(b"kms:v2:") {
            named(rest).and_then(|(provider, rest)| KmsV2::read(provider, rest)).map_or_else(damaged, Self::KmsV2)
        } else if let Some(rest) = rest.strip_prefix(b"kms:v1:") {
            named(rest).and_then(|(provider, rest)| KmsV1::read(provider, rest)).map_or_else(damaged, Self::KmsV1)
        } else {
            let known = [
                (&b"aescbc:v1:"[..], LocalKind::AesCbc),
                (b"aesgcm:v1:", LocalKind::AesGcm),
                (b"secretbox:v1:", LocalKind::Secretbox),
            ];
            let found = known.iter().find_map(|(prefix, kind)| Some((*kind, rest.strip_prefix(*prefix)?)));
            match found.map(|(kind, rest)| (kind, named(rest))) {
                Some((kind, Ok((key, _)))) => Self::Local { kind, key },
                Some((_, Err(damage))) => Self::Damaged(damage),
                None => Self::Unknown,
            }
        }
    }
}

impl Plain {
    fn of(value: &[u8]) -> Self {
        match value {
            [b'k', b'8', b's', 0, ..] => Self::Protobuf,
            [0xD9, 0xD9, 0xF7, ..] => Self::Cbor,
            _ if value.trim_ascii_start().starts_with(b"{") => Self::Json,
            _ => Self::Other,
        }
    }
}

/// A name up to its colon, and what follows.
fn named(rest: &[u8]) -> Result<(&str, &[u8]), Damage> {
    let end = rest.iter().position(|byte| *byte == b':').ok_or(Damage::Name)?;
    let name = std::str::from_utf8(&rest[..end]).map_err(|_| Damage::Name)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Damage::Name);
    }
    Ok((kept_name(name), &rest[end + 1..]))
}

/// As much of a provider's name as is kept, of an object and of a configuration alike.
pub(super) fn kept_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MAX_BYTES)]
}

impl<'a> KmsV2<'a> {
    fn read(provider: &'a str, message: &'a [u8]) -> Result<Self, Damage> {
        let mut object =
            Self { provider, data: &[], key_id: "", source: &[], annotations: BTreeMap::new(), kind: SourceKind::Key };
        let mut kind = AES_GCM_KEY;
        for field in Fields::new(message) {
            let (number, value) = field.map_err(damage)?;
            match number {
                1 => object.data = value.bytes().map_err(damage)?,
                2 => object.key_id = text(value.bytes().map_err(damage)?)?,
                3 => object.source = value.bytes().map_err(damage)?,
                4 => {
                    let (name, value) = annotation(value.bytes().map_err(damage)?)?;
                    object.annotations.insert(name, value);
                }
                5 => kind = value.varint().map_err(damage)?,
                // A later Kubernetes may add some.
                _ => {}
            }
        }
        object.kind = match kind {
            AES_GCM_KEY => SourceKind::Key,
            HKDF_SEED => SourceKind::Seed,
            _ => return Err(Damage::SourceType),
        };
        let beside: usize = object.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits = (1..=KEY_ID_MAX_BYTES).contains(&object.key_id.len())
            && (1..=V2_CIPHERTEXT_MAX_BYTES).contains(&object.source.len())
            && !object.data.is_empty()
            && beside <= WRAPS_MAX_BYTES;
        if fits { Ok(object) } else { Err(Damage::Field) }
    }

    /// The KEK that it names, if Nodeseal has made it.
    pub fn kek(&self) -> Option<KekId> {
        envelope::kek_id_in(Api::V2, self.source)
    }
}

impl<'a> KmsV1<'a> {
    fn read(provider: &'a str, rest: &'a [u8]) -> Result<Self, Damage> {
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(Damage::Message)?;
        let (source, data) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(Damage::Message)?;
        if source.is_empty() || data.is_empty() { Err(Damage::Field) } else { Ok(Self { provider, source, data }) }
    }

    /// The KEK that it names, if Nodeseal has made it.
    pub fn kek(&self) -> Option<KekId> {
        envelope::kek_id_in(Api::V1, self.source)
    }
}

fn damage(_: NotAMessage) -> Damage {
    Damage::Message
}

fn text(bytes: &[u8]) -> Result<&str, Damage> {
    std::str::from_utf8(bytes).map_err(|_| Damage::Message)
}

/// An entry of a map: key 1, value 2 (protobuf.dev, "Maps").
fn annotation(entry: &[u8]) -> Result<(&str, &[u8]), Damage> {
    let (mut name, mut content) = ("", &[][..]);
    for field in Fields::new(entry) {
        match field.map_err(damage)? {
            (1, value) => name = text(value.bytes().map_err(damage)?)?,
            (2, value) => content = value.bytes().map_err(damage)?,
            _ => {}
        }
    }
    Ok((name, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, EncryptedObject};
    use super::*;

    #[test]
    fn each_transformer_is_known_by_its_prefix() {
        let local = |kind| Encryption::Local { kind, key: "key-1" };
        for (value, expected) in [
            (&b"k8s\0object"[..], Encryption::Plain(Plain::Protobuf)),
            (b" \n{\"kind\":1}", Encryption::Plain(Plain::Json)),
            (b"\xD9\xD9\xF7\xA1", Encryption::Plain(Plain::Cbor)),
            (b"", Encryption::Plain(Plain::Other)),
            (b"k8s:enc:aescbc:v1:key-1:data", local(LocalKind::AesCbc)),
            (b"k8s:enc:aesgcm:v1:key-1:data", local(LocalKind::AesGcm)),
            (b"k8s:enc:secretbox:v1:key-1:data", local(LocalKind::Secretbox)),
            (b"k8s:enc:rot13:v1:key-1:data", Encryption::Unknown),
            (b"k8s:enc:kms:v3:name:data", Encryption::Unknown),
            (b"k8s:enc:aescbc:v1:key-1", Encryption::Damaged(Damage::Name)),
            (b"k8s:enc:aescbc:v1:k\x1B:data", Encryption::Damaged(Damage::Name)),
            (b"k8s:enc:kms:v1::data", Encryption::Damaged(Damage::Name)),
            (b"k8s:enc:kms:v1:name:\x00", Encryption::Damaged(Damage::Message)),
            (b"k8s:enc:kms:v1:name:\x00\x05abc", Encryption::Damaged(Damage::Message)),
            (b"k8s:enc:kms:v2:name:", Encryption::Damaged(Damage::Field)),
        ] {
            assert_eq!(Encryption::of(value), expected, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn what_kube_apiserver_would_refuse_is_damaged() {
        let object = samples::v2(1, "ns1-a", 1);
        let of = |object: &EncryptedObject| match Encryption::of(&object.stored("nodeseal")) {
            Encryption::Damaged(damage) => Some(damage),
            Encryption::KmsV2(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&object), None);
        for (changed, damage) in [
            (EncryptedObject { kind: 2, ..object.clone() }, Damage::SourceType),
            (EncryptedObject { key_id: String::new(), ..object.clone() }, Damage::Field),
            (EncryptedObject { key_id: "x".repeat(1025), ..object.clone() }, Damage::Field),
            (EncryptedObject { source: vec![1; 1025], ..object.clone() }, Damage::Field),
            (EncryptedObject { source: Vec::new(), ..object.clone() }, Damage::Field),
            (EncryptedObject { data: Vec::new(), ..object.clone() }, Damage::Field),
            (
                EncryptedObject { annotations: [("a.b".into(), vec![0; 32 * 1024])].into(), ..object.clone() },
                Damage::Field,
            ),
        ] {
            assert_eq!(of(&changed), Some(damage));
        }
    }

    #[test]
    fn the_kek_of_a_text_of_nodeseal_is_known_and_of_another_plugin_none_is() {
        let stored = samples::v2(7, "ns1-a", 1).stored("nodeseal");
        let Encryption::KmsV2(v2) = Encryption::of(&stored) else { panic!() };
        assert_eq!((v2.kek(), v2.kind, v2.key_id), (Some(KekId::from_bytes([7; 16])), SourceKind::Seed, "ns1-a"));
        let stored = EncryptedObject { source: vec![1; 90], ..samples::v2(7, "x", 1) }.stored("other");
        let Encryption::KmsV2(v2) = Encryption::of(&stored) else { panic!() };
        assert_eq!((v2.kek(), v2.provider), (None, "other"));
        let stored = samples::v1("old", 9, 1);
        let Encryption::KmsV1(v1) = Encryption::of(&stored) else { panic!() };
        assert_eq!((v1.kek(), v1.provider), (Some(KekId::from_bytes([9; 16])), "old"));
    }

    #[test]
    fn however_long_a_providers_name_is_the_object_is_read_and_a_bounded_part_of_the_name_kept() {
        let name = "ü".repeat(600);
        let stored = samples::v2(7, "ns1-a", 1).stored(&name);
        let Encryption::KmsV2(v2) = Encryption::of(&stored) else { panic!() };
        assert_eq!((v2.kek(), v2.provider), (Some(KekId::from_bytes([7; 16])), kept_name(&name)));
        assert_eq!(v2.provider.len(), NAME_MAX_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_none_that_look_encrypted_are_plain(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Encryption::of(&bytes);
            for prefix in ["k8s:enc:kms:v2:n:", "k8s:enc:kms:v1:n:", "k8s:enc:"] {
                let stored = [prefix.as_bytes(), &bytes].concat();
                prop_assert!(!matches!(Encryption::of(&stored), Encryption::Plain(_)));
            }
        }
    }
}
