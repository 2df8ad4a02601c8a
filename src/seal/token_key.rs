//! How a key inside of a token is named, between machines that share the token and in the sealer protocol. Pure.

use crate::types::wire::{Reader, WireError, Writer};

/// CKA_LABEL of a key and, where it is known, its CKA_ID. Slot numbers and handles never name a key: they move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    label: String,
    id: Option<Vec<u8>>,
}

impl TokenKey {
    /// Bytes of CKA_LABEL and of CKA_ID. The standard sets no limit; tokens do, and what we write is well below.
    pub const NAME_MAX_BYTES: usize = 64;

    /// Refuses a label that is empty, too long or not printable ASCII, and an id that is empty or too long.
    pub fn new(label: impl Into<String>, id: Option<Vec<u8>>) -> Option<Self> {
        let label = label.into();
        let sizes = 1..=Self::NAME_MAX_BYTES;
        let is_printable = label.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let fits = sizes.contains(&label.len()) && id.as_ref().is_none_or(|id| sizes.contains(&id.len()));
        (is_printable && fits).then_some(Self { label, id })
    }

    /// CKA_LABEL.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// CKA_ID.
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.bytes16(self.label.as_bytes()).bytes16(self.id().unwrap_or_default());
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let label = r.text16("key label")?;
        let id = Some(r.bytes16("key id")?.to_vec()).filter(|id| !id.is_empty());
        Self::new(label, id).ok_or(WireError::BadValue("key name"))
    }
}
