//! Strings and header blocks, byte by byte.

use super::super::hpack::{AUTHORITY, AUTHORITY_CODED, Malformed, Names, rewrite};
use super::super::huffman::{decoded_len, fill};
use super::model::{CODES, huffman, text};

/// What one block becomes on a new connection.
fn alone(block: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    rewrite(block, &mut Names::new())
}

/// Hex, blanks allowed.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn decoded_len_agrees_with_each_code() {
    for symbol in 0..=255_u8 {
        for count in 1..10 {
            let string = vec![symbol; count];
            assert_eq!(decoded_len(&huffman(&string)), Some(count), "{symbol} times {count}");
        }
    }
    assert_eq!(decoded_len(&[]), Some(0));
    assert_eq!(CODES[256], (0x3fff_ffff, 30));
}

#[test]
fn broken_huffman_has_no_length() {
    assert_eq!(decoded_len(&hex("ff ff ff ff")), None, "EOS");
    assert_eq!(decoded_len(&hex("ff")), None, "a whole byte of padding");
    assert_eq!(decoded_len(&hex("00 00 00 00 00 ff")), None, "a whole byte of padding after text");
    assert_eq!(decoded_len(&hex("06")), None, "padding of zeros");
    assert_eq!(decoded_len(&hex("07")), Some(1));
}

#[test]
fn fill_makes_an_authority_of_each_possible_length() {
    for len in 1..60 {
        for symbols in 0..120 {
            let mut coded = vec![0x55; len];
            let fits = len <= symbols && len * 8 >= symbols * 5;
            assert_eq!(fill(&mut coded, symbols), fits, "{symbols} in {len}");
            if fits {
                let value = decode(&[&[0x01, 0x80 | u8::try_from(len).unwrap()], &coded[..]].concat());
                assert_eq!(value.len(), symbols);
                value.parse::<http::uri::Authority>().unwrap();
            } else {
                assert_eq!(coded, vec![0x55; len], "not touched");
            }
        }
    }
}

/// The value of the only header in a block.
fn decode(block: &[u8]) -> String {
    let [(_, value)] = loona_hpack::Decoder::new().decode(block).unwrap().try_into().unwrap();
    String::from_utf8(value).unwrap()
}

#[test]
fn the_name_in_huffman_code() {
    assert_eq!(huffman(AUTHORITY), AUTHORITY_CODED);
}

#[test]
fn examples_of_the_rfc() {
    let table = [
        // RFC 7541 C.3.1: plain, static name, with indexing.
        (
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            Some("8286 8441 0f58 5858 5858 5858 5858 5858 5858 5858"),
        ),
        // C.3.2 and C.3.3: later requests name it by its index.
        ("8286 84be 5808 6e6f 2d63 6163 6865", None),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", None),
        // C.4.1: fifteen symbols in twelve bytes: seven of `X`, eight of `0`.
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", Some("8286 8441 8cfc fcfc fcfc fcfc 0000 0000 00")),
        ("8286 84be 5886 a8eb 1064 9cbf", None),
        // C.2.1 to C.2.4.
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", None),
        ("040c 2f73 616d 706c 652f 7061 7468", None),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", None),
        ("82", None),
    ];
    for (block, expected) in table {
        assert_eq!(alone(&hex(block)), Ok(expected.map(hex)), "{block}");
    }
}

#[test]
fn every_way_to_name_it() {
    // Without indexing, never indexed.
    assert_eq!(alone(b"\x01\x02%2"), Ok(Some(b"\x01\x02XX".to_vec())));
    assert_eq!(alone(b"\x11\x02%2"), Ok(Some(b"\x11\x02XX".to_vec())));
    // Spelt out, plain and in Huffman code.
    assert_eq!(alone(b"\x00\x0a:authority\x02%2"), Ok(Some(b"\x00\x0a:authority\x02XX".to_vec())));
    let mut block = vec![0x40];
    text(true, b":authority", &mut block);
    assert_eq!(alone(&[&block[..], b"\x02%2"].concat()), Ok(Some([&block[..], b"\x02XX"].concat())));
    // By the dynamic table: inserted by one block, other entries on top of it.
    let mut names = Names::new();
    assert_eq!(
        rewrite(b"\x41\x01%\x40\x01a\x00\x44\x01/", &mut names),
        Ok(Some(b"\x41\x01X\x40\x01a\x00\x44\x01/".to_vec()))
    );
    assert_eq!(
        rewrite(b"\x0f\x2f\x01%\x0f\x30\x01%\x0f\x31\x01%", &mut names),
        Ok(Some(b"\x0f\x2f\x01%\x0f\x30\x01%\x0f\x31\x01X".to_vec()))
    );
    // Not it.
    assert_eq!(alone(b"\x00\x0a:Authority\x02%2"), Ok(None));
    assert_eq!(alone(b"\x00\x09:authorit\x02%2"), Ok(None));
    assert_eq!(alone(b"\x44\x02%2"), Ok(None), ":path");
    assert_eq!(alone(b"\x0f\x2f\x02%2"), Ok(None), "index 62 of an empty table");
    assert_eq!(alone(b"\x81"), Ok(None), "the static entry itself: an empty value");
}

#[test]
fn values_that_stay() {
    let same = |block: &[u8]| assert_eq!(alone(block).map(|new| new.unwrap_or(block.to_vec())), Ok(block.to_vec()));
    same(b"\x41\x00");
    same(b"\x41\x80");
    same(&hex("41 84 ff ff ff ff"));
    let mut long = vec![0x41];
    text(true, "\u{e9}\u{e9}".as_bytes(), &mut long);
    same(&long);
}

#[test]
fn malformed_blocks() {
    let broken =
        ["80", "41", "4101", "4102 25", "40", "4001", "40016101", "00ff ffff ff7f", "3f", "ff80 8080 8000", "0f"];
    for block in broken {
        assert_eq!(alone(&hex(block)), Err(Malformed), "{block}");
    }
    assert_eq!(alone(&hex("ff80 8080 00")), Ok(None), "the longest integer h2 takes");
}

#[test]
fn the_oldest_entry_a_table_can_hold() {
    let mut names = Names::new();
    let mut filler = b"\x41\x01%".to_vec();
    filler.extend(b"\x40\x00\x00".repeat(127));
    rewrite(&filler, &mut names).unwrap().unwrap();
    // Index 62 + 127 = 15 + 174, 174 = 0xae 0x01; one older is beyond any table.
    assert_eq!(rewrite(b"\x0f\xae\x01\x01%", &mut names), Ok(Some(b"\x0f\xae\x01\x01X".to_vec())));
    assert_eq!(rewrite(b"\x0f\xaf\x01\x01%", &mut names), Ok(None));
}
