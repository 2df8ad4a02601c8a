//! Keys of the token that several machines share: they wrap the cluster's local KEKs, and never the node root.
//!
//! The same blob as for the node root, with an authValue that is a digest of what the text is bound to, and no secret.
//!
//! Refuses
//! * the label of the key that seals the node root: a key has one purpose (NIST SP 800-57 Part 1 §5.2);
//! * RSA: whoever has the public half could make a text that opens;
//! * a CKA_ID below [`ID_MIN_BYTES`]: it stands for the key on all machines, and a number that a person chose is chosen again for the next key. A check value
//!   of the key itself is not used in its place: of an AES key it is the first bytes of AES(0), which is the
//!   secret hash subkey of GCM (NIST SP 800-38D §7.1), and what names a key is stored in clear;
//! * to make a key unless told to, and to destroy one. Machines that make one at the same moment make two, which is an
//!   error on all of them until an operator chooses; nothing that either has wrapped is lost.

use super::blob::Head;
use super::key::{self, Wanted};
use super::{Pkcs11, decode};
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::protocol::{Auth, DeviceBlob};
use crate::seal::token_key::TokenKey;
use crate::sealer::SharedKeys;
use crate::sealer::settings::Pkcs11Mechanism;
use crate::types::{Key, hex};

/// As many as a key of ours has: random ones never meet.
const ID_MIN_BYTES: usize = 16;

const MECHANISMS: [Pkcs11Mechanism; 2] = [Pkcs11Mechanism::AesGcm, Pkcs11Mechanism::AesCbcHmac];

impl SharedKeys for Pkcs11 {
    fn find(&mut self, key: &TokenKey, make: bool) -> Result<TokenKey, Fault> {
        let wanted = self.wanted(key, make)?;
        let found = self.run(|module, token, _| key::for_sealing(module.library(), token, &wanted))?;
        named(key, found.id)
    }

    fn wrap(&mut self, key: &TokenKey, auth: &Auth, secret: &Key) -> Result<(TokenKey, DeviceBlob), Fault> {
        let wanted = self.wanted(key, false)?;
        let (id, blob) = self.seal_and_prove(&wanted, secret, auth)?;
        Ok((named(key, id)?, blob))
    }

    fn unwrap(&mut self, key: &TokenKey, auth: &Auth, blob: &DeviceBlob) -> Result<Key, Fault> {
        self.wanted(key, false)?;
        let blob = decode(blob.as_bytes())?;
        let Head { mechanism, key_label, key_id, .. } = &blob.head;
        if key.label() != key_label || key.id() != Some(key_id) || !MECHANISMS.contains(mechanism) {
            let detail = format!("the text is of the key {key_label:?} with the id {}", hex::encode(key_id));
            return Err(Fault::new(FaultCode::HsmForeign, detail));
        }
        self.run(|_, token, settings| Self::unseal_once(token, &blob, auth, settings.trust_key))
    }
}

impl Pkcs11 {
    fn wanted<'a>(&self, key: &'a TokenKey, make: bool) -> Result<Wanted<'a>, Fault> {
        if key.label() == self.settings.key_label {
            let detail =
                format!("{:?} is the label of the key that seals the node root: give this one its own", key.label());
            return Err(Fault::new(FaultCode::HsmKey, detail));
        }
        let trust = self.settings.trust_key;
        Ok(Wanted { label: key.label(), id: key.id(), make, trust, mechanisms: &MECHANISMS })
    }
}

fn named(key: &TokenKey, id: Vec<u8>) -> Result<TokenKey, Fault> {
    if id.len() < ID_MIN_BYTES {
        let detail = format!(
            "the key {:?} has the CKA_ID {}: it needs {ID_MIN_BYTES} random bytes",
            key.label(),
            hex::encode(id)
        );
        return Err(Fault::new(FaultCode::HsmKey, detail));
    }
    TokenKey::new(key.label(), Some(id)).ok_or_else(|| Fault::new(FaultCode::Internal, "the key's name"))
}
