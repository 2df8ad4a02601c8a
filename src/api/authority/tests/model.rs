//! A client to test against: its own HPACK encoder with a dynamic table, and its own framing.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// RFC 7541 Appendix B: bits of each symbol's code, EOS last.
#[rustfmt::skip]
const BITS: [u32; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23,
    23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22,
    22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
    27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The code of each symbol, and its bits. Canonical: a code begins where all that are shorter, or as long and of a
/// smaller symbol, have taken their share of the 32-bit numbers.
pub(super) static CODES: LazyLock<Vec<(u32, u32)>> = LazyLock::new(|| {
    let code = |symbol: usize| {
        let before = |other: &usize| (BITS[*other], *other) < (BITS[symbol], symbol);
        let taken: u64 = (0..257).filter(before).map(|other| 1 << (32 - BITS[other])).sum();
        (u32::try_from(taken >> (32 - BITS[symbol])).unwrap(), BITS[symbol])
    };
    (0..257).map(code).collect()
});

/// RFC 7541 §5.2.
pub(super) fn huffman(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for symbol in text {
        let (code, len) = CODES[usize::from(*symbol)];
        bits.extend((0..len).rev().map(|bit| u8::try_from(code >> bit & 1).unwrap()));
    }
    bits.chunks(8).map(|byte| (0..8).fold(0, |sum, bit| sum << 1 | byte.get(bit).unwrap_or(&1))).collect()
}

/// RFC 7541 §5.1, under the bits of `flags`.
fn integer(flags: u8, prefix: u32, value: usize, out: &mut Vec<u8>) {
    let mask = (1 << prefix) - 1;
    if value < mask {
        out.push(flags | u8::try_from(value).unwrap());
        return;
    }
    out.push(flags | u8::try_from(mask).unwrap());
    let mut rest = value - mask;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// A string literal, in Huffman code or plain.
pub(super) fn text(coded: bool, text: &[u8], out: &mut Vec<u8>) {
    let (flags, bytes) = if coded { (0x80, huffman(text)) } else { (0, text.to_vec()) };
    integer(flags, 7, bytes.len(), out);
    out.extend(bytes);
}

/// What the client does next in a header block.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: &'static [u8],
    pub(super) value: Vec<u8>,
    pub(super) kind: Kind,
    /// Take the name from a table if it is in one, and the whole field if that is.
    pub(super) by_index: bool,
    pub(super) coded: bool,
}

/// RFC 7541 §6.2.1 to §6.2.3.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Indexing,
    Without,
    Never,
}

pub(super) type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// An encoder with a dynamic table (RFC 7541 §2.3.2, §4).
#[derive(Default)]
pub(super) struct Encoder {
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    limit: usize,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { limit: 4096, ..Self::default() }
    }

    /// RFC 7541 §6.3.
    pub(super) fn resize(&mut self, limit: usize, out: &mut Vec<u8>) {
        integer(0x20, 5, limit, out);
        self.limit = limit;
        self.evict(0);
    }

    /// Names by the dynamic table before the static one, unlike real clients: the harder case.
    pub(super) fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        let Field { name, value, kind, by_index, coded } = field;
        let newest = 62;
        if let Some(at) =
            self.table.iter().position(|entry| entry.0 == *name && entry.1 == *value).filter(|_| *by_index)
        {
            return integer(0x80, 7, newest + at, out);
        }
        let dynamic = self.table.iter().position(|entry| entry.0 == *name).map(|at| newest + at);
        let known = [(1, &b":authority"[..]), (4, b":path"), (58, b"user-agent")];
        let fixed = known.iter().find(|(_, other)| other == name).map(|(index, _)| *index);
        let index = dynamic.or(fixed).filter(|_| *by_index).unwrap_or(0);
        match kind {
            Kind::Indexing => integer(0x40, 6, index, out),
            Kind::Without => integer(0x00, 4, index, out),
            Kind::Never => integer(0x10, 4, index, out),
        }
        if index == 0 {
            text(*coded, name, out);
        }
        text(*coded, value, out);
        if matches!(kind, Kind::Indexing) {
            let size = name.len() + value.len() + 32;
            self.evict(size);
            if size <= self.limit {
                self.table.push_front((name.to_vec(), value.clone()));
            }
        }
    }

    /// A block that names every live entry, so that a decoder shows its whole table; and those entries.
    pub(super) fn all(&self) -> (Vec<u8>, Headers) {
        let mut out = Vec::new();
        (62..62 + self.table.len()).for_each(|index| integer(0x80, 7, index, &mut out));
        (out, self.table.iter().cloned().collect())
    }

    /// RFC 7541 §4.3, §4.4.
    fn evict(&mut self, room: usize) {
        let size = |entry: &(Vec<u8>, Vec<u8>)| entry.0.len() + entry.1.len() + 32;
        while !self.table.is_empty() && self.table.iter().map(size).sum::<usize>() + room > self.limit {
            self.table.pop_back();
        }
    }
}

/// How a header block is cut into frames.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    pub(super) cuts: Vec<usize>,
    pub(super) padding: Option<u8>,
    pub(super) priority: bool,
}

/// A frame (RFC 9113 §4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// HEADERS with END_STREAM, and CONTINUATIONs.
pub(super) fn framed(block: &[u8], stream: u32, framing: &Framing) -> Vec<u8> {
    let mut cuts: Vec<usize> = framing.cuts.iter().map(|cut| cut % (block.len() + 1)).collect();
    cuts.extend([0, block.len()]);
    cuts.sort_unstable();
    let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &block[ends[0]..ends[1]]).collect();
    let (last, mut out) = (pieces.len() - 1, Vec::new());
    for (at, piece) in pieces.into_iter().enumerate() {
        let end = if at == last { 0x4 } else { 0 };
        if at > 0 {
            out.extend(frame(0x9, end, stream, piece));
            continue;
        }
        let (mut flags, mut payload) = (end | 0x1, Vec::new());
        if let Some(padding) = framing.padding {
            flags |= 0x8;
            payload.push(padding);
        }
        if framing.priority {
            flags |= 0x20;
            payload.extend([0x80, 0, 0, 0, 15]);
        }
        payload.extend(piece);
        payload.extend(vec![0; usize::from(framing.padding.unwrap_or(0))]);
        out.extend(frame(0x1, flags, stream, &payload));
    }
    out
}

/// The header blocks in a stream of whole frames, preface first.
pub(super) fn blocks(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut blocks) = (&stream[24..], Vec::new());
    while let [a, b, c, kind, flags, _, _, _, _, after @ ..] = rest {
        let (payload, next) = after.split_at(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c));
        let padding = usize::from(if *flags & 0x8 == 0 { 0 } else { payload[0] });
        let skipped = usize::from(*flags >> 3 & 1) + 5 * usize::from(*flags >> 5 & 1);
        match kind {
            0x1 => blocks.push(payload[skipped..payload.len() - padding].to_vec()),
            0x9 => blocks.last_mut().unwrap().extend(payload),
            _ => {}
        }
        rest = next;
    }
    blocks
}
