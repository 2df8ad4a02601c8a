//! Whether an object opens under its seed or DEK at its key of etcd. The plaintext is wiped at once, and one bit is left, which
//! never depends on a plaintext that nobody has authenticated: whoever may ask chooses the bytes that he asks about.
//!
//! As k8s.io/apiserver writes it: `pkg/storage/value/encrypt/aes/aes.go` (GCM: nonce of 12 bytes, ciphertext, tag; CBC: IV of 16
//! bytes, padded as in PKCS #7) and `aes_extended_nonce.go` (32 bytes of info, from which HKDF-SHA256, expanded only, makes the key of
//! this object). What GCM authenticates besides is the key in etcd.

use hkdf::Hkdf;
use sha2::Sha256;

use super::object::SourceKind;
use crate::envelope::{Api, BoundCipher, NONCE_BYTES};
use crate::types::{Key, Secret};

/// `infoSizeExtendedNonceGCM`
const INFO_BYTES: usize = 32;
const BLOCK_BYTES: usize = 16;

/// Whether `data` opens under `source` at `key`. KMS v1 objects may be in CBC, which older kube-apiservers wrote and which
/// authenticates nothing: what has whole blocks there counts as open, since its DEK opens. Its padding is not looked at. An answer about
/// it would give the plaintext away, byte by byte, to whoever asks often enough (Vaudenay 2002, "Security Flaws Induced by CBC Padding").
pub fn opens(api: Api, kind: SourceKind, source: &Secret, data: &[u8], key: &[u8]) -> bool {
    let Some(source) = Key::copy_of(source.expose()) else { return false };
    match kind {
        SourceKind::Key => opens_gcm(&source, data, key) || (api == Api::V1 && is_in_blocks(data)),
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
    BoundCipher(key).open(nonce, aad, data).is_ok()
}

/// As CBC is: an IV, and one block at least.
fn is_in_blocks(data: &[u8]) -> bool {
    data.len() >= 2 * BLOCK_BYTES && data.len().is_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    const KEY: &[u8] = b"/registry/secrets/default/a";

    fn sealed(key: &Key, nonce: [u8; NONCE_BYTES], plain: &[u8]) -> Vec<u8> {
        let mut data = nonce.to_vec();
        BoundCipher(key).seal(&nonce, KEY, plain, &mut data).unwrap();
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
    fn what_an_older_kube_apiserver_wrote_in_cbc_opens_in_v1_alone_whatever_is_in_its_blocks() {
        // openssl enc -aes-256-cbc -K 07… -iv 05…, of "plain".
        let data = hex::decode(CBC).unwrap();
        let source = Secret::copy_of(&[7; 32]);
        assert!(opens(Api::V1, SourceKind::Key, &source, &data, KEY));
        assert!(!opens(Api::V2, SourceKind::Key, &source, &data, KEY));
        assert!(opens(Api::V1, SourceKind::Key, &Secret::copy_of(&[6; 32]), &data, KEY), "its padding says nothing");
        assert!(!opens(Api::V1, SourceKind::Key, &source, &data[..data.len() - 1], KEY));
        assert!(!opens(Api::V1, SourceKind::Key, &source, &data[..16], KEY));
    }

    #[test]
    fn whoever_only_asks_whether_objects_open_learns_no_plaintext() {
        let source = Secret::copy_of(&[7; 32]);
        let stored = hex::decode(CBC).unwrap();
        // As a client of the control socket asks: with an IV of its own making, the answer being `opens` or `moved`.
        let opened = |data: &[u8]| opens(Api::V1, SourceKind::Key, &source, data, KEY);
        let (iv, block) = stored.split_at(BLOCK_BYTES);
        let mut found = [0_u8; BLOCK_BYTES];
        for at in (0..BLOCK_BYTES).rev() {
            let padding = u8::try_from(BLOCK_BYTES - at).unwrap();
            for guess in 0..=u8::MAX {
                let mut asked = [0xA5; BLOCK_BYTES];
                (at + 1..BLOCK_BYTES).for_each(|known| asked[known] = found[known] ^ padding);
                asked[at] = guess;
                if opened(&[&asked[..], block].concat()) {
                    found[at] = guess ^ padding;
                    break;
                }
            }
        }
        let plain: Vec<u8> = found.iter().zip(iv).map(|(byte, iv)| byte ^ iv).collect();
        assert!(!plain.starts_with(b"plain"), "the object was read by asking: {:?}", String::from_utf8_lossy(&plain));
    }

    const CBC: &str = "05050505050505050505050505050505ff2517bac2e706cf29f506be151e780d";
}
