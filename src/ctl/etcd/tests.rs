//! What a scan says of an etcd or a snapshot, and what nodeseald keeps of it.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;

use super::args::ScanArgs;
use super::cluster::Cluster;
use super::evidence::{NotKept, Seen, of, seen};
use super::source::{MaybeAsking, read};
use crate::etcd::Stored;
use crate::etcd::count::{Ask, Count};
use crate::etcd::fake::etcd;
use crate::etcd::findings::{Current, Finding, absent, findings, not_judged};
use crate::etcd::resource::DEFAULT_PREFIX;
use crate::etcd::samples::{self, EncryptedObject};
use crate::etcd::snapshot::writer::{Change, database, with_hash};
use crate::etcd::wanted::Wanted;
use crate::keyring::evidence::{Evidence, NoProof, Reach, Scan, Subject};
use crate::types::KekId;

/// What nodeseald would keep of a scan of this etcd.
fn given(objects: Vec<(&'static str, Vec<u8>)>, words: &[&str], found: &Cluster) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = etcd(folder.path(), objects, 0);
    let words = [&["scan", "--open", "none", "--endpoints", &endpoint], words].concat();
    let args = Cli::parse_from(words).args;
    let scanned = read(&args.source, args.open, found, &mut None, None, false)
        .unwrap_or_else(|failed| panic!("{}", failed.text()));
    of(&scanned)
}

/// The same of one that speaks for the whole of it.
fn kept(objects: Vec<(&'static str, Vec<u8>)>, words: &[&str], found: &Cluster) -> Result<Scan, NotKept> {
    match given(objects, words, found) {
        Seen::All(scan) => Ok(scan),
        Seen::Some(_, why) | Seen::Nothing(why) => Err(why),
    }
}

fn under(kek: u8) -> Vec<u8> {
    samples::v2(kek, "ns1-x", 1).stored("nodeseal")
}

#[test]
fn a_scan_of_all_keys_of_kube_apiserver_is_kept() {
    let scan = kept(vec![("/registry/secrets/a/1", under(1))], &[], &Cluster::default()).unwrap();
    assert_eq!(scan.objects_under(&KekId::from_bytes([1; 16])), 1);
}

#[test]
fn a_scan_that_was_given_fewer_objects_than_etcd_has_counted_is_not_complete() {
    let folder = tempfile::tempdir().unwrap();
    let objects = vec![("/registry/secrets/a/1", under(1)), ("/registry/secrets/a/2", under(2))];
    let endpoint = etcd(folder.path(), objects, 1);
    let cli = Cli::parse_from(["scan", "--open", "none", "--endpoints", &endpoint]);
    let scanned = read(&cli.args.source, cli.args.open, &Cluster::default(), &mut None, None, false);
    assert!(scanned.is_err(), "exit 0 or 1 with 1 of 2 objects of one revision, and kept as a proof");
}

#[test]
fn a_scan_of_an_etcd_with_another_prefix_than_kube_apiservers_sees_what_lies_below_both() {
    let found = Cluster { prefix: Some("/cluster-a/".into()), ..Cluster::default() };
    // Two clusters share an etcd, or this one has moved to another prefix and has left a few objects behind.
    let objects = vec![("/cluster-a/secrets/a/1", under(1)), ("/registry/secrets/a/1", under(2))];
    let scan = kept(objects, &[], &found).unwrap();
    assert_eq!([1, 2].map(|kek| scan.objects_under(&KekId::from_bytes([kek; 16]))), [1, 1]);
}

#[test]
fn a_scan_is_not_taken_for_the_whole_while_another_api_server_keeps_objects_beside_it() {
    // OpenShift has /kubernetes.io/ and /openshift.io/ in one etcd, encrypted by one plugin.
    let objects = vec![("/openshift.io/oauth/tokens/1", under(1)), ("/registry/secrets/a/1", under(2))];
    let scan = kept(objects, &[], &Cluster::default());
    let is_safe = scan.is_ok_and(|scan| scan.objects_under(&KekId::from_bytes([1; 16])) > 0);
    assert!(is_safe, "`keys retire` would destroy the KEK of /openshift.io/");
}

#[test]
fn a_scan_that_does_not_speak_for_all_of_etcd_is_not_kept_and_says_why() {
    let objects = || vec![("/registry/secrets/a/1", under(1))];
    for part in ["/registry/", "/registry", "/"] {
        let kept = kept(objects(), &["--prefix", part], &Cluster::default());
        assert!(matches!(kept, Err(NotKept::Part)), "{part}");
    }
    let divided = Cluster { is_divided: true, ..Cluster::default() };
    assert!(matches!(kept(objects(), &[], &divided), Err(NotKept::Divided)));
    let unclear = Cluster { unread: Some(PathBuf::from("/manifest")), ..Cluster::default() };
    assert!(matches!(kept(objects(), &[], &unclear), Err(NotKept::Unclear(_))));
    assert!(kept(objects(), &["--undivided"], &unclear).is_ok());
    assert!(matches!(kept(objects(), &["--undivided"], &divided), Err(NotKept::Divided)), "that was seen");
    let unread = vec![("/registry/secrets/a/1", under(1)), ("/registry/secrets/a/2", b"k8s:enc:next:v1:x:y".to_vec())];
    assert!(matches!(kept(unread, &[], &Cluster::default()), Err(NotKept::Unread(1))));
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ScanArgs,
}

const WANTED: &str = r#"{"kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],
    "providers":[{"kms":{"apiVersion":"v2","name":"nodeseal","endpoint":"unix:///kms.sock"}}]}]}"#;

fn snapshot(changes: &[Change]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&with_hash(&database(changes, 2))).unwrap();
    file
}

/// Of a snapshot, read with this prefix.
fn found(changes: &[Change], prefix: &str) -> (u64, Vec<Finding>) {
    found_in(&snapshot(changes), &["--prefix", prefix])
}

fn found_in(file: &tempfile::NamedTempFile, words: &[&str]) -> (u64, Vec<Finding>) {
    let words = [&["scan", "--open", "none", "--snapshot", file.path().to_str().unwrap()], words].concat();
    let args = Cli::parse_from(words).args;
    let scanned = read(&args.source, args.open, &Cluster::default(), &mut None, None, false)
        .unwrap_or_else(|failed| panic!("{}", failed.text()));
    let current = Current { key_id: Some("ns1-now".into()), endpoint: Some("unix:///kms.sock".into()), copies: 0 };
    let wanted = Wanted::parse(WANTED).unwrap();
    (scanned.count.objects, findings(scanned.count.groups(), Some(&wanted), &current, Ask::Nothing))
}

#[test]
fn a_part_of_etcd_is_judged_as_the_whole_is() {
    let plain: [Change; 1] = [("/registry/secrets/default/token", Some(b"k8s\0in clear".to_vec()))];
    let (_, whole) = found(&plain, "/registry/");
    assert_eq!(whole.iter().map(|finding| finding.id).collect::<Vec<_>>(), ["written-past"]);
    for part in ["/registry/secrets/", "/registry/secrets/default/", "/registry"] {
        assert_eq!(found(&plain, part), (1, whole.clone()), "--prefix {part}");
    }
    let good: [Change; 1] =
        [("/registry/secrets/default/token", Some(samples::v2(1, "ns1-now", 1).stored("nodeseal")))];
    for part in ["/registry/", "/registry/secrets/", "/registry"] {
        assert_eq!(found(&good, part), (1, Vec::new()), "--prefix {part}");
    }
}

#[test]
fn a_scan_that_has_seen_no_object_at_all_is_not_called_healthy() {
    let elsewhere: [Change; 1] = [("/kubernetes.io/secrets/default/token", Some(b"k8s\0in clear".to_vec()))];
    let (objects, findings) = found(&elsewhere, "/registry/");
    assert!(objects > 0 || !findings.is_empty(), "exit 0, and `every resource … is under the current key`");
}

#[test]
fn what_lies_beside_the_prefix_is_counted_and_not_taken_for_objects_of_this_kube_apiserver() {
    let changes: [Change; 3] = [
        ("/registry/secrets/default/token", Some(samples::v2(1, "ns1-now", 1).stored("nodeseal"))),
        ("/openshift.io/secrets/a/b", Some(b"k8s\0in clear".to_vec())),
        ("compact_rev_key", Some(b"1".to_vec())),
    ];
    let file = snapshot(&changes);
    for words in [&[][..], &["--prefix", ""], &["--etcd-prefix", "registry"]] {
        assert_eq!(found_in(&file, words), (3, Vec::new()), "{words:?}");
    }
    assert_eq!(found_in(&file, &["--prefix", "/"]), (2, Vec::new()));
    // Named as its prefix, it is what is judged.
    let (all, found) = found_in(&file, &["--etcd-prefix", "openshift.io"]);
    assert_eq!((all, found.iter().map(|finding| finding.id).collect::<Vec<_>>()), (3, vec!["written-past"]));
    let (part, found) = found_in(&file, &["--prefix", "/openshift.io/secrets/"]);
    assert_eq!((part, found.iter().map(|finding| finding.id).collect::<Vec<_>>()), (1, vec!["written-past"]));
}

#[test]
fn what_cannot_be_judged_and_what_is_not_there_is_named() {
    let mut count = Count::new(DEFAULT_PREFIX, Ask::Nothing);
    let foreign = EncryptedObject { source: vec![1; 90], ..samples::v2(1, "theirs", 1) }.stored("nodeseal");
    for (key, value) in [(&b"/registry/secrets/a/1"[..], &foreign[..]), (b"/registry/futures/a", b"k8s\0x")] {
        count.take(Stored { key, value, mod_revision: 1 }, &mut MaybeAsking(None)).unwrap();
    }
    let text = WANTED.replace(r#"["secrets"]"#, r#"["secrets","configmaps","*.example.com"]"#);
    let wanted = Wanted::parse(&text).unwrap();
    let current = Current { endpoint: Some("unix:///own.sock".into()), ..Current::default() };
    let named: Vec<_> = not_judged(count.groups(), Some(&wanted), &current)
        .into_iter()
        .map(|one| (one.resource, one.objects))
        .collect();
    assert_eq!(named, [("secrets".to_owned(), 1), ("futures".to_owned(), 1)]);
    assert_eq!(absent(count.groups(), &wanted), ["configmaps"]);
}

#[test]
fn a_scan_with_objects_that_could_not_be_told_apart_speaks_for_no_destruction() {
    let of = |value: &[u8]| {
        let mut count = Count::new(DEFAULT_PREFIX, Ask::Nothing);
        let good = samples::v2(2, "ns1-now", 1).stored("nodeseal");
        for (key, value) in [(&b"/registry/secrets/a/1"[..], &good[..]), (b"/registry/secrets/a/2", value)] {
            let stored = Stored { key, value, mod_revision: 1 };
            count.take(stored, &mut MaybeAsking(None)).unwrap();
        }
        let (scan, why) = seen(&count, 1, 1);
        why.is_some() || scan.objects_under(&KekId::from_bytes([1; 16])) > 0
    };
    let old = samples::v2(1, "ns1-old", 1);
    assert!(of(&old.stored("nodeseal")));
    // What kube-apiserver reads all the same: it sets no bound to a provider's name, and a later one knows more types of seeds.
    assert!(of(&old.stored(&"n".repeat(600))), "a long name");
    assert!(of(&EncryptedObject { kind: 2, ..old.clone() }.stored("nodeseal")), "a type of seed that is new");
    assert!(of(b"k8s:enc:kms:v3:nodeseal:x"), "a transformer that is new");
    let later = EncryptedObject { source: [b"NSL\x02", &[1; 90][..]].concat(), ..old.clone() };
    assert!(of(&later.stored("nodeseal")), "a later release of Nodeseal");
    assert!(of(b"k8s:enc:kms:v2:nodeseal:\xFF"), "damaged");
}

/// Yesterday nothing was under it. Since then another node has written under it, or objects were put back.
#[test]
fn a_kek_under_which_the_last_scan_has_seen_objects_is_not_destroyed_on_an_older_scan() {
    let old = KekId::from_bytes([1; 16]);
    let before = kept(vec![("/registry/secrets/a/2", under(2))], &[], &Cluster::default()).unwrap();
    let now = before.at;
    let evidence = Evidence::default().with(before, now);
    let proves = |evidence: &Evidence| evidence.proves(Subject::Kek(&old), 0, Some(now), now);
    assert_eq!(proves(&evidence), Ok(()));
    let objects = || vec![("/registry/secrets/a/1", under(1)), ("/registry/secrets/a/2", under(2))];
    let damaged = || ("/registry/secrets/a/3", b"k8s:enc:kms:v2:nodeseal:\xFF".to_vec());
    let divided = Cluster { is_divided: true, ..Cluster::default() };
    let unclear = Cluster { unread: Some(PathBuf::from("/manifest")), ..Cluster::default() };
    for seen in [
        given([objects(), vec![damaged()]].concat(), &[], &Cluster::default()),
        given(objects(), &["--prefix", "/registry/"], &Cluster::default()),
        given(objects(), &[], &divided),
        given(objects(), &[], &unclear),
    ] {
        let Seen::Some(scan, why) = seen else { panic!("it does not speak for the whole, and has seen something") };
        assert_eq!(proves(&evidence.with(scan, now)), Err(NoProof::Needed { objects: 1 }), "{why}");
    }
    // It may be under any.
    let Seen::Some(scan, NotKept::Unread(1)) = given(vec![damaged()], &[], &Cluster::default()) else { panic!() };
    assert_eq!(scan.reach, Reach::Unclear);
    assert_eq!(proves(&evidence.with(scan, now)), Err(NoProof::Unclear));
    // Nothing of it: the rest is unknown, as it was before.
    let nothing = given(vec![], &["--prefix", "/registry/"], &Cluster::default());
    assert!(matches!(nothing, Seen::Nothing(NotKept::Part)));
}
