//! Who made a recovery file: a key pair for Ed25519 (RFC 8032) that follows from the node root, so that each file can be traced to
//! the node that wrote it.
//!
//! Encryption to a recipient says nothing of who encrypted. The signature alone says nothing either, since anybody has a key pair:
//! it is the fingerprint of the public half that the operator compares. Another node root is another maker.

use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, Signer, SigningKey, VerifyingKey};

use super::fingerprint;
use crate::seal::root::NodeRoot;
use crate::types::{ClusterId, Key};

/// Bytes of the public half.
pub const MAKER_BYTES: usize = PUBLIC_KEY_LENGTH;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = SIGNATURE_LENGTH;

/// Signs recovery files. Wiped on drop.
pub struct MakerKey(Box<SigningKey>);

impl MakerKey {
    /// From the seed that the node root gives ([`NodeRoot::recovery_signing_seed`]).
    pub fn new(seed: &Key) -> Self {
        Self(Box::new(SigningKey::from_bytes(seed.expose())))
    }

    /// That of a node.
    pub fn of(root: &NodeRoot, cluster: &ClusterId) -> Self {
        Self::new(&root.recovery_signing_seed(cluster))
    }

    /// The public half.
    pub fn maker(&self) -> Maker {
        Maker(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(text).to_bytes()
    }
}

/// The public half of a [`MakerKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker([u8; MAKER_BYTES]);

impl Maker {
    pub(in crate::keyring) const fn from_bytes(bytes: [u8; MAKER_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; MAKER_BYTES] {
        &self.0
    }

    /// For people: as bundles have it.
    pub fn fingerprint(&self) -> String {
        fingerprint::fingerprint(&self.0)
    }

    /// Whether this is the fingerprint that an operator gave. Case and hyphens do not count.
    pub fn is(&self, given: &str) -> bool {
        fingerprint::is_fingerprint(&self.0, given)
    }

    /// Refuses public halves of small order, and every second form of a signature.
    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let key = VerifyingKey::from_bytes(&self.0);
        key.is_ok_and(|key| key.verify_strict(text, &Signature::from_bytes(signature)).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    #[test]
    fn a_signature_holds_for_one_text_and_one_maker() {
        let [one, two] = [1, 2].map(|byte| MakerKey::new(&Key::copy_of(&[byte; 32]).unwrap()));
        let signature = one.sign(b"text");
        assert!(one.maker().has_signed(b"text", &signature));
        assert!(!one.maker().has_signed(b"texts", &signature));
        assert!(!two.maker().has_signed(b"text", &signature));
        // RFC 8032 §5.1.7: a signature of the neutral element over anything, which a lenient reader takes.
        let mut neutral = [0; MAKER_BYTES];
        neutral[0] = 1;
        let mut anything = [0; SIGNATURE_BYTES];
        anything[0] = 1;
        assert!(!Maker::from_bytes(neutral).has_signed(b"text", &anything));
    }

    #[test]
    fn frozen_vector_of_rfc_8032() {
        // §7.1, test 1.
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = MakerKey::new(&Key::copy_of(&seed).unwrap());
        assert_eq!(
            hex::encode(key.maker().as_bytes()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert_eq!(
            hex::encode(key.sign(b"")),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
             d25bf5f0595bbe24655141438e7a100b"
        );
        assert_eq!(key.maker().fingerprint(), fingerprint::fingerprint(key.maker().as_bytes()));
    }
}
