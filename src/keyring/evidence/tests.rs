use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::types::hex;

const KEK: KekId = KekId::from_bytes([1; 16]);

fn scan(at: u64, under: u64) -> Scan {
    let key = KeyUse { kind: "vault".into(), identity: "transit/k@1".into(), version: "3".into(), objects: 9 };
    Scan {
        at,
        revision: 7,
        objects: 12,
        foreign: 0,
        reach: Reach::Whole,
        keks: vec![KekUse { kek: KEK.to_string(), objects: under }],
        keys: vec![key],
    }
}

fn under() -> (ClusterId, RootId, Key) {
    ("prod".parse().unwrap(), RootId::from_bytes([2; 16]), Key::of(&[3; 32]))
}

#[test]
fn frozen_vector_of_a_file() {
    let (cluster, root, key) = under();
    let evidence = Evidence { rehearsed: Some(5), scans: vec![scan(1000, 4), scan(2000, 0)] };
    let bytes = evidence.encode(&cluster, &root, &key);
    // Of the bytes that Python's struct and hmac make of docs/formats.md.
    assert_eq!(hex::encode(Sha256::digest(&bytes)), "1443c02cec698f4786da93aa4e00e039a188b3ff64c20de3192b781a676f6107");
    assert_eq!(Evidence::decode(&bytes, &cluster, &root, &key), Ok(evidence));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Evidence::decode(&changed, &cluster, &root, &key).is_err(), "{at}");
    }
    let other = "other".parse().unwrap();
    assert!(Evidence::decode(&bytes, &other, &root, &key).is_err());
}

#[test]
fn only_a_scan_of_the_last_day_without_such_objects_and_a_word_on_backups_let_a_kek_go() {
    let now = 1_000_000;
    let proves_after = |scans: &[Scan], activated, backups| {
        Evidence { rehearsed: None, scans: scans.to_vec() }.proves(Subject::Kek(&KEK), activated, backups, now)
    };
    let proves = |scans: &[Scan], backups| proves_after(scans, now - 5000, backups);
    assert_eq!(proves(&[], Some(now)), Err(NoProof::Never));
    assert_eq!(proves(&[scan(now - 10, 3)], Some(now)), Err(NoProof::Needed { objects: 3 }));
    assert_eq!(proves(&[scan(now - 90_000, 0)], Some(now)), Err(NoProof::Old { seconds: 90_000 }));
    assert_eq!(proves(&[scan(now + 10, 0)], Some(now)), Err(NoProof::Old { seconds: 0 }), "of tomorrow");
    let good = [scan(now - 500, 3), scan(now - 400, 0), scan(now - 10, 0)];
    assert_eq!(proves(&good, None), Err(NoProof::Backups));
    assert_eq!(proves(&good, Some(now - 401)), Err(NoProof::BackupsLeft));
    assert_eq!(proves(&good, Some(now + 1)), Err(NoProof::BackupsLeft));
    assert_eq!(proves(&good, Some(now - 400)), Ok(()));
    // kube-apiserver may have written under it after the scan.
    assert_eq!(proves_after(&good, now - 489, Some(now)), Err(NoProof::Early));
    assert_eq!(
        proves_after(&good, now - 490, Some(now - 400)),
        Err(NoProof::BackupsLeft),
        "the scan before does not count"
    );
    assert_eq!(proves_after(&good, now - 490, Some(now - 10)), Ok(()));
}

#[test]
fn a_key_at_a_provider_is_needed_by_whatever_brings_a_copy_by_any_of_its_versions() {
    let now = 1_000_000;
    let identity = |text| KeyIdentity::new(text).unwrap();
    let evidence = Evidence { rehearsed: None, scans: vec![scan(now - 10, 0)] };
    let proves = |kind, text| evidence.proves(Subject::Key(kind, &identity(text)), 0, Some(now), now);
    assert_eq!(proves(ProviderKind::Vault, "transit/k@1"), Err(NoProof::Needed { objects: 9 }));
    assert_eq!(proves(ProviderKind::Vault, "transit/k@2"), Ok(()));
    assert_eq!(proves(ProviderKind::Aws, "transit/k@1"), Ok(()));
}

#[test]
fn the_newest_scans_are_kept_and_a_clock_that_was_set_back_forgets_what_is_of_the_future() {
    let mut evidence = Evidence::default();
    (0..30).for_each(|at| evidence = evidence.with(scan(at, 1), at));
    assert_eq!((evidence.scans.len(), evidence.scans[0].at), (SCANS_MAX, 10));
    let evidence = evidence.with(scan(15, 0), 15);
    assert_eq!((evidence.scans.len(), evidence.scans.last().unwrap().at), (7, 15));
}

#[test]
fn a_scan_that_ends_after_a_newer_one_does_not_hide_what_that_one_has_seen() {
    // A long scan with `--open all` has begun first; one with `--open none` has begun later, and is done before.
    let (older, newer) = (Scan { revision: 10, ..scan(1000, 0) }, Scan { revision: 20, ..scan(2000, 5) });
    let evidence = Evidence::default().with(newer, 2400).with(older, 2500);
    let proved = evidence.proves(Subject::Kek(&KEK), 1, Some(2500), 2500);
    assert!(matches!(proved, Err(NoProof::Needed { objects: 5 })), "{proved:?}");
}

#[test]
fn the_time_that_is_shown_is_one_that_a_word_on_backups_may_name() {
    let now = 1_000_000;
    // The KEK was activated a moment before the first of them.
    let scans = vec![scan(now - 5000, 0), scan(now - 10, 0)];
    let evidence = Evidence { rehearsed: None, scans };
    let proves = |since| evidence.proves(Subject::Kek(&KEK), now - 5100, Some(since), now);
    assert_eq!(proves(now), Ok(()));
    // `keys show` has it, and the hint of the refusal says to take it from there.
    assert_eq!(proves(evidence.unneeded_since(&KEK, now - 5100).unwrap()), Ok(()));
}

#[test]
fn however_long_scans_are_the_file_keeps_what_it_has_room_for() {
    let mut long = scan(1, 1);
    long.keks = vec![long.keks[0].clone(); ROWS_MAX];
    long.keys = vec![KeyUse { identity: "i".repeat(512), ..long.keys[0].clone() }; ROWS_MAX];
    assert!(long.is_fit() && Scan::decode(&long.encode()) == Ok(long.clone()));
    let mut evidence = Evidence::default();
    (0..5).for_each(|at| evidence = evidence.with(Scan { at, ..long.clone() }, at));
    assert_eq!((evidence.scans.len(), evidence.scans[0].at), (1, 4));
    let (cluster, root, key) = under();
    assert!(evidence.encode(&cluster, &root, &key).len() < crate::store::container::PAYLOAD_MAX_BYTES);
}

#[test]
fn what_names_no_kek_and_no_key_is_not_fit() {
    assert!(scan(1, 1).is_fit());
    let mut bad = scan(1, 1);
    bad.keks[0].kek = "x".into();
    assert!(!bad.is_fit());
    let mut bad = scan(1, 1);
    bad.keys[0].kind = "nobody".into();
    assert!(!bad.is_fit());
    let mut long = scan(1, 1);
    long.keks = vec![long.keks[0].clone(); ROWS_MAX + 1];
    assert!(!long.is_fit());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (cluster, root, key) = under();
        let _ = Evidence::decode(&bytes, &cluster, &root, &key);
        let _ = read_scan(&mut Reader::new(&bytes));
    }
}

#[test]
fn what_a_scan_of_a_part_has_seen_counts_against_a_kek_and_never_for_one() {
    let now = 1_000_000;
    let part = |at, under| Scan { reach: Reach::Part, ..scan(at, under) };
    let with = |scans: &[Scan]| Evidence { rehearsed: None, scans: scans.to_vec() };
    let proves = |scans: &[Scan], backups| with(scans).proves(Subject::Kek(&KEK), 0, Some(backups), now);
    let whole = scan(now - 500, 0);
    assert_eq!(proves(&[part(now - 10, 0)], now), Err(NoProof::Never));
    assert_eq!(proves(&[part(now - 10, 2)], now), Err(NoProof::Needed { objects: 2 }));
    assert_eq!(proves(&[whole.clone(), part(now - 10, 0)], now), Ok(()));
    assert_eq!(proves(&[scan(now - 90_000, 0), part(now - 10, 0)], now), Err(NoProof::Old { seconds: 90_000 }));
    // One more that sees nothing of it may be of another part.
    let seen = [whole.clone(), part(now - 20, 2), part(now - 10, 0)];
    assert_eq!(proves(&seen, now), Err(NoProof::Needed { objects: 2 }));
    assert_eq!((with(&seen).objects_under(&KEK), with(&seen).unneeded_since(&KEK, 0)), (Some(2), None));
    // Backups of the time when it was seen need it.
    let gone = [whole, part(now - 20, 2), scan(now - 10, 0)];
    assert_eq!(proves(&gone, now - 11), Err(NoProof::BackupsLeft));
    assert_eq!(proves(&gone, now - 10), Ok(()));
    assert_eq!((with(&gone).objects_under(&KEK), with(&gone).unneeded_since(&KEK, 0)), (Some(0), Some(now - 10)));
    assert_eq!(with(&[part(now, 0)]).objects_under(&KEK), None);
}

#[test]
fn objects_that_may_need_any_key_keep_all_of_them_until_a_scan_knows() {
    let now = 1_000_000;
    let unclear = Scan { reach: Reach::Unclear, ..scan(now - 20, 0) };
    let proves = |scans: &[Scan], backups| {
        let evidence = Evidence { rehearsed: None, scans: scans.to_vec() };
        evidence.proves(Subject::Kek(&KEK), 0, Some(backups), now)
    };
    assert_eq!(proves(&[scan(now - 500, 0), unclear.clone()], now), Err(NoProof::Unclear));
    let known = [scan(now - 500, 0), unclear, scan(now - 10, 0)];
    assert_eq!(proves(&known, now - 11), Err(NoProof::BackupsLeft));
    assert_eq!(proves(&known, now), Ok(()));
}
