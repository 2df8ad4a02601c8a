//! What a scan answers under `--json` (docs/operations/etcd.md, `nodeseal.etcd-scan/1`).

use serde::Serialize;

use super::names::Names;
use crate::etcd::count::{Count, Group, Kek, Opens};
use crate::etcd::findings::{Current, Finding, is_current};
use crate::etcd::wanted::Wanted;
use crate::types::metric_hash;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) source: String,
    pub(super) revision: Option<i64>,
    /// Every key of the source was counted, and there were objects of this kube-apiserver.
    pub(super) complete: bool,
    /// What all keys begin with that were read, if only a part was.
    pub(super) part: Option<String>,
    pub(super) objects: u64,
    /// Of this node, if it was asked.
    pub(super) key_id_hash: Option<String>,
    pub(super) encryption_config: Option<String>,
    /// nodeseald keeps it, for `keys retire`.
    pub(super) kept: bool,
    /// Why it does not.
    pub(super) not_kept: Option<String>,
    /// What is no finding, and what nobody has judged.
    pub(super) notes: Vec<String>,
    pub(super) groups: Vec<Row>,
    pub(super) findings: Vec<Found>,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) resource: String,
    pub(super) encryption: &'static str,
    pub(super) provider: Option<String>,
    pub(super) key_id_hash: Option<String>,
    pub(super) kek: Option<String>,
    pub(super) objects: u64,
    pub(super) seeds: u64,
    pub(super) seeds_exact: bool,
    pub(super) current: Option<bool>,
    pub(super) opens: OpensRow,
    pub(super) fewest_copies: Option<usize>,
    pub(super) copies: Vec<CopyRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct OpensRow {
    pub(super) opens: u64,
    pub(super) unknown_kek: u64,
    pub(super) bad_text: u64,
    pub(super) provider_away: u64,
    pub(super) moved: u64,
    pub(super) not_asked: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CopyRow {
    pub(super) kind: &'static str,
    pub(super) key: String,
    pub(super) version: String,
    pub(super) objects: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Found {
    #[serde(flatten)]
    pub(super) finding: Finding,
    /// Empty unless asked for.
    pub(super) names: Vec<String>,
    pub(super) names_left_off: u64,
}

impl Row {
    pub(super) fn all(count: &Count, wanted: Option<&Wanted>, current: &Current) -> Vec<Self> {
        let mut rows: Vec<_> =
            count.groups().iter().map(|group| Self::of(group, is_current(group, wanted, current))).collect();
        // The same order whatever the order in which the source gave the objects.
        rows.sort_by(|a, b| {
            let rest = |row: &Self| (row.provider.clone(), row.key_id_hash.clone(), row.kek.clone());
            (&a.resource, a.encryption, b.objects)
                .cmp(&(&b.resource, b.encryption, a.objects))
                .then_with(|| rest(a).cmp(&rest(b)))
        });
        rows
    }

    fn of(group: &Group, current: Option<bool>) -> Self {
        let Opens { opens, unknown_kek, bad_text, provider_away, moved, not_asked } = group.opens;
        let copy = |(copy, objects): (&crate::etcd::count::CopyOf, &u64)| CopyRow {
            kind: copy.kind.label(),
            key: copy.identity.to_string(),
            version: copy.version.to_string(),
            objects: *objects,
        };
        Self {
            resource: group.resource.clone(),
            encryption: group.means.label(),
            provider: group.provider.clone(),
            key_id_hash: group.key_id.as_deref().map(metric_hash),
            kek: match group.kek {
                Kek::None => None,
                Kek::Once => Some("once".to_owned()),
                Kek::Unread => Some("unread".to_owned()),
                Kek::Local(id) => Some(id.to_string()),
            },
            objects: group.objects,
            seeds: group.seeds.count,
            seeds_exact: group.seeds.exact,
            current,
            opens: OpensRow { opens, unknown_kek, bad_text, provider_away, moved, not_asked },
            fewest_copies: group.fewest_copies,
            copies: group.copies.iter().map(copy).collect(),
        }
    }
}

impl Found {
    pub(super) fn all(findings: Vec<Finding>, names: Option<&Names>) -> Vec<Self> {
        let with_names = |finding: Finding| {
            let (shown, names_left_off) = names.map(|names| names.of(&finding)).unwrap_or_default();
            let names = shown.into_iter().map(str::to_owned).collect();
            Self { finding, names, names_left_off }
        };
        findings.into_iter().map(with_names).collect()
    }
}
