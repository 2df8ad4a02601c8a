//! The copies of a local KEK that providers made, as they travel beside a text: name and bytes each, in the order of the names.
//!
//! In KMS v2 they are the annotations of the object. All annotations count as ours: nothing else writes any, and what somebody
//! added, dropped or swapped must not open. In the mode "hardware only" the list is empty.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::types::wire::{Reader, WireError, Writer};

/// Bytes, names and values together. kmsv2/envelope.go in k8s.io/apiserver, `annotationsMaxSize`: 32 kB.
pub const WRAPS_MAX_BYTES: usize = 32 * 1024;

/// Why a list of wraps is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// Cut short or not text.
    #[error("a wrap cannot be read")]
    Format(#[source] WireError),
    /// Not ascending: a second encoding of the same list.
    #[error("the wraps are not in the order of their names")]
    Order,
    /// More than the contract allows.
    #[error("the wraps are longer than {max} bytes", max = WRAPS_MAX_BYTES)]
    TooLong,
}

/// Wraps by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wraps<'a>(BTreeMap<&'a str, &'a [u8]>);

impl<'a> Wraps<'a> {
    /// From annotations or from what providers answered.
    pub fn new(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, WrapError> {
        let wraps: BTreeMap<_, _> = pairs.into_iter().collect();
        let bytes: usize = wraps.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > WRAPS_MAX_BYTES { Err(WrapError::TooLong) } else { Ok(Self(wraps)) }
    }

    /// Name and bytes of each, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().map(|(name, value)| (*name, *value))
    }

    /// SHA-256 over count, names and values; each with its length, so that no two lists share one.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.each_part(|part| hash.update(part));
        hash.finalize().into()
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.each_part(|part| {
            writer.raw(part);
        });
    }

    fn each_part(&self, mut take: impl FnMut(&[u8])) {
        // Fewer than 2^16 names fit into WRAPS_MAX_BYTES, and each is shorter than that.
        let len = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        take(&len(self.0.len()));
        for (name, value) in &self.0 {
            for part in [name.as_bytes(), value] {
                take(&len(part.len()));
                take(part);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, WrapError> {
        let count = reader.u16("wraps").map_err(WrapError::Format)?;
        let mut wraps = BTreeMap::new();
        let (mut bytes, mut last) = (0, None);
        for _ in 0..count {
            let name = reader.text16("wrap name").map_err(WrapError::Format)?;
            let value = reader.bytes16("wrap").map_err(WrapError::Format)?;
            bytes += name.len() + value.len();
            if bytes > WRAPS_MAX_BYTES {
                return Err(WrapError::TooLong);
            }
            if last.is_some_and(|last| last >= name) {
                return Err(WrapError::Order);
            }
            last = Some(name);
            wraps.insert(name, value);
        }
        Ok(Self(wraps))
    }
}
