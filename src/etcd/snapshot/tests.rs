use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::writer::{Change, PAGE, database, meta_page, page, with_hash};
use super::*;

fn changes() -> Vec<Change> {
    let of = |text: &str| Some(text.as_bytes().to_vec());
    vec![
        ("/registry/secrets/a/1", of("first")),
        ("/registry/secrets/a/2", of("second")),
        ("compact_rev_key", of("7")),
        ("/registry/secrets/a/1", of("changed")),
        ("/registry/secrets/a/3", Some(vec![7; 9000])),
        ("/registry/secrets/a/2", None),
        ("/registry/secrets/a/4", of("fourth")),
        ("/registry/secrets/a/4", None),
        ("/registry/secrets/a/4", of("again")),
    ]
}

type Objects = BTreeMap<String, (Vec<u8>, i64)>;

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read_in(bytes: &[u8], passes: u64) -> Result<(Objects, Hash, i64), SnapshotError> {
    let file = file(bytes);
    let snapshot = Snapshot::open(file.path())?;
    let mut objects = Objects::new();
    snapshot.each_in_passes::<SnapshotError>(b"/registry/", passes, &mut |stored| {
        let key = String::from_utf8_lossy(stored.key).into_owned();
        assert!(objects.insert(key, (stored.value.to_vec(), stored.mod_revision)).is_none(), "given twice");
        Ok(())
    })?;
    Ok((objects, snapshot.hash(), snapshot.revision()))
}

fn read(bytes: &[u8]) -> Result<Objects, SnapshotError> {
    read_in(bytes, 1).map(|(objects, _, _)| objects)
}

fn expected() -> Objects {
    let object = |key: &str, value: &[u8], revision| (format!("/registry/secrets/a/{key}"), (value.to_vec(), revision));
    [object("1", b"changed", 5), object("3", &[7; 9000], 6), object("4", b"again", 10)].into()
}

#[test]
fn each_key_is_given_once_as_it_was_last_and_deleted_ones_are_not() {
    for each_leaf in [1, 2, 5, 100] {
        let bytes = database(&changes(), each_leaf);
        assert_eq!(read_in(&bytes, 1).unwrap(), (expected(), Hash::Absent, 10), "{each_leaf}");
        assert_eq!(read_in(&with_hash(&bytes), 1).unwrap(), (expected(), Hash::Checked, 10), "{each_leaf}");
    }
}

#[test]
fn passes_together_give_what_one_gives() {
    let bytes = database(&changes(), 2);
    for passes in [2, 3, 7] {
        assert_eq!(read_in(&bytes, passes).unwrap().0, expected(), "{passes}");
    }
}

#[test]
fn any_flipped_bit_of_a_snapshot_is_found_by_its_hash() {
    let bytes = with_hash(&database(&changes(), 2));
    for at in (0..bytes.len()).step_by(97).chain(bytes.len() - 32..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(matches!(read(&flipped), Err(SnapshotError::Hash)), "{at}");
    }
}

#[test]
fn a_file_that_is_cut_is_an_error_wherever_it_is_cut() {
    let bytes = with_hash(&database(&changes(), 2));
    for len in (0..bytes.len()).step_by(61).chain((0..bytes.len()).step_by(512)) {
        // Without its hash alone it is what a member has.
        assert!(len == bytes.len() - 32 || read(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn one_damaged_head_is_made_up_for_by_the_other() {
    let bytes = database(&changes(), 2);
    for head in [0, PAGE] {
        let mut damaged = bytes.clone();
        damaged[head + 20] ^= 1;
        assert_eq!(read(&damaged).unwrap(), expected());
    }
    let mut damaged = bytes;
    [0, PAGE].iter().for_each(|head| damaged[head + 20] ^= 1);
    assert!(matches!(read(&damaged), Err(SnapshotError::Meta)));
}

#[test]
fn an_object_that_looks_like_a_head_is_none() {
    let plain = database(&changes(), 2);
    // Where the second head would be, were the pages longer; newer than both, of a tree that is not there.
    for at in [8192_usize, 16_384] {
        let mut forged = meta_page(1, 2, 3, 99);
        forged.truncate(128);
        forged[24..28].copy_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
        let sum = forged[16..72]
            .iter()
            .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
        forged[72..80].copy_from_slice(&sum.to_le_bytes());
        assert!(Meta::read(1, &forged).is_some_and(|meta| meta.page_size == at));
        let mut bytes = plain.clone();
        bytes[at..at + 128].copy_from_slice(&forged);
        let file = file(&bytes);
        let read = meta(&File::open(file.path()).unwrap(), bytes.len() as u64).unwrap();
        assert_eq!((read.page_size, read.txid), (PAGE, 8));
    }
}

#[test]
fn ways_that_meet_in_an_empty_leaf_are_refused_and_not_walked_by_all_of_them() {
    let key = |number: i64| [&number.to_be_bytes()[..], b"_", &[0; 8]].concat();
    // Thirty branches, each with two ways to the next one.
    let mut pages = vec![page(2, 2, &[])];
    for id in 3..33_u8 {
        let below = u64::from(id) - 1;
        let ways = [(key(0), Vec::new(), below), (key(100 - i64::from(id)), Vec::new(), below)];
        pages.push(page(id.into(), 1, &ways));
    }
    let bucket = [&32_u64.to_le_bytes()[..], &[0; 8]].concat();
    pages.push(page(33, 2, &[(b"key".to_vec(), bucket, 1)]));
    let bytes = [meta_page(0, 33, 34, 1), meta_page(1, 33, 34, 0), pages.concat()].concat();
    assert!(matches!(read(&bytes), Err(SnapshotError::Page { .. })));
}

#[test]
fn a_cycle_of_pages_ends() {
    let mut bytes = database(&changes(), 2);
    // The branch is the last page but one; its first element points to itself.
    let branch = bytes.len() / PAGE - 2;
    let own = (branch as u64).to_le_bytes();
    let at = branch * PAGE + 16 + 8;
    bytes[at..at + 8].copy_from_slice(&own);
    assert!(matches!(read(&bytes), Err(SnapshotError::Page { .. })));
}

#[test]
fn a_database_that_etcd_has_open_is_not_read() {
    let file = file(&database(&changes(), 2));
    let held = Flock::lock(file.reopen().unwrap(), FlockArg::LockExclusive).unwrap();
    assert!(matches!(Snapshot::open(file.path()), Err(SnapshotError::InUse)));
    drop(held);
    assert!(Snapshot::open(file.path()).is_ok());
}

#[test]
fn a_database_of_somebody_else_is_told_apart() {
    let leaf = page(2, 2, &[(b"meta".to_vec(), vec![0; 32], 1)]);
    let bytes = [meta_page(0, 2, 3, 1), meta_page(1, 2, 3, 0), leaf].concat();
    assert!(matches!(read(&bytes), Err(SnapshotError::Bucket)));
}

proptest! {
    #[test]
    fn a_flipped_bit_without_a_hash_is_an_error_or_changes_bytes_of_a_value_alone(bit in 0..8_usize, at in 2 * PAGE..7 * PAGE) {
        let mut bytes = database(&changes(), 2);
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 1 << bit;
        if let Ok(objects) = read(&bytes) {
            let shape = |objects: &Objects| objects.len();
            // A bit of a name makes another name, and one of a value another value; none makes an object more or less but by a name.
            prop_assert!(shape(&objects).abs_diff(shape(&expected())) <= 1, "{:?}", objects.keys());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3 * PAGE)) {
        let mut whole = database(&changes(), 2);
        let at = 2 * PAGE;
        let len = bytes.len().min(whole.len() - at);
        whole[at..at + len].copy_from_slice(&bytes[..len]);
        let _ = read(&whole);
        let _ = read(&bytes);
    }
}
