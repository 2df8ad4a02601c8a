//! Whether an object opens under its seed or DEK at its key of etcd. The plaintext is wiped at once, and one bit is left.
//!
//! As k8s.io/apiserver writes it: `pkg/storage/value/encrypt/aes/aes.go` (GCM: nonce of 12 bytes, ciphertext, tag; CBC: IV of 16
//! bytes, padded as in PKCS #7) and `aes_extended_nonce.go` (32 bytes of info, from which HKDF-SHA256, expanded only, makes the key of
//! this object). What GCM authenticates besides is the key in etcd.

use aes::cipher::{BlockCipherDecrypt, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::object::SourceKind;
use crate::envelope::{Api, KekCipher, NONCE_BYTES};
use crate::types::stack::{self, CIPHER_BYTES};
use crate::types::{Key, Secret};

/// `infoSizeExtendedNonceGCM`
const INFO_BYTES: usize = 32;
const BLOCK_BYTES: usize = 16;

/// Whether `data` opens under `source` at `key`. KMS v1 objects may be in CBC, which older kube-apiservers wrote and which
/// authenticates nothing: there only the padding is looked at.
pub fn opens(api: Api, kind: SourceKind, source: &Secret, data: &[u8], key: &[u8]) -> bool {
    let Some(source) = Key::copy_of(source.expose()) else { return false };
    match kind {
        SourceKind::Key => opens_gcm(&source, data, key) || (api == Api::V1 && is_padded_cbc(&source, data)),
        SourceKind::Seed => {
            let Some((info, data)) = data.split_at_checked(INFO_BYTES) else { return false };
            derived(&source, info).is_some_and(|derived| opens_gcm(&derived, data, key))
        }
    }
}

/// The key of one object. RFC 5869 §2.3 allows 255 blocks, and this is one.
fn derived(seed: &Key, info: &[u8]) -> Option<Key> {
    let expanding = Hkdf::<Sha256>::from_prk(seed.expose()).ok()?;
    Key::fill(|key| expanding.expand(info, key)).ok()
}

fn opens_gcm(key: &Key, data: &[u8], aad: &[u8]) -> bool {
    let Some((nonce, data)) = data.split_first_chunk::<NONCE_BYTES>() else { return false };
    KekCipher(key).open(nonce, aad, data).is_ok()
}

fn is_padded_cbc(key: &Key, data: &[u8]) -> bool {
    let (blocks, rest) = data.as_chunks::<BLOCK_BYTES>();
    // The first is the IV.
    let [.., before, last] = blocks else { return false };
    if !rest.is_empty() {
        return false;
    }
    let mut plain = Zeroizing::new(*last);
    stack::wiped::<CIPHER_BYTES, _>(|| aes::Aes256::new(key.expose().into()).decrypt_block((&mut *plain).into()));
    plain.iter_mut().zip(before).for_each(|(byte, before)| *byte ^= before);
    let padding = plain[BLOCK_BYTES - 1];
    (1..=BLOCK_BYTES).contains(&usize::from(padding))
        && plain[BLOCK_BYTES - usize::from(padding)..].iter().all(|byte| *byte == padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    const KEY: &[u8] = b"/registry/secrets/default/a";

    fn sealed(key: &Key, nonce: [u8; NONCE_BYTES], plain: &[u8]) -> Vec<u8> {
        let mut data = nonce.to_vec();
        KekCipher(key).seal(&nonce, KEY, plain, &mut data).unwrap();
        data
    }

    #[test]
    fn an_object_opens_under_its_own_key_at_its_own_place_alone() {
        let dek = Key::copy_of(&[7; Key::LEN]).unwrap();
        let source = Secret::copy_of(dek.expose());
        let data = sealed(&dek, [1; NONCE_BYTES], b"plain");
        let tried = |data: &[u8], key: &[u8]| opens(Api::V2, SourceKind::Key, &source, data, key);
        assert!(tried(&data, KEY));
        assert!(!tried(&data, b"/registry/secrets/default/b"), "moved");
        for at in 0..data.len() {
            let mut changed = data.clone();
            changed[at] ^= 1;
            assert!(!tried(&changed, KEY), "{at}");
            assert!(!tried(&data[..at], KEY), "{at}");
        }
        assert!(!opens(Api::V2, SourceKind::Seed, &source, &data, KEY));
    }

    #[test]
    fn the_key_of_an_object_is_expanded_from_the_seed() {
        let seed = Key::copy_of(&[9; Key::LEN]).unwrap();
        let info = [3; INFO_BYTES];
        // HMAC-SHA-256 of the info and 0x01 under the seed (RFC 5869 §2.3), by Python's hmac.
        let expected = "f9ffbce1b24fe75af7fa9a3401f0cd8be815c5d234b8cd1da4def6ee07811912";
        let key = derived(&seed, &info).unwrap();
        assert_eq!(hex::encode(key.expose()), expected);
        let data = [&info[..], &sealed(&key, [2; NONCE_BYTES], b"plain")].concat();
        assert!(opens(Api::V2, SourceKind::Seed, &Secret::copy_of(seed.expose()), &data, KEY));
        assert!(!opens(Api::V2, SourceKind::Seed, &Secret::copy_of(&[8; 32]), &data, KEY));
        assert!(!opens(Api::V2, SourceKind::Seed, &Secret::copy_of(&[8; 16]), &data[..20], KEY));
    }

    #[test]
    fn what_an_older_kube_apiserver_wrote_in_cbc_opens_in_v1_alone() {
        // openssl enc -aes-256-cbc -K 07… -iv 05…, of "plain".
        let data = hex::decode(CBC).unwrap();
        let source = Secret::copy_of(&[7; 32]);
        assert!(opens(Api::V1, SourceKind::Key, &source, &data, KEY));
        assert!(!opens(Api::V2, SourceKind::Key, &source, &data, KEY));
        assert!(!opens(Api::V1, SourceKind::Key, &Secret::copy_of(&[6; 32]), &data, KEY));
        assert!(!opens(Api::V1, SourceKind::Key, &source, &data[..16], KEY));
    }

    const CBC: &str = "05050505050505050505050505050505ff2517bac2e706cf29f506be151e780d";
}
