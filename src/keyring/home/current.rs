//! What the file `current` says (docs/formats.md, "Current"). Pure; no name in it leads out of `roots/`.
//!
//! ```text
//! current = name: u16 length, bytes | kept: u16 count, each u16 length, bytes | left: as kept
//! ```

use crate::types::wire::{Reader, WireError, Writer};

/// What the file `current` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// A folder below `roots/`.
    pub name: String,
    /// Folders of earlier roots that a recovery has kept.
    pub kept: Vec<String>,
    /// Folders of earlier roots that are to be removed.
    pub left: Vec<String>,
}

impl Current {
    /// The payload of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes16(self.name.as_bytes());
        for names in [&self.kept, &self.left] {
            w.u16(u16::try_from(names.len()).unwrap_or(u16::MAX));
            for name in names.iter().take(usize::from(u16::MAX)) {
                w.bytes16(name.as_bytes());
            }
        }
        w.finish()
    }

    /// The mirror of [`Current::encode`]. Refuses names that could lead out of `roots/`.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let name = read_name(&mut r)?;
        let kept = (0..r.u16("kept")?).map(|_| read_name(&mut r)).collect::<Result<_, _>>()?;
        let left = (0..r.u16("left")?).map(|_| read_name(&mut r)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { name, kept, left })
    }
}

fn read_name(r: &mut Reader<'_>) -> Result<String, WireError> {
    let name = r.text16("root folder")?;
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { Ok(name.to_owned()) } else { Err(WireError::BadValue("root folder")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    #[test]
    fn frozen_vector_of_current_and_no_name_leads_out_of_its_folder() {
        let current = Current { name: "0a".repeat(16), kept: vec!["flat".into()], left: vec!["0b".into()] };
        let bytes = current.encode();
        assert_eq!(hex::encode(&bytes), format!("0020{}00010004{}00010002{}", "3061".repeat(16), "666c6174", "3062"));
        assert_eq!(Current::decode(&bytes), Ok(current));
        for len in 0..bytes.len() {
            assert!(Current::decode(&bytes[..len]).is_err());
        }
        for name in ["", "..", "a/b", "/etc", "."] {
            let bad = Current { name: name.into(), kept: Vec::new(), left: Vec::new() };
            assert!(Current::decode(&bad.encode()).is_err(), "{name}");
        }
    }
}
