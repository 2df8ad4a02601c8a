//! Frozen vectors are only ever added to: what one release wrote every later one reads.

use proptest::prelude::*;

use super::*;
use crate::types::hex;

const CHECKSUM_BYTES: usize = 32;

/// Public part of the key whose private part is 32 times 0x42.
const PARENT: &str = "\
0023000b00030472000000060080004300100003001000203ad3861a95621392516bb593ef05583ed2e5866f5cb6260a3017237fd89b90af0020d096\
1c7e37075a6791a39c61f56295b02b6d26567b615e60aa41ee1c8e83388d";

/// 32 times 0x11 for it, under 31 times 0x22 and a zero; ephemeral key 32 times 0x33, seed 32 times 0x44. Computed apart from
/// this code, from docs/formats.md with Python's `cryptography`.
const V1: &str = "\
4e5345414c445550000101000b641e1a25cedcd99eee8d24f2d47c95a92b86a1736d4035cb4cb01e01cfcbabee004e0008000b0000040000208fcd21\
69ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e001000202ec73ca62916472cfe0a8d7727753a661753a2a155efd681c407aa\
52166c41c5008b0020194bbdd8b1186a352860a64ff15d9dc00439f8abf3f8e67cf701a4f5885aea126cfcb900fa4d6ef32d4084967584095af8f52e\
1ab4473f3d63adc1cbeb28694668ed9ed10b124ca3f0bb877e79efa0b3efce85481fe28250156c0e7bb3af0b4a38383a626eb49a41d2cd5c9eb1d524\
0a39930f6f298c2f3bf5012565590ad3bb69faf0724c78091c970044002051a7580833898ea1b183cbd7350a4099078c6ef1c1e18e970cd7683035f2\
5e7d00200110522712b0b5a7cff081685486984a94e6831edac46e7360fa9d834a7a81a19a1f865fe3b869812d5f6bce907ca4b79d3c2dcb4d988733\
29ed827a5430d49d";

fn key(byte: u8) -> Key {
    Key::copy_of(&[byte; 32]).unwrap()
}

fn parent() -> ParentPublic {
    ParentPublic::parse(&hex::decode(PARENT).unwrap()).unwrap()
}

fn auth() -> Auth {
    let mut bytes = [0x22; 32];
    bytes[31] = 0;
    Auth::new(Key::copy_of(&bytes).unwrap())
}

fn made() -> Duplicate {
    duplicate(&parent(), &key(0x11), &auth(), &Randomness::new(key(0x33), key(0x44))).unwrap()
}

/// With a checksum that fits, as an editor of the file would put there.
fn resealed(body: &[u8]) -> Vec<u8> {
    [body, &Sha256::digest(body)].concat()
}

fn body() -> Vec<u8> {
    let mut bytes = made().encode();
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    bytes
}

#[test]
fn frozen_duplicates_are_made_written_and_read_as_they_were() {
    assert_eq!(hex::encode(made().encode()), V1);
    assert_eq!(Duplicate::decode(&hex::decode(V1).unwrap()).unwrap(), made());
}

#[test]
fn its_policy_is_that_of_a_seal_without_pcrs() {
    assert_eq!(
        hex::encode(&made().public()[10..42]),
        "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e"
    );
    assert_eq!(hex::encode(&made().public()[..10]), "0008000b000004000020");
}

#[test]
fn another_secret_auth_value_parent_or_draw_gives_another_wrap() {
    let one = made();
    let random = || Randomness::new(key(0x33), key(0x44));
    let others = [
        duplicate(&parent(), &key(0x12), &auth(), &random()),
        duplicate(&parent(), &key(0x11), &Auth::new(key(0x23)), &random()),
        duplicate(&parent(), &key(0x11), &auth(), &Randomness::new(key(0x34), key(0x44))),
        duplicate(&parent(), &key(0x11), &auth(), &Randomness::new(key(0x33), key(0x45))),
    ];
    for other in others {
        assert_ne!(other.unwrap().private, one.private);
    }
    let fresh = || duplicate(&parent(), &key(0x11), &auth(), &Randomness::fresh().unwrap()).unwrap();
    assert_ne!(fresh().encode(), fresh().encode());
}

#[test]
fn every_length_of_the_auth_value_is_written_and_read() {
    for (zeros, length) in [(0, 140), (1, 139), (31, 109), (32, 108)] {
        let mut bytes = [0x22; 32];
        bytes[32 - zeros..].fill(0);
        let auth = Auth::new(Key::copy_of(&bytes).unwrap());
        let one = duplicate(&parent(), &key(0x11), &auth, &Randomness::fresh().unwrap()).unwrap();
        assert_eq!(one.private().len(), length);
        let bytes = one.encode();
        assert!(bytes.len() < 400);
        assert_eq!(Duplicate::decode(&bytes).unwrap(), one);
    }
}

#[test]
fn bytes_that_are_no_private_key_of_the_curve_make_nothing() {
    for bytes in [key(0), key(0xFF)] {
        let result = duplicate(&parent(), &key(0x11), &auth(), &Randomness::new(bytes, key(0x44)));
        assert_eq!(result, Err(ScalarError));
    }
}

#[test]
fn every_flipped_bit_is_found_and_every_field_names_itself() {
    let bytes = made().encode();
    for bit in 0..bytes.len() * 8 {
        let mut edited = bytes.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        assert!(Duplicate::decode(&edited).is_err(), "bit {bit}");
    }
    for (at, field) in [
        (0, "magic"),
        (9, "version"),
        (10, "algorithm"),
        (11, "parent name"),
        (47, "public"),
        (52, "public"),
        (60, "public"),
        (90, "public"),
        (92, "public"),
        (127, "private"),
        (269, "encrypted seed"),
        (270, "encrypted seed"),
    ] {
        let mut edited = body();
        edited[at] ^= 1;
        assert_eq!(Duplicate::decode(&resealed(&edited)), Err(WireError::BadValue(field)), "byte {at}");
    }
    assert_eq!(Duplicate::decode(&bytes[..bytes.len() - 1]), Err(WireError::BadValue("checksum")));
    let longer = [body(), vec![0]].concat();
    assert_eq!(Duplicate::decode(&resealed(&longer)), Err(WireError::Trailing(1)));
    let mut empty = made();
    empty.private.truncate(107);
    assert_eq!(Duplicate::decode(&empty.encode()), Err(WireError::BadValue("private")));
}

#[test]
fn only_an_ecc_p256_storage_key_is_a_parent_and_the_rest_says_why() {
    let good = hex::decode(PARENT).unwrap();
    assert_eq!(parent().as_bytes(), good);
    assert_eq!(hex::encode(parent().name()), "000b641e1a25cedcd99eee8d24f2d47c95a92b86a1736d4035cb4cb01e01cfcbabee");
    let edited = |at: usize, bytes: &[u8]| {
        let mut public = good.clone();
        public[at..at + bytes.len()].copy_from_slice(bytes);
        ParentPublic::parse(&public).unwrap_err()
    };
    assert_eq!(edited(0, &[0, 0x01]), ParentError::Rsa);
    for (at, bytes, word) in [
        (0, &[0x00, 0x08][..], "asymmetric"),
        (2, &[0x00, 0x0C], "SHA-256"),
        (10, &[0x00, 0x0A], "AES-128-CFB"),
        (13, &[0xC0], "AES-128-CFB"),
        (15, &[0x44], "AES-128-CFB"),
        (17, &[0x18], "scheme"),
        (19, &[0x04], "curve"),
        (21, &[0x20], "derivation"),
    ] {
        let error = edited(at, bytes);
        assert!(matches!(error, ParentError::Unfit(why) if why.contains(word)), "{error:?}");
    }
    for bit in [1, 4, 5, 16, 17, 18] {
        let attributes = 0x0003_0472_u32 ^ 1 << bit;
        let error = edited(4, &attributes.to_be_bytes());
        assert!(matches!(error, ParentError::Unfit(why) if why.contains("attributes")), "bit {bit}: {error:?}");
    }
    // Off the curve, the coordinates too short, a policy of an odd size, cut off, too long.
    assert_eq!(edited(30, &[0]), ParentError::Format(WireError::BadValue("point")));
    assert_eq!(edited(22, &[0, 31]), ParentError::Format(WireError::BadValue("x")));
    assert_eq!(edited(8, &[0, 1]), ParentError::Format(WireError::BadValue("policy")));
    for length in 0..good.len() {
        assert!(matches!(ParentPublic::parse(&good[..length]), Err(ParentError::Format(WireError::Short(_)))));
    }
    let longer = [good.clone(), vec![0]].concat();
    assert_eq!(ParentPublic::parse(&longer).unwrap_err(), ParentError::Format(WireError::Trailing(1)));
}

proptest! {
    #[test]
    fn decoding_never_panics_and_each_value_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        prop_assert!(Duplicate::decode(&bytes).is_err());
        prop_assert!(ParentPublic::parse(&bytes).is_err());
    }

    #[test]
    fn an_edited_duplicate_is_refused_or_written_back_as_it_was_read(at in 0_usize..336, byte in any::<u8>()) {
        let mut edited = body();
        edited[at] = byte;
        let bytes = resealed(&edited);
        if let Ok(read) = Duplicate::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}
