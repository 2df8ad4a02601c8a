//! How the blob of a TPM engine begins, up to its policy (docs/formats.md, "TPM blob"): what can be told without a TPM or its library.
//! The engine reads on from there.
//!
//! Total over any bytes.

use super::tcg::Name;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Checked, SealPolicy};

/// In the one version there is.
const FORMAT: Checked = Checked::new(TpmHead::MAGIC, 1);

/// The one set of algorithms there is.
const ALGORITHM: u8 = 1;

/// The first fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmHead {
    /// Where the storage root key was.
    pub parent_handle: u32,
    /// Number of its template; 0 if another program made it by one of its own.
    pub parent_template: u8,
    /// Its Name.
    pub parent_name: Name,
    /// What the object is bound to.
    pub policy: SealPolicy,
}

impl TpmHead {
    /// The first bytes of the blob.
    pub const MAGIC: &[u8; 8] = b"NSEALTPM";

    /// Reads it, and gives what follows up to the checksum.
    pub fn read(blob: &[u8]) -> Result<(Self, Reader<'_>), WireError> {
        let mut r = FORMAT.read(blob)?;
        if r.u8("algorithm")? != ALGORITHM {
            return Err(WireError::BadValue("algorithm"));
        }
        let (parent_handle, parent_template) = (r.u32("parent handle")?, r.u8("parent template")?);
        let parent_name = r.array("parent name")?;
        let policy = SealPolicy::read(&mut r)?;
        Ok((Self { parent_handle, parent_template, parent_name, policy }, r))
    }

    /// The blob: this, what follows, and the checksum.
    pub fn write(&self, follows: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = FORMAT.begin();
        w.u8(ALGORITHM).u32(self.parent_handle).u8(self.parent_template).raw(&self.parent_name);
        self.policy.write(&mut w);
        follows(&mut w);
        Checked::finish(w)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::seal::protocol::DeviceBlob;
    use crate::types::hex;
    use crate::types::{PcrBank, PcrSet};

    /// Begins as the frozen blob of the engine with registers 7 and 23 of SHA-384 does.
    const V1_PCR: &str = "4e5345414c54504d0001018100000100\
        cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd010200800080";

    fn blob(head: &str) -> DeviceBlob {
        let mut bytes = hex::decode(head).unwrap();
        bytes.extend_from_slice(&[0x77; 96]);
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        DeviceBlob::new(bytes).unwrap()
    }

    #[test]
    fn a_blob_tells_its_policy_without_a_tpm() {
        let pcrs = PcrSet::from_numbers(&[7, 23]).unwrap();
        assert_eq!(blob(V1_PCR).policy(), Some(SealPolicy::Pcr { bank: PcrBank::Sha384, pcrs }));
        let none = format!("{}00", &V1_PCR[..100]);
        assert_eq!(blob(&none).policy(), Some(SealPolicy::None));
        let token = DeviceBlob::new(DeviceBlob::PKCS11_MAGIC.to_vec()).unwrap();
        assert_eq!(token.policy(), Some(SealPolicy::None));
    }

    #[test]
    fn a_damaged_or_foreign_blob_tells_nothing() {
        let whole = blob(V1_PCR);
        for at in 0..whole.as_bytes().len() {
            let mut damaged = whole.as_bytes().to_vec();
            damaged[at] ^= 1;
            assert_eq!(DeviceBlob::new(damaged).unwrap().policy(), None, "byte {at}");
        }
        for len in 1..whole.as_bytes().len() {
            assert_eq!(DeviceBlob::new(whole.as_bytes()[..len].to_vec()).unwrap().policy(), None, "{len} bytes");
        }
    }

    #[test]
    fn what_is_read_is_written_again() {
        let whole = blob(V1_PCR);
        let (head, mut follows) = TpmHead::read(whole.as_bytes()).unwrap();
        let rest = follows.rest().to_vec();
        let written = head.write(|w| {
            w.raw(&rest);
        });
        assert_eq!(written, whole.as_bytes());
    }
}
