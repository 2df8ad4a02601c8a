//! `nodeseal migrate plan --from … --to …` and `--from-plugin …`: the way from one KMS to another, which steps of it are done, and what to
//! do next. Exit 0: all are done; 1: some are left.
//!
//! It reads the configuration, what nodeseald says, what scans have seen and what stands in the cluster, once each, and writes nothing.

mod report;
mod steps;

use std::path::Path;
use std::process::ExitCode;

use self::report::Walk;
use self::steps::{DONE, Facts, Migrated, Provider, Route, Runs, Servers, steps};
use super::args::{PlanArgs, PlanVerbArgs};
use super::mistake::Mistake;
use super::ready::{How, Ready, wait};
use super::report::{DONE as ROW_DONE, FAILED, Known, RUNNING, WAITING};
use super::targets::{self, Targets};
use super::{LEFT, client, runtime, status};
use crate::config::DEFAULT_PATH;
use crate::config::providers::{Provider as Table, Settings};
use crate::control::report::ProviderRow;
use crate::control::{Answer, Request, Status};
use crate::ctl::common::Common;
use crate::ctl::etcd::{encryption_config, is_asked};
use crate::ctl::failed::Failed;
use crate::ctl::keys::quoted;
use crate::ctl::output::{Done, ask, load, print, unfit};
use crate::ctl::schema;
use crate::keyring::evidence::{Evidence, NoProof, SETTLED_SECONDS, Scan, Subject};
use crate::provider::{KeyIdentity, ProviderKind};
use crate::types::clock::{self, UnixSeconds};

/// `None`: no way was asked for.
pub(super) fn run(common: &Common, args: &PlanVerbArgs) -> Option<Done> {
    route(args).map(|route| walk(common, &args.plan, &route))
}

fn walk(common: &Common, args: &PlanArgs, route: &Route) -> Done {
    let walk = Walk::new(route, steps(route, &facts(common, args, route)?));
    print(common, schema::MIGRATE_STEPS, &walk, || walk.render())?;
    let is_over = walk.steps.iter().all(|step| step.state == DONE);
    Ok(if is_over { ExitCode::SUCCESS } else { ExitCode::from(LEFT) })
}

fn route(args: &PlanVerbArgs) -> Option<Route> {
    if let Some(socket) = &args.from_plugin {
        return Some(Route::Plugin { socket: socket.display().to_string() });
    }
    let (old, new) = args.from.clone().zip(args.to.clone())?;
    Some(Route::Providers { old, new })
}

fn facts(common: &Common, args: &PlanArgs, route: &Route) -> Result<Facts, Failed> {
    let config = load(common)?;
    let Answer::Status(node) = ask(&config, &Request::Status {})? else { return Err(unfit()) };
    let Answer::Evidence { rehearsed, scans, turned } = ask(&config, &Request::Evidence {})? else {
        return Err(unfit());
    };
    let seen = Seen { evidence: Evidence { rehearsed, scans }, turned, now: clock::now() };
    let tables = config.providers.as_ref().map_or(&[][..], |providers| &providers.list);
    let (old, new) = match route {
        Route::Providers { old, new } => (provider(old, tables, &node), provider(new, tables, &node)),
        Route::Plugin { socket } => {
            let name = tables.iter().find(|table| is_at(table, Path::new(socket))).map(|table| table.name.clone());
            // Without its table only what runs is known: whoever opens what Nodeseal has not made.
            let runs = || node.providers.iter().find(|row| row.opens_foreign).map(|row| row.name.clone());
            let name = name.or_else(runs).unwrap_or_else(|| "old".to_owned());
            (provider(&name, tables, &node), Provider::default())
        }
    };
    if let Route::Providers { old: name, .. } = route {
        let is_left = new.runs.as_ref().is_some_and(|runs| runs.writes);
        if old.runs.is_none() && !old.is_written && !is_left {
            return Err(Mistake::NoProvider(name.clone()).into());
        }
    }
    let wanted = encryption_config(args.encryption_config.as_deref())?.map(|(_, wanted)| wanted);
    let (ready, targets, known) = cluster(common, args)?;
    let key = |name: &str| key_of(name, &node);
    let (all_by_new, none_by_old) = match route {
        Route::Providers { old, new } => (seen.all_by(key(new), key(old)), seen.none_by(key(old))),
        Route::Plugin { .. } => (Err(NoProof::Never), seen.none(Subject::Foreign)),
    };
    let flag = match common.config == Path::new(DEFAULT_PATH) {
        true => String::new(),
        false => format!(" --config {}", quoted(&common.config)),
    };
    Ok(Facts {
        old,
        new,
        is_pending: node.pending.iter().any(crate::control::report::Pending::is_reload),
        key_id_waits: node.waits.clone(),
        wraps_owed: node.wraps_owed,
        is_asked: wanted.as_ref().map(|wanted| is_asked(wanted, &node.socket)),
        servers: match ready.how {
            How::Agreed => Servers::Agree,
            How::Not(why) => Servers::Differ(why),
            How::Waiting { why, .. } => Servers::Unknown(why),
        },
        migrated: migrated(&targets, &known, &ready.key_id_hash),
        all_by_new,
        has_seen_none: matches!(route, Route::Plugin { .. }) && seen.last_foreign() == Some(0),
        none_by_old,
        config: common.config.display().to_string(),
        cluster: format!("{flag}{}", said(args)),
        etcd: format!("{flag}{}", encryption_config_of(args)),
        flag,
    })
}

/// What this command line has said of the cluster.
fn said(args: &PlanArgs) -> String {
    let mut said = format!(" --kubeconfig {}{}", quoted(&args.cluster.kubeconfig), encryption_config_of(args));
    let servers: Vec<String> = args.api_servers.iter().map(ToString::to_string).collect();
    for (flag, values) in [("--api-servers", &servers), ("--resources", &args.resources)] {
        if !values.is_empty() {
            said += &format!(" {flag} {}", quoted(Path::new(&values.join(","))));
        }
    }
    said + if args.kms_v1 { " --kms-v1" } else { "" }
}

fn encryption_config_of(args: &PlanArgs) -> String {
    let file = args.encryption_config.as_deref();
    file.map_or_else(String::new, |file| format!(" --encryption-config {}", quoted(file)))
}

/// One look at the API servers, and at what was migrated.
fn cluster(common: &Common, args: &PlanArgs) -> Result<(Ready, Targets, Vec<Known>), Failed> {
    let args = PlanArgs { wait: 0, ..args.clone() };
    let mut client = client(&args.cluster.kubeconfig)?;
    runtime()?.block_on(async {
        let targets = targets::find(&mut client, &args).await?;
        let ready = wait(common, &args, &mut client, false).await?;
        let (_, known) = status::read(&mut client).await?;
        Ok((ready, targets, known))
    })
}

fn is_at(table: &Table, socket: &Path) -> bool {
    // Without any other kind of provider this is always so.
    #[allow(irrefutable_let_patterns, reason = "of the kinds that are compiled in")]
    if let Settings::KmsPlugin(settings) = &table.settings { settings.socket == socket } else { false }
}

fn provider(name: &str, tables: &[Table], node: &Status) -> Provider {
    let runs = |row: &ProviderRow| Runs {
        writes: row.role != "decrypt-only",
        opens_foreign: row.opens_foreign,
        answers: row.answered_seconds_ago.is_some(),
        trouble: row.error.clone(),
    };
    Provider {
        name: name.to_owned(),
        is_written: tables.iter().any(|table| table.name == name),
        runs: node.providers.iter().find(|row| row.name == name).map(runs),
    }
}

/// The key of a provider that has been seen.
fn key_of(name: &str, node: &Status) -> Option<(ProviderKind, KeyIdentity)> {
    let row = node.providers.iter().find(|row| row.name == name)?;
    let kind = ProviderKind::ALL.into_iter().find(|kind| kind.label() == row.kind)?;
    Some((kind, KeyIdentity::new(row.key.clone()?).ok()?))
}

type Key = Option<(ProviderKind, KeyIdentity)>;

/// What scans have seen.
struct Seen {
    evidence: Evidence,
    turned: UnixSeconds,
    now: UnixSeconds,
}

impl Seen {
    /// Whether nothing needs it, but for backups, of which only the operator knows.
    fn none(&self, subject: Subject<'_>) -> Result<(), NoProof> {
        self.evidence.proves(subject, self.turned, Some(self.now), self.now)
    }

    fn last_foreign(&self) -> Option<u64> {
        self.evidence.scans.last().map(|scan| scan.foreign)
    }

    fn none_by(&self, key: Key) -> Result<(), NoProof> {
        let (kind, identity) = key.ok_or(NoProof::Never)?;
        self.none(Subject::Key(kind, &identity))
    }

    /// Whether every object under a KEK has a copy by the new key, seen late enough to have all that was written before.
    fn all_by(&self, new: Key, old: Key) -> Result<(), NoProof> {
        let (kind, identity) = new.ok_or(NoProof::Never)?;
        let last = self.evidence.scans.last().ok_or(NoProof::Never)?;
        if last.at < self.turned.saturating_add(SETTLED_SECONDS) {
            return Err(NoProof::Early);
        }
        let by_old = old.map_or(0, |(kind, identity)| last.objects_by(kind, &identity));
        // In mode "direct" no KEK is local, and only copies are counted.
        let objects = under_keks(last).max(by_old).saturating_sub(last.objects_by(kind, &identity));
        if objects > 0 { Err(NoProof::Needed { objects }) } else { Ok(()) }
    }
}

fn under_keks(scan: &Scan) -> u64 {
    scan.keks.iter().map(|row| row.objects).sum()
}

/// Of all resources together, under this key_id.
fn migrated(targets: &Targets, known: &[Known], key_id_hash: &str) -> Migrated {
    let is_under = |one: &&Known| key_id_hash.starts_with(&one.key_id_hash);
    let states: Vec<Option<&str>> = targets
        .all
        .iter()
        .map(|target| {
            let name = target.resource.name();
            known.iter().filter(is_under).find(|one| one.done.resource == name).map(|one| one.done.state)
        })
        .collect();
    let any = |state: &str| states.contains(&Some(state));
    if states.iter().all(|state| *state == Some(ROW_DONE)) {
        Migrated::Done
    } else if any(FAILED) {
        Migrated::Failed
    } else if any(RUNNING) || any(WAITING) {
        Migrated::Running
    } else {
        Migrated::Not
    }
}
