//! The recovery file `recovery.age`: a keyring export encrypted to the operator's age recipients (age-encryption.org/v1, X25519).
//!
//! Kept in the state directory and rewritten before each change of keys, so that a copy of it from any time opens everything that
//! was encrypted until then. Refuses recipients that are not X25519 ones: a passphrase would have to be stored to rewrite it.
//! A printed recovery code is an age identity too, so that `age -d` reads the file without us.
//!
//! age says nothing of who encrypted, and whoever knows the recipient can: so the export inside is signed (`super::maker`).

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

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

/// Somebody who can open the recovery file. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

/// Not an X25519 recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an age recipient: they begin with age1 (`age-keygen -y KEYFILE` prints it)")]
pub struct RecipientError;

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        text.trim().parse().map(Self).map_err(|_| RecipientError)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What opens the recovery file: a secret that the operator keeps elsewhere.
pub struct Identity(age::x25519::Identity);

/// Neither a recovery code nor an age identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no recovery code and no age identity (AGE-SECRET-KEY-1…) in it, or it is mistyped")]
pub struct IdentityError;

impl Identity {
    /// A fresh one, for a printed code.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// From a key file of age, or from a typed code: comments are left out, spaces, hyphens inside of the code and case do not
    /// count; its own checksum finds typing errors (BIP 173).
    pub fn parse(text: &Secret) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(text.expose()).map_err(|_| IdentityError)?;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut code = Zeroizing::new(String::with_capacity(text.len() + PREFIX.len()));
        lines.flat_map(str::chars).filter(char::is_ascii_alphanumeric).for_each(|c| code.push(c.to_ascii_uppercase()));
        let code = code.strip_prefix("AGESECRETKEY1").ok_or(IdentityError)?;
        let mut whole = Zeroizing::new(String::with_capacity(code.len() + PREFIX.len()));
        whole.push_str(PREFIX);
        whole.push_str(code);
        whole.parse().map(Self).map_err(|_| IdentityError)
    }

    /// Whom to encrypt to.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The code to print once: the age identity in groups of eight.
    pub fn code(&self) -> Secret {
        let text = self.0.to_string();
        let body = text.expose_secret().trim_start_matches(PREFIX);
        let mut code = Vec::with_capacity(PREFIX.len() + 2 * body.len());
        code.extend_from_slice(PREFIX.as_bytes());
        for group in body.as_bytes().chunks(GROUP) {
            code.push(b' ');
            code.extend_from_slice(group);
        }
        Secret::new(code)
    }
}

const PREFIX: &str = "AGE-SECRET-KEY-1";
const GROUP: usize = 8;

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
    #[error("the recovery file is damaged, or is no file of age")]
    Age,
}

impl Explained for RecoveryError {
    fn class(&self) -> Class {
        match self {
            Self::Encrypt(_) => Class::Internal,
            Self::Format(_) | Self::Age => Class::Corrupt,
            Self::Identity => Class::Denied,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Encrypt(_) => "see the log; the keys were not changed",
            Self::Format(_) | Self::Age => "take another copy of recovery.age of this node",
            Self::Identity => {
                "use the identity whose recipient was given to `nodeseal init`, or the printed recovery code"
            }
        }
    }
}

/// By what the files of this node are known: shown beside its recovery code and by `nodeseal status`, to be compared.
pub fn maker_fingerprint(root: &NodeRoot, cluster: &ClusterId) -> String {
    MakerKey::of(root, cluster).maker().fingerprint()
}

/// The age file. At least one recipient.
pub fn encrypt(recipients: &[Recipient], export: &Export, maker: &MakerKey) -> Result<Vec<u8>, RecoveryError> {
    let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
    let fail = |error: age::EncryptError| RecoveryError::Encrypt(std::io::Error::other(error));
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(fail)?;
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).map_err(RecoveryError::Encrypt)?;
    writer.write_all(export.encode_signed(maker).expose()).map_err(RecoveryError::Encrypt)?;
    writer.finish().map_err(RecoveryError::Encrypt)?;
    Ok(file)
}

/// Opens a copy of the recovery file: as it lies in the state directory, or the age file inside of that. Gives who made it, if it is
/// signed.
pub fn decrypt(identity: &Identity, file: &[u8]) -> Result<(Export, Option<Maker>), RecoveryError> {
    let age_file = container::unwrap(Kind::Recovery, file).map_or(file, |(_, payload)| payload);
    let decryptor = age::Decryptor::new(age_file).map_err(|_| RecoveryError::Age)?;
    let mut reader =
        decryptor.decrypt([&identity.0 as &dyn age::Identity].into_iter()).map_err(|error| match error {
            age::DecryptError::NoMatchingKeys | age::DecryptError::DecryptionFailed => RecoveryError::Identity,
            _ => RecoveryError::Age,
        })?;
    // The plain text is shorter than the file: this never grows, and leaves no copy behind.
    let mut plain = Vec::with_capacity(age_file.len());
    let read = (&mut reader).take(age_file.len() as u64).read_to_end(&mut plain);
    let plain = Secret::new(plain);
    read.map_err(|_| RecoveryError::Age)?;
    Export::decode(plain.expose()).map_err(RecoveryError::Format)
}

#[cfg(test)]
mod tests {
    use super::super::epoch::Roots;
    use super::super::ring::{Entry, Ring};
    use super::*;
    use crate::types::{KekId, Key};

    fn export() -> Export {
        let id = KekId::from_bytes([1; 16]);
        let ring = Ring::new(Entry { id, created: 1, uses_reserved: 2, shared: false }, 3);
        let (roots, copies) = (Roots::default(), Vec::new());
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
