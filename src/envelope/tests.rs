use proptest::prelude::*;

use super::*;
use crate::types::hex;

const KEK: [u8; 32] = [0x11; 32];
const ID: KekId = KekId::from_bytes([0x22; 16]);
const NONCE: [u8; 12] = [0x33; 12];
const KEY_ID: &str = "ns1-0123456789012345678901234567890123456789";
const DEK: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

struct Key32<'a> {
    id: &'a KekId,
    bytes: &'a [u8; 32],
}

fn seal_v1(kek: &Key32<'_>, to: &Binding<'_>, nonce: [u8; 12], plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    Sealing::new(Api::V1, kek.id, to)?.seal(kek.bytes, nonce, plaintext)
}

fn seal_v2(kek: &Key32<'_>, to: &Binding<'_>, nonce: [u8; 12], plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    Sealing::new(Api::V2, kek.id, to)?.seal(kek.bytes, nonce, plaintext)
}

fn kek() -> Key32<'static> {
    Key32 { id: &ID, bytes: &KEK }
}

fn cluster(name: &str) -> ClusterId {
    name.parse().unwrap()
}

fn some_wraps() -> Wraps<'static> {
    Wraps::new([("a.wrap.nodeseal.internal", &b"one"[..]), ("b.wrap.nodeseal.internal", &b"two"[..])]).unwrap()
}

fn to<'a>(cluster: &'a ClusterId, wraps: &'a Wraps<'a>) -> Binding<'a> {
    Binding { cluster, key_id: KEY_ID, wraps }
}

fn open_v2(cluster: &ClusterId, key_id: &str, wraps: Wraps<'_>, text: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    parse_v2(cluster, key_id, wraps, text)?.open(&KEK).map(|secret| secret.expose().to_vec())
}

fn open_v1(cluster: &ClusterId, text: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    parse_v1(cluster, text)?.open(&KEK).map(|secret| secret.expose().to_vec())
}

/// Written by release 0.1. Only ever added to.
mod frozen {
    use super::*;

    const V2: &str = "4e534c01020122222222222222222222222222222222eb0a9a7e44f0fbfd333333333333333333333333b4b26075fea7\
        431b8a818a0fc44f864e36f93d07beecb39bc07368e7c0eaef4c89a741eb7cc0eec728fc832c231acaf0";
    const V2_WRAPS: &str = "4e534c01020122222222222222222222222222222222eb0a9a7e44f0fbfd333333333333333333333333b4b26075fea7\
        431b8a818a0fc44f864e36f93d07beecb39bc07368e7c0eaef4c32461b90ac0e3eaf86b18dd1e287b0e6";
    const V1: &str = "4e534c01010122222222222222222222222222222222c9bdf1390c5e07d52c6e73312d30313233343536373839303132\
        3334353637383930313233343536373839303132333435363738390000333333333333333333333333b4b26075fea743\
        1b8a818a0fc44f864e36f93d07beecb39bc07368e7c0eaef4c976129e3b45b9c466a13620143e17f22";
    const V1_WRAPS: &str = "4e534c01010122222222222222222222222222222222c9bdf1390c5e07d52c6e73312d30313233343536373839303132\
        33343536373839303132333435363738393031323334353637383900020018612e777261702e6e6f64657365616c2e69\
        6e7465726e616c00036f6e650018622e777261702e6e6f64657365616c2e696e7465726e616c000374776f3333333333\
        33333333333333b4b26075fea7431b8a818a0fc44f864e36f93d07beecb39bc07368e7c0eaef4c2c80739864954c2ec4\
        5e6cfc827c0534";

    #[test]
    fn v2_without_wraps() {
        let text = seal_v2(&kek(), &to(&cluster("c1"), &Wraps::default()), NONCE, DEK).unwrap();
        assert_eq!(hex::encode(&text), V2);
        assert_eq!(open_v2(&cluster("c1"), KEY_ID, Wraps::default(), &hex::decode(V2).unwrap()).unwrap(), DEK);
    }

    #[test]
    fn v2_with_two_wraps() {
        let text = seal_v2(&kek(), &to(&cluster("c1"), &some_wraps()), NONCE, DEK).unwrap();
        assert_eq!(hex::encode(&text), V2_WRAPS);
        assert_eq!(open_v2(&cluster("c1"), KEY_ID, some_wraps(), &hex::decode(V2_WRAPS).unwrap()).unwrap(), DEK);
    }

    #[test]
    fn v1_without_wraps() {
        let text = seal_v1(&kek(), &to(&cluster("c1"), &Wraps::default()), NONCE, DEK).unwrap();
        assert_eq!(hex::encode(&text), V1);
        assert_eq!(open_v1(&cluster("c1"), &hex::decode(V1).unwrap()).unwrap(), DEK);
    }

    #[test]
    fn v1_with_two_wraps() {
        let text = seal_v1(&kek(), &to(&cluster("c1"), &some_wraps()), NONCE, DEK).unwrap();
        assert_eq!(hex::encode(&text), V1_WRAPS);
        let text = hex::decode(V1_WRAPS).unwrap();
        let cluster = cluster("c1");
        let parsed = parse_v1(&cluster, &text).unwrap();
        assert_eq!(parsed.wraps(), &some_wraps());
        assert!(parsed.open(&KEK).unwrap().same_as(DEK));
    }
}

#[test]
fn any_flipped_bit_fails_closed() {
    let cluster = cluster("c1");
    let texts = [
        (Api::V2, seal_v2(&kek(), &to(&cluster, &some_wraps()), NONCE, DEK).unwrap()),
        (Api::V1, seal_v1(&kek(), &to(&cluster, &some_wraps()), NONCE, DEK).unwrap()),
    ];
    for (api, good) in texts {
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let opened = match api {
                Api::V2 => open_v2(&cluster, KEY_ID, some_wraps(), &bad),
                Api::V1 => open_v1(&cluster, &bad),
            };
            assert!(opened.is_err(), "{api:?}, bit {bit}");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_kek_id_is_damage_and_not_an_unknown_key() {
    let cluster = cluster("c1");
    let mut text = seal_v2(&kek(), &to(&cluster, &Wraps::default()), NONCE, DEK).unwrap();
    text[HEAD_BYTES - 1] ^= 1;
    assert_eq!(parse_v2(&cluster, KEY_ID, Wraps::default(), &text).err(), Some(EnvelopeError::Elsewhere));
}

#[test]
fn annotations_added_dropped_swapped_or_changed_fail_closed() {
    let cluster = cluster("c1");
    let text = seal_v2(&kek(), &to(&cluster, &some_wraps()), NONCE, DEK).unwrap();
    let (a, b) = ("a.wrap.nodeseal.internal", "b.wrap.nodeseal.internal");
    let lists: [&[(&str, &[u8])]; 6] = [
        &[],
        &[(a, b"one")],
        &[(a, b"two"), (b, b"one")],
        &[(a, b"one"), (b, b"two"), ("c.wrap.nodeseal.internal", b"x")],
        &[(a, b"one"), (b, b"twp")],
        &[(a, b"onet"), (b, b"wo")],
    ];
    for list in lists {
        let wraps = Wraps::new(list.iter().copied()).unwrap();
        assert_eq!(open_v2(&cluster, KEY_ID, wraps, &text), Err(EnvelopeError::Authentication), "{list:?}");
    }
    let bare = seal_v2(&kek(), &to(&cluster, &Wraps::default()), NONCE, DEK).unwrap();
    assert_eq!(open_v2(&cluster, KEY_ID, some_wraps(), &bare), Err(EnvelopeError::Authentication));
}

#[test]
fn another_cluster_api_or_key_id_is_told_apart_from_damage() {
    let (c1, c2) = (cluster("c1"), cluster("c2"));
    let v2 = seal_v2(&kek(), &to(&c1, &Wraps::default()), NONCE, DEK).unwrap();
    let v1 = seal_v1(&kek(), &to(&c1, &Wraps::default()), NONCE, DEK).unwrap();
    assert_eq!(open_v2(&c2, KEY_ID, Wraps::default(), &v2), Err(EnvelopeError::Elsewhere));
    assert_eq!(open_v1(&c2, &v1), Err(EnvelopeError::Elsewhere));
    assert_eq!(open_v2(&c1, "ns1-other", Wraps::default(), &v2), Err(EnvelopeError::Elsewhere));
    assert!(matches!(open_v1(&c1, &v2), Err(EnvelopeError::Format(_))));
    assert!(matches!(open_v2(&c1, KEY_ID, Wraps::default(), &v1), Err(EnvelopeError::Format(_))));
}

#[test]
fn lengths_stay_inside_the_contract() {
    let cluster = cluster("c1");
    let longest = vec![1; V2_CIPHERTEXT_MAX_BYTES - (HEAD_BYTES + CHECK_BYTES + NONCE_BYTES + TAG_BYTES)];
    let text = seal_v2(&kek(), &to(&cluster, &Wraps::default()), NONCE, &longest).unwrap();
    assert_eq!(text.len(), V2_CIPHERTEXT_MAX_BYTES);
    let too_long = vec![1; longest.len() + 1];
    assert_eq!(
        seal_v2(&kek(), &to(&cluster, &Wraps::default()), NONCE, &too_long).err(),
        Some(EnvelopeError::PlaintextLength)
    );
    let v1 = seal_v1(&kek(), &to(&cluster, &some_wraps()), NONCE, &vec![1; 65_000]).unwrap();
    assert!(v1.len() <= V1_CIPHERTEXT_MAX_BYTES);
    for plaintext in [&[][..], &vec![1; 65_535]] {
        assert!(seal_v1(&kek(), &to(&cluster, &Wraps::default()), NONCE, plaintext).is_err());
    }
    assert!(Wraps::new([("a", &vec![0; 32 * 1024][..])]).is_err());
}

proptest! {
    #[test]
    fn whatever_is_sealed_is_opened(plaintext in prop::collection::vec(any::<u8>(), 1..900), nonce: [u8; 12], id: [u8; 16]) {
        let (cluster, id) = (cluster("c1"), KekId::from_bytes(id));
        let kek = Key32 { id: &id, bytes: &KEK };
        let v2 = seal_v2(&kek, &to(&cluster, &some_wraps()), nonce, &plaintext).unwrap();
        prop_assert_eq!(open_v2(&cluster, KEY_ID, some_wraps(), &v2).unwrap(), plaintext.clone());
        let v1 = seal_v1(&kek, &to(&cluster, &some_wraps()), nonce, &plaintext).unwrap();
        prop_assert_eq!(open_v1(&cluster, &v1).unwrap(), plaintext);
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(mut text in prop::collection::vec(any::<u8>(), 0..300), real_head: bool) {
        if real_head {
            let head = seal_v1(&kek(), &to(&cluster("c1"), &some_wraps()), NONCE, DEK).unwrap();
            text.splice(0..0, head[..HEAD_BYTES + CHECK_BYTES + 1 + KEY_ID.len()].iter().copied());
        }
        prop_assert!(open_v1(&cluster("c1"), &text).is_err());
        prop_assert!(open_v2(&cluster("c1"), KEY_ID, some_wraps(), &text).is_err());
    }
}
