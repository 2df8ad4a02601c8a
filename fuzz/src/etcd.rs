//! What lies in etcd (docs/operations/etcd.md): objects, the questions about them, EncryptionConfigurations, and databases.

use std::io::Write;

use nodeseal::etcd::Stored;
use nodeseal::etcd::object::{Encryption, Plain};
use nodeseal::etcd::question::Question;
use nodeseal::etcd::resource::{DEFAULT_PREFIX, resource};
use nodeseal::etcd::snapshot::{Snapshot, SnapshotError};
use nodeseal::etcd::wanted::Wanted;

use crate::summed;

/// A prefix says how an object is encrypted, and what looks encrypted is never plain.
pub fn etcd(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        0 => object(rest),
        1 => object(&[b"k8s:enc:kms:v2:n:", rest].concat()),
        2 => object(&[b"k8s:enc:kms:v1:n:", rest].concat()),
        3 => question(rest),
        4 => wanted(rest),
        5 => database(rest),
        6 => database(&summed(rest)),
        7 => place(rest),
        _ => {}
    }
}

fn object(bytes: &[u8]) {
    let encryption = Encryption::of(bytes);
    let is_plain = matches!(encryption, Encryption::Plain(_));
    assert_eq!(is_plain, !bytes.starts_with(b"k8s:enc:"));
    assert!(!matches!(encryption, Encryption::Plain(Plain::Protobuf)) || bytes.starts_with(b"k8s\0"));
    if let Some(question) = Question::of(&encryption, b"/registry/secrets/a/b", true) {
        let frame = question.encode().expect("the key is short");
        assert_eq!(Question::decode(&frame).as_ref(), Ok(&question));
    }
}

fn question(bytes: &[u8]) {
    let Ok(question) = Question::decode(bytes) else { return };
    assert_eq!(question.encode().as_deref(), Some(bytes), "a question has a second encoding");
}

fn wanted(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(wanted) = Wanted::parse(text) else { return };
    for resource in ["secrets", "deployments.apps"] {
        let _ = wanted.of(resource);
    }
}

fn place(bytes: &[u8]) {
    let name = resource(bytes, DEFAULT_PREFIX);
    assert!(!name.is_empty() && !name.chars().any(char::is_control));
}

/// No key is given twice, and none that does not begin as was asked for.
fn database(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("room for it");
    let Ok(snapshot) = Snapshot::open(file.path()) else { return };
    let mut seen = std::collections::BTreeSet::new();
    let _ = snapshot.each::<SnapshotError>(b"/registry/", &mut |stored: Stored<'_>| {
        assert!(stored.key.starts_with(b"/registry/") && seen.insert(stored.key.to_vec()));
        Ok(())
    });
}
