//! What kube-apiserver stored: texts of both APIs (docs/formats.md, "Envelope").

use nodeseal::envelope::{
    Api, Binding, EnvelopeError, KEY_ID_MAX_BYTES, Sealing, V1_CIPHERTEXT_MAX_BYTES, V2_CIPHERTEXT_MAX_BYTES, Wraps,
    parse_v1, parse_v2,
};
use nodeseal::provider::Wrapped;
use nodeseal::provider::kms_plugin::Text;
use nodeseal::types::KekId;
use nodeseal::types::wire::Reader;

use crate::cluster;

/// Those of the frozen vectors.
const KEK: [u8; 32] = [0x11; 32];
const KEY_ID: &str = "ns1-0123456789012345678901234567890123456789";

/// The KEK id in a head.
const ID: std::ops::Range<usize> = 6..22;
const CHECK: std::ops::Range<usize> = 22..30;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Both parsers on any bytes, with and without a check that fits; and what was sealed opens, and only where it belongs.
pub fn envelope(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        0 => v2(rest),
        1 => v1(rest),
        2 => v2(&checked(Api::V2, rest)),
        3 => v1(&checked(Api::V1, rest)),
        4 => round_trip(rest),
        5 => wrap(rest),
        6 => plugin_text(rest),
        _ => {}
    }
}

fn v2(text: &[u8]) {
    let (cluster, wraps) = (cluster(), Wraps::default());
    let Ok(parsed) = parse_v2(&cluster, KEY_ID, wraps.clone(), text) else { return };
    assert_eq!(parsed.kek_id().as_bytes(), &text[ID]);
    let to = Binding { cluster: &cluster, key_id: KEY_ID, wraps: &wraps };
    let sealing = Sealing::new(Api::V2, parsed.kek_id(), &to).expect("v2 takes every binding");
    begins_alike(&sealing, text);
    match parsed.open(&KEK) {
        Ok(plain) => seals_alike(&sealing, text, plain.expose()),
        Err(error) => assert_eq!(error, EnvelopeError::Authentication),
    }
}

fn v1(text: &[u8]) {
    let cluster = cluster();
    let Ok(parsed) = parse_v1(&cluster, text) else { return };
    assert_eq!(parsed.kek_id().as_bytes(), &text[ID]);
    let key_id = key_id(text).expect("a text that was parsed has one");
    let to = Binding { cluster: &cluster, key_id, wraps: parsed.wraps() };
    let sealing = Sealing::new(Api::V1, parsed.kek_id(), &to).expect("it was in a text");
    begins_alike(&sealing, text);
    match parsed.open(&KEK) {
        Ok(plain) => seals_alike(&sealing, text, plain.expose()),
        Err(error) => assert_eq!(error, EnvelopeError::Authentication),
    }
    let Ok(sealed) = sealing.seal(&KEK, [7; NONCE_BYTES], b"dek") else { return };
    let again = parse_v1(&cluster, &sealed).expect("what was sealed is read");
    assert_eq!(again.wraps(), parsed.wraps());
    assert!(again.open(&KEK).expect("what was sealed opens").same_as(b"dek"));
}

/// Everything before the nonce has one encoding.
fn begins_alike(sealing: &Sealing, text: &[u8]) {
    // The opening of a text that was parsed can be longer than a text may be: nothing was cut to the limit then.
    let Ok(sealed) = sealing.seal(&KEK, [0; NONCE_BYTES], b"x") else { return };
    let opening = sealed.len() - NONCE_BYTES - 1 - TAG_BYTES;
    assert_eq!(sealed[..opening], text[..opening]);
}

/// And so has all of it.
fn seals_alike(sealing: &Sealing, text: &[u8], plain: &[u8]) {
    let nonce_at = text.len() - TAG_BYTES - plain.len() - NONCE_BYTES;
    let nonce = text[nonce_at..nonce_at + NONCE_BYTES].try_into().expect("12 bytes");
    assert_eq!(sealing.seal(&KEK, nonce, plain).expect("it was sealed before"), text);
}

/// The text with the check that belongs to its head, so that what follows is looked at.
fn checked(api: Api, text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let Some(id) = text.get(ID).and_then(|id| id.try_into().ok()) else { return text };
    let own = match api {
        Api::V1 => key_id(&text),
        Api::V2 => Some(KEY_ID),
    };
    let (Some(key_id), true) = (own, text.len() >= CHECK.end) else { return text };
    let to = Binding { cluster: &cluster(), key_id, wraps: &Wraps::default() };
    let sealing = Sealing::new(api, &KekId::from_bytes(id), &to).expect("no more than 255 bytes");
    let sealed = sealing.seal(&KEK, [0; NONCE_BYTES], b"x").expect("a short text");
    text[CHECK].copy_from_slice(&sealed[CHECK]);
    text
}

/// The key_id in a v1 text.
fn key_id(text: &[u8]) -> Option<&str> {
    let len = usize::from(*text.get(CHECK.end)?);
    std::str::from_utf8(text.get(CHECK.end + 1..)?.get(..len)?).ok()
}

fn round_trip(data: &[u8]) {
    let Some((api, id, key_id, pairs, nonce, plain)) = structured(data) else { return };
    let (cluster, id) = (cluster(), KekId::from_bytes(id));
    let Ok(wraps) = Wraps::new(pairs) else { return };
    let to = Binding { cluster: &cluster, key_id, wraps: &wraps };
    let sealing = match Sealing::new(api, &id, &to) {
        Ok(sealing) => sealing,
        Err(error) => {
            assert!(api == Api::V1 && key_id.len() > 255, "{error}");
            return;
        }
    };
    let most = if api == Api::V1 { V1_CIPHERTEXT_MAX_BYTES } else { V2_CIPHERTEXT_MAX_BYTES };
    let text = match sealing.seal(&KEK, nonce, plain) {
        Ok(text) => text,
        Err(error) => {
            assert_eq!(error, EnvelopeError::PlaintextLength);
            assert!(plain.is_empty() || plain.len() > 900 || api == Api::V1 && plain.len() + 33_000 > most);
            return;
        }
    };
    assert!(text.len() <= most);
    let opened = |cluster, key_id, wraps: &Wraps<'_>| match api {
        Api::V1 => parse_v1(cluster, &text).and_then(|parsed| parsed.open(&KEK)),
        Api::V2 => parse_v2(cluster, key_id, wraps.clone(), &text).and_then(|parsed| parsed.open(&KEK)),
    };
    assert!(opened(&cluster, key_id, &wraps).expect("what was sealed opens").same_as(plain));
    let elsewhere = "c2".parse().expect("a cluster id");
    assert_eq!(opened(&elsewhere, key_id, &wraps).err(), Some(EnvelopeError::Elsewhere));
    if api == Api::V2 {
        let other = Wraps::new([("another", &b"wrap"[..])]).expect("a short one");
        assert_eq!(opened(&cluster, key_id, &other).err(), Some(EnvelopeError::Authentication));
        assert_eq!(opened(&cluster, &format!("{key_id}x"), &wraps).err(), Some(EnvelopeError::Elsewhere));
    }
}

/// What a provider made, as it travels in the annotations (docs/formats.md, "Wrap").
fn wrap(bytes: &[u8]) {
    let Ok(wrapped) = Wrapped::decode(bytes) else { return };
    assert_eq!(wrapped.encode(), bytes);
}

/// What is inside of a wrap of another KMS plugin (docs/formats.md, "Ciphertext of a KMS plugin").
fn plugin_text(bytes: &[u8]) {
    let Ok(text) = Text::decode(bytes) else { return };
    assert_eq!(text.encode(), bytes);
}

type Structured<'a> = (Api, [u8; 16], &'a str, Vec<(&'a str, &'a [u8])>, [u8; NONCE_BYTES], &'a [u8]);

fn structured(data: &[u8]) -> Option<Structured<'_>> {
    let mut r = Reader::new(data);
    let choice = r.u8("choice").ok()?;
    let api = if choice & 1 == 0 { Api::V1 } else { Api::V2 };
    let (id, nonce) = (r.array("KEK id").ok()?, r.array("nonce").ok()?);
    let key_id = r.text16("key_id").ok().filter(|key_id| key_id.len() < KEY_ID_MAX_BYTES)?;
    let pairs = (0..choice >> 1 & 7).map(|_| Some((r.text16("name").ok()?, r.bytes16("wrap").ok()?)));
    let pairs = pairs.collect::<Option<Vec<_>>>()?;
    Some((api, id, key_id, pairs, nonce, r.rest()))
}
