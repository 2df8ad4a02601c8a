//! Random clients: an independent decoder sees the same headers before and after, but for `:authority`.

use super::super::rewrite::{Fed, Rewriter};
use super::model::{Encoder, Field, Framing, Headers, Kind, blocks, frame, framed, huffman};
use http::uri::Authority;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What comes out when the input is cut at `cuts`.
fn through(input: &[u8], cuts: &[Index]) -> Vec<u8> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    ends.extend([0, input.len()]);
    ends.sort_unstable();
    let (mut rewriter, mut all) = (Rewriter::new(), Vec::new());
    for piece in ends.windows(2).map(|ends| &input[ends[0]..ends[1]]) {
        let mut out = Vec::new();
        match rewriter.feed(piece, &mut out) {
            Fed::Same => all.extend(piece),
            Fed::Changed => all.extend(out),
        }
    }
    rewriter.finish(&mut all);
    all
}

fn field() -> impl Strategy<Value = Field> {
    let names: &[&[u8]] = &[b":authority", b":authority", b":path", b"user-agent", b"x-a", b"x-long-name-of-a-header"];
    let value = prop_oneof![
        4 => "[ -~]{0,40}".prop_map(String::into_bytes),
        2 => "(%2F[a-z.]{1,9}){1,5}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..30),
        1 => (0..1200_usize).prop_map(|len| vec![b'z'; len]),
    ];
    let kind = select(vec![Kind::Indexing, Kind::Indexing, Kind::Without, Kind::Never]);
    (select(names), value, kind, any::<bool>(), any::<bool>()).prop_map(|(name, value, kind, by_index, coded)| Field {
        name,
        value,
        kind,
        by_index,
        coded,
    })
}

fn framing() -> impl Strategy<Value = Framing> {
    (vec(any::<usize>(), 0..4), any::<Option<u8>>(), any::<bool>()).prop_map(|(cuts, padding, priority)| Framing {
        cuts,
        padding,
        priority,
    })
}

/// A header block: a table size first, perhaps; then fields; then how it is framed.
fn block() -> impl Strategy<Value = (Option<usize>, Vec<Field>, Framing)> {
    let resize = prop_oneof![4 => Just(None), 1 => (0..=4096_usize).prop_map(Some)];
    (resize, vec(field(), 1..8), framing())
}

/// A frame without a header block.
fn other_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![0_u8, 2, 3, 4, 5, 6, 7, 8, 10, 255]);
    (kind, any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..300))
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

/// The bytes of a client, and the headers it means, block by block; the last block is its whole dynamic table.
fn client(sent: &[(Option<usize>, Vec<Field>, Framing)]) -> (Vec<u8>, Vec<Headers>) {
    let (mut encoder, mut stream) = (Encoder::new(), [PREFACE, &frame(0x4, 0, 0, &[])].concat());
    let mut meant = Vec::new();
    for ((resize, fields, framing), id) in sent.iter().zip((1_u32..).step_by(2)) {
        let mut bytes = Vec::new();
        if let Some(limit) = resize {
            encoder.resize(*limit, &mut bytes);
        }
        fields.iter().for_each(|field| encoder.field(field, &mut bytes));
        stream.extend(framed(&bytes, id, framing));
        stream.extend(frame(0x0, 0, id, &[0x41; 20]));
        stream.extend(frame(0x8, 0, 0, &[0, 0, 1, 0]));
        meant.push(fields.iter().map(|field| (field.name.to_vec(), field.value.clone())).collect());
    }
    let (table, entries) = encoder.all();
    stream.extend(framed(&table, 99, &Framing { cuts: vec![], padding: None, priority: false }));
    meant.push(entries);
    (stream, meant)
}

/// All header blocks of a connection, decoded by a decoder that is not ours.
fn decoded(stream: &[u8]) -> Vec<Headers> {
    let mut decoder = loona_hpack::Decoder::new();
    blocks(stream).iter().map(|block| decoder.decode(block).unwrap()).collect()
}

proptest! {
    #[test]
    fn only_the_authority_changes(sent in vec(block(), 1..8), cuts in vec(any::<Index>(), 0..20)) {
        let (stream, meant) = client(&sent);
        prop_assert_eq!(&decoded(&stream), &meant);
        let rewritten = through(&stream, &cuts);
        prop_assert_eq!(&rewritten, &through(&stream, &[]), "the cuts changed something");
        prop_assert_eq!(rewritten.len(), stream.len());
        for (new, old) in decoded(&rewritten).iter().flatten().zip(meant.iter().flatten()) {
            prop_assert_eq!(&new.0, &old.0);
            if old.0 != b":authority" {
                prop_assert_eq!(&new.1, &old.1);
                continue;
            }
            prop_assert_eq!(new.1.len(), old.1.len());
            // What may stay: an empty value, and one whose Huffman code is longer than itself.
            let stays = old.1.is_empty() || huffman(&old.1).len() > old.1.len() && new.1 == old.1;
            prop_assert!(stays || Authority::try_from(new.1.as_slice()).is_ok(), "{:?}", new.1);
        }
    }

    #[test]
    fn without_headers_nothing_changes(
        frames in vec(other_frame(), 0..10),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let mut stream = PREFACE.to_vec();
        stream.extend(frames.concat());
        prop_assert_eq!(through(&stream, &cuts), stream);
    }

    #[test]
    fn flipped_bits_do_no_harm(
        sent in vec(block(), 1..5),
        flips in vec((any::<Index>(), 0..8_u32), 1..6),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let (mut stream, _) = client(&sent);
        for (at, bit) in flips {
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
        }
        let rewritten = through(&stream, &cuts);
        prop_assert_eq!(rewritten.len(), stream.len());
        prop_assert_eq!(rewritten, through(&stream, &[]));
    }

    #[test]
    fn any_bytes_come_out_as_many(bytes in vec(any::<u8>(), 0..600), cuts in vec(any::<Index>(), 0..20)) {
        // Behind a header of HEADERS, so that they are read as a header block.
        let len = u8::try_from(bytes.len() % 256).unwrap();
        let stream = [PREFACE, &[0, 0, len, 1, 4, 0, 0, 0, 1], &bytes].concat();
        let rewritten = through(&stream, &cuts);
        prop_assert_eq!(rewritten.len(), stream.len());
        prop_assert_eq!(rewritten, through(&stream, &[]));
        prop_assert_eq!(through(&bytes, &cuts).len(), bytes.len());
    }
}
