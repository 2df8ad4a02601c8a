//! Frozen vectors are only ever added to: what one release wrote every later one reads.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::types::hex;

const CHECKSUM_BYTES: usize = 32;

/// What the frozen bytes below say, which were put together by hand from the specification.
fn blob(mechanism: Pkcs11Mechanism) -> Blob {
    let text_bytes = if mechanism == Pkcs11Mechanism::RsaOaepSha256 { 384 } else { 80 };
    Blob {
        head: Head {
            mechanism,
            key_label: "nodeseal".to_owned(),
            key_id: vec![0x12, 0x34],
            token: ["t 1", "42", "SoftHSM proj", "SoftHSM v2"].map(str::to_owned),
        },
        sealed: Sealed {
            iv: vec![0x11; iv_bytes(mechanism)],
            text: vec![0x22; text_bytes],
            mac: vec![0x33; mac_bytes(mechanism)],
        },
    }
}

fn resealed(body: &[u8]) -> Vec<u8> {
    [body, &Sha256::digest(body)].concat()
}

fn error(bytes: &[u8]) -> WireError {
    Blob::decode(bytes).unwrap_err()
}

#[test]
fn frozen_blobs_are_read_and_written_as_they_were() {
    let head = "4e5345414c503131 0001 MM 0008 6e6f64657365616c 0002 1234 0003 742031 0002 3432 \
                000c 536f667448534d2070726f6a 000a 536f667448534d207632";
    let frozen = [
        (Pkcs11Mechanism::AesGcm, "01", "11".repeat(12), format!("0050{}", "22".repeat(80)), String::new()),
        (Pkcs11Mechanism::RsaOaepSha256, "02", String::new(), format!("0180{}", "22".repeat(384)), String::new()),
        (Pkcs11Mechanism::AesCbcHmac, "03", "11".repeat(16), format!("0050{}", "22".repeat(80)), "33".repeat(32)),
    ];
    for (mechanism, number, iv, text, mac) in frozen {
        let body = format!("{}{iv}{text}{mac}", head.replace("MM", number).replace(' ', ""));
        let bytes = resealed(&hex::decode(body).unwrap());
        assert_eq!(blob(mechanism).encode(), bytes, "{mechanism:?}");
        assert_eq!(Blob::decode(&bytes), Ok(blob(mechanism)));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    for mechanism in Pkcs11Mechanism::ALL {
        let bytes = blob(mechanism).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            error(&flipped);
        }
        (0..bytes.len()).for_each(|len| {
            error(&bytes[..len]);
        });
        error(&[&bytes[..], &[0]].concat());
    }
}

#[test]
fn another_kind_or_a_later_version_is_called_that() {
    let bytes = blob(Pkcs11Mechanism::AesGcm).encode();
    let edited = |index: usize, value: u8| {
        let mut edited = bytes.clone();
        edited[index] = value;
        edited
    };
    assert_eq!(error(b"NSEAL"), WireError::Short("magic"));
    assert_eq!(error(&edited(0, b'X')), WireError::BadValue("magic"));
    assert_eq!(error(&edited(9, 2)), WireError::BadValue("version"));
    assert_eq!(error(&edited(60, 0x5A)), WireError::BadValue("checksum"));
    assert_eq!(error(&resealed(&edited(10, 4)[..bytes.len() - CHECKSUM_BYTES])), WireError::BadValue("mechanism"));
}

#[test]
fn what_we_would_not_write_is_refused_field_by_field() {
    let refused = |field: &str, edit: fn(&mut Blob)| {
        let mut blob = blob(Pkcs11Mechanism::AesCbcHmac);
        edit(&mut blob);
        assert_eq!(error(&blob.encode()).to_string(), format!("field `{field}` holds an unknown or impossible value"));
    };
    refused("key label", |blob| blob.head.key_label.clear());
    refused("key label", |blob| blob.head.key_label = "k".repeat(65));
    refused("key label", |blob| blob.head.key_label = "k\n".to_owned());
    refused("key id", |blob| blob.head.key_id.clear());
    refused("key id", |blob| blob.head.key_id = vec![1; 65]);
    refused("token label", |blob| blob.head.token[0] = "t\u{7f}".to_owned());
    refused("token serial", |blob| blob.head.token[1] = "4".repeat(FACT_MAX + 1));
    refused("text", |blob| blob.sealed.text.truncate(64));
    refused("text", |blob| {
        *blob = Blob {
            head: Head { mechanism: Pkcs11Mechanism::RsaOaepSha256, ..blob.head.clone() },
            sealed: blob.sealed.clone(),
        };
        blob.sealed = Sealed { iv: Vec::new(), text: vec![0; 255], mac: Vec::new() };
    });
}

#[test]
fn a_tokens_own_texts_are_made_fit_to_be_stored() {
    assert_eq!(printable(" SoftHSM \u{0}\u{e9}  "), "SoftHSM ??");
    assert_eq!(printable(&"x".repeat(40)).len(), FACT_MAX);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Blob::decode(&bytes);
        // Behind the checks of magic, version and checksum.
        let _ = Blob::decode(&resealed(&[&DeviceBlob::PKCS11_MAGIC[..], &[0, 1], &bytes].concat()));
    }

    #[test]
    fn an_edited_blob_is_read_as_itself_or_not_at_all(
        edits in proptest::collection::vec((0..600usize, any::<u8>()), 1..4)
    ) {
        for mechanism in Pkcs11Mechanism::ALL {
            let mut body = blob(mechanism).encode();
            body.truncate(body.len() - CHECKSUM_BYTES);
            for (index, value) in &edits {
                let index = index % body.len();
                body[index] = *value;
            }
            let bytes = resealed(&body);
            if let Ok(blob) = Blob::decode(&bytes) {
                prop_assert_eq!(blob.encode(), bytes);
            }
        }
    }
}
