//! Objects that are alike, and what is counted of them.

use std::collections::BTreeMap;

use crate::etcd::object::{Damage, LocalKind, Plain};
use crate::etcd::question::Verdict;
use crate::provider::{KeyIdentity, KeyVersion, ProviderKind};
use crate::types::KekId;

/// Providers' keys, by version, that a group tells apart.
pub const COPIES_MAX: usize = 64;

/// How the objects of a group are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Means {
    /// A KMS plugin, v2.
    KmsV2,
    /// A KMS plugin, v1.
    KmsV1,
    /// A key in kube-apiserver's configuration.
    Local(LocalKind),
    /// Not encrypted.
    Plain(Plain),
    /// A transformer that is not known here.
    Unknown,
    /// Cannot be read.
    Damaged(Damage),
    /// Objects beyond [`GROUPS_MAX`](super::GROUPS_MAX), whatever they are.
    Mixed,
}

impl Means {
    /// As in the report.
    pub const fn label(self) -> &'static str {
        match self {
            Self::KmsV2 => "kms:v2",
            Self::KmsV1 => "kms:v1",
            Self::Local(kind) => kind.label(),
            Self::Plain(_) => "identity",
            Self::Unknown => "unknown",
            Self::Damaged(_) => "damaged",
            Self::Mixed => "mixed",
        }
    }
}

/// Which key of Nodeseal it is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kek {
    /// Not a text of Nodeseal, or not under a KMS plugin.
    None,
    /// A local KEK.
    Local(KekId),
    /// A key for this text alone, in mode `direct`.
    Once,
    /// By its key_id or its first bytes a text of Nodeseal, and none that is read: changed since, or of a later release.
    Unread,
}

/// Objects that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// As in an EncryptionConfiguration.
    pub resource: String,
    /// How.
    pub means: Means,
    /// Name of the provider, or of the key in kube-apiserver's configuration.
    pub provider: Option<String>,
    /// Of the plugin.
    pub key_id: Option<String>,
    /// Of Nodeseal.
    pub kek: Kek,
    /// How many.
    pub objects: u64,
    /// DEKs and seeds among them.
    pub seeds: Seeds,
    /// Copies of the KEK that the texts bring along, by the provider's key and its version.
    pub copies: BTreeMap<CopyOf, u64>,
    /// The fewest copies that one of its texts has.
    pub fewest_copies: Option<usize>,
    /// What came of asking.
    pub opens: Opens,
}

impl Group {
    pub(super) fn new(
        resource: &str,
        means: Means,
        provider: Option<String>,
        key_id: Option<String>,
        kek: Kek,
    ) -> Self {
        Self {
            resource: resource.to_owned(),
            means,
            provider,
            key_id,
            kek,
            objects: 0,
            seeds: Seeds::default(),
            copies: BTreeMap::new(),
            fewest_copies: None,
            opens: Opens::default(),
        }
    }

    /// What is beyond [`GROUPS_MAX`](super::GROUPS_MAX), together.
    pub fn is_rest(&self) -> bool {
        self.means == Means::Mixed
    }

    /// What is in it may be under any KEK, as far as can be seen.
    pub fn is_unread(&self) -> bool {
        matches!(self.means, Means::Mixed | Means::Unknown | Means::Damaged(_)) || self.kek == Kek::Unread
    }
}

/// Whose copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyOf {
    /// Kind of provider.
    pub kind: ProviderKind,
    /// Its key.
    pub identity: KeyIdentity,
    /// And which version.
    pub version: KeyVersion,
}

/// A number of distinct DEKs or seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// At least so many.
    pub count: u64,
    /// And no more.
    pub exact: bool,
}

impl Default for Seeds {
    fn default() -> Self {
        Self { count: 0, exact: true }
    }
}

/// Objects by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opens {
    /// Open.
    pub opens: u64,
    /// Nobody has the KEK.
    pub unknown_kek: u64,
    /// Damaged or not ours.
    pub bad_text: u64,
    /// A provider does not answer.
    pub provider_away: u64,
    /// Seed opens, object does not.
    pub moved: u64,
    /// Not tried.
    pub not_asked: u64,
}

impl Opens {
    /// Those of another group besides.
    pub fn add(&mut self, other: &Self) {
        self.opens += other.opens;
        self.unknown_kek += other.unknown_kek;
        self.bad_text += other.bad_text;
        self.provider_away += other.provider_away;
        self.moved += other.moved;
        self.not_asked += other.not_asked;
    }

    pub(super) fn note(&mut self, verdict: Verdict) {
        let count = match verdict {
            Verdict::Opens => &mut self.opens,
            Verdict::UnknownKek => &mut self.unknown_kek,
            Verdict::BadText => &mut self.bad_text,
            Verdict::ProviderAway => &mut self.provider_away,
            Verdict::Moved => &mut self.moved,
            Verdict::NotAsked => &mut self.not_asked,
        };
        *count += 1;
    }
}
