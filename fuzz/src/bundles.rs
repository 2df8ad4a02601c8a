//! What comes from another node: requests, bundles, and what they carry (docs/formats.md, "Bundle", "Members",
//! "Duplicate").

use nodeseal::keyring::bundle::{self, Bundle, BundleRequest, Drawn, OpenRequest};
use nodeseal::keyring::epoch::ProviderMemory;
use nodeseal::keyring::export::Export;
use nodeseal::keyring::member::{Identity, Known, MemberKeys, Receipt, Standing};
use nodeseal::keyring::ring::{Entry, Ring};
use nodeseal::seal::agree::{self, HALF_BYTES};
use nodeseal::seal::duplicate::{Duplicate, ParentPublic, Randomness, duplicate};

use nodeseal::types::{KekId, Key, RootId};

use crate::{cluster, key, summed};

/// What is read is written again byte for byte, and what was made for a request opens for it.
pub fn bundles(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        0 => request(rest),
        1 => request(&summed(rest)),
        2 => bundle(rest),
        3 => a_duplicate(&summed(rest)),
        4 => parent(rest),
        5 => round_trip(rest),
        6 => half(rest),
        7 => fingerprint(rest),
        8 => of_members(rest),
        9 => an_identity(rest),
        _ => {}
    }
}

fn request(file: &[u8]) {
    let Ok(request) = BundleRequest::decode(file) else { return };
    assert_eq!(request.encode(), file);
    let _ = request.check(&cluster(), 0);
}

fn bundle(file: &[u8]) {
    let Ok(bundle) = Bundle::decode(file) else { return };
    assert_eq!(bundle.encode(), file);
    let _ = bundle.check(&cluster(), &[0; 32], 0);
    let Ok(export) = bundle.open(&key(7), &open_request()) else { return };
    assert_eq!(export.cluster, bundle.cluster);
}

/// Nothing of this is signed by a key that we know.
fn of_members(file: &[u8]) {
    if let Ok(identity) = Identity::decode(file) {
        let _ = identity.check(&cluster());
    }
    if let Ok(standing) = Standing::decode(file) {
        assert!(Standing::is_one(file));
        let _ = standing.open(&key(7), &member());
    }
    let _ = Receipt::decode(file);
    let _ = Known::decode(file, &cluster(), &RootId::from_bytes([1; 16]), &key(7));
}

fn member() -> MemberKeys {
    MemberKeys::new(&key(9)).expect("a private key of the curve")
}

/// Whatever a TPM calls its storage key.
fn an_identity(parent: &[u8]) {
    let Ok(name) = "cp-2".parse() else { return };
    let file = member().identity(&cluster(), name, parent.to_vec()).expect("a private key of the curve");
    let Ok(identity) = Identity::decode(&file) else { return };
    assert_eq!(identity.parent, parent);
    assert_eq!(identity.check(&cluster()).is_ok(), ParentPublic::parse(parent).is_ok());
    assert_eq!(Known::new(&file, &cluster()).is_ok(), identity.check(&cluster()).is_ok());
}

fn a_duplicate(file: &[u8]) {
    let Ok(duplicate) = Duplicate::decode(file) else { return };
    assert_eq!(duplicate.encode(), file);
}

fn parent(bytes: &[u8]) {
    let Ok(parent) = ParentPublic::parse(bytes) else { return };
    assert_eq!(parent.as_bytes(), bytes);
    let random = Randomness::new(key(0x33), key(0x44));
    let made = duplicate(&parent, &key(0x11), &bundle::auth(&[2; 32]), &random).expect("a private key of the curve");
    assert_eq!(made.parent_name(), &parent.name());
    assert_eq!(Duplicate::decode(&made.encode()), Ok(made));
}

fn our_request() -> BundleRequest {
    let half = agree::public_half(&key(9)).expect("a private key of the curve");
    BundleRequest { cluster: cluster(), nonce: [1; 32], expires: 100, node: "cp-2".into(), half, parent: vec![2; 90] }
}

fn open_request() -> OpenRequest {
    let request = OpenRequest::encode(&our_request().encode(), &key(9));
    OpenRequest::decode(request.expose()).expect("it was written")
}

fn round_trip(export: &[u8]) {
    let Ok((export, _)) = Export::decode(export) else { return };
    adopt(&export);
    let drawn = Drawn { transport: key(7), secret: key(10), nonce: [8; 12] };
    let digest = bundle::digest(&our_request().encode());
    let sealed = Bundle::seal(&our_request(), digest, vec![6; 300], &drawn, &export).expect("a good request");
    let read = Bundle::decode(&sealed.encode()).expect("what was written is read");
    assert_eq!(read, sealed);
    let opened = read.open(&key(7), &open_request()).expect("what was sealed opens");
    assert!(opened.encode_unsigned().same_as(export.encode_unsigned().expose()));
    assert!(
        opened.roots == ProviderMemory::default() && opened.copies.is_empty(),
        "a memory of providers has travelled"
    );
    assert!(read.open(&key(8), &open_request()).is_err());
}

/// A node that takes these KEKs in, or goes on with them, can write and read its ring again.
fn adopt(export: &Export) {
    let entry = |byte| Entry { id: KekId::from_bytes([byte; 16]), created: 1, uses_reserved: 2, shared: byte == 2 };
    let own = Ring::new(entry(1), 3).with_pending(entry(2)).and_then(|ring| ring.activate(&entry(2).id, 4));
    let own = own.and_then(|ring| ring.with_pending(entry(3))).expect("moves that the states allow");
    let known: Vec<_> = own.entries().chain(export.ring.entries()).map(|(entry, _)| entry.id).collect();
    let bare = export.ring.without_keyless(|id| export.keys.iter().any(|(known, _)| known == id));
    for theirs in [&export.ring, &bare] {
        let Ok(ring) = own.adopt(theirs, 5) else { continue };
        assert_eq!(ring.active().id, theirs.active().id);
        assert!(ring.entries().all(|(entry, _)| known.contains(&entry.id)));
        assert!(
            own.entries().all(|(ours, _)| ring.entries().any(|(entry, _)| entry.id == ours.id)),
            "one was given up"
        );
        let (roots, copies) = (ProviderMemory::default(), Vec::new());
        let taken = Export { cluster: cluster(), written: 6, roots, ring, keys: Vec::new(), copies };
        let again = Export::decode_unsigned(taken.encode_unsigned().expose()).expect("what was written is read");
        assert_eq!(again.ring, taken.ring);
    }
}

/// A point of the curve, or none; and both sides get the same.
fn half(bytes: &[u8]) {
    let Some(theirs) = bytes.first_chunk::<HALF_BYTES>() else { return };
    let mut other = *theirs;
    other[HALF_BYTES - 1] ^= 1;
    let is_point = agree::agree(&key(9), theirs).is_ok();
    assert!(!is_point || agree::agree(&key(9), &other).is_err(), "two neighbours are on the curve");
    let Some(secret) = bytes.get(HALF_BYTES..).and_then(Key::copy_of) else { return };
    let Ok(ours) = agree::public_half(&secret) else { return };
    let shared = agree::agree(&key(9), &ours).expect("a point of the curve");
    let mine = agree::public_half(&key(9)).expect("a private key of the curve");
    assert_eq!(shared.expose(), agree::agree(&secret, &mine).expect("a point of the curve").expose());
}

fn fingerprint(data: &[u8]) {
    let Some((len, rest)) = data.split_first() else { return };
    let (given, file) = rest.split_at(usize::from(*len).min(rest.len()));
    let own = bundle::fingerprint(file);
    assert!(bundle::check_fingerprint(file, &own).is_ok());
    let Ok(given) = std::str::from_utf8(given) else { return };
    let digits = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    assert_eq!(bundle::check_fingerprint(file, given).is_ok(), digits(given) == digits(&own));
}
