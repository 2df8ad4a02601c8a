//! Triage of a snapshot, with a nodeseald that answers as it is told.

use std::convert::Infallible;
use std::io::Write;

use serde_json::{Value, json};

use super::*;
use crate::ctl::etcd::source::Notice;
use crate::ctl::kek_ids::tests::row;
use crate::etcd::Stored;
use crate::etcd::count::{Ask, Count, Opener};
use crate::etcd::findings::Current;
use crate::etcd::question::{Question, Verdict};
use crate::etcd::resource::DEFAULT_PREFIX;
use crate::etcd::samples;
use crate::etcd::snapshot::writer::{Change, database, with_hash};
use crate::etcd::snapshot::{Snapshot, SnapshotError};
use crate::types::KekId;

const PAGE: &str = include_str!("../../../../docs/operations/json.md");
const WANTED: &str = r#"{"kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],
    "providers":[{"kms":{"apiVersion":"v2","name":"nodeseal","endpoint":"unix:///kms.sock"}}]}]}"#;

/// KEK 1 opens, KEK 2 was destroyed here, KEK 3 is of another node, KEK 4 needs a provider; what is called `moved` is.
struct Daemon;

impl Opener for Daemon {
    type Error = Infallible;

    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, Infallible> {
        let (key, _) = question.object.unwrap();
        Ok(match crate::envelope::kek_id_in(question.api, question.source).unwrap().as_bytes()[0] {
            1 if key.ends_with(b"/moved") => Verdict::Moved,
            1 => Verdict::Opens,
            2 | 3 => Verdict::UnknownKek,
            _ => Verdict::ProviderAway,
        })
    }
}

fn under(kek: u8) -> Option<Vec<u8>> {
    Some(samples::v2(kek, "ns1-a", 1).stored("nodeseal"))
}

fn triaged(changes: &[Change], named: Option<&Named>, lost: &[String]) -> Report {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&with_hash(&database(changes, 2))).unwrap();
    let wanted = Wanted::parse(WANTED).unwrap();
    let current = Current { endpoint: Some("unix:///kms.sock".into()), ..Current::default() };
    let destroyed = KekRow { state: "destroyed".into(), since: 86_400, ..row(&KekId::from_bytes([2; 16]).to_string()) };
    let known = Known::new(&[destroyed], &[], lost);
    let mut ward = Ward::new(named, Some(&wanted), &current, &known);
    let mut count = Count::new(DEFAULT_PREFIX, Ask::All);
    let snapshot = Snapshot::open(file.path()).unwrap();
    let taken: Result<(), SnapshotError> = snapshot.each(b"", &mut |stored: Stored<'_>| {
        if ward.wants(stored.key) {
            let counted = count.take(stored, &mut Daemon).unwrap_or_else(|never| match never {});
            ward.take(counted, &count.groups()[counted.group], stored);
        }
        Ok(())
    });
    taken.unwrap();
    let all = All { groups: count.groups(), wanted: Some(&wanted), known: &known, api_prefix: DEFAULT_PREFIX };
    all.report("snapshot".into(), snapshot.revision(), named, &ward)
}

fn cluster() -> [Change; 8] {
    [
        ("/registry/configmaps/a/clear", Some(b"k8s\0in clear".to_vec())),
        ("/registry/secrets/a/cut", Some(b"k8s:enc:kms:v2:nodeseal:".to_vec())),
        ("/registry/secrets/a/elsewhere", under(3)),
        ("/registry/secrets/a/gone", under(2)),
        ("/registry/secrets/a/good", under(1)),
        ("/registry/secrets/a/moved", under(1)),
        ("/registry/secrets/a/waits", under(4)),
        ("compact_rev_key", Some(b"1".to_vec())),
    ]
}

/// What is said of each object, and whether a call is printed that deletes it.
fn said(report: &Report) -> Vec<(String, String, bool)> {
    let objects = json!(report)["objects"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |row: &Value| {
        (text(&row["key"]).rsplit('/').next().unwrap().to_owned(), text(&row["reason"]), !row["delete"].is_null())
    };
    objects.iter().map(of).collect()
}

fn expected(rows: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
    rows.iter().map(|(name, reason, deletes)| ((*name).to_owned(), (*reason).to_owned(), *deletes)).collect()
}

#[test]
fn each_object_that_does_not_open_is_told_of_and_a_call_is_printed_only_for_what_nothing_opens() {
    let report = triaged(&cluster(), None, &[]);
    let rows = [
        ("waits", "provider-away", false),
        ("elsewhere", "kek-elsewhere", false),
        ("gone", "kek-destroyed", true),
        ("moved", "moved", true),
        ("cut", "damaged", true),
    ];
    assert_eq!(said(&report), expected(&rows));
    assert!(report.complete && !report.is_clean());
    let text = report.render();
    let call = "kubectl delete --raw '/api/v1/namespaces/a/secrets/gone?ignoreStoreReadErrorWithClusterBreakingPotential=true'";
    assert!(text.contains(call) && text.contains("AllowUnsafeMalformedObjectDeletion=true"), "{text}");
    assert!(text.contains("destroyed on this node at 1970-01-02"), "{text}");
    assert!(
        !text.contains("secrets/waits?") && !text.contains("secrets/elsewhere?") && !text.contains("/good"),
        "{text}"
    );
}

#[test]
fn a_kek_that_the_operator_calls_lost_is_the_only_thing_that_adds_a_call() {
    let lost = [KekId::from_bytes([3; 16]).to_string(), KekId::from_bytes([4; 16]).to_string()];
    let deletes = |report: &Report| said(report).into_iter().filter(|row| row.2).map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(deletes(&triaged(&cluster(), None, &lost)), ["elsewhere", "gone", "moved", "cut"]);
}

#[test]
fn a_file_limits_what_is_looked_at_and_what_opens_by_now_or_is_gone_is_told() {
    let keys = ["good", "waits", "deleted"].map(|name| format!("/registry/secrets/a/{name}"));
    let named = Named { keys: keys.into(), notes: Vec::new() };
    let report = triaged(&cluster(), Some(&named), &[]);
    let rows = [("waits", "provider-away", false), ("good", "opens", false), ("deleted", "gone", false)];
    assert_eq!(said(&report), expected(&rows));
    let named = Named { keys: ["/registry/secrets/a/good".to_owned()].into(), notes: Vec::new() };
    let report = triaged(&cluster(), Some(&named), &[]);
    assert!(report.is_clean() && report.complete);
    // A file that leaves some off speaks for no others.
    let notes = vec!["there are more".to_owned()];
    assert!(!triaged(&cluster(), Some(&Named { notes, ..named }), &[]).complete);
}

#[test]
fn a_cluster_in_which_all_opens_has_nothing_to_tell() {
    let good: [Change; 2] = [("/registry/secrets/a/good", under(1)), ("compact_rev_key", Some(b"1".to_vec()))];
    let report = triaged(&good, None, &[]);
    assert!(report.is_clean() && report.complete && report.render().contains("everything that was looked at opens"));
}

#[test]
fn every_field_of_an_answer_stands_on_the_page_and_no_other() {
    let documented = |below: &str| {
        let section = PAGE.split("\n### ").find(|section| section.starts_with("nodeseal.etcd-triage/1\n")).unwrap();
        let paths = section.lines().take_while(|line| !line.starts_with("## "));
        let paths = paths.filter_map(|line| line.strip_prefix("| `")?.split_once('`')?.0.strip_prefix(below));
        let mut paths: Vec<_> = paths.filter(|path| !path.contains('.')).map(str::to_owned).collect();
        paths.sort();
        paths
    };
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let report = json!(triaged(&cluster(), None, &[]));
    assert_eq!(fields(&report), documented(""));
    assert_eq!(fields(&report["objects"][0]), documented("objects[]."));
    assert_eq!(fields(&report["delete_needs"]), documented("delete_needs."));
}
