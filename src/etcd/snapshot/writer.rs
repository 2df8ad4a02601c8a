//! Writes small databases of etcd, for tests.

use sha2::{Digest, Sha256};

pub(crate) const PAGE: usize = 4096;

/// An object as etcd stores it; `None` deletes.
pub(crate) type Change = (&'static str, Option<Vec<u8>>);

pub(crate) fn key_of(main: i64, is_deleted: bool) -> Vec<u8> {
    let mut key = [&main.to_be_bytes()[..], b"_", &[0; 8]].concat();
    if is_deleted {
        key.push(b't');
    }
    key
}

pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

pub(crate) fn value_of(main: i64, key: &str, value: Option<&[u8]>) -> Vec<u8> {
    let mut entry = field(1, key.as_bytes());
    if let Some(value) = value {
        entry.push(0x18);
        prost::encoding::encode_varint(main.cast_unsigned(), &mut entry);
        entry.extend(field(5, value));
    }
    entry
}

/// A page of these elements; overflows as far as it must.
pub(crate) fn page(id: u64, flags: u16, elements: &[(Vec<u8>, Vec<u8>, u64)]) -> Vec<u8> {
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

pub(crate) fn meta_page(id: u64, root: u64, pages: u64, txid: u64) -> Vec<u8> {
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
pub(crate) fn database(changes: &[Change], each_leaf: usize) -> Vec<u8> {
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

/// As `etcdctl snapshot save` writes it.
pub(crate) fn with_hash(bytes: &[u8]) -> Vec<u8> {
    [bytes, &Sha256::digest(bytes)].concat()
}
