//! What triage answers: under `--json` (docs/operations/json.md, `nodeseal.etcd-triage/1`), and for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::call::{GATE, Object, VERBS, VERSION};
use super::sick::{Sick, Ward};
use super::why::{Reason, Why, gone};
use crate::ctl::output::counted;
use crate::etcd::count::{Group, Kek};
use crate::types::metric_hash;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) source: String,
    pub(super) revision: i64,
    /// Each object that does not open is told of, as far as was asked.
    pub(super) complete: bool,
    /// Objects that nodeseald was asked about or that were looked at otherwise.
    looked_at: u64,
    /// Objects by reason, of those that are told of.
    reasons: BTreeMap<&'static str, u64>,
    objects: Vec<Row>,
    objects_left_off: u64,
    notes: Vec<String>,
    /// What the calls need.
    delete_needs: Option<Needs>,
}

/// See [`super::call`].
#[derive(Debug, Serialize)]
struct Needs {
    feature_gate: &'static str,
    verbs: [&'static str; 2],
    resources: BTreeSet<String>,
}

/// One object.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) key: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    encryption: Option<&'static str>,
    provider: Option<String>,
    key_id_hash: Option<String>,
    kek: Option<String>,
    /// Keys of providers that have copies of its KEK.
    copies: Vec<String>,
    /// Of its last change.
    revision: Option<i64>,
    #[serde(rename = "reason", serialize_with = "as_id")]
    pub(super) reason: Reason,
    text: String,
    next: String,
    delete: Option<String>,
}

fn as_id<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.id())
}

impl Row {
    pub(super) fn of(sick: &Sick, group: &Group, why: Why, api_prefix: &str) -> Self {
        let object = Object::at(&sick.key, api_prefix).filter(|_| sick.is_exact);
        let delete = object.as_ref().filter(|_| why.is_lost).and_then(Object::delete);
        Self {
            resource: group.resource.clone(),
            encryption: Some(group.means.label()),
            provider: group.provider.clone(),
            key_id_hash: group.key_id.as_deref().map(metric_hash),
            kek: match group.kek {
                Kek::None => None,
                Kek::Once => Some("once".to_owned()),
                Kek::Unread => Some("unread".to_owned()),
                Kek::Local(id) => Some(id.to_string()),
            },
            copies: copies(group),
            revision: Some(sick.revision),
            ..Self::named(&sick.key, object, why, delete)
        }
    }

    pub(super) fn gone(key: &str, api_prefix: &str) -> Self {
        Self::named(key, Object::at(key, api_prefix), gone(), None)
    }

    fn named(key: &str, object: Option<Object>, why: Why, delete: Option<String>) -> Self {
        let (resource, namespace, name) = match object {
            Some(object) => (object.resource, object.namespace, Some(object.name)),
            None => ("(not a resource)".to_owned(), None, None),
        };
        Self {
            key: key.to_owned(),
            resource,
            namespace,
            name,
            encryption: None,
            provider: None,
            key_id_hash: None,
            kek: None,
            copies: Vec::new(),
            revision: None,
            reason: why.reason,
            text: why.text,
            next: why.next,
            delete,
        }
    }
}

fn copies(group: &Group) -> Vec<String> {
    let keys = group.copies.keys().map(|copy| format!("{} {}", copy.kind.label(), copy.identity));
    keys.collect::<BTreeSet<_>>().into_iter().collect()
}

impl Report {
    pub(super) fn new(
        source: String,
        revision: i64,
        ward: &Ward<'_>,
        objects: Vec<Row>,
        mut notes: Vec<String>,
        is_cut: bool,
    ) -> Self {
        let mut reasons = BTreeMap::new();
        objects.iter().for_each(|row| *reasons.entry(row.reason.id()).or_insert(0) += 1);
        let resources: BTreeSet<String> =
            objects.iter().filter(|row| row.delete.is_some()).map(|row| row.resource.clone()).collect();
        if objects.iter().filter_map(|row| row.delete.as_ref()).any(|call| call.contains(&format!("/{VERSION}/"))) {
            notes.push(format!("in place of {VERSION} goes what the cluster serves: kubectl get --raw /apis/GROUP"));
        }
        let is_known = |row: &Row| !matches!(row.reason, Reason::NotAsked | Reason::NotToldApart);
        Self {
            source,
            revision,
            complete: ward.left_off == 0 && !is_cut && objects.iter().all(is_known),
            looked_at: ward.looked_at,
            reasons,
            objects,
            objects_left_off: ward.left_off,
            notes,
            delete_needs: (!resources.is_empty()).then_some(Needs { feature_gate: GATE, verbs: VERBS, resources }),
        }
    }

    /// Whether nothing is wrong with any of them.
    pub(super) fn is_clean(&self) -> bool {
        self.objects_left_off == 0 && !self.objects.iter().any(|row| row.reason.is_wrong())
    }

    pub(super) fn render(&self) -> String {
        let mut out = format!("source    {}\nrevision  {}\nobjects   {}\n", self.source, self.revision, self.looked_at);
        // By what is said of them, in the order of the reasons.
        let mut alike: Vec<Vec<&Row>> = Vec::new();
        for row in &self.objects {
            let is_same = |rows: &&mut Vec<&Row>| {
                rows[0].reason == row.reason && rows[0].text == row.text && rows[0].resource == row.resource
            };
            match alike.iter_mut().find(is_same) {
                Some(rows) => rows.push(row),
                None => alike.push(vec![row]),
            }
        }
        for rows in &alike {
            let first = rows[0];
            let which = if rows.len() == 1 { "which" } else { "each of which" };
            let objects = counted(rows.len(), "object");
            let (id, resource, text) = (first.reason.id(), &first.resource, &first.text);
            let _ = writeln!(out, "\n{id}  {resource}: {objects}, {which} {text}");
            for row in rows {
                let _ = writeln!(out, "    {}", row.key);
            }
            if !first.copies.is_empty() {
                let _ = writeln!(out, "  copies of its KEK: {}", first.copies.join(", "));
            }
            let _ = writeln!(out, "  next: {}", first.next);
        }
        if self.objects.is_empty() {
            let _ = writeln!(out, "\neverything that was looked at opens");
        }
        if self.objects_left_off > 0 {
            let _ = writeln!(out, "\nand {} more objects", self.objects_left_off);
        }
        for (at, note) in self.notes.iter().enumerate() {
            let _ = writeln!(out, "{}note: {note}", if at == 0 { "\n" } else { "" });
        }
        self.deletion(&mut out);
        out
    }

    fn deletion(&self, out: &mut String) {
        let Some(needs) = &self.delete_needs else { return };
        let resources: Vec<&str> = needs.resources.iter().map(String::as_str).collect();
        let _ = write!(
            out,
            "\nWhat nothing known here opens can be deleted, if it cannot be restored. Nodeseal never does it. The calls need\n\
             \x20 on every kube-apiserver  --feature-gates={}=true\n\
             \x20 on {}  the rights {}\n\
             With the gate off kube-apiserver ignores the option: it refuses what it cannot read, and deletes what it can.\n\
             They skip finalizers and everything else that follows a deletion.\n\n",
            needs.feature_gate,
            resources.join(", "),
            needs.verbs.join(" and "),
        );
        for call in self.objects.iter().filter_map(|row| row.delete.as_ref()) {
            let _ = writeln!(out, "{call}");
        }
    }
}
