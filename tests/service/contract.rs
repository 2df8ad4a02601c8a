//! The contract of KMS v2 and v1beta1 as kube-apiserver enforces it, and what a wrong request gets.

use std::time::Duration;

use prost::Message;
use test_support::client::{Answer, Client, Refusal, code, framed, limited, next_uid, request, v1, v2};
use test_support::node::Node;
use test_support::process::until;
use test_support::runtime;
use tokio::task::JoinSet;

/// 32 bytes, as kube-apiserver's DEKs and seeds are; no error text may ever hold them.
const SEED: &[u8; 32] = b"seed-of-kube-apiserver-32-bytes!";

/// A refusal of one of these kinds, with a text as it has to be: short, without a path, without anything of the request.
fn assert_refused<T: std::fmt::Debug>(answer: Answer<T>, codes: &[u32], what: &str) {
    let Err(Refusal::Status { code, text }) = answer else { panic!("{what}: {answer:?}") };
    assert!(codes.contains(&code), "{what}: code {code}, {text:?}");
    assert!(text.starts_with("nodeseal: ") && text.len() <= 400, "{what}: {text:?}");
    assert!(!text.contains('/') && !text.contains("seed-of"), "{what}: {text:?}");
}

const INVALID: &[u32] = &[code::INVALID_ARGUMENT];

#[test]
fn v2_answers_status_encrypt_and_decrypt_within_the_limits_of_kube_apiserver() {
    let node = Node::start();
    let client = node.client();
    let status = client.status().unwrap();
    assert_eq!((status.version.as_str(), status.healthz.as_str()), ("v2", "ok"));
    assert!(!status.key_id.is_empty() && status.key_id.len() <= 1024);
    let mut texts = Vec::new();
    for plaintext in [&SEED[..], &[0], &[0xFF; 966]] {
        let answer = client.encrypt(plaintext).unwrap();
        assert_eq!(answer.key_id, status.key_id, "the key_id of an Encrypt is that of the Status");
        assert!(!answer.ciphertext.is_empty() && answer.ciphertext.len() <= 1024, "{}", answer.ciphertext.len());
        assert!(answer.annotations.is_empty());
        assert!(
            !answer
                .ciphertext
                .windows(plaintext.len().min(8))
                .any(|bytes| plaintext.len() > 1 && plaintext.starts_with(bytes))
        );
        assert_eq!(client.decrypt(&answer.ciphertext, &answer.key_id).unwrap(), plaintext);
        texts.push(answer.ciphertext);
    }
    assert_ne!(client.encrypt(SEED).unwrap().ciphertext, texts[0], "the same seed never gives the same text");
    assert_eq!(client.status().unwrap(), status, "the key_id stays");
    assert_eq!(node.client().decrypt(&texts[0], &status.key_id).unwrap(), SEED, "another connection, the same key");
    assert_refused(client.encrypt(&[1; 967]), INVALID, "a plaintext whose text would be longer than 1,024 bytes");
}

#[test]
fn v1_answers_version_encrypt_and_decrypt() {
    let node = Node::start();
    let client = node.client();
    let version = client.version("v1beta1").unwrap();
    assert_eq!((version.version.as_str(), version.runtime_name.as_str()), ("v1beta1", "nodeseal"));
    assert_eq!(version.runtime_version, env!("CARGO_PKG_VERSION"));
    let numbers: Vec<_> = version.runtime_version.split('.').map(str::parse::<u32>).collect();
    assert!(numbers.len() == 3 && numbers.iter().all(Result::is_ok), "semver: {version:?}");
    // "ping" is kube-apiserver's health check.
    for plaintext in [&SEED[..], b"ping", &[7; 60_000]] {
        let text = client.encrypt_v1(plaintext).unwrap();
        assert!(!text.is_empty() && text.len() <= 65_535);
        assert_eq!(client.decrypt_v1(&text).unwrap(), plaintext);
    }
    for bad in ["v1", "v2", "v1beta1 "] {
        assert_refused(client.bytes_v1("Encrypt", bad, SEED), INVALID, bad);
        assert_refused(client.bytes_v1("Decrypt", bad, SEED), INVALID, bad);
    }
    assert_refused(client.encrypt_v1(&[]), INVALID, "an empty plaintext");
    assert_refused(client.encrypt_v1(&[7; 65_500]), INVALID, "a plaintext that etcd's length field cannot hold");
    assert_refused(client.decrypt_v1(&[]), INVALID, "an empty text");
}

/// Decrypts all at once; gives the answers in the order in which they came.
fn decrypt_all(client: &Client, requests: Vec<v2::DecryptRequest>) -> Vec<Answer<Vec<u8>>> {
    let mut calls = JoinSet::new();
    for request in requests {
        calls.spawn_on(client.clone().decrypting(request), runtime::shared());
    }
    limited(async { Ok(calls.join_all().await) }).unwrap()
}

#[test]
fn any_flipped_bit_any_cut_and_any_addition_is_refused() {
    let node = Node::start();
    let client = node.client();
    let stored = client.store().unwrap();
    let text = client.encrypt(SEED).unwrap().ciphertext;
    let flipped = |bit: usize| {
        let mut bad = text.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    };
    let mut bad: Vec<_> = (0..8 * text.len()).map(flipped).collect();
    bad.extend((0..text.len()).map(|len| text[..len].to_vec()));
    bad.push([&text[..], &[0]].concat());
    bad.push(vec![0; 1024]);
    bad.push(vec![0x4E; 100_000]);
    let count = bad.len();
    let answers = decrypt_all(&client, bad.iter().map(|text| request(text, &stored.key_id)).collect());
    assert_eq!(answers.len(), count);
    for answer in answers {
        assert_refused(answer, &[code::INVALID_ARGUMENT, code::NOT_FOUND], "a changed text");
    }
    let v1 = client.encrypt_v1(SEED).unwrap();
    for bit in (0..8 * v1.len()).step_by(3) {
        let mut bad = v1.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_refused(client.decrypt_v1(&bad), &[code::INVALID_ARGUMENT, code::NOT_FOUND], "a changed v1 text");
    }
    assert_eq!(client.decrypt(&text, &stored.key_id).unwrap(), SEED);
    client.assert_opens(&stored);
}

#[test]
fn wrong_fields_are_refused_with_fixed_sentences() {
    let node = Node::start();
    let client = node.client();
    let answer = client.encrypt(SEED).unwrap();
    let good = || request(&answer.ciphertext, &answer.key_id);
    assert_eq!(client.decrypt_request(good()).unwrap(), SEED);

    let mut other_digit = answer.key_id.clone().into_bytes();
    *other_digit.last_mut().unwrap() ^= 1;
    let other_digit = String::from_utf8(other_digit).unwrap();
    let key_ids =
        ["", &other_digit, "1", &answer.key_id.to_uppercase(), &format!("{} ", answer.key_id), &"x".repeat(1025)];
    for key_id in key_ids {
        let bad = v2::DecryptRequest { key_id: key_id.to_owned(), ..good() };
        assert_refused(client.decrypt_request(bad), INVALID, key_id);
    }

    for uid in ["", &"u".repeat(129), "a b", "a\nb", "\u{1b}[31m", "ü"] {
        let bad = v2::DecryptRequest { uid: uid.into(), ..good() };
        assert_refused(client.decrypt_request(bad), INVALID, uid);
        let bad = v2::EncryptRequest { plaintext: SEED.to_vec(), uid: uid.into() };
        let answer = client.body("/v2.KeyManagementService/Encrypt", framed(&bad.encode_to_vec()));
        assert_refused(answer, INVALID, uid);
    }

    let annotations: [&[(&str, usize)]; 5] = [
        &[("vault.wrap.nodeseal.internal", 40)],
        &[("example.com", 0)],
        &[("", 1)],
        &[("a.wrap.nodeseal.internal", 1), ("b.wrap.nodeseal.internal", 1)],
        &[("big.wrap.nodeseal.internal", 40_000)],
    ];
    for added in annotations {
        let annotations = added.iter().map(|(name, len)| ((*name).to_owned(), vec![1; *len])).collect();
        let bad = v2::DecryptRequest { annotations, ..good() };
        assert_refused(client.decrypt_request(bad), INVALID, &format!("annotations {added:?}"));
    }

    assert_refused(client.encrypt(&[]), INVALID, "an empty plaintext");
    assert_refused(client.decrypt(&[], &answer.key_id), INVALID, "an empty text");
    assert_eq!(client.decrypt_request(good()).unwrap(), SEED, "and the good one still opens");
}

#[test]
fn a_text_of_one_api_is_refused_by_the_other() {
    let node = Node::start();
    let client = node.client();
    let of_v2 = client.encrypt(SEED).unwrap();
    let of_v1 = client.encrypt_v1(SEED).unwrap();
    assert_refused(client.decrypt_v1(&of_v2.ciphertext), INVALID, "v2 text to v1");
    assert_refused(client.decrypt(&of_v1, &of_v2.key_id), INVALID, "v1 text to v2");
}

#[test]
fn a_text_of_another_node_is_not_found_and_one_of_another_cluster_invalid() {
    let (here, sister, stranger) = (Node::start(), Node::start(), Node::start_with("cluster = \"prod-eu-1\"\n"));
    let client = here.client();
    let of_sister = sister.client().encrypt(SEED).unwrap();
    let of_stranger = stranger.client().encrypt(SEED).unwrap();
    let not_found = &[code::NOT_FOUND];
    assert_refused(client.decrypt(&of_sister.ciphertext, &of_sister.key_id), not_found, "a sister's v2 text");
    assert_refused(client.decrypt_v1(&sister.client().encrypt_v1(SEED).unwrap()), not_found, "a sister's v1 text");
    assert_refused(client.decrypt(&of_stranger.ciphertext, &of_stranger.key_id), INVALID, "a stranger's v2 text");
    assert_refused(client.decrypt_v1(&stranger.client().encrypt_v1(SEED).unwrap()), INVALID, "a stranger's v1 text");
    let own = client.status().unwrap().key_id;
    assert_refused(client.decrypt(&of_sister.ciphertext, &own), INVALID, "a sister's text under our key_id");
}

#[test]
fn over_long_and_malformed_messages_get_the_right_codes() {
    let node = Node::start();
    let client = node.client();
    let encrypt = "/v2.KeyManagementService/Encrypt";
    let decrypt = "/v2.KeyManagementService/Decrypt";
    let v1 = "/v1beta1.KeyManagementService/Encrypt";
    let too_long = &[code::RESOURCE_EXHAUSTED, code::INVALID_ARGUMENT];

    // Exactly 128 KiB is a message, only one with too long a plaintext.
    let of_size = |size: usize| {
        let overhead = v2::EncryptRequest { plaintext: vec![1; size], uid: next_uid() }.encoded_len() - size;
        v2::EncryptRequest { plaintext: vec![1; size - overhead], uid: next_uid() }.encode_to_vec()
    };
    assert_eq!(of_size(131_072).len(), 131_072);
    assert_refused(client.body(encrypt, framed(&of_size(131_072))), INVALID, "128 KiB");
    for size in [131_073, 150_000, 190_000] {
        assert_refused(client.body(encrypt, framed(&of_size(size))), too_long, &format!("{size} bytes"));
    }
    let long_v1 = v1::BytesRequest { version: "v1beta1".into(), bytes: vec![1; 131_073] }.encode_to_vec();
    assert_refused(client.body(v1, framed(&long_v1)), too_long, "v1");
    // A length that nothing follows.
    assert_refused(client.body(encrypt, vec![0, 0xFF, 0xFF, 0xFF, 0xFF]), too_long, "4 GiB announced");

    for path in [encrypt, decrypt, v1] {
        for garbage in [&[0xFF; 40][..], b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xc3\x28", b"GET / HTTP/1.1\r\n\r\n"] {
            assert_refused(client.body(path, framed(garbage)), INVALID, &format!("{garbage:?} to {path}"));
        }
        assert_refused(client.body(path, framed(&[])), INVALID, "an empty message");
        assert_refused(
            client.body(path, Vec::new()),
            &[code::INVALID_ARGUMENT, code::UNIMPLEMENTED],
            "no message at all",
        );
        assert_refused(client.body(path, vec![0, 0, 0, 0, 9, 1]), INVALID, "a message cut short");
        let two = [framed(&of_size(100)), framed(&of_size(100))].concat();
        if let Err(refusal) = client.body(path, two) {
            assert_refused::<()>(Err(refusal), &[code::INVALID_ARGUMENT, code::UNIMPLEMENTED], "two messages");
        }
        let compressed = [&[1, 0, 0, 0, 3], &b"abc"[..]].concat();
        assert_refused(
            client.body(path, compressed),
            &[code::INVALID_ARGUMENT, code::UNIMPLEMENTED],
            "a compressed message that says no encoding",
        );
        assert_refused(
            client.body(path, [&[9, 0, 0, 0, 3], &b"abc"[..]].concat()),
            INVALID,
            "a compression flag that does not exist",
        );
    }

    let unknown = [
        "/v2.KeyManagementService/Rotate",
        "/v1beta1.KeyManagementService/Status",
        "/v3.KeyManagementService/Status",
        "/grpc.health.v1.Health/Check",
        "/",
        "/v2.KeyManagementService/",
    ];
    for path in unknown {
        assert_refused(client.body(path, framed(&[])), &[code::UNIMPLEMENTED], path);
    }
    assert!(client.encrypt(SEED).is_ok(), "the same connection still serves");
}

#[test]
fn an_api_that_is_not_configured_is_not_served() {
    let node = Node::start_with("listen.apis = [\"v2\"]\n");
    let client = node.client();
    assert!(client.encrypt(SEED).is_ok());
    assert_refused(client.version("v1beta1"), &[code::UNIMPLEMENTED], "v1 Version");
    assert_refused(client.encrypt_v1(SEED), &[code::UNIMPLEMENTED], "v1 Encrypt");
}

#[test]
fn a_text_that_is_not_ours_is_refused_under_our_key_id_and_under_any_other() {
    let node = Node::start();
    let client = node.client();
    let ours = client.encrypt(SEED).unwrap();
    let of_others: [&[u8]; 6] = [
        b"k8s:enc:aescbc:v1:key1:0123456789abcdef0123456789abcdef",
        b"vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==",
        &[0; 60],
        &[0xFF; 1024],
        b"N",
        b"NSL",
    ];
    for text in of_others {
        for key_id in [ours.key_id.as_str(), "1", "ns1-0000000000000000000000000000000000000000"] {
            assert_refused(client.decrypt(text, key_id), INVALID, &format!("{text:?} under {key_id}"));
        }
        assert_refused(client.decrypt_v1(text), INVALID, &format!("{text:?} in v1"));
    }
    // Ours goes on opening, and alone under its own key_id.
    assert_eq!(client.decrypt(&ours.ciphertext, &ours.key_id).as_deref(), Ok(&SEED[..]));
    assert_refused(client.decrypt(&ours.ciphertext, "1"), INVALID, "a foreign key_id");
}

#[test]
fn annotations_that_are_not_ours_beside_our_text_are_refused() {
    let node = Node::start();
    let client = node.client();
    let ours = client.encrypt(SEED).unwrap();
    for (name, value) in [
        ("kms.example.com/local-kek", &b"0123456789abcdef"[..]),
        ("encrypted-dek.example.com", &[0; 512]),
        ("wrap.nodeseal.example.com", b"NSL"),
    ] {
        let mut asked = request(&ours.ciphertext, &ours.key_id);
        asked.annotations.insert(name.to_owned(), value.to_vec());
        assert_refused(client.decrypt_request(asked), INVALID, name);
    }
    assert_eq!(client.decrypt(&ours.ciphertext, &ours.key_id).as_deref(), Ok(&SEED[..]));
}

#[test]
fn every_refusal_is_logged_with_the_uid_of_its_request() {
    let node = Node::start_with("log.format = \"json\"\n");
    let client = node.client();
    let answer = client.encrypt(SEED).unwrap();
    let mut bad = request(&answer.ciphertext, &answer.key_id);
    bad.ciphertext[60] ^= 1;
    let uid = bad.uid.clone();
    assert_refused(client.decrypt_request(bad), INVALID, "a changed text");
    let line = until(Duration::from_secs(5), "the refusal is logged", || {
        node.log().lines().find(|line| line.contains(&uid)).map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["event"], "request.refused");
    assert_eq!((line["op"].as_str(), line["class"].as_str()), (Some("v2.Decrypt"), Some("corrupt")), "{line}");
}
