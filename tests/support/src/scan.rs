//! All memory of another process as root sees it, searched for secrets: by /proc/PID/mem, mapping by mapping.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// What is searched for at once: half of a 256-bit key. Whoever has half of one has no key, but whoever left half of one was careless.
pub const NEEDLE: usize = 16;

/// One line of /proc/PID/maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub access: String,
    /// Of the file, or the kernel's word in brackets.
    pub name: String,
}

/// What a search gave.
#[derive(Debug, Default)]
pub struct Seen {
    /// Name of the needle, address, and where that is.
    pub found: Vec<(String, u64, Mapping)>,
    /// Mappings of which the kernel gave nothing at all, and its error.
    pub refused: Vec<(Mapping, i32)>,
    /// Bytes that were looked at.
    pub bytes: u64,
}

impl Seen {
    /// Names of what was found, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.found.iter().map(|(name, ..)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// For the message of a failure: what, where and how often.
pub fn summary<'a>(found: impl IntoIterator<Item = &'a (String, u64, Mapping)>) -> String {
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for (name, at, mapping) in found {
        let from_end = mapping.end - at;
        *counts
            .entry(format!(
                "{name} in {} {:x}-{:x}, {from_end} before its end",
                mapping.name, mapping.start, mapping.end
            ))
            .or_default() += 1;
    }
    counts.iter().map(|(what, count)| format!("{count} x {what}\n")).collect()
}

/// What to look for, by name.
#[derive(Default)]
pub struct Needles(HashMap<[u8; 8], Vec<(String, [u8; NEEDLE])>>);

impl Needles {
    /// Each half of a secret of 32 bytes or more.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        for (at, half) in secret.as_chunks::<NEEDLE>().0.iter().enumerate() {
            let begin = *half.first_chunk().unwrap();
            let of = self.0.entry(begin).or_default();
            let needle = (format!("{name}[{at}]"), *half);
            // A secret may be learnt twice.
            if !of.contains(&needle) {
                of.push(needle);
            }
        }
    }

    /// A key of AES-256 and all that is expanded from it for encryption (FIPS 197, 5.2): from any two neighbours the key follows.
    pub fn add_aes(&mut self, name: &str, key: &[u8; 32]) {
        self.add(&format!("{name} expanded"), &expanded(key));
    }

    fn search(&self, bytes: &[u8], mut found: impl FnMut(usize, &str)) {
        let mut begins = vec![false; 1 << 16];
        let pair = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        self.0.keys().for_each(|begin| begins[pair(begin)] = true);
        for at in 0..bytes.len().saturating_sub(NEEDLE - 1) {
            if !begins[pair(&bytes[at..])] {
                continue;
            }
            let Some(candidates) = self.0.get(bytes[at..].first_chunk::<8>().unwrap()) else { continue };
            for (name, _) in candidates.iter().filter(|(_, half)| bytes[at..].starts_with(half)) {
                found(at, name);
            }
        }
    }
}

pub fn mappings(pid: u32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let parse = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        Mapping { start: number(start), end: number(end), access: words[1].to_owned(), name: words[5..].join(" ") }
    };
    text.lines().map(parse).collect()
}

/// Looks through everything that is mapped, also what the process itself may not read.
pub fn search(pid: u32, needles: &Needles) -> Seen {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut seen = Seen::default();
    let zeros = vec![0; CHUNK];
    for mapping in mappings(pid) {
        let mut buffer = vec![0; CHUNK + NEEDLE - 1];
        let (mut at, mut carried, mut got) = (mapping.start, 0, 0);
        let mut error = None;
        while at < mapping.end {
            let want = usize::try_from((mapping.end - at).min(CHUNK as u64)).unwrap();
            match memory.read_at(&mut buffer[carried..carried + want], at) {
                Ok(read @ 1..) => {
                    let whole = carried + read;
                    // Most of what is mapped was never used.
                    if buffer[..whole] != zeros[..whole.min(CHUNK)] {
                        let base = at - carried as u64;
                        needles.search(&buffer[..whole], |offset, name| {
                            seen.found.push((name.to_owned(), base + offset as u64, mapping.clone()));
                        });
                    }
                    // The end once more, for what lies across.
                    let keep = whole.min(NEEDLE - 1);
                    buffer.copy_within(whole - keep..whole, 0);
                    (at, carried, got) = (at + read as u64, keep, got + read);
                }
                other => {
                    error = Some(other.map_or_else(|error| error.raw_os_error().unwrap_or(0), |_| 0));
                    (at, carried) = (at + 4096, 0);
                }
            }
        }
        match error {
            Some(error) if got == 0 => seen.refused.push((mapping, error)),
            _ => seen.bytes += got as u64,
        }
    }
    seen
}

/// The round keys of AES-256, 15 times 16 bytes.
fn expanded(key: &[u8; 32]) -> Vec<u8> {
    let mut words: Vec<[u8; 4]> = key.as_chunks::<4>().0.to_vec();
    let mut round = 1_u8;
    for at in 8..60 {
        let mut word = words[at - 1];
        if at % 8 == 0 {
            word.rotate_left(1);
            word = word.map(substitute);
            word[0] ^= round;
            round = times_x(round);
        } else if at % 8 == 4 {
            word = word.map(substitute);
        }
        let before = words[at - 8];
        words.push(std::array::from_fn(|byte| before[byte] ^ word[byte]));
    }
    words.concat()
}

/// The S-box, computed (FIPS 197, 5.1.1).
fn substitute(byte: u8) -> u8 {
    let inverse = (1..=255).find(|other| times(byte, *other) == 1).unwrap_or(0);
    (1..5).fold(inverse ^ 0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
}

fn times_x(byte: u8) -> u8 {
    (byte << 1) ^ if byte & 0x80 == 0 { 0 } else { 0x1b }
}

fn times(mut one: u8, mut other: u8) -> u8 {
    let mut product = 0;
    while other != 0 {
        if other & 1 == 1 {
            product ^= one;
        }
        one = times_x(one);
        other >>= 1;
    }
    product
}

/// FIPS 197, A.3: first and last round keys of its example.
#[test]
fn the_expansion_of_a_key_is_that_of_the_standard() {
    let key = base16ct::lower::decode_vec("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    let all = expanded(key[..].try_into().unwrap());
    assert_eq!(all[..32], key);
    assert_eq!(base16ct::lower::encode_string(&all[32..36]), "9ba35411");
    assert_eq!(base16ct::lower::encode_string(&all[236..]), "706c631e");
}

#[test]
fn needles_are_found_at_any_place_and_nothing_else_is() {
    let mut needles = Needles::default();
    needles.add("x", &[7; 32]);
    let mut bytes = vec![0; 100];
    needles.search(&bytes, |_, _| panic!("nothing is there"));
    bytes[83..99].fill(7);
    let mut found = Vec::new();
    needles.search(&bytes, |at, name| found.push((at, name.to_owned())));
    assert_eq!(found, [(83, "x[0]".to_owned()), (83, "x[1]".to_owned())]);
}
