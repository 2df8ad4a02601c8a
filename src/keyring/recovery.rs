//! The recovery file `recovery.age`: a keyring export encrypted to the operator's age recipients (age-encryption.org/v1, X25519).
//!
//! Kept in the state directory and rewritten before each change of keys, so that a copy of it from any time opens everything that
//! was encrypted until then. Refuses recipients that are not X25519 ones: a passphrase would have to be stored to rewrite it.
//! A printed recovery code is an age identity too, so that `age -d` reads the file without us.
//!
//! A build without the feature `recovery` has no age: it makes and opens no recovery file, and says so. It reads a state that names
//! recipients, and opens its keys; what would have to write the file is refused.
//!
//! age says nothing of who encrypted, and whoever knows the recipient can: so the export inside is signed (`super::maker`).

#[cfg(not(any(test, feature = "recovery")))]
mod absent;
#[cfg(any(test, feature = "recovery"))]
mod library;

#[cfg(not(any(test, feature = "recovery")))]
use absent as library;
pub use library::{Identity, Recipient};

use super::export::Export;
use super::maker::{Maker, MakerKey};
use crate::seal::root::NodeRoot;
use crate::store::container::{self, Kind};
use crate::types::wire::WireError;
use crate::types::{Class, ClusterId, Explained, Secret};

/// Inside of the state directory.
pub const FILE: &str = "recovery.age";

/// Recipients of one file. One operator key, a colleague's, a printed code, and room.
pub const RECIPIENTS_MAX: usize = 16;

/// Bytes of a recovery file that are read: a state of a few thousand KEKs and their keys.
pub const FILE_MAX_BYTES: usize = container::PAYLOAD_MAX_BYTES;

/// Why a text is not taken for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// Not an X25519 one.
    #[error("is not an age recipient: they begin with age1 (`age-keygen -y KEYFILE` prints it)")]
    Form,
    /// See [`RecoveryError::Absent`].
    #[error("this build makes no recovery file (it lacks the feature \"recovery\"): use --no-recovery")]
    Absent,
}

/// Why a text is not taken for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Neither a recovery code nor an age identity.
    #[error("there is no recovery code and no age identity (AGE-SECRET-KEY-1…) in it, or it is mistyped")]
    Form,
    /// See [`RecoveryError::Absent`].
    #[error("this build cannot open recovery files (it lacks the feature \"recovery\")")]
    Absent,
}

/// Why a recovery file is not made, or does not open.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Recipients of another kind, or no randomness.
    #[error("the recovery file cannot be encrypted")]
    Encrypt(#[source] std::io::Error),
    /// Damaged, or no recovery file at all.
    #[error("this is not a whole recovery file")]
    Format(#[source] WireError),
    /// Encrypted to somebody else.
    #[error("the recovery file was not encrypted to this identity")]
    Identity,
    /// An age file that is damaged.
    #[error("the recovery file is damaged, or is not an age file")]
    Age,
    /// Not compiled in.
    #[error("this build has no recovery files (it lacks the feature \"recovery\")")]
    Absent,
}

impl Explained for RecoveryError {
    fn class(&self) -> Class {
        match self {
            Self::Encrypt(_) => Class::Internal,
            Self::Format(_) | Self::Age => Class::Corrupt,
            Self::Identity => Class::Denied,
            Self::Absent => Class::Misconfigured,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Encrypt(_) => "see the log; the keys were not changed",
            Self::Format(_) | Self::Age => "take another copy of recovery.age of this node",
            Self::Identity => {
                "use the identity whose recipient was given to `nodeseal init`, or the printed recovery code"
            }
            Self::Absent => {
                "use a build with it, as the packages are; or give up the recovery file: `nodeseal reseal --no-recovery`"
            }
        }
    }
}

/// By what the files of this node are known: shown beside its recovery code and by `nodeseal status`, to be compared.
pub fn maker_fingerprint(root: &NodeRoot, cluster: &ClusterId) -> String {
    MakerKey::of(root, cluster).maker().fingerprint()
}

/// A fresh code, to be printed once, and whom it is to open for.
pub fn fresh_code() -> Result<(Recipient, Secret), RecipientError> {
    library::fresh_code()
}

/// A recipient as a state names it: as it is written there, and in no other way.
pub(super) fn known_recipient(text: &str) -> Option<Recipient> {
    Recipient::known(text)
}

/// The file. At least one recipient.
pub fn encrypt(recipients: &[Recipient], export: &Export, maker: &MakerKey) -> Result<Vec<u8>, RecoveryError> {
    library::sealed(recipients, &export.encode_signed(maker))
}

/// Opens a copy of the recovery file: as it lies in the state directory, or the age file inside of that. Gives who made it, if it is
/// signed.
pub fn decrypt(identity: &Identity, file: &[u8]) -> Result<(Export, Option<Maker>), RecoveryError> {
    let age_file = container::unwrap(Kind::Recovery, file).map_or(file, |(_, payload)| payload);
    let plain = library::opened(identity, age_file)?;
    Export::decode(plain.expose()).map_err(RecoveryError::Format)
}

#[cfg(test)]
mod tests {
    use super::super::epoch::ProviderMemory;
    use super::super::ring::{Entry, Ring};
    use super::*;
    use crate::types::{KekId, Key};

    fn export() -> Export {
        let id = KekId::from_bytes([1; 16]);
        let ring = Ring::new(Entry { id, created: 1, uses_reserved: 2, shared: false }, 3);
        let (roots, copies) = (ProviderMemory::default(), Vec::new());
        let keys = vec![(id, Key::copy_of(&[5; 32]).unwrap())];
        Export { cluster: "c1".parse().unwrap(), written: 4, roots, ring, keys, copies }
    }

    fn maker() -> MakerKey {
        MakerKey::new(&Key::copy_of(&[6; 32]).unwrap())
    }

    #[test]
    fn each_recipient_opens_the_file_and_nobody_else() {
        let (one, two, stranger) = (Identity::generate(), Identity::generate(), Identity::generate());
        let file = encrypt(&[one.recipient(), two.recipient()], &export(), &maker()).unwrap();
        for identity in [&one, &two] {
            let (export, made_by) = decrypt(identity, &file).unwrap();
            assert_eq!((export.keys[0].1.expose(), made_by), (&[5; 32], Some(maker().maker())));
        }
        assert!(matches!(decrypt(&stranger, &file), Err(RecoveryError::Identity)));
        assert!(!file.windows(32).any(|window| window == [5; 32]));
    }

    #[test]
    fn a_code_is_read_however_it_was_typed_and_a_mistyped_one_is_found() {
        let identity = Identity::generate();
        let code = identity.code();
        let text = std::str::from_utf8(code.expose()).unwrap().to_owned();
        assert_eq!(text.split(' ').count(), 9, "{text}");
        let typed = text.to_lowercase().replace(' ', "\n - ");
        for text in [text.clone(), typed, format!("# created: today\n# public key: age1x\n{}\n", text.replace(' ', ""))]
        {
            let again = Identity::parse(&Secret::copy_of(text.as_bytes())).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(again.recipient(), identity.recipient());
        }
        let wrong = if text.ends_with('Q') { 'P' } else { 'Q' };
        let mistyped = format!("{}{wrong}", &text[..text.len() - 1]);
        assert!(Identity::parse(&Secret::copy_of(mistyped.as_bytes())).is_err());
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        let identity = Identity::generate();
        let file = encrypt(&[identity.recipient()], &export(), &maker()).unwrap();
        for bit in (0..file.len() * 8).step_by(7) {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decrypt(&identity, &bad).is_err(), "bit {bit}");
        }
        for cut in (0..file.len()).step_by(7) {
            assert!(decrypt(&identity, &file[..cut]).is_err(), "cut {cut}");
        }
    }
}
