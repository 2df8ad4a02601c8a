use std::convert::Infallible;

use super::super::Stored;
use super::super::count::{Count, Opener};
use super::super::question::{Question, Verdict};
use super::super::samples;
use super::*;

struct Says(Verdict);

impl Opener for Says {
    type Error = Infallible;

    fn open(&mut self, _: &Question<'_>) -> Result<Verdict, Infallible> {
        Ok(self.0)
    }
}

const WANTED: &str = r#"{"kind":"EncryptionConfiguration","resources":[
    {"resources":["secrets"],"providers":[{"kms":{"apiVersion":"v2","name":"nodeseal","endpoint":"unix:///kms.sock"}},
        {"aescbc":{"keys":[{"name":"old"}]}},{"identity":{}}]},
    {"resources":["configmaps"],"providers":[{"kms":{"apiVersion":"v2","name":"nodeseal","endpoint":"unix:///kms.sock"}}]}]}"#;

fn ids(objects: &[(&str, &[u8])], verdict: Verdict, copies: usize) -> Vec<&'static str> {
    let mut count = Count::new("/registry/", Ask::Seeds);
    for (key, value) in objects {
        let stored = Stored { key: key.as_bytes(), value, mod_revision: 1 };
        count.take(stored, &mut Says(verdict)).unwrap_or_else(|never| match never {});
    }
    let endpoint = Some("unix:///kms.sock".to_owned());
    let current = Current { key_id: Some("ns1-now".to_owned()), endpoint, copies };
    let wanted = Wanted::parse(WANTED).unwrap();
    findings(count.groups(), Some(&wanted), &current, Ask::Seeds).iter().map(|finding| finding.id).collect()
}

#[test]
fn each_kind_of_object_has_its_finding_and_a_healthy_one_has_none() {
    let now = samples::v2(1, "ns1-now", 1).stored("nodeseal");
    let before = samples::v2(1, "ns1-before", 1).stored("nodeseal");
    let other = samples::v2(1, "ns1-now", 1).stored("other");
    let cases: [(&str, &[u8], &[&str]); 15] = [
        ("secrets", &now, &[]),
        ("configmaps", &now, &[]),
        ("secrets", &before, &["older-key"]),
        ("secrets", &other, &["unreadable"]),
        ("secrets", b"k8s:enc:aescbc:v1:old:x", &["older-provider"]),
        ("secrets", b"k8s:enc:aescbc:v1:gone:x", &["unreadable"]),
        ("secrets", b"k8s\0x", &["not-encrypted"]),
        ("configmaps", b"k8s\0x", &["written-past"]),
        ("pods", b"k8s\0x", &[]),
        ("ranges", b"k8s\0x", &[]),
        ("ranges", &before, &["older-key"]),
        ("pods", &now, &["unreadable"]),
        ("secrets", b"nonsense", &["damaged"]),
        ("secrets", b"k8s:enc:kms:v2:nodeseal:\xFF", &["damaged"]),
        ("secrets", b"k8s:enc:new:v1:x:y", &["unknown-transformer"]),
    ];
    for (resource, value, expected) in cases {
        let key = format!("/registry/{resource}/a/b");
        assert_eq!(ids(&[(&key, value)], Verdict::Opens, 0), expected, "{resource} {}", value.escape_ascii());
    }
}

#[test]
fn what_does_not_open_is_told_before_anything_else() {
    let before = samples::v2(1, "ns1-before", 1).stored("nodeseal");
    let objects = [("/registry/secrets/a/b", &before[..])];
    for (verdict, id) in [
        (Verdict::UnknownKek, "opens-nowhere"),
        (Verdict::BadText, "damaged"),
        (Verdict::Moved, "moved"),
        (Verdict::ProviderAway, "provider-away"),
    ] {
        assert_eq!(ids(&objects, verdict, 0), [id, "older-key"]);
    }
    assert_eq!(ids(&objects, Verdict::NotAsked, 0), ["not-asked", "older-key"]);
    assert_eq!(ids(&objects, Verdict::Opens, 2), ["older-key", "short-of-copies"]);
}

#[test]
fn what_another_plugin_wrote_is_told_apart_from_what_is_damaged() {
    let foreign = samples::EncryptedObject { source: vec![1; 90], ..samples::v2(1, "theirs", 1) };
    let key = "/registry/secrets/a/b";
    // The configuration names our socket under this name.
    assert_eq!(ids(&[(key, &foreign.stored("nodeseal"))], Verdict::BadText, 0), ["other-plugin"]);
    // Nodeseal has taken its place, and hands them to it: they open, and are still to be migrated before it goes.
    assert_eq!(ids(&[(key, &foreign.stored("nodeseal"))], Verdict::Opens, 0), ["other-plugin"]);
    let elsewhere = WANTED.replace("unix:///kms.sock", "unix:///other.sock");
    let mut count = Count::new("/registry/", Ask::Seeds);
    let stored = foreign.stored("nodeseal");
    let stored = Stored { key: key.as_bytes(), value: &stored, mod_revision: 1 };
    count.take(stored, &mut Says(Verdict::BadText)).unwrap_or_else(|never| match never {});
    let current = Current { endpoint: Some("unix:///kms.sock".to_owned()), ..Current::default() };
    let wanted = Wanted::parse(&elsewhere).unwrap();
    assert_eq!(findings(count.groups(), Some(&wanted), &current, Ask::Seeds), []);
}

#[test]
fn a_socket_that_is_written_in_another_way_does_not_hide_what_is_damaged() {
    // Its first bytes were changed, so that it is not known as a text of Nodeseal any more.
    let mut object = samples::v2(1, "ns1-now", 1);
    object.source[0] ^= 0xFF;
    let stored = object.stored("nodeseal");
    for path in ["unix:///run/nodeseal/kms.sock", "unix:///run//nodeseal/kms.sock", "unix:///var/run/nodeseal/kms.sock"]
    {
        let mut count = Count::new("/registry/", Ask::Seeds);
        let stored = Stored { key: b"/registry/secrets/a/b", value: &stored, mod_revision: 1 };
        count.take(stored, &mut Says(Verdict::BadText)).unwrap_or_else(|never| match never {});
        let endpoint = Some("unix:///run/nodeseal/kms.sock".to_owned());
        let current = Current { key_id: Some("ns1-now".to_owned()), endpoint, copies: 0 };
        let wanted = Wanted::parse(&WANTED.replace("unix:///kms.sock", path)).unwrap();
        assert_ne!(findings(count.groups(), Some(&wanted), &current, Ask::Seeds), [], "exit 0 with {path}");
    }
}
