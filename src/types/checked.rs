//! What every sealed blob has around its fields: 8 bytes that name its kind, its version as u16, and the SHA-256 of all before at
//! its end.
//!
//! Total over any bytes. The checksum tells a damaged blob from a foreign one and is no authentication.

use sha2::{Digest, Sha256};

use super::wire::{Reader, WireError, Writer};

const CHECKSUM_BYTES: usize = 32;

/// One kind of blob, in its one version.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    magic: &'static [u8; 8],
    version: u16,
}

impl Checked {
    /// A later version is another value.
    pub const fn new(magic: &'static [u8; 8], version: u16) -> Self {
        Self { magic, version }
    }

    /// The first bytes, for the fields to follow.
    pub fn begin(&self) -> Writer {
        let mut w = Writer::new();
        w.raw(self.magic).u16(self.version);
        w
    }

    /// The blob, once its last field is written behind what [`Checked::begin`] gave.
    pub fn finish(mut w: Writer) -> Vec<u8> {
        let checksum = Sha256::digest(w.as_bytes());
        w.raw(&checksum).finish()
    }

    /// The fields, up to the checksum.
    pub fn read<'a>(&self, blob: &'a [u8]) -> Result<Reader<'a>, WireError> {
        let (body, checksum) = blob.split_at_checked(blob.len().saturating_sub(CHECKSUM_BYTES)).unwrap_or_default();
        let mut r = Reader::new(body);
        // Before the checksum, so that a blob of another kind or a later version is called that and not damaged.
        if r.array("magic")? != *self.magic {
            return Err(WireError::BadValue("magic"));
        }
        if r.u16("version")? != self.version {
            return Err(WireError::BadValue("version"));
        }
        if Sha256::digest(body)[..] != *checksum {
            return Err(WireError::BadValue("checksum"));
        }
        Ok(r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Checked = Checked::new(b"EXAMPLE!", 1);

    fn blob(kind: Checked) -> Vec<u8> {
        let mut w = kind.begin();
        w.u8(7);
        Checked::finish(w)
    }

    #[test]
    fn the_fields_are_read_back_without_what_stands_around_them() {
        let blob = blob(KIND);
        assert_eq!(blob.len(), 8 + 2 + 1 + CHECKSUM_BYTES);
        assert_eq!(KIND.read(&blob).unwrap().rest(), [7]);
    }

    #[test]
    fn another_kind_a_later_version_and_damage_are_told_apart() {
        let refused = |blob: &[u8]| KIND.read(blob).err();
        assert_eq!(refused(&blob(Checked::new(b"ANOTHER!", 1))), Some(WireError::BadValue("magic")));
        assert_eq!(refused(&blob(Checked::new(b"EXAMPLE!", 2))), Some(WireError::BadValue("version")));
        let mut damaged = blob(KIND);
        damaged[10] ^= 1;
        assert_eq!(refused(&damaged), Some(WireError::BadValue("checksum")));
        assert_eq!(refused(&[]), Some(WireError::Short("magic")));
    }
}
