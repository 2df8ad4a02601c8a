//! Every file of the state directory, and what a sealing device made (docs/formats.md, from "Container" to "Recovery file").

use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use nodeseal::envelope::{BoundCipher, NONCE_BYTES};
use nodeseal::keyring::bundle::OpenRequest;
use nodeseal::keyring::evidence::Evidence;
use nodeseal::keyring::export::Export;
use nodeseal::keyring::home::Current;
use nodeseal::keyring::maker::{MAKER_BYTES, MakerKey, SIGNATURE_BYTES};
use nodeseal::keyring::recovery::{self, Identity};
use nodeseal::keyring::state_file::State;
use nodeseal::keyring::wraps_file::WrapSet;
use nodeseal::keyring::{Marker, kek_file};
use nodeseal::seal::credential::{self, CredentialError};
use nodeseal::seal::root::SealedRoot;
use nodeseal::sealer::{pkcs11, tpm2};
use nodeseal::store::container::{self, Kind};
use nodeseal::types::{Key, RootId, Secret};
use sha2::{Digest, Sha256};

use crate::{cluster, key, summed};

const KINDS: [Kind; 12] = [
    Kind::HostSecret,
    Kind::NodeRoot,
    Kind::LocalKek,
    Kind::State,
    Kind::InitMarker,
    Kind::Recovery,
    Kind::BundleRequest,
    Kind::Credential,
    Kind::Wraps,
    Kind::Current,
    Kind::Member,
    Kind::Evidence,
];
const DIGEST_BYTES: usize = 32;

/// The version of `state` that is written.
const NEWEST_STATE: u8 = 4;
/// The node root of the frozen states.
const STATE_ROOT: RootId = RootId::from_bytes([9; 16]);
/// The node root of the frozen local KEK and the frozen credential.
const KEK_ROOT: RootId = RootId::from_bytes([3; 16]);
/// Algorithm, root id, KEK id, created.
const KEK_HEAD_BYTES: usize = 1 + 16 + 16 + 8;

/// The private key that age's test kit uses; the recipient in the frozen state is its public part.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// What is read is written again byte for byte, behind digests, MACs and tags that fit.
pub fn state(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        0 => whole_file(rest),
        1 => whole_file(&summed(rest)),
        2 => state_file(1, rest),
        3 => state_file(2, rest),
        4 => sealed_kek(rest),
        5 => wrapped_kek(rest),
        6 => node_root(rest),
        7 => tpm_blob(&summed(&with_policy_digest(rest))),
        8 => token_blob(&summed(rest)),
        9 => export(rest),
        10 => marker(rest),
        11 => open_request(rest),
        12 => recovery_file(rest),
        13 => identity(rest),
        14 => sealed_credential(rest),
        15 => wrapped_credential(rest),
        16 => wraps_file(rest),
        17 => state_file(3, rest),
        18 => export(&signed(rest)),
        19 => state_file(NEWEST_STATE, rest),
        20 => current(rest),
        21 => evidence(rest),
        _ => {}
    }
}

fn whole_file(bytes: &[u8]) {
    let read: Vec<_> = KINDS.into_iter().filter(|kind| container::unwrap(*kind, bytes).is_ok()).collect();
    assert!(read.len() <= 1, "one file is of two kinds");
    for kind in read {
        let (version, payload) = container::unwrap(kind, bytes).expect("it was read before");
        let again = container::wrap(kind, payload);
        let (newest, same) = container::unwrap(kind, &again).expect("what was written is read");
        assert!((1..=newest).contains(&version), "version {version}, which no release wrote");
        assert_eq!(same, payload);
        assert!(version != newest || again == bytes, "a file has a second encoding");
    }
}

fn state_file(version: u8, body: &[u8]) {
    let (cluster, mac_key) = (cluster(), key(7));
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(mac_key.expose()).expect("a key of any length");
    if version >= 4 {
        mac.update(b"nodeseal state\0");
        mac.update(&[version]);
    }
    mac.update(body);
    let bytes = [body, &mac.finalize().into_bytes()].concat();
    let Ok(state) = State::decode(version, &bytes, &cluster, &STATE_ROOT, &mac_key) else { return };
    let again = state.encode(&cluster, &STATE_ROOT, &mac_key);
    assert_eq!(State::decode(NEWEST_STATE, &again, &cluster, &STATE_ROOT, &mac_key).as_ref(), Ok(&state));
    assert!(version < NEWEST_STATE || again == bytes, "a state has a second encoding");
}

fn current(bytes: &[u8]) {
    let Ok(current) = Current::decode(bytes) else { return };
    assert_eq!(current.encode(), bytes, "what counts has a second encoding");
}

fn wraps_file(body: &[u8]) {
    let (cluster, mac_key, kek) = (cluster(), key(4), nodeseal::types::KekId::from_bytes([2; 16]));
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(mac_key.expose()).expect("a key of any length");
    mac.update(b"nodeseal wraps v1\0");
    mac.update(body);
    let bytes = [body, &mac.finalize().into_bytes()].concat();
    let Ok(set) = WrapSet::decode(&bytes, &kek, &cluster, &KEK_ROOT, &mac_key) else { return };
    assert_eq!(set.encode(&kek, &cluster, &KEK_ROOT, &mac_key), bytes, "a list of wraps has a second encoding");
}

fn sealed_kek(bytes: &[u8]) {
    let (cluster, wrapping) = (cluster(), key(4));
    let Ok((label, kek)) = kek_file::open(bytes, &cluster, &KEK_ROOT, &wrapping) else { return };
    let nonce = bytes[KEK_HEAD_BYTES..][..NONCE_BYTES].try_into().expect("12 bytes");
    assert_eq!(kek_file::seal(&kek, &label, &cluster, &KEK_ROOT, &wrapping, nonce).as_deref(), Ok(bytes));
}

/// The same, where the text behind head and nonce is encrypted here.
fn wrapped_kek(plain: &[u8]) {
    let Some((opening, kek)) = plain.split_at_checked(KEK_HEAD_BYTES + NONCE_BYTES) else { return };
    let (head, nonce) = opening.split_at(KEK_HEAD_BYTES);
    let aad = [b"nodeseal kek file v1\0", &[0, 2][..], b"c1", head].concat();
    let mut bytes = opening.to_vec();
    let sealed = BoundCipher(&key(4)).seal(nonce.try_into().expect("12 bytes"), &aad, kek, &mut bytes);
    sealed.expect("shorter than 64 GiB");
    let opens = kek_file::open(&bytes, &cluster(), &KEK_ROOT, &key(4)).is_ok();
    assert_eq!(opens, head[0] == 1 && head[1..17] == *KEK_ROOT.as_bytes() && kek.len() == Key::LEN);
    sealed_kek(&bytes);
}

/// Algorithm, root id, name, sealed.
fn credential_head_bytes(bytes: &[u8]) -> Option<usize> {
    let name = bytes.get(17..19)?.try_into().ok()?;
    Some(19 + usize::from(u16::from_be_bytes(name)) + 8)
}

fn sealed_credential(bytes: &[u8]) {
    let (cluster, sealing) = (cluster(), key(4));
    let Ok(label) = credential::label(bytes) else { return };
    let Ok(content) = credential::open(bytes, &label.name, &cluster, &KEK_ROOT, &sealing) else { return };
    let nonce_at = credential_head_bytes(bytes).expect("it was opened");
    let nonce = bytes[nonce_at..][..NONCE_BYTES].try_into().expect("12 bytes");
    match credential::seal(&content, &label, &cluster, &KEK_ROOT, &sealing, nonce) {
        Ok(again) => assert_eq!(again, bytes),
        Err(error) => assert_eq!(error, CredentialError::Length),
    }
}

/// The same, where the content behind head and nonce is encrypted here.
fn wrapped_credential(plain: &[u8]) {
    let Some(head_bytes) = credential_head_bytes(plain) else { return };
    let Some((opening, content)) = plain.split_at_checked(head_bytes + NONCE_BYTES) else { return };
    let (head, nonce) = opening.split_at(head_bytes);
    let aad = [b"nodeseal credential v1\0", &[0, 2][..], b"c1", head].concat();
    let mut bytes = opening.to_vec();
    let sealed = BoundCipher(&key(4)).seal(nonce.try_into().expect("12 bytes"), &aad, content, &mut bytes);
    sealed.expect("shorter than 64 GiB");
    if let Ok(label) = credential::label(&bytes) {
        let opens = credential::open(&bytes, &label.name, &cluster(), &KEK_ROOT, &key(4)).is_ok();
        assert_eq!(opens, head[1..17] == *KEK_ROOT.as_bytes());
    }
    sealed_credential(&bytes);
}

fn node_root(bytes: &[u8]) {
    let Ok(root) = SealedRoot::decode(bytes) else { return };
    assert_eq!(root.encode(), bytes);
    let _ = root.backend();
}

fn tpm_blob(bytes: &[u8]) {
    let Ok(blob) = tpm2::blob::Blob::decode(bytes) else { return };
    assert_eq!(blob.encode(), bytes);
}

fn token_blob(bytes: &[u8]) {
    let Ok(blob) = pkcs11::blob::Blob::decode(bytes) else { return };
    assert_eq!(blob.encode(), bytes);
}

/// A TPM blob with the policy digest that belongs to its policy and PCR values, in both places.
fn with_policy_digest(body: &[u8]) -> Vec<u8> {
    const POLICY: usize = 8 + 2 + 1 + 4 + 1 + 34;
    const PUBLIC_DIGEST: usize = 2 + 10;
    let mut body = body.to_vec();
    let (bound, end) = match body.get(POLICY..POLICY + 6) {
        Some([1, bank @ (1 | 2), mask @ ..]) => {
            let mask = u32::from_be_bytes(mask.try_into().expect("4 bytes"));
            let value_bytes = if *bank == 1 { 32 } else { 48 };
            let values = usize::try_from(mask.count_ones()).expect("at most 32") * value_bytes;
            let Some(values) = body.get(POLICY + 6..POLICY + 6 + values) else { return body };
            let [low, middle, high, _] = mask.to_le_bytes();
            let selection = [0, 0, 0, 1, 0, 0x0a + *bank, 3, low, middle, high];
            let hash = Sha256::new().chain_update([0; 32]).chain_update([0, 0, 0x01, 0x7f]).chain_update(selection);
            (hash.chain_update(Sha256::digest(values)).finalize(), POLICY + 6 + values.len())
        }
        _ => (Default::default(), POLICY + 1),
    };
    let digest = Sha256::new().chain_update(bound).chain_update([0, 0, 0x01, 0x6b]).finalize();
    for at in [end, end + DIGEST_BYTES + PUBLIC_DIGEST] {
        if let Some(place) = body.get_mut(at..at + DIGEST_BYTES) {
            place.copy_from_slice(&digest);
        }
    }
    body
}

/// With the public key and the signature that end a keyring export of version 2.
fn signed(body: &[u8]) -> Vec<u8> {
    let key = SigningKey::from_bytes(key(9).expose());
    let text = [body, key.verifying_key().as_bytes()].concat();
    let signature = key.sign(&text).to_bytes();
    [&text[..], &signature].concat()
}

fn export(bytes: &[u8]) {
    let Ok((export, maker)) = Export::decode(bytes) else { return };
    match maker {
        None => assert!(export.encode_unsigned().same_as(bytes), "an export has a second encoding"),
        // Its key is not ours: all but the maker and the signature is the same.
        Some(_) => {
            let again = export.encode_signed(&MakerKey::new(&key(9)));
            let end = bytes.len() - MAKER_BYTES - SIGNATURE_BYTES;
            assert_eq!(again.expose().len(), bytes.len());
            assert_eq!(again.expose()[..end], bytes[..end], "an export has a second encoding");
        }
    }
    let again = export.encode_signed(&MakerKey::new(&key(9)));
    let (back, _) = Export::decode(again.expose()).expect("what was written is read");
    assert_eq!((&back.ring, &back.roots, &back.copies), (&export.ring, &export.roots, &export.copies));
    let lacking = export.lacking();
    assert!(export.keys.iter().all(|(id, _)| !lacking.contains(id)));
}

fn marker(bytes: &[u8]) {
    let Ok(marker) = Marker::decode(bytes) else { return };
    assert_eq!(marker.encode(), bytes, "a marker has a second encoding");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    assert!(marker.folder.bytes().all(plain), "files are moved out of the state directory");
}

fn open_request(bytes: &[u8]) {
    let Ok(request) = OpenRequest::decode(bytes) else { return };
    let (file, secret) = bytes.split_at(bytes.len() - Key::LEN);
    assert_eq!(request.digest[..], Sha256::digest(file)[..]);
    assert!(OpenRequest::encode(file, &Key::copy_of(secret).expect("32 bytes")).same_as(bytes));
}

fn recovery_file(bytes: &[u8]) {
    let identity = Identity::parse(&Secret::copy_of(IDENTITY.as_bytes())).expect("an identity");
    let Ok((export, _)) = recovery::decrypt(&identity, bytes) else { return };
    assert!(Export::decode(export.encode_signed(&MakerKey::new(&key(9))).expose()).is_ok());
}

fn identity(text: &[u8]) {
    let Ok(identity) = Identity::parse(&Secret::copy_of(text)) else { return };
    let again = Identity::parse(&identity.code()).expect("a code that was printed is read");
    assert_eq!(again.recipient(), identity.recipient());
}

/// Behind a MAC that fits.
fn evidence(rest: &[u8]) {
    let (mac_key, root) = (key(3), STATE_ROOT);
    let mut body = vec![1];
    body.extend_from_slice(root.as_bytes());
    body.extend_from_slice(&[0, 2, b'c', b'1']);
    body.extend_from_slice(rest);
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(mac_key.expose()).expect("any length");
    mac.update(b"nodeseal evidence v1\0");
    mac.update(&body);
    body.extend_from_slice(&mac.finalize().into_bytes());
    let Ok(read) = Evidence::decode(&body, &cluster(), &root, &mac_key) else { return };
    assert_eq!(read.encode(&cluster(), &root, &mac_key), body, "evidence has a second encoding");
}
