//! What `nodeseal etcd scan` asks nodeseald about one object, and the answer: one byte.
//!
//! After the line `{"verb":"etcd-open"}` on the control socket both sides go on in frames: a length of four bytes, big-endian,
//! and the question; one byte comes back for each ([`Verdict`]). No seed, no DEK and no plaintext ever crosses the socket.
//!
//! ```text
//! question = format 1 | api (1 = v1, 2 = v2) | source kind (0 = key, 1 = seed) | key_id | source | u16 count, then name and bytes |
//!            u8 0, or u8 1 and etcd's key and the object's bytes (the rest)        (each but the last with a u16 length)
//! ```

use super::object::{Encryption, SourceKind};
use super::range::OBJECT_MAX_BYTES;
use crate::envelope::{Api, WRAPS_MAX_BYTES, WrapError, Wraps};
use crate::types::wire::{Reader, WireError, Writer};

const FORMAT: u8 = 1;

/// Bytes of a question: an object, and what is beside it with the lengths of its parts.
pub const QUESTION_MAX_BYTES: usize = OBJECT_MAX_BYTES + 4 * WRAPS_MAX_BYTES;

/// Bytes of a key of etcd that are sent. kube-apiserver's are below 1 kB: prefix, resource, namespace and name.
const KEY_MAX_BYTES: usize = u16::MAX as usize;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// It opens.
    Opens = 1,
    /// Nobody here has its KEK, and no provider opens it.
    UnknownKek = 2,
    /// Damaged, of another cluster, or not of Nodeseal.
    BadText = 3,
    /// A provider would have to open it, and none answers.
    ProviderAway = 4,
    /// The seed opens, and the object does not open under it at this key of etcd: moved or changed.
    Moved = 5,
    /// nodeseald has not tried: its keys are not open.
    NotAsked = 6,
}

impl Verdict {
    /// As it crosses the socket.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::Opens, Self::UnknownKek, Self::BadText, Self::ProviderAway, Self::Moved, Self::NotAsked];
        all.into_iter().find(|verdict| *verdict as u8 == byte)
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// Which API has made the source.
    pub api: Api,
    /// What the source is; of v1 always a key.
    pub kind: SourceKind,
    /// Empty in v1.
    pub key_id: &'a str,
    /// Seed or DEK as the plugin encrypted it.
    pub source: &'a [u8],
    /// Of v2.
    pub annotations: Vec<(&'a str, &'a [u8])>,
    /// Its key in etcd and its bytes, if the object itself is to be tried.
    pub object: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> Question<'a> {
    /// About an object of a KMS transformer; `None` for any other.
    pub fn of(encryption: &Encryption<'a>, key: &'a [u8], whole: bool) -> Option<Self> {
        match encryption {
            Encryption::KmsV2(v2) => Some(Self {
                api: Api::V2,
                kind: v2.kind,
                key_id: v2.key_id,
                source: v2.source,
                annotations: v2.annotations.iter().map(|(name, value)| (*name, *value)).collect(),
                object: whole.then_some((key, v2.data)),
            }),
            Encryption::KmsV1(v1) => Some(Self {
                api: Api::V1,
                kind: SourceKind::Key,
                key_id: "",
                source: v1.source,
                annotations: Vec::new(),
                object: whole.then_some((key, v1.data)),
            }),
            Encryption::Local { .. } | Encryption::Plain(_) | Encryption::Unknown | Encryption::Damaged(_) => None,
        }
    }

    /// As a frame without its length. `None` for a key of etcd that is longer than any of kube-apiserver's.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).u8(self.api as u8).u8(u8::from(self.kind == SourceKind::Seed));
        writer.bytes16(self.key_id.as_bytes()).bytes16(self.source);
        writer.u16(u16::try_from(self.annotations.len()).ok()?);
        for (name, value) in &self.annotations {
            writer.bytes16(name.as_bytes()).bytes16(value);
        }
        match self.object {
            None => writer.u8(0),
            Some((key, _)) if key.len() > KEY_MAX_BYTES => return None,
            Some((key, data)) => writer.u8(1).bytes16(key).raw(data),
        };
        Some(writer.finish())
    }

    /// From a frame. Total over any bytes.
    pub fn decode(frame: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame);
        if reader.u8("format")? != FORMAT {
            return Err(WireError::BadValue("format"));
        }
        let api = match reader.u8("api")? {
            1 => Api::V1,
            2 => Api::V2,
            _ => return Err(WireError::BadValue("api")),
        };
        let kind = match reader.u8("source kind")? {
            0 => SourceKind::Key,
            1 => SourceKind::Seed,
            _ => return Err(WireError::BadValue("source kind")),
        };
        let key_id = reader.text16("key_id")?;
        let source = reader.bytes16("source")?;
        let annotations = (0..reader.u16("annotations")?)
            .map(|_| Ok((reader.text16("annotation")?, reader.bytes16("annotation")?)))
            .collect::<Result<Vec<_>, WireError>>()?;
        let object = match reader.u8("object")? {
            0 => {
                reader.end()?;
                None
            }
            1 => Some((reader.bytes16("etcd key")?, reader.rest())),
            _ => return Err(WireError::BadValue("object")),
        };
        Ok(Self { api, kind, key_id, source, annotations, object })
    }

    /// As the envelope binds them.
    pub fn wraps(&self) -> Result<Wraps<'a>, WrapError> {
        Wraps::new(self.annotations.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written_and_no_byte_more() {
        let whole = Question {
            api: Api::V2,
            kind: SourceKind::Seed,
            key_id: "ns1-x",
            source: b"source",
            annotations: vec![("a.b", b"1"), ("c.d", b"")],
            object: Some((b"/registry/secrets/a/b", b"data")),
        };
        let frame = whole.encode().unwrap();
        assert_eq!(Question::decode(&frame).unwrap(), whole);
        let short = Question { object: None, ..whole };
        let frame = short.encode().unwrap();
        assert_eq!(Question::decode(&frame).unwrap(), short);
        assert!(Question::decode(&[&frame[..], &[0]].concat()).is_err());
        for cut in 0..frame.len() {
            assert!(Question::decode(&frame[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_verdict_is_one_byte() {
        for byte in 0..=u8::MAX {
            assert!(Verdict::from_byte(byte).is_none_or(|verdict| verdict as u8 == byte));
        }
        assert_eq!((0..=u8::MAX).filter_map(Verdict::from_byte).count(), 6);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Question::decode(&bytes);
        }
    }
}
