//! What is wrong with what was counted, and what to do next. Pure: a count, what kube-apiserver is told, and what this node reports.

use serde::Serialize;

use super::count::{Ask, Group, Kek, Means};
use super::object::Plain;
use super::resource::is_own;
use super::wanted::{Wanted, Writer};
use crate::envelope::Api;

/// What this node reports now, if it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Of KMS v2 Status, and inside of new v1 texts.
    pub key_id: Option<String>,
    /// Of its KMS socket, as an EncryptionConfiguration writes it.
    pub endpoint: Option<String>,
    /// Copies that each new text has: keys of providers that write. 0 without providers.
    pub copies: usize,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of a closed list (docs/operations/etcd.md).
    pub id: &'static str,
    /// As in an EncryptionConfiguration.
    pub resource: String,
    /// How many.
    pub objects: u64,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub next: &'static str,
    /// Places of the groups that it is about; for names.
    #[serde(skip)]
    pub groups: Vec<usize>,
}

/// Every id, in the order of urgency.
pub const IDS: [&str; 14] = [
    "opens-nowhere",
    "moved",
    "damaged",
    "provider-away",
    "not-asked",
    "unreadable",
    "written-past",
    "not-encrypted",
    "older-key",
    "older-provider",
    "other-plugin",
    "short-of-copies",
    "unknown-transformer",
    "not-told-apart",
];

/// Whether the objects of a group are under what kube-apiserver would write now. `None`: not known.
pub fn is_current(group: &Group, wanted: Option<&Wanted>, current: &Current) -> Option<bool> {
    let writers = wanted.filter(|_| !is_own(&group.resource)).map(|wanted| wanted.of(&group.resource));
    let writer = match &writers {
        Some(writers) => *writers.first()?,
        // Without a configuration only what Nodeseal has made can be judged.
        None if group.kek != Kek::None => {
            return current.key_id.as_ref().map(|key_id| group.key_id.as_ref() == Some(key_id));
        }
        None => return None,
    };
    match (writer, group.means) {
        (Writer::Identity, Means::Plain(_)) => Some(true),
        (Writer::Local { kind, key }, Means::Local(of)) => Some(*kind == of && group.provider.as_ref() == Some(key)),
        (Writer::Kms { api, name, endpoint }, Means::KmsV2 | Means::KmsV1) => {
            let is_same = (*api == Api::V2) == (group.means == Means::KmsV2) && group.provider.as_ref() == Some(name);
            if !is_same {
                return Some(false);
            }
            let is_ours = group.kek != Kek::None || current.endpoint.as_ref() == Some(endpoint);
            // What another plugin reports is not known here.
            let key_id = current.key_id.as_ref().filter(|_| is_ours)?;
            Some(group.key_id.as_ref() == Some(key_id))
        }
        _ => Some(false),
    }
}

/// Whether a provider of the configuration reads what this group is.
fn is_read(group: &Group, writers: &[&Writer]) -> bool {
    writers.iter().any(|writer| match (writer, group.means) {
        (Writer::Identity, Means::Plain(_)) => true,
        (Writer::Local { kind, key }, Means::Local(of)) => *kind == of && group.provider.as_ref() == Some(key),
        (Writer::Kms { api, name, .. }, Means::KmsV2) => *api == Api::V2 && group.provider.as_ref() == Some(name),
        (Writer::Kms { api, name, .. }, Means::KmsV1) => *api == Api::V1 && group.provider.as_ref() == Some(name),
        _ => false,
    })
}

/// All findings, the most urgent first.
pub fn findings(groups: &[Group], wanted: Option<&Wanted>, current: &Current, ask: Ask) -> Vec<Finding> {
    let mut found = Found::default();
    for (at, group) in groups.iter().enumerate() {
        let is_elsewhere =
            wanted.is_some_and(|wanted| is_of_another_socket(group, &wanted.of(&group.resource), current));
        of_opening(&mut found, at, group, ask, is_elsewhere);
        of_form(&mut found, at, group);
        if let Some(wanted) = wanted.filter(|_| !is_own(&group.resource)) {
            of_configuration(&mut found, at, group, &wanted.of(&group.resource));
        }
        if is_current(group, wanted, current) == Some(false) && found.is_free(at) && group.kek != Kek::None {
            found.add(
                at,
                group,
                group.objects,
                "older-key",
                "under a key_id that this node no longer reports",
                MIGRATE,
            );
        }
        let short = group.fewest_copies.is_some_and(|fewest| fewest < current.copies);
        if short && ask != Ask::Nothing && group.kek != Kek::None {
            let text = "with fewer copies of their KEK than the configuration has writing providers";
            found.add(at, group, group.objects, "short-of-copies", text, "if the KEK is active now: wait until `nodeseal status` owes no copy, then migrate; else migrate at once");
        }
    }
    let urgency = |finding: &Finding| IDS.iter().position(|id| *id == finding.id);
    found.0.sort_by(|a, b| (urgency(a), &a.resource).cmp(&(urgency(b), &b.resource)));
    found.0
}

const MIGRATE: &str =
    "rewrite them: `kubectl get RESOURCE -A -o json | kubectl replace -f -`, or a StorageVersionMigration";

/// Whether the configuration says that another plugin reads this group.
fn is_of_another_socket(group: &Group, writers: &[&Writer], current: &Current) -> bool {
    let Some(own) = &current.endpoint else { return false };
    group.kek == Kek::None
        && writers.iter().any(|writer| match writer {
            Writer::Kms { endpoint, .. } => endpoint != own && is_read(group, &[*writer]),
            Writer::Local { .. } | Writer::Identity => false,
        })
}

fn of_opening(found: &mut Found, at: usize, group: &Group, ask: Ask, is_elsewhere: bool) {
    // What another plugin wrote is for that one to open.
    if is_elsewhere {
        return;
    }
    let opens = &group.opens;
    if opens.unknown_kek > 0 {
        let text = "need a KEK that neither this node nor a provider has";
        found.add(at, group, opens.unknown_kek, "opens-nowhere", text, "keep everything as it is; ask the other nodes (`nodeseal keys list`), and look for a recovery file that has this KEK");
    }
    let is_kms = matches!(group.means, Means::KmsV2 | Means::KmsV1);
    if ask != Ask::Nothing && is_kms && opens.not_asked > 0 {
        let text = "could not be asked for: the keys of nodeseald are not open";
        found.add(at, group, opens.not_asked, "not-asked", text, "see `nodeseal status` for why, and scan again");
    }
    if opens.bad_text > 0 && group.kek == Kek::None {
        let text = "are no ciphertexts of Nodeseal: another KMS plugin wrote them under this provider's name, or they are damaged";
        found.add(at, group, opens.bad_text, "other-plugin", text, "name the EncryptionConfiguration with --encryption-config; if that plugin has been replaced, put it back beside Nodeseal, and migrate before it goes");
    } else if opens.bad_text > 0 {
        let text = "have a DEK or seed that does not open: damaged, or of another cluster";
        found.add(
            at,
            group,
            opens.bad_text,
            "damaged",
            text,
            "run the same scan on a snapshot from before, and restore what opens there",
        );
    }
    if opens.moved > 0 {
        let text = "do not open at their key of etcd although their seed opens: copied from another key, or changed";
        found.add(
            at,
            group,
            opens.moved,
            "moved",
            text,
            "somebody wrote to etcd past kube-apiserver: find out who, and restore these objects from a snapshot",
        );
    }
    if opens.provider_away > 0 {
        let text = "need a provider that does not answer now";
        found.add(
            at,
            group,
            opens.provider_away,
            "provider-away",
            text,
            "see `nodeseal status` for why, and scan again",
        );
    }
}

fn of_form(found: &mut Found, at: usize, group: &Group) {
    match group.means {
        Means::Damaged(damage) => {
            let text = format!("cannot be read: {damage}");
            found.add(
                at,
                group,
                group.objects,
                "damaged",
                &text,
                "restore them from a snapshot, or delete them: nothing opens them",
            );
        }
        Means::Unknown => {
            let text = "are encrypted by a transformer that Nodeseal does not know";
            found.add(
                at,
                group,
                group.objects,
                "unknown-transformer",
                text,
                "check the version of kube-apiserver that wrote them",
            );
        }
        Means::Plain(Plain::Other) => {
            let text = "are nothing that kube-apiserver writes";
            found.add(
                at,
                group,
                group.objects,
                "damaged",
                text,
                "somebody wrote to etcd past kube-apiserver: find out who",
            );
        }
        Means::KmsV2 | Means::KmsV1 | Means::Local(_) | Means::Plain(_) => {}
    }
    if group.is_rest {
        let text = "are under more keys than can be told apart, so they are counted and not judged";
        found.add(at, group, group.objects, "not-told-apart", text, "scan one resource at a time with --prefix");
    }
}

fn of_configuration(found: &mut Found, at: usize, group: &Group, writers: &[&Writer]) {
    if group.is_rest || matches!(group.means, Means::Damaged(_) | Means::Unknown | Means::Plain(Plain::Other)) {
        return;
    }
    let is_plain = matches!(group.means, Means::Plain(_));
    let Some(writer) = writers.first() else {
        if !is_plain {
            let text = "are encrypted, and the configuration names no provider for this resource: kube-apiserver cannot read them";
            found.add(
                at,
                group,
                group.objects,
                "unreadable",
                text,
                "add the provider that wrote them to the EncryptionConfiguration",
            );
        }
        return;
    };
    let is_writer = is_read(group, &[*writer]);
    if is_plain && !matches!(writer, Writer::Identity) {
        if writers.contains(&&Writer::Identity) {
            let text = "are not encrypted, though the configuration says that they should be";
            found.add(at, group, group.objects, "not-encrypted", text, MIGRATE);
        } else {
            let text = "are not encrypted, and the configuration no longer reads such objects: written past kube-apiserver, or never migrated";
            found.add(
                at,
                group,
                group.objects,
                "written-past",
                text,
                "find out who wrote them; to read them, put `identity: {}` behind the other providers",
            );
        }
    } else if !is_read(group, writers) {
        let text = "are encrypted by a provider that the configuration no longer has: kube-apiserver cannot read them";
        found.add(
            at,
            group,
            group.objects,
            "unreadable",
            text,
            "put that provider back into the EncryptionConfiguration, and migrate before it goes",
        );
    } else if !is_writer {
        let text = "are encrypted by a provider or key that no longer writes";
        found.add(at, group, group.objects, "older-provider", text, MIGRATE);
    }
}

#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    /// One finding of an id and a resource, with what is wrong in the same words, whatever the groups.
    fn add(&mut self, at: usize, group: &Group, objects: u64, id: &'static str, text: &str, next: &'static str) {
        let same =
            |finding: &&mut Finding| finding.id == id && finding.resource == group.resource && finding.text == text;
        match self.0.iter_mut().find(same) {
            Some(finding) => {
                finding.objects += objects;
                finding.groups.push(at);
            }
            None => {
                let (resource, text) = (group.resource.clone(), text.to_owned());
                self.0.push(Finding { id, resource, objects, text, next, groups: vec![at] });
            }
        }
    }

    /// Whether the configuration has nothing to say about this group yet.
    fn is_free(&self, at: usize) -> bool {
        let of_configuration = ["unreadable", "written-past", "not-encrypted", "older-provider"];
        !self.0.iter().any(|finding| of_configuration.contains(&finding.id) && finding.groups.contains(&at))
    }
}

#[cfg(test)]
mod tests {
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
        let elsewhere = WANTED.replace("unix:///kms.sock", "unix:///other.sock");
        let mut count = Count::new("/registry/", Ask::Seeds);
        let stored = foreign.stored("nodeseal");
        let stored = Stored { key: key.as_bytes(), value: &stored, mod_revision: 1 };
        count.take(stored, &mut Says(Verdict::BadText)).unwrap_or_else(|never| match never {});
        let current = Current { endpoint: Some("unix:///kms.sock".to_owned()), ..Current::default() };
        let wanted = Wanted::parse(&elsewhere).unwrap();
        assert_eq!(findings(count.groups(), Some(&wanted), &current, Ask::Seeds), []);
    }
}
