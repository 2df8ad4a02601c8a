use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;

const PAGE: usize = 4096;

/// An object as etcd stores it; `None` deletes.
type Change = (&'static str, Option<Vec<u8>>);

fn key_of(main: i64, is_deleted: bool) -> Vec<u8> {
    let mut key = [&main.to_be_bytes()[..], b"_", &[0; 8]].concat();
    if is_deleted {
        key.push(b't');
    }
    key
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

fn value_of(main: i64, key: &str, value: Option<&[u8]>) -> Vec<u8> {
    let mut entry = field(1, key.as_bytes());
    if let Some(value) = value {
        entry.push(0x18);
        prost::encoding::encode_varint(main.cast_unsigned(), &mut entry);
        entry.extend(field(5, value));
    }
    entry
}

/// A page of these elements; overflows as far as it must.
fn page(id: u64, flags: u16, elements: &[(Vec<u8>, Vec<u8>, u64)]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut data = Vec::new();
    for (number, (key, value, child)) in elements.iter().enumerate() {
        let at = u32::try_from((elements.len() - number) * 16 + data.len()).unwrap().to_le_bytes();
        let (key_bytes, value_bytes) = (u32::try_from(key.len()).unwrap(), u32::try_from(value.len()).unwrap());
        if flags == 1 {
            table.extend([&at[..], &key_bytes.to_le_bytes(), &child.to_le_bytes()].concat());
        } else {
            let flags = u32::try_from(*child).unwrap();
            table
                .extend([&flags.to_le_bytes()[..], &at, &key_bytes.to_le_bytes(), &value_bytes.to_le_bytes()].concat());
        }
        data.extend([&key[..], value].concat());
    }
    let count = u16::try_from(elements.len()).unwrap();
    let pages = (16 + table.len() + data.len()).div_ceil(PAGE);
    let overflow = u32::try_from(pages - 1).unwrap();
    let head = [&id.to_le_bytes()[..], &flags.to_le_bytes(), &count.to_le_bytes(), &overflow.to_le_bytes()].concat();
    let mut page = [head, table, data].concat();
    page.resize(pages * PAGE, 0);
    page
}

fn meta_page(id: u64, root: u64, pages: u64, txid: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for number in [0xED0C_DAED_u32, 2, 4096, 0] {
        body.extend(number.to_le_bytes());
    }
    for number in [root, 0, u64::MAX, pages, txid] {
        body.extend(number.to_le_bytes());
    }
    let sum = body
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    let mut page = [&id.to_le_bytes()[..], &4_u16.to_le_bytes(), &[0; 6], &body, &sum.to_le_bytes()].concat();
    page.resize(PAGE, 0);
    page
}

/// A database with so many changes a leaf, one revision each from 2 on, below one branch.
fn database(changes: &[Change], each_leaf: usize) -> Vec<u8> {
    let mut pages: Vec<Vec<u8>> = Vec::new();
    let next = |pages: &Vec<Vec<u8>>| 2 + pages.iter().map(|page| page.len() / PAGE).sum::<usize>() as u64;
    let mut children = Vec::new();
    for (leaf, changes) in changes.chunks(each_leaf).enumerate() {
        let elements: Vec<_> = changes
            .iter()
            .enumerate()
            .map(|(at, (key, value))| {
                let main = i64::try_from(2 + leaf * each_leaf + at).unwrap();
                (key_of(main, value.is_none()), value_of(main, key, value.as_deref()), 0)
            })
            .collect();
        let id = next(&pages);
        children.push((elements[0].0.clone(), Vec::new(), id));
        pages.push(page(id, 2, &elements));
    }
    let branch = next(&pages);
    pages.push(page(branch, 1, &children));
    let bucket = [&branch.to_le_bytes()[..], &[0; 8]].concat();
    let root = next(&pages);
    pages.push(page(root, 2, &[(b"auth".to_vec(), vec![0; 32], 1), (b"key".to_vec(), bucket, 1)]));
    let count = next(&pages);
    let metas = [meta_page(0, root, count, 8), meta_page(1, root, count, 7)].concat();
    [metas, pages.concat()].concat()
}

fn with_hash(bytes: &[u8]) -> Vec<u8> {
    [bytes, &Sha256::digest(bytes)].concat()
}

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
