//! Identities, bundles for members and receipts: frozen vectors, and every way in which one is refused.

use super::*;
use crate::envelope::NONCE_BYTES;
use crate::keyring::attached::Check;
use crate::keyring::bundle::Drawn;
use crate::keyring::crash::device::PARENT;
use crate::keyring::epoch::ProviderMemory;
use crate::keyring::export::Export;
use crate::keyring::ring::{Entry, Ring};
use crate::types::{KekId, RootId, hex};

fn cluster() -> ClusterId {
    "c1".parse().unwrap()
}

fn key(byte: u8) -> Key {
    Key::copy_of(&[byte; 32]).unwrap()
}

fn keys(byte: u8) -> MemberKeys {
    MemberKeys::new(&key(byte)).unwrap()
}

fn identity(byte: u8) -> Vec<u8> {
    keys(byte).identity(&cluster(), "cp-2".parse().unwrap(), hex::decode(PARENT).unwrap()).unwrap()
}

fn export() -> Export {
    let entry = Entry { id: KekId::from_bytes([1; 16]), created: 1, uses_reserved: 0, shared: true };
    Export {
        cluster: cluster(),
        written: 2,
        roots: ProviderMemory::default(),
        ring: Ring::new(entry, 3),
        copies: Vec::new(),
        keys: vec![(KekId::from_bytes([1; 16]), key(8))],
    }
}

fn standing() -> Vec<u8> {
    let to = Identity::decode(&identity(2)).unwrap();
    let drawn = Drawn { transport: key(5), secret: key(6), nonce: [7; NONCE_BYTES] };
    Standing::seal(&to, &keys(1), vec![1, 2, 3], &drawn, 100, &export()).unwrap()
}

#[test]
fn an_identity_is_the_same_each_time_and_another_root_is_another_one() {
    assert_eq!(identity(2), identity(2));
    let [one, two] = [1, 2].map(|byte| Identity::decode(&identity(byte)).unwrap());
    assert_ne!(one.maker, two.maker);
    assert_ne!(one.half, two.half);
    assert!(one.check(&cluster()).is_ok());
    assert!(matches!(one.check(&"other".parse().unwrap()), Err(BundleError::Cluster(_))));
}

#[test]
fn every_flipped_byte_of_an_identity_a_bundle_and_a_receipt_is_refused() {
    let receipt = Receipt::sign(&cluster(), &KekId::from_bytes([1; 16]), check(), &keys(2));
    for at in 0..identity(2).len() {
        let mut file = identity(2);
        file[at] ^= 1;
        assert!(Identity::decode(&file).is_err(), "identity, byte {at}");
    }
    let whole = standing();
    for at in 0..whole.len() {
        let mut file = whole.clone();
        file[at] ^= 1;
        assert!(Standing::decode(&file).is_err(), "bundle, byte {at}");
    }
    for at in 0..receipt.len() {
        let mut file = receipt.clone();
        file[at] ^= 1;
        assert!(Receipt::decode(&file).is_err(), "receipt, byte {at}");
    }
}

#[test]
fn a_bundle_opens_for_its_member_with_its_tpms_key_alone() {
    let bundle = Standing::decode(&standing()).unwrap();
    assert_eq!(bundle.check(&cluster(), &keys(2).maker(), 99), Ok(()));
    assert_eq!(bundle.check(&cluster(), &keys(2).maker(), 100), Err(BundleError::StandingExpired));
    assert_eq!(bundle.check(&cluster(), &keys(3).maker(), 99), Err(BundleError::NotForThisNode));
    assert!(matches!(bundle.check(&"other".parse().unwrap(), &keys(2).maker(), 99), Err(BundleError::Cluster(_))));
    assert_eq!(bundle.open(&key(5), &keys(2)).unwrap().keys.len(), 1);
    assert!(matches!(bundle.open(&key(4), &keys(2)), Err(BundleError::Tag)), "without the TPM");
    assert!(matches!(bundle.open(&key(5), &keys(3)), Err(BundleError::Tag)), "without the disk");
}

fn check() -> Check {
    Check::of(&KekId::from_bytes([1; 16]), key(8).expose())
}

#[test]
fn a_receipt_is_of_one_member_one_kek_and_one_key() {
    let id = KekId::from_bytes([1; 16]);
    let receipt = Receipt::decode(&Receipt::sign(&cluster(), &id, check(), &keys(2))).unwrap();
    let other = Check::of(&id, key(9).expose());
    assert!(receipt.says(&cluster(), &keys(2).maker(), &id, check()));
    assert!(!receipt.says(&cluster(), &keys(3).maker(), &id, check()));
    assert!(!receipt.says(&cluster(), &keys(2).maker(), &id, other));
    assert!(!receipt.says(&cluster(), &keys(2).maker(), &KekId::from_bytes([2; 16]), check()));
    assert!(!receipt.says(&"other".parse().unwrap(), &keys(2).maker(), &id, check()));
}

#[test]
fn one_signature_never_passes_for_another_kind_of_file() {
    // A receipt and an identity by the same key: neither reads as the other, whatever is cut or put before it.
    let receipt = Receipt::sign(&cluster(), &KekId::from_bytes([1; 16]), check(), &keys(2));
    assert!(Identity::decode(&receipt).is_err() && Standing::decode(&receipt).is_err());
    assert!(Receipt::decode(&identity(2)).is_err() && Standing::decode(&identity(2)).is_err());
}

#[test]
fn what_is_stored_of_a_member_is_of_one_root_and_cannot_be_changed() {
    let known = Known { given: Some(KekId::from_bytes([3; 16])), ..Known::new(&identity(2), &cluster()).unwrap() };
    let root = RootId::from_bytes([9; 16]);
    let bytes = known.encode(&root, &key(7));
    assert_eq!(Known::decode(&bytes, &cluster(), &root, &key(7)), Ok(known));
    assert_eq!(Known::decode(&bytes, &cluster(), &root, &key(6)), Err(BundleError::Tag));
    assert!(Known::decode(&bytes, &cluster(), &RootId::from_bytes([8; 16]), &key(7)).is_err());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Known::decode(&changed, &cluster(), &root, &key(7)).is_err(), "byte {at}");
    }
}

#[test]
fn frozen_vectors() {
    let sum = |file: &[u8]| crate::keyring::bundle::fingerprint(file);
    let receipt = Receipt::sign(&cluster(), &KekId::from_bytes([1; 16]), check(), &keys(2));
    let known = Known::new(&identity(2), &cluster()).unwrap().encode(&RootId::from_bytes([9; 16]), &key(7));
    assert_eq!(
        [sum(&identity(2)), sum(&standing()), sum(&receipt), sum(&known)],
        [
            "4d1b5-75f7d-48c73-28803-4bc08-9f8fc-e4001-4c896",
            "d7efb-0e982-0f657-8e9a1-b71b9-c6fe3-7c6de-34b26",
            "9387f-5bb7a-fb293-e094c-67125-81e47-c298d-339c2",
            "3eb59-9ae23-6963b-59a76-ba742-e342f-a42ef-5ad96",
        ]
    );
}
