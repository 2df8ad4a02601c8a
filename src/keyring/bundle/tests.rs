//! Requests and bundles: frozen vectors, and every way in which one is refused.

use super::*;
use crate::keyring::epoch::ProviderMemory;
use crate::keyring::ring::{Entry, Ring};
use crate::keyring::uses::{HARD_LIMIT_USES, ROTATE_AT_USES};
use crate::types::{KekId, hex};

fn cluster(name: &str) -> ClusterId {
    name.parse().unwrap()
}

fn key(byte: u8) -> Key {
    Key::copy_of(&[byte; 32]).unwrap()
}

fn request() -> BundleRequest {
    let half = agree::public_half(&key(9)).unwrap();
    BundleRequest {
        cluster: cluster("c1"),
        nonce: [1; 32],
        expires: 100,
        node: "cp-2".into(),
        half,
        parent: vec![2; 90],
    }
}

fn open_request() -> OpenRequest {
    OpenRequest::decode(OpenRequest::encode(&request().encode(), &key(9)).expose()).unwrap()
}

fn bundle() -> Bundle {
    let id = KekId::from_bytes([3; 16]);
    let ring = Ring::new(Entry { id, created: 1, uses_reserved: 2, shared: true }, 3);
    let (roots, copies) = (ProviderMemory::default(), Vec::new());
    let export = Export { cluster: cluster("c1"), written: 4, roots, ring, keys: vec![(id, key(5))], copies };
    let drawn = Drawn { transport: key(7), secret: key(10), nonce: [8; 12] };
    Bundle::seal(&request(), digest(&request().encode()), vec![6; 300], &drawn, &export).unwrap()
}

#[test]
fn frozen_vectors_of_version_1() {
    assert_eq!(
        hex::encode(digest(&request().encode())),
        "32ed1eef57f8b79870250b743d4042446e060ac7e0a713f7350aaefaab04b100"
    );
    assert_eq!(
        hex::encode(digest(&bundle().encode())),
        "404c7296da147685f35d8232d802188cf2586d79305ee129c068046f8438afe2"
    );
    assert_eq!(BundleRequest::decode(&request().encode()), Ok(request()));
    let back = Bundle::decode(&bundle().encode()).unwrap();
    assert_eq!(back, bundle());
    assert_eq!(back.open(&key(7), &open_request()).unwrap().keys[0].1.expose(), &[5; 32]);
}

#[test]
fn an_expired_a_foreign_and_a_replayed_bundle_are_each_named() {
    let own = digest(&request().encode());
    assert_eq!(bundle().check(&cluster("c1"), &own, 99), Ok(()));
    assert_eq!(bundle().check(&cluster("c1"), &own, 100), Err(BundleError::Expired));
    assert_eq!(bundle().check(&cluster("c2"), &own, 99), Err(BundleError::Cluster("c1".into())));
    assert_eq!(bundle().check(&cluster("c1"), &[0; 32], 99), Err(BundleError::OtherRequest));
    assert_eq!(request().check(&cluster("c1"), 100), Err(BundleError::Expired));
}

#[test]
fn any_flipped_bit_is_refused() {
    let good = bundle().encode();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Bundle::decode(&bad).and_then(|bundle| bundle.open(&key(7), &open_request())).is_err(), "bit {bit}");
    }
    // The TPM alone, and the disk alone.
    assert!(matches!(bundle().open(&key(9), &open_request()), Err(BundleError::Tag)));
    let another_disk = OpenRequest { secret: key(1), ..open_request() };
    assert!(matches!(bundle().open(&key(7), &another_disk), Err(BundleError::Tag)));
    let good = request().encode();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(BundleRequest::decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn a_fingerprint_is_compared_as_people_write_it() {
    let file = request().encode();
    let own = fingerprint(&file);
    assert_eq!(own.split('-').count(), 8);
    assert_eq!(check_fingerprint(&file, &own.to_uppercase().replace('-', " ")), Ok(()));
    assert_eq!(check_fingerprint(&bundle().encode(), &own).unwrap_err().class(), Class::Denied);
    assert!(check_fingerprint(&file, "").is_err());
}

#[test]
fn a_wrong_fingerprint_is_not_answered_with_the_right_one() {
    let file = request().encode();
    let error = check_fingerprint(&file, &fingerprint(&bundle().encode())).unwrap_err();
    let said = format!("{error} {}", error.hint());
    assert!(fingerprint(&file).split('-').all(|group| !said.contains(group)), "{said}");
    assert!(said.contains("nodeseal bundle show"), "{said}");
}

#[test]
fn a_kek_is_shared_by_sixteen_nodes_and_with_half_of_a_part_left() {
    assert_eq!((check_sharers(16), check_sharers(17)), (Ok(()), Err(BundleError::Sharers)));
    let (part, due) = (HARD_LIMIT_USES / SHARERS_MAX, ROTATE_AT_USES / SHARERS_MAX);
    assert_eq!((check_uses(due, part), check_uses(due + 1, part)), (Ok(()), Err(BundleError::NoUsesLeft)));
    assert!(BundleError::NoUsesLeft.hint().contains("nodeseal keys rotate"));
}

#[test]
fn a_time_that_no_clock_shows_is_refused() {
    let late = BundleRequest { expires: u64::MAX, ..request() };
    assert_eq!(BundleRequest::decode(&late.encode()), Err(BundleError::Format(WireError::BadValue("expires"))));
    let late = Bundle { expires: u64::MAX, ..bundle() };
    assert_eq!(Bundle::decode(&late.encode()), Err(BundleError::Format(WireError::BadValue("expires"))));
}
