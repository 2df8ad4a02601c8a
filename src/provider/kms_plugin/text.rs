//! What a plugin gave for one key, as it is stored inside of a wrap (docs/formats.md, "Ciphertext of a KMS plugin"). Pure, total over any bytes.
//!
//! Holds no secret: KMS v2 stores text, key_id and annotations in clear anyway.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::provider::KeyVersion;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Api, hex};

const MAGIC: &[u8; 4] = b"NSKP";
const VERSION: u8 = 1;

/// Bytes of a key_id (kmsv2/envelope.go in k8s.io/apiserver).
pub(super) const KEY_ID_MAX_BYTES: usize = 1024;

/// Begins the version of a key_id that does not fit, and of every key_id that begins so itself: the mapping stays one to one.
const HASHED: &str = "sha256:";

/// The version of all texts of KMS v1beta1, which tells none.
const UNVERSIONED: &str = "unversioned";

/// Everything that is given back to the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    pub(super) api: Api,
    /// Empty in v1beta1.
    pub(super) key_id: String,
    pub(super) ciphertext: Vec<u8>,
    /// None in v1beta1.
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

impl Text {
    /// A text of KMS v1beta1, which is all that there is.
    pub fn v1beta1(ciphertext: &[u8]) -> Self {
        let (key_id, annotations) = (String::new(), BTreeMap::new());
        Self { api: Api::V1, key_id, ciphertext: ciphertext.to_vec(), annotations }
    }

    /// A text of KMS v2, with what is stored beside it.
    pub fn v2<'a>(key_id: &str, ciphertext: &[u8], annotations: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let annotations = annotations.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        Self { api: Api::V2, key_id: key_id.to_owned(), ciphertext: ciphertext.to_vec(), annotations }
    }

    /// Bytes of [`Text::encode`]: the caller refuses what a wrap cannot hold before fields are cut.
    pub(super) fn encoded_len(&self) -> usize {
        let annotations = self.annotations.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>();
        MAGIC.len() + 2 + 2 + self.key_id.len() + 2 + self.ciphertext.len() + 2 + annotations
    }

    /// As it is stored inside of a wrap.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u8(VERSION).u8(self.api as u8).bytes16(self.key_id.as_bytes()).bytes16(&self.ciphertext);
        // Each takes four bytes of a text below 64 KiB.
        w.u16(u16::try_from(self.annotations.len()).unwrap_or(u16::MAX));
        for (name, value) in &self.annotations {
            w.bytes16(name.as_bytes()).bytes16(value);
        }
        w.finish()
    }

    /// The mirror of [`Text::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != *MAGIC {
            return Err(WireError::BadValue("magic"));
        }
        if r.u8("version")? != VERSION {
            return Err(WireError::BadValue("version"));
        }
        let api = Api::from_number(r.u8("api")?).ok_or(WireError::BadValue("api"))?;
        let key_id = r.text16("key_id")?.to_owned();
        let ciphertext = r.bytes16("ciphertext")?.to_vec();
        let mut annotations = BTreeMap::<String, Vec<u8>>::new();
        for _ in 0..r.u16("annotations")? {
            let name = r.text16("name")?;
            // Ascending, so that there is one encoding.
            if annotations.last_key_value().is_some_and(|(last, _)| last.as_str() >= name) {
                return Err(WireError::BadValue("name"));
            }
            let value = r.bytes16("value")?.to_vec();
            annotations.insert(name.to_owned(), value);
        }
        r.end()?;
        let fits = match api {
            Api::V1 => key_id.is_empty() && annotations.is_empty(),
            Api::V2 => (1..=KEY_ID_MAX_BYTES).contains(&key_id.len()),
        };
        if !fits || ciphertext.is_empty() {
            return Err(WireError::BadValue("text"));
        }
        Ok(Self { api, key_id, ciphertext, annotations })
    }

    /// The version of the key that made it.
    pub(super) fn version(&self) -> Option<KeyVersion> {
        version(self.api, &self.key_id)
    }
}

/// One to one from key_ids to versions.
pub(super) fn version(api: Api, key_id: &str) -> Option<KeyVersion> {
    if api == Api::V1 {
        return KeyVersion::new(UNVERSIONED).ok();
    }
    match KeyVersion::new(key_id) {
        Ok(version) if !key_id.starts_with(HASHED) => Some(version),
        _ => KeyVersion::new(format!("{HASHED}{}", hex::encode(Sha256::digest(key_id)))).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Text {
        let annotations = [("a.example".to_owned(), vec![1]), ("b.example".to_owned(), Vec::new())].into();
        Text { api: Api::V2, key_id: "k1".into(), ciphertext: b"xyz".to_vec(), annotations }
    }

    #[test]
    fn frozen_vectors_of_version_1() {
        let v2 = text();
        let bytes = v2.encode();
        assert_eq!(
            hex::encode(&bytes),
            "4e534b50010200026b31000378797a00020009612e6578616d706c650001010009622e6578616d706c650000"
        );
        let v1 = Text { api: Api::V1, key_id: String::new(), annotations: BTreeMap::new(), ..text() };
        assert_eq!(hex::encode(v1.encode()), "4e534b50010100000003 78797a0000".replace(' ', ""));
        for text in [v2, v1] {
            let bytes = text.encode();
            assert_eq!((Text::decode(&bytes), bytes.len()), (Ok(text.clone()), text.encoded_len()));
            for cut in 0..bytes.len() {
                assert!(Text::decode(&bytes[..cut]).is_err(), "{cut}");
            }
            assert!(Text::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        for (from, to) in
            [("a.e", "b.e"), ("a.e", "c.e"), ("NSKP\u{1}\u{2}", "NSKP\u{1}\u{1}"), ("NSKP\u{1}", "NSKP\u{2}")]
        {
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            let mut changed = bytes.clone();
            changed[at..at + to.len()].copy_from_slice(to.as_bytes());
            assert!(Text::decode(&changed).is_err(), "{to}");
        }
    }

    #[test]
    fn versions_are_one_to_one() {
        let of = |key_id: &str| version(Api::V2, key_id).unwrap();
        assert_eq!(of("projects/p/cryptoKeyVersions/1").as_str(), "projects/p/cryptoKeyVersions/1");
        let long = "x".repeat(1024);
        let hashed = of(&long).as_str().to_owned();
        assert_eq!(hashed.len(), 71);
        let all = [of(&long), of("with space"), of("ü"), of(&hashed), of("sha256:"), of("plain")];
        assert!((0..all.len()).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
