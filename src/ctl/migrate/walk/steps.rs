//! From one KMS to another, step by step: what is done, and what is next. Pure: a function of what was read once ([`Facts`]).
//!
//! A step is done if what it is for is so, whoever has done it and when. All behind the first one that is not are later, whatever is seen of
//! them. It says what to do and does nothing, and what `nodeseal reload` refuses it refuses as ever.

use serde::Serialize;

use crate::keyring::evidence::NoProof;

/// Which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// From a provider to another one, by their names.
    Providers { old: String, new: String },
    /// From a plugin that kube-apiserver has used, and that stays on this socket.
    Plugin { socket: String },
}

/// A provider as nodeseald runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) writes: bool,
    pub(super) opens_foreign: bool,
    /// It has done what was asked.
    pub(super) answers: bool,
    /// What it said last, if that was no success.
    pub(super) trouble: Option<String>,
}

/// A provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Provider {
    /// Its name in the configuration.
    pub(super) name: String,
    /// It stands in the file.
    pub(super) is_written: bool,
    pub(super) runs: Option<Runs>,
}

/// What the API servers say of the key_id of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Servers {
    Agree,
    Differ(String),
    /// `migrate run` waits for the time of KEP-3299.
    Unknown(String),
}

/// What stands in the cluster of a migration under the key_id of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Migrated {
    Not,
    Running,
    Failed,
    Done,
}

/// All that was read.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) old: Provider,
    /// The provider that takes over; of a plugin it is Nodeseal itself.
    pub(super) new: Provider,
    /// nodeseald has refused the file, or waits for an order to take it.
    pub(super) is_pending: bool,
    /// Why the key_id does not name the keys as they are.
    pub(super) key_id_waits: Option<String>,
    /// Copies that are still to be made.
    pub(super) wraps_owed: usize,
    /// kube-apiserver is told to ask this node; `None`: its configuration is not known.
    pub(super) is_asked: Option<bool>,
    pub(super) servers: Servers,
    pub(super) migrated: Migrated,
    /// Whether the last scan has seen a copy by the new key with every object, but for those of no KMS.
    pub(super) all_by_new: Result<(), NoProof>,
    /// The last scan has seen nothing that needs the old one, whenever it was.
    pub(super) has_seen_none: bool,
    /// The same, late enough to go by it.
    pub(super) none_by_old: Result<(), NoProof>,
    /// The configuration, for people.
    pub(super) config: String,
    /// What command lines say of it, if it is not where it is looked for; each of these with a space before it.
    pub(super) flag: String,
    /// And of the cluster, as this one did.
    pub(super) cluster: String,
    pub(super) etcd: String,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// Of a closed list (docs/operations/migrate.md).
    pub(super) id: &'static str,
    pub(super) state: &'static str,
    pub(super) what: String,
    /// What was found.
    pub(super) seen: String,
    /// What to do, one line each: prose, lines of the configuration, commands.
    #[serde(rename = "do")]
    pub(super) todo: Vec<String>,
}

pub(super) const DONE: &str = "done";
pub(super) const NEXT: &str = "next";
pub(super) const LATER: &str = "later";

/// Whether a step is done.
enum Found {
    Done(String),
    Open { seen: String, todo: Vec<String> },
}

fn done(seen: impl Into<String>) -> Found {
    Found::Done(seen.into())
}

fn open<const N: usize>(seen: impl Into<String>, todo: [String; N]) -> Found {
    Found::Open { seen: seen.into(), todo: todo.into() }
}

type Row = (&'static str, String, Found);

pub(super) fn steps(route: &Route, facts: &Facts) -> Vec<Step> {
    let rows = match route {
        Route::Providers { .. } => providers(facts),
        Route::Plugin { socket } => plugin(facts, socket),
    };
    let mut is_behind = false;
    let step = |(id, what, found): Row| {
        let (state, seen, todo) = match found {
            _ if is_behind => (LATER, String::new(), Vec::new()),
            Found::Done(seen) => (DONE, seen, Vec::new()),
            Found::Open { seen, todo } => (NEXT, seen, todo),
        };
        is_behind |= state == NEXT;
        Step { id, state, what, seen, todo }
    };
    rows.into_iter().map(step).collect()
}

fn providers(facts: &Facts) -> Vec<Row> {
    let Facts { old, new, .. } = facts;
    let writes = |provider: &Provider| provider.runs.as_ref().is_some_and(|runs| runs.writes);
    let is_left = !writes(old) && writes(new);
    let behind = |found: Found| if is_left { done(format!("{} writes no more", old.name)) } else { found };
    let (by_new, without_old) = (&facts.all_by_new, if old.is_gone() { done("it is gone") } else { facts.left() });
    vec![
        (
            "add",
            format!("add {} to the configuration, without writing with it", new.name),
            facts.added(new, &facts.table_of_new()),
        ),
        ("prove", format!("{} answers", new.name), proved(new)),
        ("write", format!("write with {} too", new.name), facts.written(new, true)),
        ("key-id", "every API server uses the key_id that names its key".to_owned(), behind(facts.turned())),
        ("migrate", "write every object under that key_id".to_owned(), behind(facts.migrated(by_new))),
        ("scan", format!("a scan has seen every object with a copy by {}", new.name), behind(facts.scanned(by_new))),
        ("stop", format!("write with {} no more", old.name), facts.written(old, false)),
        ("leave", format!("a scan has seen no object with a copy by {}", old.name), without_old),
        ("remove", format!("remove {} from the configuration", old.name), facts.removed(old)),
    ]
}

fn plugin(facts: &Facts, socket: &str) -> Vec<Row> {
    let (old, none) = (&facts.old, &facts.none_by_old);
    // Otherwise it would have to be added first.
    let is_over = old.is_gone() && facts.is_asked != Some(false) && facts.has_seen_none;
    let rows = vec![
        (
            "add",
            "give Nodeseal the plugin as a provider that opens what it has made".to_owned(),
            facts.added_plugin(socket),
        ),
        ("prove", "the plugin answers on its own socket".to_owned(), proved(old)),
        ("take-place", "Nodeseal listens where kube-apiserver looks for its plugin".to_owned(), facts.asked()),
        ("key-id", "every API server uses the key_id of Nodeseal".to_owned(), facts.turned()),
        ("migrate", "write every object under that key_id".to_owned(), facts.migrated(none)),
        ("scan", "a scan has seen no object that the plugin has made".to_owned(), facts.scanned(none)),
        ("remove", "remove the plugin".to_owned(), facts.removed(old)),
    ];
    let over = |(id, what, found)| (id, what, if is_over { done("the plugin is gone") } else { found });
    rows.into_iter().map(over).collect()
}

impl Provider {
    fn is_gone(&self) -> bool {
        !self.is_written && self.runs.is_none()
    }
}

fn proved(provider: &Provider) -> Found {
    let status = || "nodeseal status".to_owned();
    match &provider.runs {
        Some(Runs { trouble: Some(trouble), .. }) => open(format!("it fails: {trouble}"), [status()]),
        Some(Runs { answers: true, .. }) => done("it answers"),
        Some(Runs { answers: false, .. }) | None => open("it has not answered yet", [status()]),
    }
}

impl Facts {
    fn reload(&self) -> String {
        format!("on every node: nodeseal config check{0} && nodeseal reload{0}", self.flag)
    }

    fn run(&self) -> String {
        format!("nodeseal migrate run{} --scan", self.cluster)
    }

    fn scan(&self) -> String {
        format!("nodeseal etcd scan{}", self.etcd)
    }

    fn table_of_new(&self) -> Vec<String> {
        vec![
            format!("in {}, with the keys of its kind (docs/providers):", self.config),
            "[[provider]]".to_owned(),
            format!("name = \"{}\"", self.new.name),
            "kind = \"KIND\"".to_owned(),
            "write = false".to_owned(),
        ]
    }

    fn added(&self, provider: &Provider, table: &[String]) -> Found {
        match (&provider.runs, provider.is_written) {
            (Some(_), _) => done("nodeseald has it"),
            (None, true) => open("it stands in the file, and nodeseald does not have it yet", [self.reload()]),
            (None, false) => {
                let todo = table.iter().cloned().chain([self.reload()]).collect();
                Found::Open { seen: "it does not stand in the file".to_owned(), todo }
            }
        }
    }

    fn added_plugin(&self, socket: &str) -> Found {
        if self.old.runs.as_ref().is_some_and(|runs| !runs.opens_foreign) {
            let line = format!("in the table {} of {}: opens_foreign = true", self.old.name, self.config);
            return open(
                "it is a provider, and is not handed what it has made for kube-apiserver",
                [line, self.reload()],
            );
        }
        let table = [
            "restart the plugin with this socket, and leave a symbolic link to it where kube-apiserver looks for it"
                .to_owned(),
            format!("in {}:", self.config),
            "[[provider]]".to_owned(),
            "name = \"old\"".to_owned(),
            "kind = \"kms-plugin\"".to_owned(),
            "write = false".to_owned(),
            "opens_foreign = true".to_owned(),
            format!("socket = \"{socket}\""),
            "key = \"the-old-plugin\"".to_owned(),
        ];
        self.added(&self.old, &table)
    }

    /// Whether it writes, or no longer does.
    fn written(&self, provider: &Provider, wants: bool) -> Found {
        let writes = provider.runs.as_ref().is_some_and(|runs| runs.writes);
        match (writes == wants, wants) {
            (true, true) => done("new KEKs get its copy"),
            (true, false) => done("new KEKs get no copy by it"),
            (false, _) => {
                let line = format!("in the table {} of {}: write = {wants}", provider.name, self.config);
                let seen = if writes { "new KEKs get its copy" } else { "new KEKs get no copy by it" };
                open(seen, [line, self.reload()])
            }
        }
    }

    fn turned(&self) -> Found {
        let wait = || "wait, and run this again".to_owned();
        if self.is_pending {
            return open(
                "the configuration of the file is not in force",
                ["nodeseal status".to_owned(), self.reload()],
            );
        }
        if let Some(why) = &self.key_id_waits {
            return open(format!("the key_id does not name the keys as they are: {why}"), [wait()]);
        }
        if self.wraps_owed > 0 {
            return open(format!("{} copies of KEKs are still to be made", self.wraps_owed), [wait()]);
        }
        match &self.servers {
            Servers::Agree => done("each has said so"),
            Servers::Differ(why) => open(why, [wait()]),
            Servers::Unknown(why) => done(format!("not known: {why}. `migrate run` waits for the time that it takes")),
        }
    }

    fn migrated(&self, proof: &Result<(), NoProof>) -> Found {
        match (proof, self.migrated) {
            (Ok(()), _) => done("a scan has seen it"),
            (Err(NoProof::Early | NoProof::Old { .. }), _) if self.has_seen_none => done("the last scan has seen it"),
            (Err(_), Migrated::Done) => done("it ran to its end"),
            (Err(_), Migrated::Running) => open("it is under way", [self.run()]),
            (Err(_), Migrated::Failed) => open(
                "some objects could not be written",
                ["kubectl describe storageversionmigration NAME".to_owned(), self.run()],
            ),
            (Err(_), Migrated::Not) => open("nothing is migrated to it yet", [self.run()]),
        }
    }

    fn scanned(&self, proof: &Result<(), NoProof>) -> Found {
        match proof {
            Ok(()) => done("nothing is missing"),
            // It may be from before the migration.
            Err(NoProof::Needed { objects }) => open(
                format!("the last scan of etcd counted {objects} objects of which this is not so"),
                [self.scan(), format!("if it counts some again: {}", self.run())],
            ),
            Err(why) => open(why.to_string(), [self.scan()]),
        }
    }

    fn left(&self) -> Found {
        match (&self.none_by_old, self.turned()) {
            (Ok(()), _) => done("nothing needs it"),
            (Err(_), Found::Open { seen, todo }) => Found::Open { seen, todo },
            (Err(why @ NoProof::Early), Found::Done(_)) if self.migrated == Migrated::Done => {
                open(why.to_string(), [format!("some minutes later: {}", self.scan())])
            }
            (Err(why), Found::Done(_)) => open(why.to_string(), [self.run()]),
        }
    }

    fn asked(&self) -> Found {
        let links = [
            "name the path where kube-apiserver looks for its plugin as listen.socket, or replace it by a symbolic link:".to_owned(),
            "ln -s /run/nodeseal/kms.sock DIR/new && mv -T DIR/new DIR/NAME".to_owned(),
            "then end the connections to the plugin: restart it".to_owned(),
        ];
        match (self.is_asked, &self.servers) {
            (Some(true), _) => done("kube-apiserver is told to ask it"),
            (None, Servers::Agree) => done("the API servers report its key_id"),
            (Some(false), _) => open("kube-apiserver is told to ask another socket", links),
            (None, _) => open("kube-apiserver's configuration is not known; name it with --encryption-config", links),
        }
    }

    fn removed(&self, old: &Provider) -> Found {
        if old.is_gone() {
            return done("it is gone");
        }
        let reload = format!("nodeseal reload{} --abandon --backups-before DATE", self.flag);
        let backups = "DATE: there is no backup of etcd from before it any more".to_owned();
        if old.is_written {
            let line = format!("delete the table {} from {}", old.name, self.config);
            open("it stands in the file", [line, format!("on every node: {reload}"), backups])
        } else {
            open("nodeseald still has it", [format!("on every node: {reload}"), backups])
        }
    }
}

#[cfg(test)]
mod tests;
