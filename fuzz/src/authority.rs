//! The layer that mends `:authority` before HTTP/2 reads it: bytes of a client in, as many out.

use nodeseal::api::authority::{Fed, Rewriter};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// The bytes of an unfinished header block, and a frame header that is about to be one byte longer.
const HELD_MAX: usize = 32 * 1024 + FRAME_HEADER;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The first byte says what the rest is (frames, header blocks to be framed, or all of it) and how many sizes of reads follow.
///
/// As many bytes come out as went in, however they were cut, with bounded memory; and a decoder that is not ours reads the
/// same headers before and after, but for the values of `:authority`, whose length stays.
pub fn authority(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let Some((sizes, rest)) = rest.split_at_checked(usize::from(choice & 0x0f)) else { return };
    let stream = match choice >> 6 {
        0 => rest.to_vec(),
        1 => [PREFACE, rest].concat(),
        _ => [PREFACE, &framed(rest)].concat(),
    };
    // Reads of one byte, but no more than some hundred of them: a long input is for what holds much.
    let least = stream.len() / 512 + 1;
    let sizes: Vec<usize> = sizes.iter().map(|size| read_bytes(*size).max(least)).collect();
    let whole = through(&stream, &[], stream.len());
    assert_eq!(whole.len(), stream.len());
    assert!(through(&stream, &sizes, least) == whole, "the cuts changed something");
    if let (Some(before), Some(after)) = (stream.strip_prefix(PREFACE), whole.strip_prefix(PREFACE))
        && before != after
    {
        same_headers(before, after);
    }
}

/// One byte for reads of 1 byte to 64 KiB.
fn read_bytes(size: u8) -> usize {
    if size < 0xc0 { usize::from(size) + 1 } else { usize::from(size - 0xbf) * 1024 }
}

/// Header blocks, each behind its length in two bytes, as HEADERS frames of new streams.
fn framed(mut blocks: &[u8]) -> Vec<u8> {
    let (mut out, mut stream) = (Vec::new(), 1_u32);
    while let [high, low, rest @ ..] = blocks {
        let len = usize::from(u16::from_be_bytes([*high, *low]) & 0x3fff).min(rest.len());
        let (block, next) = rest.split_at(len);
        out.extend_from_slice(&u32::try_from(len).expect("at most 16,383").to_be_bytes()[1..]);
        out.extend_from_slice(&[HEADERS, END_HEADERS]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(block);
        (blocks, stream) = (next, stream.wrapping_add(2));
    }
    out
}

/// All that comes out when it is read in pieces of these sizes, over and over; without any, of this one.
fn through(stream: &[u8], sizes: &[usize], least: usize) -> Vec<u8> {
    let (mut rewriter, mut rest, mut all) = (Rewriter::new(), stream, Vec::with_capacity(stream.len()));
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(sizes.next().map_or(least, |size| *size).min(rest.len()));
        let mut out = Vec::new();
        match rewriter.feed(piece, &mut out) {
            Fed::Same => {
                assert!(out.is_empty());
                all.extend_from_slice(piece);
            }
            Fed::Changed => all.append(&mut out),
        }
        rest = next;
        let held = stream.len() - rest.len() - all.len();
        assert!(held <= HELD_MAX, "{held} bytes are held");
        let capacity = rewriter.held_capacity();
        assert!(capacity <= HELD_MAX, "room for {capacity} bytes is held");
    }
    rewriter.finish(&mut all);
    all
}

/// What of the header blocks is compared, in bytes: loona's decoder makes a new table for each string.
const COMPARED_BYTES: usize = 2048;

/// Reads both with loona's decoder, up to the first thing in the first one that breaks RFC 9113 or RFC 7541.
fn same_headers(before: &[u8], after: &[u8]) {
    let (mut old, mut new) = (loona_hpack::Decoder::new(), loona_hpack::Decoder::new());
    let mut compared = 0;
    for (before, after) in blocks(before).into_iter().zip(blocks(after)) {
        compared += before.len();
        let (true, Ok(meant)) = (compared <= COMPARED_BYTES, old.decode(&before)) else { return };
        let got = new.decode(&after).expect("it was a header block before");
        assert_eq!(got.len(), meant.len());
        for (got, meant) in got.iter().zip(&meant) {
            assert_eq!(got.0, meant.0);
            if meant.0 == b":authority" {
                assert_eq!(got.1.len(), meant.1.len());
            } else {
                assert_eq!(got.1, meant.1);
            }
        }
    }
}

/// The whole header blocks at the front of some frames.
fn blocks(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let (mut blocks, mut open) = (Vec::new(), None::<Vec<u8>>);
    while let [a, b, c, kind, flags, _, _, _, _, after @ ..] = rest {
        let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, next)) = after.split_at_checked(len) else { return blocks };
        rest = next;
        let part = match (*kind, &open) {
            (HEADERS, None) => unpadded(*flags, payload),
            (CONTINUATION, Some(_)) => Some(payload),
            (HEADERS | CONTINUATION, _) | (_, Some(_)) => None,
            (_, None) => continue,
        };
        let Some(part) = part else { return blocks };
        let mut block = open.take().unwrap_or_default();
        block.extend_from_slice(part);
        if flags & END_HEADERS != 0 {
            blocks.push(block);
        } else {
            open = Some(block);
        }
    }
    blocks
}

fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    let (padding, rest) =
        if flags & PADDED == 0 { (0, payload) } else { payload.split_first().map(|(n, rest)| (*n, rest))? };
    let rest = rest.get(if flags & PRIORITY == 0 { 0 } else { 5 }..)?;
    rest.get(..rest.len().checked_sub(usize::from(padding))?)
}
