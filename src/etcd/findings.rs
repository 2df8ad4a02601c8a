//! What is wrong with what was counted, and what to do next. Pure: a count, what kube-apiserver is told, and what this node reports.

use serde::Serialize;

use super::count::{Ask, Group, Kek, Means};
use super::object::{Damage, Plain};
use super::question::Verdict;
use super::resource::{is_beside, is_own};
use super::wanted::{Wanted, Writer, socket};
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
    /// Which objects of these groups; all of them if it is about no verdict.
    #[serde(skip)]
    pub verdict: Option<Verdict>,
}

/// Nothing of kube-apiserver was there, so nothing is known of it.
pub const NOTHING_SEEN: &str = "nothing-seen";

/// Every id, in the order of urgency.
pub const IDS: [&str; 15] = [
    NOTHING_SEEN,
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

/// Who writes and reads a group, the writer first. `None`: the configuration does not say, or there is none.
fn writers<'w>(group: &Group, wanted: Option<&'w Wanted>) -> Option<Vec<&'w Writer>> {
    let resource = &group.resource;
    let is_judged =
        |wanted: &&Wanted| !group.is_rest() && !is_own(resource) && !is_beside(resource) && wanted.judges(resource);
    wanted.filter(is_judged).map(|wanted| wanted.of(resource))
}

/// Whether the objects of a group are under what kube-apiserver would write now. `None`: not known.
pub fn is_current(group: &Group, wanted: Option<&Wanted>, current: &Current) -> Option<bool> {
    let writers = writers(group, wanted);
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
        (Writer::Kms { api, name, endpoint, .. }, Means::KmsV2 | Means::KmsV1) => {
            let is_same = (*api == Api::V2) == (group.means == Means::KmsV2) && group.provider.as_ref() == Some(name);
            if !is_same {
                return Some(false);
            }
            let is_ours = group.kek != Kek::None || is_own_socket(endpoint, current);
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

/// Whether the configuration has a provider that reads the objects of a group. `None`: it does not say.
pub fn is_readable(group: &Group, wanted: Option<&Wanted>) -> Option<bool> {
    let writers = writers(group, wanted)?;
    // Without a rule kube-apiserver writes and reads in clear.
    let is_plain_alone = writers.is_empty() && matches!(group.means, Means::Plain(_));
    Some(is_plain_alone || is_read(group, &writers))
}

/// Whether another plugin than this node's is to open a group: by the configuration, or because it is of another API server.
pub fn is_for_another_plugin(group: &Group, wanted: Option<&Wanted>, current: &Current) -> bool {
    is_for_another(group, writers(group, wanted).as_deref(), current)
}

fn is_own_socket(endpoint: &str, current: &Current) -> bool {
    current.endpoint.as_deref().is_some_and(|own| socket(own) == socket(endpoint))
}

/// All findings, the most urgent first.
pub fn findings(groups: &[Group], wanted: Option<&Wanted>, current: &Current, ask: Ask) -> Vec<Finding> {
    let mut found = Found::default();
    if groups.iter().all(|group| is_beside(&group.resource)) {
        found.0.push(nothing_seen());
    }
    for (at, group) in groups.iter().enumerate() {
        let writers = writers(group, wanted);
        if !is_for_another(group, writers.as_deref(), current) {
            of_opening(&mut found, at, group, ask);
        }
        of_form(&mut found, at, group);
        if let Some(writers) = &writers {
            of_configuration(&mut found, at, group, writers);
        }
        if is_current(group, wanted, current) == Some(false) && found.is_free(at) {
            match (group.kek, group.means) {
                (Kek::Local(_) | Kek::Once | Kek::Unread, _) => {
                    let text = "under a key_id that this node no longer reports";
                    found.add(at, group, About::All, "older-key", text, MIGRATE);
                }
                // They may open: the plugin whose place Nodeseal has taken is handed them (`opens_foreign`).
                (Kek::None, Means::KmsV2 | Means::KmsV1) if !found.is_of_another_plugin(at) => {
                    let text = "were made by another KMS plugin, whose place Nodeseal has taken";
                    found.add(at, group, About::All, "other-plugin", text, MIGRATE);
                }
                (Kek::None, _) => {}
            }
        }
        let short = group.fewest_copies.is_some_and(|fewest| fewest < current.copies);
        if short && ask != Ask::Nothing && group.kek != Kek::None {
            let text = "with fewer copies of their KEK than the configuration has writing providers";
            found.add(at, group, About::All, "short-of-copies", text, "if the KEK is active now: wait until `nodeseal status` owes no copy, then migrate; else migrate at once");
        }
    }
    let urgency = |finding: &Finding| IDS.iter().position(|id| *id == finding.id);
    found.0.sort_by(|a, b| (urgency(a), &a.resource).cmp(&(urgency(b), &b.resource)));
    found.0
}

fn nothing_seen() -> Finding {
    Finding {
        id: NOTHING_SEEN,
        resource: "(all)".to_owned(),
        objects: 0,
        text: "of this kube-apiserver were found".to_owned(),
        next: "check that it is the etcd of this kube-apiserver, and name the prefix of its keys with --etcd-prefix",
        groups: Vec::new(),
        verdict: None,
    }
}

/// Objects that no finding can be about, although something may be wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJudged {
    /// As in an EncryptionConfiguration.
    pub resource: String,
    /// How many.
    pub objects: u64,
    /// Why.
    pub why: &'static str,
}

/// What of the groups is not judged.
pub fn not_judged(groups: &[Group], wanted: Option<&Wanted>, current: &Current) -> Vec<NotJudged> {
    let mut all: Vec<NotJudged> = Vec::new();
    for group in groups {
        let resource = &group.resource;
        let why = if is_for_another(group, writers(group, wanted).as_deref(), current) {
            "are for another KMS plugin to open"
        } else if !is_beside(resource) && wanted.is_some_and(|wanted| !wanted.judges(resource)) && !is_own(resource) {
            "are of a resource whose group is not known, and the configuration has rules for groups"
        } else {
            continue;
        };
        match all.iter_mut().find(|one| one.resource == *resource && one.why == why) {
            Some(one) => one.objects += group.objects,
            None => all.push(NotJudged { resource: resource.clone(), objects: group.objects, why }),
        }
    }
    all
}

/// Resources that the configuration names one by one, and of which no object was seen.
pub fn absent<'w>(groups: &[Group], wanted: &'w Wanted) -> Vec<&'w str> {
    wanted.resources().filter(|name| !groups.iter().any(|group| group.resource == *name)).collect()
}

const MIGRATE: &str =
    "rewrite them: `nodeseal migrate run`, or `kubectl get RESOURCE -A -o json | kubectl replace -f -`";

/// Whether another plugin is to open this group: by the configuration, or because it is of another API server.
fn is_for_another(group: &Group, writers: Option<&[&Writer]>, current: &Current) -> bool {
    if group.kek != Kek::None || !matches!(group.means, Means::KmsV2 | Means::KmsV1) {
        return false;
    }
    let is_elsewhere = |writer: &&Writer| match writer {
        Writer::Kms { endpoint, .. } => {
            current.endpoint.is_some() && !is_own_socket(endpoint, current) && is_read(group, &[*writer])
        }
        Writer::Local { .. } | Writer::Identity => false,
    };
    is_beside(&group.resource) || writers.is_some_and(|writers| writers.iter().any(is_elsewhere))
}

fn of_opening(found: &mut Found, at: usize, group: &Group, ask: Ask) {
    let opens = &group.opens;
    let mut add = |verdict, objects, id, text, next| {
        if objects > 0 {
            found.add(at, group, About::These(verdict, objects), id, text, next);
        }
    };
    add(
        Verdict::UnknownKek,
        opens.unknown_kek,
        "opens-nowhere",
        "need a KEK that neither this node nor a provider has",
        "keep everything as it is; ask the other nodes (`nodeseal keys list`), and look for a recovery file that has this KEK",
    );
    if ask != Ask::Nothing && matches!(group.means, Means::KmsV2 | Means::KmsV1) {
        let text =
            "could not be asked for: the keys of nodeseald are not open, or their key of etcd is longer than 64 KiB";
        let next = "see `nodeseal status` for why, and scan again";
        add(Verdict::NotAsked, opens.not_asked, "not-asked", text, next);
    }
    let (id, text, next) = match group.kek {
        Kek::None if !group.is_rest() => (
            "other-plugin",
            "are no ciphertexts of Nodeseal: another KMS plugin wrote them under this provider's name, or they are damaged",
            "name the EncryptionConfiguration with --encryption-config; if that plugin has been replaced, put it back beside Nodeseal, and migrate before it goes",
        ),
        Kek::Unread => (
            "damaged",
            "look like ciphertexts of Nodeseal, and this release cannot read them: damaged, or written by a later release",
            "if a later release has been in use, use that one again; else run the same scan on a snapshot from before, and restore what opens there",
        ),
        Kek::None | Kek::Local(_) | Kek::Once => (
            "damaged",
            "have a DEK or seed that does not open: damaged, or of another cluster",
            "run the same scan on a snapshot from before, and restore what opens there",
        ),
    };
    add(Verdict::BadText, opens.bad_text, id, text, next);
    add(
        Verdict::Moved,
        opens.moved,
        "moved",
        "do not open at their key of etcd although their seed opens: copied from another key, or changed",
        "somebody wrote to etcd past kube-apiserver: find out who, and restore these objects from a snapshot",
    );
    add(
        Verdict::ProviderAway,
        opens.provider_away,
        "provider-away",
        "need a provider that does not answer now",
        "see `nodeseal status` for why, and scan again",
    );
}

fn of_form(found: &mut Found, at: usize, group: &Group) {
    let mut add = |id, text: &str, next| found.add(at, group, About::All, id, text, next);
    match group.means {
        Means::Damaged(Damage::SourceType) => add(
            "unknown-transformer",
            "have a type of seed that Nodeseal does not know",
            "check the version of kube-apiserver that wrote them",
        ),
        Means::Damaged(damage) => add(
            "damaged",
            &format!("cannot be read: {damage}"),
            "keep them: see with `kubectl get` whether kube-apiserver reads them, and if it does not, restore them from a snapshot",
        ),
        Means::Unknown => add(
            "unknown-transformer",
            "are encrypted by a transformer that Nodeseal does not know",
            "check the version of kube-apiserver that wrote them",
        ),
        // What others keep beside the prefix is not known here.
        Means::Plain(Plain::Other) if !is_beside(&group.resource) => add(
            "damaged",
            "are nothing that kube-apiserver writes",
            "somebody wrote to etcd past kube-apiserver: find out who",
        ),
        Means::Mixed => add(
            "not-told-apart",
            "are of more resources or under more keys than can be told apart, so they are counted and not judged",
            "scan one resource at a time with --prefix",
        ),
        Means::KmsV2 | Means::KmsV1 | Means::Local(_) | Means::Plain(_) => {}
    }
}

fn of_configuration(found: &mut Found, at: usize, group: &Group, writers: &[&Writer]) {
    if matches!(group.means, Means::Damaged(_) | Means::Unknown | Means::Plain(Plain::Other) | Means::Mixed) {
        return;
    }
    let mut add = |id, text, next| found.add(at, group, About::All, id, text, next);
    let is_plain = matches!(group.means, Means::Plain(_));
    let Some(writer) = writers.first() else {
        if !is_plain {
            add(
                "unreadable",
                "are encrypted, and the configuration names no provider for this resource: kube-apiserver cannot read them",
                "add the provider that wrote them to the EncryptionConfiguration",
            );
        }
        return;
    };
    let is_writer = is_read(group, &[*writer]);
    if is_plain && !matches!(writer, Writer::Identity) {
        if writers.contains(&&Writer::Identity) {
            add("not-encrypted", "are not encrypted, though the configuration says that they should be", MIGRATE);
        } else {
            add(
                "written-past",
                "are not encrypted, and the configuration no longer reads such objects: written past kube-apiserver, or never migrated",
                "find out who wrote them; to read them, put `identity: {}` behind the other providers",
            );
        }
    } else if !is_read(group, writers) {
        add(
            "unreadable",
            "are encrypted by a provider that the configuration no longer has: kube-apiserver cannot read them",
            "put that provider back into the EncryptionConfiguration, and migrate before it goes",
        );
    } else if !is_writer {
        add("older-provider", "are encrypted by a provider or key that no longer writes", MIGRATE);
    }
}

/// Which objects of a group.
#[derive(Clone, Copy)]
enum About {
    All,
    These(Verdict, u64),
}

#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    /// One finding of an id and a resource, with what is wrong in the same words, whatever the groups.
    fn add(&mut self, at: usize, group: &Group, about: About, id: &'static str, text: &str, next: &'static str) {
        let (verdict, objects) = match about {
            About::All => (None, group.objects),
            About::These(verdict, objects) => (Some(verdict), objects),
        };
        let is_same = |finding: &&mut Finding| {
            finding.id == id && finding.resource == group.resource && finding.text == text && finding.verdict == verdict
        };
        match self.0.iter_mut().find(is_same) {
            Some(finding) => {
                finding.objects += objects;
                finding.groups.push(at);
            }
            None => {
                let (resource, text) = (group.resource.clone(), text.to_owned());
                self.0.push(Finding { id, resource, objects, text, next, groups: vec![at], verdict });
            }
        }
    }

    /// Whether the configuration has nothing to say about this group yet.
    /// It is said already, since this node does not open them.
    fn is_of_another_plugin(&self, at: usize) -> bool {
        self.0.iter().any(|finding| finding.id == "other-plugin" && finding.groups.contains(&at))
    }

    fn is_free(&self, at: usize) -> bool {
        let of_configuration = ["unreadable", "written-past", "not-encrypted", "older-provider"];
        !self.0.iter().any(|finding| of_configuration.contains(&finding.id) && finding.groups.contains(&at))
    }
}

#[cfg(test)]
mod tests;
