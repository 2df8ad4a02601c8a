use super::*;
use crate::ctl::etcd::source::MaybeAsking;
use crate::ctl::kek_ids::tests::row;
use crate::etcd::Stored;
use crate::etcd::count::{Ask, CopyOf, Count};
use crate::etcd::resource::DEFAULT_PREFIX;
use crate::etcd::samples::{self, EncryptedObject};
use crate::provider::{KeyIdentity, KeyVersion, ProviderKind};
use crate::types::KekId;

fn group(value: &[u8]) -> Group {
    let mut count = Count::new(DEFAULT_PREFIX, Ask::Nothing);
    count.take(Stored { key: b"/registry/secrets/a/b", value, mod_revision: 1 }, &mut MaybeAsking(None)).unwrap();
    count.groups()[0].clone()
}

/// Under KEK 1, with copies that these keys have.
fn ours(copies: &[&str]) -> Group {
    let mut group = group(&samples::v2(1, "ns1-a", 1).stored("nodeseal"));
    for key in copies {
        let (identity, version) = (KeyIdentity::new(*key).unwrap(), KeyVersion::new("1").unwrap());
        group.copies.insert(CopyOf { kind: ProviderKind::Vault, identity, version }, 1);
    }
    group
}

fn provider(key: &str) -> ProviderRow {
    ProviderRow {
        name: "hall".into(),
        kind: "vault".into(),
        role: "required".into(),
        opens_foreign: false,
        key: Some(key.into()),
        version: None,
        answered_seconds_ago: None,
        class: Some("unavailable".into()),
        error: Some("connection refused".into()),
        held_back: true,
        login_ends_in_seconds: None,
        certificate_ends_in_seconds: None,
    }
}

fn kek() -> String {
    KekId::from_bytes([1; 16]).to_string()
}

/// This node knows KEK 1 in this state.
fn knows(state: &str, shared: bool, lost: &[String]) -> Known {
    Known::new(&[KekRow { state: state.into(), since: 86_400, shared, ..row(&kek()) }], &[provider("transit/k")], lost)
}

fn nothing() -> Known {
    Known::new(&[], &[provider("transit/k")], &[])
}

#[test]
fn every_answer_of_nodeseald_has_its_reason() {
    let foreign = group(&EncryptedObject { source: vec![1; 90], ..samples::v2(1, "x", 1) }.stored("nodeseal"));
    for (group, verdict, known, reason, is_lost) in [
        (ours(&[]), Verdict::Opens, nothing(), Reason::Opens, false),
        (ours(&["transit/k"]), Verdict::ProviderAway, nothing(), Reason::ProviderAway, false),
        (ours(&[]), Verdict::NotAsked, nothing(), Reason::NotAsked, false),
        (ours(&[]), Verdict::Moved, nothing(), Reason::Moved, true),
        (ours(&[]), Verdict::UnknownKek, nothing(), Reason::KekElsewhere, false),
        (ours(&["transit/k"]), Verdict::UnknownKek, nothing(), Reason::KekElsewhere, false),
        (ours(&["transit/gone"]), Verdict::UnknownKek, nothing(), Reason::ProviderMissing, false),
        (ours(&[]), Verdict::UnknownKek, knows("deactivated", false, &[]), Reason::KekNotOpen, false),
        (ours(&[]), Verdict::UnknownKek, knows("destroyed", false, &[]), Reason::KekDestroyed, true),
        // A text of another cluster does not open either.
        (ours(&[]), Verdict::BadText, nothing(), Reason::Damaged, false),
        (ours(&[]), Verdict::BadText, knows("active", true, &[]), Reason::Damaged, true),
        (foreign, Verdict::BadText, nothing(), Reason::NotOurs, false),
    ] {
        let found = why(&group, verdict, Some(true), &known);
        assert_eq!((found.reason, found.is_lost), (reason, is_lost), "{verdict:?}: {found:?}");
    }
}

#[test]
fn what_nobody_is_asked_about_has_its_reason_from_its_form() {
    for (value, is_read, reason, is_lost) in [
        (&b"k8s:enc:kms:v2:nodeseal:"[..], Some(true), Reason::Damaged, true),
        (b"k8s:enc:kms:v1:nodeseal:\x00\x05abc", Some(true), Reason::Damaged, true),
        (b"k8s:enc:kms:v3:nodeseal:x", Some(true), Reason::Unknown, false),
        (b"k8s:enc:aescbc:v1:k:data", Some(true), Reason::OwnKey, false),
        (b"k8s:enc:aescbc:v1:k:data", Some(false), Reason::NotConfigured, false),
        (b"k8s\0in clear", None, Reason::Plain, false),
        (b"k8s\0in clear", Some(false), Reason::NotConfigured, false),
        (b"what is this", Some(true), Reason::Unknown, false),
    ] {
        let found = why(&group(value), Verdict::NotAsked, is_read, &nothing());
        assert_eq!((found.reason, found.is_lost), (reason, is_lost), "{}", value.escape_ascii());
    }
    let ours = why(&ours(&[]), Verdict::Opens, Some(false), &nothing());
    assert_eq!((ours.reason, ours.text.contains("no nodeseal for")), (Reason::NotConfigured, true), "{ours:?}");
}

#[test]
fn a_kek_that_may_be_elsewhere_is_lost_only_by_the_operators_word() {
    for (group, shared) in [(ours(&[]), true), (ours(&["transit/k"]), false)] {
        for (lost, expected) in [(vec![], false), (vec!["02".repeat(16)], false), (vec![kek()], true)] {
            let found = why(&group, Verdict::UnknownKek, None, &knows("destroyed", shared, &lost));
            assert_eq!((found.reason, found.is_lost), (Reason::KekDestroyed, expected), "{lost:?}");
            assert!(found.text.contains("1970-01-02T00:00:00Z"), "{}", found.text);
        }
    }
    let known = Known::new(&[], &[], &[kek()]);
    assert!(why(&ours(&[]), Verdict::UnknownKek, None, &known).is_lost);
    // A provider that is away may come back, whatever anybody says.
    assert!(!why(&ours(&[]), Verdict::ProviderAway, None, &known).is_lost);
}

#[test]
fn the_provider_that_has_to_come_back_is_named_with_what_it_said() {
    let text = |copies: &[&str]| why(&ours(copies), Verdict::ProviderAway, None, &nothing()).text;
    assert!(text(&["transit/k"]).ends_with("now: hall (connection refused)"), "{}", text(&["transit/k"]));
    assert!(text(&["transit/other"]).ends_with("does not answer now"), "{}", text(&["transit/other"]));
    let missing = why(&ours(&["transit/gone", "transit/k"]), Verdict::UnknownKek, None, &nothing());
    assert!(missing.text.ends_with("no provider of this node has: vault transit/gone"), "{}", missing.text);
}
