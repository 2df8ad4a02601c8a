//! Frozen vectors are only ever added to: what one release wrote every later one reads.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::seal::protocol::DeviceBlob;
use crate::seal::tcg::NAME_BYTES;
use crate::types::{PcrBank, PcrSet, hex};

const CHECKSUM_BYTES: usize = 32;

/// Sealed on swtpm 0.7.1 by version 1, policy none.
const V1_NONE: &str = "\
4e5345414c54504d0001018100000101000b4ce2473e9ff663c00cdf3e93af4f9ad84a65089032afead134caf20edcca0d18008fcd2169ab92694e0c\
633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e004e0008000b0000041200208fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7\
ac1eddc1fddb0e001000201318822b68215451e689ccff0aaec6f22eab36ba6379bc3ea1d11a4a39ae9df4009e00203bed177e88e1eb5ca8afc7d6e7\
baed12e72424183d9a727bf1aa8ca4ff86d5be0010047152158792d04a19c9fa5ebd7a7679eaa4c96b3f228b85196c190468d3c7b3e5f734ef40d6ea\
81857cb7aff77577e62c6ebdf0d366ef6d387ff30a4abb800bf0da04b2663221f4b6060b173c3841d5260019a0cff1047120877569f7d7f5e5ae866c\
bbfdc28c165db22683287aaf4107fc4ce19716595e2b8d000349424d0012383231372e343133312e32322e3133383738de06e0e17896124b5062b087\
5188ca7f0aa11b7fd65ff0a992a34f41e64ef8d4";

/// [`pcr_blob`], whose bytes were also put together by hand from the specification.
const V1_PCR: &str = "\
4e5345414c54504d0001018100000100cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd01020080008077777777\
777777777777777777777777777777777777777777777777777777777777777777777777777777777777777723232323232323232323232323232323\
23232323232323232323232323232323232323232323232323232323232323236f82ca3eaebb63d48fb9416809633688ad89b96b423daf8d95de69bd\
7fa90cd5004e0008000b0000041200206f82ca3eaebb63d48fb9416809633688ad89b96b423daf8d95de69bd7fa90cd500100020abababababababab\
abababababababababababababababababababababababab009eefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef\
efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef\
efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef\
efefefef0004494e5443000a3630302e31382e302e308856fe32b03d21162798cf88ac09165ebb29d2947343dba9ae1bfe1cdbf00c6c";

fn pcr_blob() -> Blob {
    let policy = SealPolicy::Pcr { bank: PcrBank::Sha384, pcrs: PcrSet::from_numbers(&[7, 23]).unwrap() };
    let pcr_values = vec![vec![0x77; 48], vec![0x23; 48]];
    let mut public = template::sealed(&policy::digest(&policy, &pcr_values));
    public.truncate(public.len() - 2);
    public.extend_from_slice(&[0, 32]);
    public.extend_from_slice(&[0xAB; 32]);
    Blob {
        parent_handle: 0x8100_0001,
        parent_template: None,
        parent_name: [0xCD; NAME_BYTES],
        policy,
        pcr_values,
        public,
        private: vec![0xEF; 158],
        manufacturer: "INTC".to_owned(),
        firmware: "600.18.0.0".to_owned(),
    }
}

/// With a checksum that fits, as an editor of the file would put there.
fn resealed(body: &[u8]) -> Vec<u8> {
    [body, &Sha256::digest(body)].concat()
}

fn error(bytes: &[u8]) -> WireError {
    Blob::decode(bytes).unwrap_err()
}

#[test]
fn frozen_blobs_are_read_and_written_as_they_were() {
    let bytes = hex::decode(V1_NONE).unwrap();
    let blob = Blob::decode(&bytes).unwrap();
    assert_eq!(blob.encode(), bytes);
    assert_eq!(
        (blob.parent_handle, blob.parent_template, blob.policy),
        (0x8100_0001, Some(SrkTemplate::EccP256), SealPolicy::None)
    );
    assert_eq!((blob.public.len(), blob.private.len()), (78, 158));
    assert_eq!((blob.manufacturer.as_str(), blob.firmware.as_str()), ("IBM", "8217.4131.22.13878"));

    assert_eq!(hex::encode(pcr_blob().encode()), V1_PCR);
    assert_eq!(Blob::decode(&hex::decode(V1_PCR).unwrap()), Ok(pcr_blob()));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = pcr_blob().encode();
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

#[test]
fn another_kind_or_a_later_version_is_called_that() {
    let bytes = pcr_blob().encode();
    let edited = |index: usize, value: u8| {
        let mut edited = bytes.clone();
        edited[index] = value;
        edited
    };
    assert_eq!(error(b"NSEAL"), WireError::Short("magic"));
    assert_eq!(error(&edited(0, b'X')), WireError::BadValue("magic"));
    assert_eq!(error(&edited(9, 2)), WireError::BadValue("version"));
    assert_eq!(error(&edited(60, 0x5A)), WireError::BadValue("checksum"));
}

#[test]
fn what_we_would_not_write_is_refused_field_by_field() {
    let refused = |field: &str, edit: fn(&mut Blob)| {
        let mut blob = pcr_blob();
        edit(&mut blob);
        assert_eq!(error(&blob.encode()).to_string(), format!("field `{field}` holds an unknown or impossible value"));
    };
    refused("parent handle", |blob| blob.parent_handle = 0x8180_0000);
    refused("public", |blob| blob.public[7] ^= 0x40); // userWithAuth
    refused("public", |blob| blob.public.push(0));
    refused("public", |blob| blob.pcr_values[0][0] ^= 1);
    refused("private", |blob| blob.private.clear());
    refused("private", |blob| blob.private = vec![0; PRIVATE_MAX + 1]);
    refused("manufacturer", |blob| blob.manufacturer = "I\nC".to_owned());
    refused("firmware", |blob| blob.firmware = "1".repeat(TEXT_MAX + 1));

    let bytes = pcr_blob().encode();
    let body = &bytes[..bytes.len() - CHECKSUM_BYTES];
    let edited = |index: usize, value: u8| {
        let mut edited = body.to_vec();
        edited[index] = value;
        error(&resealed(&edited))
    };
    assert_eq!(edited(10, 2), WireError::BadValue("algorithm"));
    assert_eq!(edited(15, 3), WireError::BadValue("parent template"));
    assert_eq!(edited(50, 9), WireError::BadValue("policy kind"));
    assert_eq!(edited(51, 3), WireError::BadValue("pcr bank"));
    assert_eq!(edited(52, 1), WireError::BadValue("pcr mask"));
    // The digest stands behind the two values.
    assert_eq!(edited(56 + 96, 0), WireError::BadValue("policy digest"));
    assert_eq!(error(&resealed(&[body, &[0]].concat())), WireError::Trailing(1));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Blob::decode(&bytes);
        // Behind the checks of magic, version and checksum.
        let _ = Blob::decode(&resealed(&[&DeviceBlob::TPM2_MAGIC[..], &[0, 1, 1], &bytes].concat()));
    }

    #[test]
    fn an_edited_blob_is_read_as_itself_or_not_at_all(
        edits in proptest::collection::vec((0..400usize, any::<u8>()), 1..4)
    ) {
        let mut body = pcr_blob().encode();
        body.truncate(body.len() - CHECKSUM_BYTES);
        for (index, value) in edits {
            let index = index % body.len();
            body[index] = value;
        }
        let bytes = resealed(&body);
        if let Ok(blob) = Blob::decode(&bytes) {
            prop_assert_eq!(blob.encode(), bytes);
        }
    }
}
