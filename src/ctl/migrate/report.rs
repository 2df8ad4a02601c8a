//! What the `migrate` verbs answer under `--json` (docs/operations/json.md), and how people read it.

use std::fmt::Write;

use serde::Serialize;

use super::ready::{How, Ready, Seen, Verdict};
use crate::ctl::output::counted;

/// `nodeseal.migrate-plan/1`
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    pub(super) key_id_hash: String,
    /// `run` would write now.
    pub(super) ready: bool,
    /// Why it would not, or would wait.
    pub(super) waits_for: Option<String>,
    /// For which it would wait.
    pub(super) wait_minutes: Option<u16>,
    pub(super) api_servers: Vec<Server>,
    pub(super) resources: Vec<Planned>,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) key_id_hash: Option<String>,
    /// It writes under the key; `None`: nobody knows.
    pub(super) agrees: Option<bool>,
    pub(super) why: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Planned {
    pub(super) resource: String,
    pub(super) by: &'static str,
}

/// `nodeseal.migrate-run/1`
#[derive(Debug, Serialize)]
pub(super) struct Ran {
    pub(super) key_id_hash: String,
    /// Each API server has said that it uses the key; else the time of KEP-3299 was waited for.
    pub(super) agreed: bool,
    /// Every object of every resource was written.
    pub(super) complete: bool,
    pub(super) resources: Vec<Done>,
    pub(super) notes: Vec<String>,
    /// As `nodeseal etcd scan --json` says it, if it was asked for.
    pub(super) scan: Option<serde_json::Value>,
    /// KEKs of this node that nothing stored needs.
    pub(super) retire: Vec<Retirable>,
}

/// One resource.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Done {
    pub(super) resource: String,
    pub(super) by: &'static str,
    pub(super) state: &'static str,
    /// Written from here; the cluster does not count.
    pub(super) objects: Option<u64>,
    pub(super) failed: u64,
    /// Of those that failed in this run, at most 100.
    pub(super) names: Vec<String>,
    /// The StorageVersionMigration object.
    pub(super) migration: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Retirable {
    pub(super) id: String,
    pub(super) unneeded_since: String,
    /// Other nodes have it too, and whether they still write under it this node cannot see.
    pub(super) shared: bool,
    pub(super) command: String,
}

impl Retirable {
    /// What the operator does before this KEK may go.
    pub(super) fn next(&self) -> String {
        let Self { unneeded_since, command, .. } = self;
        let unneeded = format!("nothing stored has needed this KEK since {unneeded_since}");
        match self.shared {
            false => format!("{unneeded}; once every backup of etcd from before DATE is destroyed: {command}"),
            true => format!(
                "{unneeded}, but other nodes have it too, and this node cannot see whether they still write under it: see on each of them that `nodeseal keys list` has shown another KEK as active for 8 minutes at least, then scan again; once every backup of etcd from before DATE is destroyed: {command}"
            ),
        }
    }
}

/// `nodeseal.migrate-status/1`
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// The API of the migrations, where it is served.
    pub(super) api: Option<String>,
    /// Nothing of ours is under way or failed.
    pub(super) complete: bool,
    pub(super) resources: Vec<Known>,
}

#[derive(Debug, Serialize)]
pub(super) struct Known {
    /// Beginning of the hash.
    pub(super) key_id_hash: String,
    #[serde(flatten)]
    pub(super) done: Done,
}

/// `nodeseal.migrate-stop/1`
#[derive(Debug, Serialize)]
pub(super) struct Stopped {
    pub(super) removed: Vec<String>,
}

pub(super) const WAITING: &str = "waiting";
pub(super) const RUNNING: &str = "running";
pub(super) const DONE: &str = "done";
pub(super) const FAILED: &str = "failed";

impl Server {
    pub(super) fn all(seen: &[Seen]) -> Vec<Self> {
        let of = |one: &Seen| {
            let (agrees, why) = match &one.verdict {
                Verdict::Agrees => (Some(true), None),
                Verdict::Differs(why) => (Some(false), Some(why.clone())),
                Verdict::Unread(why) => (None, Some(why.clone())),
            };
            Self { url: one.server.clone(), key_id_hash: one.key_id_hash.clone(), agrees, why }
        };
        seen.iter().map(of).collect()
    }
}

impl Plan {
    pub(super) fn new(ready: &Ready, wait: u16, resources: Vec<Planned>, notes: Vec<String>) -> Self {
        let (waits_for, wait_minutes) = match &ready.how {
            How::Agreed => (None, None),
            How::Not(why) => (Some(why.clone()), Some(wait)),
            How::Waiting { why, .. } => (Some(why.clone()), Some(wait)),
        };
        Self {
            key_id_hash: ready.key_id_hash.clone(),
            ready: !matches!(ready.how, How::Not(_)),
            waits_for,
            wait_minutes,
            api_servers: Server::all(&ready.servers),
            resources,
            notes,
        }
    }

    pub(super) fn render(&self, how: &How) -> String {
        let mut out = format!("key_id    {}\n", self.key_id_hash);
        for server in &self.api_servers {
            let says = match server.agrees {
                Some(true) => "uses it".to_owned(),
                Some(false) | None => server.why.clone().unwrap_or_default(),
            };
            let _ = writeln!(out, "server    {}: {says}", server.url);
        }
        let _ = match how {
            How::Agreed => writeln!(out, "ready     yes: every API server uses this key"),
            How::Not(_) => writeln!(out, "ready     no: not every API server uses this key yet"),
            How::Waiting { why, .. } => {
                writeln!(out, "ready     {}", words(why, self.wait_minutes.unwrap_or_default()))
            }
        };
        out.push('\n');
        let rows: Vec<_> = self.resources.iter().map(|one| [one.resource.clone(), one.by.to_owned()]).collect();
        table(&mut out, ["RESOURCE", "BY"], &rows);
        notes(&mut out, &self.notes);
        out
    }
}

/// What KEP-3299 says of the time that has to pass.
pub(super) fn words(why: &str, minutes: u16) -> String {
    format!(
        "not known: {why}. `run` waits {minutes} minutes before it writes: 3 for kube-apiserver to ask its plugin, N for the plugin to change, and M as a margin, of which KEP-3299 advises 5. Change it with --wait if N is not 0"
    )
}

impl Ran {
    pub(super) fn render(&self, scan: Option<&str>) -> String {
        let mut out = format!("key_id    {}\n\n", self.key_id_hash);
        rows(&mut out, self.resources.iter());
        notes(&mut out, &self.notes);
        if let Some(scan) = scan {
            let _ = writeln!(out, "\n{}", scan.trim_end());
        }
        out
    }
}

impl Status {
    pub(super) fn render(&self) -> String {
        let api = self.api.as_deref().unwrap_or("not served: objects are written from here");
        let mut out = format!("api       {api}\n\n");
        if self.resources.is_empty() {
            out.push_str("no migration by Nodeseal\n");
        }
        let mut last = None;
        for key in self.resources.iter().map(|known| &known.key_id_hash) {
            if last.replace(key) != Some(key) {
                let _ = writeln!(out, "key_id    {key}…");
                rows(
                    &mut out,
                    self.resources.iter().filter(|known| known.key_id_hash == *key).map(|known| &known.done),
                );
            }
        }
        out
    }
}

fn rows<'a>(out: &mut String, all: impl Iterator<Item = &'a Done>) {
    let all: Vec<_> = all.collect();
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let cells: Vec<_> = all
        .iter()
        .map(|one| {
            let failed = if one.objects.is_some() { one.failed.to_string() } else { "-".to_owned() };
            [one.resource.clone(), one.by.to_owned(), one.state.to_owned(), count(one.objects), failed]
        })
        .collect();
    table(out, ["RESOURCE", "BY", "STATE", "OBJECTS", "FAILED"], &cells);
    for one in all.iter().filter(|one| !one.names.is_empty()) {
        let failed = counted(usize::try_from(one.failed).unwrap_or(usize::MAX), "object");
        let _ = writeln!(out, "\n{}: {failed} could not be written", one.resource);
        for name in &one.names {
            let _ = writeln!(out, "    {name}");
        }
    }
}

fn table<const N: usize>(out: &mut String, head: [&str; N], rows: &[[String; N]]) {
    let head = head.map(str::to_owned);
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in std::iter::once(&head).chain(rows) {
        let padded: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", padded.join("  ").trim_end());
    }
}

fn notes(out: &mut String, notes: &[String]) {
    for (at, note) in notes.iter().enumerate() {
        let _ = writeln!(out, "{}note: {note}", if at == 0 { "\n" } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PAGE: &str = include_str!("../../../docs/operations/json.md");

    /// The fields that the page lists under this heading, and below one of them.
    fn documented(heading: &str, below: &str) -> Vec<String> {
        let section = PAGE.split("\n### ").find(|section| section.lines().next() == Some(heading)).unwrap();
        let paths = section.lines().take_while(|line| !line.starts_with("## "));
        let paths = paths.filter_map(|line| line.strip_prefix("| `")?.split_once('`')?.0.strip_prefix(below));
        let mut paths: Vec<_> = paths.filter(|path| !path.contains('.')).map(str::to_owned).collect();
        paths.sort();
        paths
    }

    fn fields(value: &Value) -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn done() -> Done {
        let resource = "secrets".to_owned();
        let (by, state, names) = ("rewrite", FAILED, vec!["a/b (HTTP status 422)".to_owned()]);
        Done { resource, by, state, objects: Some(7), failed: 1, names, migration: None }
    }

    fn plan(how: How) -> (Plan, How) {
        let seen =
            vec![Seen { server: "https://a:1".into(), key_id_hash: None, verdict: Verdict::Unread("no".into()) }];
        let mark = crate::kube::KeyMark::of(&format!("sha256:{}", "0".repeat(64))).unwrap();
        let ready = Ready { key_id_hash: "sha256:0".into(), mark, servers: seen, how };
        let planned = vec![Planned { resource: "secrets".into(), by: "rewrite" }];
        (Plan::new(&ready, 8, planned, vec!["events".into()]), ready.how)
    }

    #[test]
    fn every_field_of_an_answer_stands_on_the_page_and_no_other() {
        let (plan, _) = plan(How::Agreed);
        let plan = json!(plan);
        assert_eq!(fields(&plan), documented("nodeseal.migrate-plan/1", ""));
        assert_eq!(fields(&plan["api_servers"][0]), documented("nodeseal.migrate-plan/1", "api_servers[]."));
        let retire =
            vec![Retirable { id: String::new(), unneeded_since: String::new(), shared: false, command: String::new() }];
        let (resources, notes) = (vec![done()], Vec::new());
        let key_id_hash = String::new();
        let ran = json!(Ran { key_id_hash, agreed: true, complete: false, resources, notes, scan: None, retire });
        // `next` is added where it is printed.
        let mut ran_fields = fields(&ran);
        ran_fields.push("next".to_owned());
        ran_fields.sort();
        assert_eq!(ran_fields, documented("nodeseal.migrate-run/1", ""));
        assert_eq!(fields(&ran["resources"][0]), documented("migrated resource", ""));
        let known = vec![Known { key_id_hash: "sha256:0".into(), done: done() }];
        let status = json!(Status { api: None, complete: false, resources: known });
        assert_eq!(fields(&status), documented("nodeseal.migrate-status/1", ""));
        assert!(fields(&status["resources"][0]).contains(&"key_id_hash".to_owned()));
        assert_eq!(fields(&json!(Stopped { removed: Vec::new() })), ["removed"]);
    }

    #[test]
    fn a_plan_says_in_words_what_is_waited_for() {
        let (answer, how) = plan(How::Waiting { why: "it cannot be asked".into(), is_over: false });
        let text = answer.render(&how);
        assert!(answer.ready && text.contains("waits 8 minutes") && text.contains("KEP-3299"), "{text}");
        let (answer, how) = plan(How::Not("https://a:1 does not".into()));
        assert!(!answer.ready && answer.render(&how).contains("ready     no"));
    }

    #[test]
    fn objects_that_could_not_be_written_are_named() {
        let (resources, key_id_hash) = (vec![done()], "sha256:0".to_owned());
        let ran =
            Ran { key_id_hash, agreed: true, complete: false, resources, notes: vec![], scan: None, retire: vec![] };
        let text = ran.render(None);
        assert!(text.contains("secrets: 1 object could not be written\n    a/b (HTTP status 422)"), "{text}");
    }
}
