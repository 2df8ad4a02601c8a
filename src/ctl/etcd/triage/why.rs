//! Why one object does not open, and what brings it back. Pure: what lies there, what nodeseald has answered, and which KEKs and providers
//! this node knows of.
//!
//! A delete call is given only where nothing is left to try: the KEK was destroyed here and nowhere else was one, what is stored is broken,
//! or the operator has said that a key is lost everywhere. A provider that is away never counts as lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::report::ProviderRow;
use crate::ctl::output::time;
use crate::etcd::count::{Group, Kek, Means};
use crate::etcd::object::{Damage, Plain};
use crate::etcd::question::Verdict;
use crate::keyring::keeper::KekRow;
use crate::types::clock::UnixSeconds;

/// Every reason, the one first for which most can be done. Of a closed list (docs/operations/etcd.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    ProviderAway,
    NotAsked,
    ProviderMissing,
    KekNotOpen,
    KekElsewhere,
    KekDestroyed,
    NotConfigured,
    NotOurs,
    OwnKey,
    Unknown,
    Moved,
    Damaged,
    Plain,
    NotToldApart,
    Opens,
    Gone,
}

impl Reason {
    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::ProviderAway => "provider-away",
            Self::NotAsked => "not-asked",
            Self::ProviderMissing => "provider-missing",
            Self::KekNotOpen => "kek-not-open",
            Self::KekElsewhere => "kek-elsewhere",
            Self::KekDestroyed => "kek-destroyed",
            Self::NotConfigured => "not-configured",
            Self::NotOurs => "other-plugin",
            Self::OwnKey => "own-key",
            Self::Unknown => "unknown",
            Self::Moved => "moved",
            Self::Damaged => "damaged",
            Self::Plain => "plain",
            Self::NotToldApart => "not-told-apart",
            Self::Opens => "opens",
            Self::Gone => "gone",
        }
    }

    /// Something is wrong with the object. Of the others nothing is known here that is.
    pub(super) const fn is_wrong(self) -> bool {
        !matches!(self, Self::Opens | Self::Gone | Self::OwnKey | Self::Plain)
    }
}

/// What this node knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    keks: BTreeMap<String, Fate>,
    providers: Vec<ProviderRow>,
    /// KEKs and keys of providers that the operator calls lost everywhere.
    lost: BTreeSet<String>,
}

/// Of a KEK that this node knows.
#[derive(Debug)]
struct Fate {
    state: String,
    destroyed: Option<UnixSeconds>,
    /// Other nodes have, or had it.
    shared: bool,
}

/// What is found of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) reason: Reason,
    /// Continues "the object …".
    pub(super) text: String,
    /// What brings it back.
    pub(super) next: String,
    /// Nothing is known that opens it.
    pub(super) is_lost: bool,
}

impl Known {
    pub(super) fn new(keks: &[KekRow], providers: &[ProviderRow], lost: &[String]) -> Self {
        let fate = |row: &KekRow| {
            let destroyed = (row.state == "destroyed").then_some(row.since);
            (row.id.clone(), Fate { state: row.state.clone(), destroyed, shared: row.shared })
        };
        Self {
            keks: keks.iter().map(fate).collect(),
            providers: providers.to_vec(),
            lost: lost.iter().cloned().collect(),
        }
    }
}

/// Why an object of this group opens, or does not. `is_read` says whether a provider of kube-apiserver's configuration reads such objects.
pub(super) fn why(group: &Group, verdict: Verdict, is_read: Option<bool>, known: &Known) -> Why {
    let found = Found { group, known };
    match group.means {
        Means::Mixed => Why::new(
            Reason::NotToldApart,
            "lies in an etcd with more resources and keys than can be told apart",
            "run this for one resource at a time, with --prefix",
        ),
        Means::Damaged(Damage::Message | Damage::Field) => found.damaged("is cut, or no message of a KMS transformer"),
        Means::Damaged(Damage::Name | Damage::SourceType) | Means::Unknown => Why::new(
            Reason::Unknown,
            "is encrypted by a transformer, or with a type of seed, that this release does not know",
            "see with `kubectl get` whether kube-apiserver reads it; otherwise use the release of kube-apiserver that wrote it",
        ),
        Means::Local(_) | Means::Plain(_) if is_read == Some(false) => found.not_configured(),
        Means::Local(kind) => Why::new(
            Reason::OwnKey,
            format!("is encrypted by {}, with a key that Nodeseal never sees", kind.label()),
            "kube-apiserver needs that key in its EncryptionConfiguration",
        ),
        Means::Plain(Plain::Other) => Why::new(
            Reason::Unknown,
            "is not encrypted, and nothing that kube-apiserver writes",
            "see with `kubectl get` whether kube-apiserver reads it; if it does not, restore the object from a snapshot",
        ),
        Means::Plain(_) => Why::new(
            Reason::Plain,
            "is not encrypted",
            "kube-apiserver reads it only with `identity: {}` in its EncryptionConfiguration; its log says whether the content is damaged",
        ),
        Means::KmsV2 | Means::KmsV1 => found.under_kms(verdict, is_read),
    }
}

/// Of an object that is named, and is not there.
pub(super) fn gone() -> Why {
    Why::new(Reason::Gone, "is not in etcd any more", "nothing is left to do")
}

impl Why {
    fn new(reason: Reason, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { reason, text: text.into(), next: next.into(), is_lost: false }
    }

    fn lost_if(self, is_lost: bool) -> Self {
        Self { is_lost, ..self }
    }
}

struct Found<'a> {
    group: &'a Group,
    known: &'a Known,
}

impl Found<'_> {
    fn under_kms(&self, verdict: Verdict, is_read: Option<bool>) -> Why {
        match verdict {
            Verdict::Opens if is_read == Some(false) => self.not_configured(),
            Verdict::Opens => Why::new(Reason::Opens, "opens now", "nothing is left to do"),
            Verdict::NotAsked => Why::new(
                Reason::NotAsked,
                "could not be asked for: the keys of nodeseald are not open, or the key of etcd is longer than 64 KiB",
                "see `nodeseal status` for why, and run this again",
            ),
            Verdict::ProviderAway => self.provider_away(),
            Verdict::Moved => Why::new(
                Reason::Moved,
                "does not open at its key of etcd although its seed opens: copied from another key, or changed",
                "somebody wrote to etcd past kube-apiserver: find out who, and restore the object from a snapshot, or at the key that it was copied from",
            )
            .lost_if(true),
            Verdict::UnknownKek | Verdict::BadText => match self.group.kek {
                Kek::None => Why::new(
                    Reason::NotOurs,
                    "is no ciphertext of Nodeseal: another KMS plugin has made it, or it is damaged",
                    "the plugin that made it opens it: as a provider of kind kms-plugin with `opens_foreign = true`, or at its own socket in the EncryptionConfiguration",
                ),
                Kek::Unread => Why::new(
                    Reason::Unknown,
                    "looks like a ciphertext of Nodeseal, and this release cannot read it",
                    "if a later release has been in use, use that one again; else restore the object from a snapshot",
                ),
                Kek::Local(_) | Kek::Once if verdict == Verdict::UnknownKek => self.without_kek(),
                // A text of another cluster looks the same, unless the KEK is one of this node.
                Kek::Local(_) | Kek::Once => self.damaged("has a DEK or seed that does not open: it is damaged"),
            },
        }
    }

    fn provider_away(&self) -> Why {
        let is_foreign = self.group.kek == Kek::None;
        let answers_for = |row: &&ProviderRow| {
            let has_copy =
                || self.copies().any(|(kind, key)| row.kind == kind && row.key.as_deref() == Some(key.as_str()));
            if is_foreign { row.opens_foreign } else { has_copy() }
        };
        let said = |row: &ProviderRow| match (&row.error, row.held_back) {
            (Some(error), _) => format!("{} ({error})", row.name),
            (None, _) => row.name.clone(),
        };
        let names: Vec<String> = self.known.providers.iter().filter(answers_for).map(said).collect();
        let which = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        Why::new(
            Reason::ProviderAway,
            format!("needs a provider that does not answer now{which}"),
            "bring the provider back: `nodeseal status` says what it answers. Then run this again",
        )
    }

    /// Neither this node nor a provider of it gave the KEK.
    fn without_kek(&self) -> Why {
        let Kek::Local(id) = self.group.kek else { return self.lacking("a key for itself alone") };
        let id = id.to_string();
        let kek = format!("KEK {id}");
        match self.known.keks.get(&id) {
            None => self.lacking(&kek),
            Some(Fate { destroyed: Some(at), shared, .. }) => {
                let has_copies = self.copies().next().is_some();
                let next = match (has_copies, shared) {
                    (true, _) => "it has copies of its KEK: a node that has not destroyed the KEK opens them through that provider, as long as its key exists",
                    (false, true) => "another node may still have the KEK: `nodeseal keys list` there. Otherwise a backup of the state directory or a recovery file from before that day brings it back",
                    (false, false) => "only a backup of the state directory or a recovery file from before that day brings it back (`nodeseal recover --rehearse` says what a file opens)",
                };
                let text = format!("needs {kek}, which was destroyed on this node at {}", time(*at));
                Why::new(Reason::KekDestroyed, text, next).lost_if(!has_copies && !shared || self.is_called_lost())
            }
            Some(Fate { state, .. }) => Why::new(
                Reason::KekNotOpen,
                format!("needs {kek}, which this node knows ({state}) and cannot open"),
                "`nodeseal status` and `nodeseal doctor` say why; another node or a recovery file with this KEK brings it back",
            )
            .lost_if(self.is_called_lost()),
        }
    }

    fn lacking(&self, what: &str) -> Why {
        let has = |kind: &str, key: &str| {
            self.known.providers.iter().any(|row| row.kind == kind && row.key.as_deref() == Some(key))
        };
        let missing: BTreeSet<String> =
            self.copies().filter(|(kind, key)| !has(kind, key)).map(|(kind, key)| format!("{kind} {key}")).collect();
        if missing.is_empty() {
            return Why::new(
                Reason::KekElsewhere,
                format!("needs {what}, which neither this node nor a provider of it has"),
                "keep it as it is: ask the other nodes (`nodeseal keys list`), and look for a recovery file that has this KEK",
            )
            .lost_if(self.is_called_lost());
        }
        let keys = missing.into_iter().collect::<Vec<_>>().join(", ");
        Why::new(
            Reason::ProviderMissing,
            format!("needs {what}, of which keys have a copy that no provider of this node has: {keys}"),
            "add a provider with that key and `write = false` to the configuration, and `nodeseal reload`",
        )
        .lost_if(self.is_called_lost())
    }

    fn damaged(&self, text: &str) -> Why {
        let is_sure = match self.group.kek {
            Kek::Local(id) => self.known.keks.contains_key(&id.to_string()),
            Kek::None => true,
            Kek::Once | Kek::Unread => false,
        };
        let or = if is_sure { "" } else { ", or it is of another cluster" };
        Why::new(
            Reason::Damaged,
            format!("{text}{or}"),
            "restore the object from a snapshot in which it opens; `nodeseal etcd triage --snapshot FILE` says whether it does",
        )
        .lost_if(is_sure || self.is_called_lost())
    }

    fn not_configured(&self) -> Why {
        let provider = self.group.provider.as_deref().unwrap_or("identity");
        Why::new(
            Reason::NotConfigured,
            format!("cannot be read by kube-apiserver: its configuration has no {provider} for this resource"),
            "put that provider back into the EncryptionConfiguration, and migrate before it goes",
        )
    }

    fn is_called_lost(&self) -> bool {
        match self.group.kek {
            Kek::Local(id) => self.known.lost.contains(&id.to_string()),
            Kek::Once => {
                let mut keys = self.copies().peekable();
                keys.peek().is_some() && keys.all(|(kind, key)| self.known.lost.contains(&format!("{kind} {key}")))
            }
            Kek::None | Kek::Unread => false,
        }
    }

    /// Kinds and keys of providers that have copies.
    fn copies(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.group.copies.keys().map(|copy| (copy.kind.label(), copy.identity.to_string()))
    }
}

#[cfg(test)]
mod tests;
