//! The file `recover.pending` of release 0.1.

use crate::types::wire::WireError;

/// How far a recovery of release 0.1 had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Where the old files went; empty if there were none.
    pub folder: String,
    /// They are there. What lies at their old places is half made.
    pub moved: bool,
}

impl Marker {
    /// The payload of the file.
    pub fn encode(&self) -> Vec<u8> {
        [&[u8::from(self.moved)], self.folder.as_bytes()].concat()
    }

    /// The mirror of [`Marker::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (moved, folder) = bytes.split_first().ok_or(WireError::Short("moved"))?;
        let moved = match moved {
            0 => false,
            1 => true,
            _ => return Err(WireError::BadValue("moved")),
        };
        // One name: files are moved there, and never out of the state directory.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        match std::str::from_utf8(folder) {
            Ok(name) if folder.iter().all(is_plain) => Ok(Self { folder: name.to_owned(), moved }),
            _ => Err(WireError::BadValue("folder")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written_or_not_at_all() {
        for (folder, moved) in [("before-recovery-1700000000", false), ("before-recovery-1700000000", true), ("", true)]
        {
            let marker = Marker { folder: folder.to_owned(), moved };
            assert_eq!(Marker::decode(&marker.encode()), Ok(marker));
        }
        for bytes in [&b""[..], b"\x02x", b"\x01../elsewhere", b"\x01/etc", b"\x01a/b", b"\x01.", b"\x01\xff"] {
            assert!(Marker::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
