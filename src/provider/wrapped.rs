//! A wrap as it is stored: which key of which provider made it, and its text (docs/formats.md, "Wrap"). Pure, total over any bytes.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use super::{KeyState, ProviderKind};
use crate::types::hex;
use crate::types::wire::{Reader, WireError, Writer};

const MAGIC: &[u8; 4] = b"NSWR";
const VERSION: u8 = 1;

/// Bytes of an identity: an AWS key ARN has about 80, an Azure key URL up to 200.
const IDENTITY_MAX_BYTES: usize = 512;
/// Bytes of the hash of an identity that stand in a name.
const NAME_HASH_BYTES: usize = 8;
/// Bytes of a version.
const VERSION_MAX_BYTES: usize = 256;

/// Empty, too long, or with characters that no provider uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is empty, too long or not printable ASCII")]
pub struct TextError(&'static str);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Printable ASCII without spaces.
            pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
                let text = text.into();
                let fits = (1..=$max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
                if fits { Ok(Self(text)) } else { Err(TextError($what)) }
            }

            /// As the provider module made it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// Names a key for good, whatever its address or its login. The provider's module defines what it is made of.
    KeyIdentity, "a key's identity", IDENTITY_MAX_BYTES
}

text! {
    /// Names a version of a key. Opaque to everybody but the provider's module.
    KeyVersion, "a key's version", VERSION_MAX_BYTES
}

/// For how many texts a KEK is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A local KEK: worth keeping.
    Local,
    /// Made for one text, and kept by nobody: mode "direct".
    Once,
}

impl Form {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Local => ".wrap.nodeseal.internal",
            Self::Once => ".direct.nodeseal.internal",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Local, Self::Once].into_iter().find(|form| name.ends_with(form.suffix()))
    }
}

/// A local KEK under a provider's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// Of the provider.
    pub kind: ProviderKind,
    /// Which key.
    pub identity: KeyIdentity,
    /// Which version of it.
    pub version: KeyVersion,
    text: Vec<u8>,
}

impl Wrapped {
    /// Bytes of a text: RSA-4096 in base64 has 684, an AWS text about 190, one of another KMS plugin up to 1,024 (api.proto, KMS v2) and
    /// its annotations.
    pub const TEXT_MAX_BYTES: usize = 4096;

    /// Refuses an empty text: a provider that answers with nothing has wrapped nothing.
    pub fn new(
        kind: ProviderKind,
        identity: KeyIdentity,
        version: KeyVersion,
        text: Vec<u8>,
    ) -> Result<Self, TextError> {
        let fits = (1..=Self::TEXT_MAX_BYTES).contains(&text.len());
        if fits { Ok(Self { kind, identity, version, text }) } else { Err(TextError("a provider's text")) }
    }

    /// The same text, which turned out to be of this version.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "the others tell it with the text"))]
    pub(super) fn of_version(self, version: KeyVersion) -> Self {
        Self { version, ..self }
    }

    /// Tells wraps apart, for as long as the process runs.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.identity.as_str(), self.version.as_str(), self.text()).hash(&mut hasher);
        hasher.finish()
    }

    /// The provider's own bytes.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether this key has made it.
    pub fn is_by(&self, kind: ProviderKind, identity: &KeyIdentity) -> bool {
        self.kind == kind && self.identity == *identity
    }

    /// Key and version.
    pub fn key_state(&self) -> KeyState {
        KeyState { identity: self.identity.clone(), version: self.version.clone() }
    }

    /// Under which name it travels beside a text: of the kind and the key's identity, never of what the configuration calls a provider.
    pub fn name(&self, form: Form) -> String {
        let hash = Sha256::digest(self.identity.as_str().as_bytes());
        format!("{}-{}{}", self.kind.label(), hex::encode(&hash[..NAME_HASH_BYTES]), form.suffix())
    }

    /// The wraps among what travels beside a text, and whether its KEK is for that text alone. What cannot be read is as good as not
    /// there.
    pub fn all_in<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> (Form, Vec<Self>) {
        let (mut form, mut found) = (Form::Local, Vec::new());
        for (name, value) in pairs {
            if let Some(of_name) = Form::of_name(name) {
                found.extend(Self::decode(value));
                if of_name == Form::Once {
                    form = Form::Once;
                }
            }
        }
        (form, found)
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u8(VERSION).u8(self.kind as u8).bytes16(self.identity.0.as_bytes());
        w.bytes16(self.version.0.as_bytes()).bytes16(&self.text).finish()
    }

    /// The mirror of [`Wrapped::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != *MAGIC {
            return Err(WireError::BadValue("magic"));
        }
        if r.u8("version")? != VERSION {
            return Err(WireError::BadValue("version"));
        }
        let kind = ProviderKind::from_number(r.u8("kind")?).ok_or(WireError::BadValue("kind"))?;
        let identity = KeyIdentity::new(r.text16("identity")?).map_err(|_| WireError::BadValue("identity"))?;
        let version = KeyVersion::new(r.text16("key version")?).map_err(|_| WireError::BadValue("key version"))?;
        let text = r.bytes16("text")?.to_vec();
        r.end()?;
        Self::new(kind, identity, version, text).map_err(|_| WireError::BadValue("text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped() -> Wrapped {
        let identity = KeyIdentity::new("transit/kubernetes@1700000000").unwrap();
        Wrapped::new(ProviderKind::Vault, identity, KeyVersion::new("3").unwrap(), b"vault:v3:x".to_vec()).unwrap()
    }

    #[test]
    fn frozen_vector_of_version_1() {
        let bytes = wrapped().encode();
        assert_eq!(
            hex::encode(&bytes),
            "4e5357520101001d7472616e7369742f6b756265726e6574657340313730303030303030300001330\
             00a7661756c743a76333a78"
        );
        assert_eq!(Wrapped::decode(&bytes), Ok(wrapped()));
        for cut in 0..bytes.len() {
            assert!(Wrapped::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn an_empty_text_is_no_wrap() {
        let Wrapped { kind, identity, version, .. } = wrapped();
        assert!(Wrapped::new(kind, identity, version, Vec::new()).is_err());
        assert!(KeyIdentity::new("").is_err() && KeyVersion::new("a\nb").is_err());
    }
}
