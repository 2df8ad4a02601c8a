//! Frames: what is held, what passes, and where it gives up.

use super::super::rewrite::{Fed, Rewriter};
use super::model::{Framing, frame, framed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:method: POST`, `:scheme: http`, `:path: /a`, `:authority: %2Frun`, as grpc-go orders them.
const FIRST: &[u8] = b"\x83\x86\x45\x02/a\x41\x06%2Frun";
const FIRST_FIXED: &[u8] = b"\x83\x86\x45\x02/a\x41\x06XXXXXX";
/// The same by index.
const SECOND: &[u8] = b"\x83\x86\xbf\xbe";
const WHOLE: Framing = Framing { cuts: Vec::new(), padding: None, priority: false };

/// A rewriter behind preface and SETTINGS.
fn begun() -> Rewriter {
    let mut rewriter = Rewriter::new();
    let start = [PREFACE, &frame(0x4, 0, 0, &[])].concat();
    assert_eq!(rewriter.feed(&start, &mut Vec::new()), Fed::Same);
    rewriter
}

/// All that comes out, the held bytes at the end too, when fed in pieces of `size`.
fn through(mut rewriter: Rewriter, input: &[u8], size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in input.chunks(size) {
        let mut out = Vec::new();
        match rewriter.feed(piece, &mut out) {
            Fed::Same => {
                assert!(out.is_empty());
                all.extend(piece);
            }
            Fed::Changed => all.extend(out),
        }
    }
    rewriter.finish(&mut all);
    all
}

#[test]
fn first_and_second_request() {
    let mut rewriter = begun();
    let (mut out, data) = (Vec::new(), frame(0x0, 0x1, 1, b"\0\0\0\0\x02\x0a\0"));
    let first = [framed(FIRST, 1, &WHOLE), data.clone()].concat();
    assert_eq!(rewriter.feed(&first, &mut out), Fed::Changed);
    assert_eq!(out, [framed(FIRST_FIXED, 1, &WHOLE), data.clone()].concat());
    let second = [framed(SECOND, 3, &WHOLE), data].concat();
    assert_eq!(rewriter.feed(&second, &mut Vec::new()), Fed::Same);
}

#[test]
fn any_framing_in_any_pieces() {
    for cut in 0..=FIRST.len() {
        for (padding, priority) in [(None, false), (Some(0), false), (Some(7), true), (None, true)] {
            let framing = Framing { cuts: vec![cut, cut, cut + 3], padding, priority };
            let sent = [framed(FIRST, 1, &framing), framed(SECOND, 3, &framing)].concat();
            let fixed = [framed(FIRST_FIXED, 1, &framing), framed(SECOND, 3, &framing)].concat();
            for size in [1, 2, 3, 8, 9, 10, 11, 100] {
                assert_eq!(through(begun(), &sent, size), fixed, "{framing:?} in pieces of {size}");
            }
        }
    }
}

#[test]
fn the_reserved_bit_of_a_stream_is_ignored() {
    let sent = |block: &[u8]| [frame(0x1, 0, 1, &block[..9]), frame(0x9, 0x4, 0x8000_0001, &block[9..])].concat();
    assert_eq!(through(begun(), &sent(FIRST), 100), sent(FIRST_FIXED));
}

#[test]
fn a_stream_that_ends_within_a_block_ends_unchanged() {
    let sent = framed(FIRST, 1, &WHOLE);
    for end in 0..sent.len() {
        assert_eq!(through(begun(), &sent[..end], 4), &sent[..end]);
    }
}

#[test]
fn after_a_violation_nothing_is_touched() {
    let unfinished = frame(0x1, 0, 1, b"\x83");
    let huge = vec![0; 16_385];
    let full = frame(0x9, 0, 1, &huge[..16_384]);
    let table = [
        ("a frame above the size limit", frame(0x0, 0, 1, &huge)),
        ("CONTINUATION without HEADERS", frame(0x9, 0x4, 1, FIRST)),
        ("another frame within a block", [unfinished.clone(), frame(0x6, 0, 0, &[0; 8])].concat()),
        ("HEADERS within a block", [unfinished.clone(), frame(0x1, 0x4, 1, FIRST)].concat()),
        ("CONTINUATION of another stream", [unfinished.clone(), frame(0x9, 0x4, 3, FIRST)].concat()),
        ("padding longer than the payload", frame(0x1, 0xc, 1, b"\x09\x83\x86")),
        ("no place for the length of padding", frame(0x1, 0xc, 1, b"")),
        ("no place for priority", frame(0x1, 0x24, 1, b"\0\0\0\0")),
        ("a broken header block", frame(0x1, 0x4, 1, b"\x80")),
        ("a long block", [unfinished.clone(), full.clone(), full].concat()),
        ("many empty frames", [unfinished, frame(0x9, 0, 1, &[]).repeat(3640)].concat()),
    ];
    for (name, violation) in table {
        let sent = [violation, framed(FIRST, 5, &WHOLE)].concat();
        for size in [1, 7, 4096, usize::MAX] {
            assert!(through(begun(), &sent, size) == sent, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn a_block_is_held_within_its_limit_and_then_let_go() {
    let mut rewriter = begun();
    let mut out = Vec::new();
    // 2 * (9 + 16,000) bytes are below 32 KiB, and so many that one frame more is not.
    for sent in [frame(0x1, 0, 1, &[0x82; 16_000]), frame(0x9, 0, 1, &[0x82; 16_000])] {
        assert_eq!(rewriter.feed(&sent, &mut out), Fed::Changed);
        assert_eq!(out.len(), 0);
    }
    let third = frame(0x9, 0, 1, &[0x82; 800]);
    assert_eq!(rewriter.feed(&third[..9], &mut out), Fed::Changed, "its length is known before it comes");
    assert_eq!(out.len(), 2 * 16_009 + 9);
    assert_eq!(rewriter.feed(&third[9..], &mut out), Fed::Same);
}

#[test]
fn a_block_that_comes_byte_by_byte_is_not_copied_for_each_of_them() {
    let mut rewriter = begun();
    let block = [frame(0x1, 0, 1, &[0x82; 16_000]), frame(0x9, 0, 1, &[0x82; 16_000])].concat();
    let mut rooms: Vec<usize> = Vec::new();
    for byte in block.chunks(1) {
        assert_eq!(rewriter.feed(byte, &mut Vec::new()), Fed::Changed);
        rooms.push(rewriter.held_capacity());
    }
    rooms.dedup();
    assert!(rooms.len() <= 17, "moved {} times", rooms.len());
    assert!(rooms.iter().all(|room| *room <= 32 * 1024 + 9), "{rooms:?}");
}

#[test]
fn no_memory_between_frames() {
    let mut rewriter = begun();
    let mut out = Vec::new();
    for piece in framed(FIRST, 1, &WHOLE).chunks(5) {
        assert_eq!(rewriter.feed(piece, &mut out), Fed::Changed);
    }
    assert_eq!(rewriter.held_capacity(), 0);
    assert!(size_of::<Rewriter>() <= 96, "{}", size_of::<Rewriter>());
}
