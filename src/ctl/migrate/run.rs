//! `nodeseal migrate run`. Exit 0: every object is written, and the scan, if there was one, has found nothing; 1: some objects could not be
//! written, or the scan has findings; 2: it could not be done.

use std::process::ExitCode;
use std::time::Duration;

use super::args::RunArgs;
use super::mistake::Mistake;
use super::ready::{How, Ready, wait};
use super::report::{DONE, Done as Row, Ran, Retirable};
use super::retire::{self, Retirement};
use super::rewrite::Rewriting;
use super::targets::{By, Targets};
use super::{LEFT, client, controller, runtime, targets};
use crate::ctl::common::Common;
use crate::ctl::etcd::scan_live;
use crate::ctl::failed::Failed;
use crate::ctl::output::{Done, print_done};
use crate::ctl::schema;
use crate::kube::{Client, Record};
use crate::types::clock;

pub(super) fn run(common: &Common, args: &RunArgs) -> Done {
    let mut client = client(&args.plan.cluster.kubeconfig)?;
    let (ready, resources, notes) = runtime()?.block_on(async {
        let targets = targets::find(&mut client, &args.plan).await?;
        let ready = wait(common, &args.plan, &mut client, true).await?;
        if let How::Not(first) = ready.how {
            return Err(Mistake::Differ { minutes: args.plan.wait, first }.into());
        }
        let resources = migrate(common, args, &mut client, &targets, &ready).await?;
        Ok::<_, Failed>((ready, resources, targets.notes))
    })?;
    let complete = resources.iter().all(|row| row.state == DONE);
    let is_scanned = args.scans() && complete;
    if is_scanned && !args.scan_now {
        retire::wait_until_settled(common)?;
    }
    let scan = match is_scanned {
        true => Some(scan_live(common, &args.etcd, args.plan.encryption_config.clone())?),
        false => None,
    };
    // One that nodeseald has not taken, or that does not speak for all of etcd, says nothing of any KEK.
    let retirement = scan.as_ref().filter(|scan| scan.is_kept).map(|_| retire::find(common)).transpose()?;
    let next = next(complete, retirement.as_ref());
    let (value, text, found) = scan.map_or((None, None, 0), |scan| (Some(scan.value), Some(scan.text), scan.exit));
    let ran = Ran {
        key_id_hash: ready.key_id_hash,
        agreed: ready.how == How::Agreed,
        complete,
        resources,
        notes,
        scan: value,
        retire: retirement.map(|found| found.all).unwrap_or_default(),
    };
    print_done(common, schema::MIGRATE_RUN, &ran, &next, || ran.render(text.as_deref()))?;
    Ok(match (complete, found) {
        (true, exit) => ExitCode::from(exit),
        (false, _) => ExitCode::from(LEFT),
    })
}

async fn migrate(
    common: &Common,
    args: &RunArgs,
    client: &mut Client,
    targets: &Targets,
    ready: &Ready,
) -> Result<Vec<Row>, Failed> {
    let (by_cluster, here): (Vec<_>, Vec<_>) = targets.all.iter().partition(|one| one.by == By::Cluster);
    let mark = &ready.mark;
    let migrations = targets.migrations.as_ref().filter(|_| !by_cluster.is_empty());
    let record = match here.is_empty() {
        true => None,
        false => Some(Record::under(Record::read(client).await?, mark, clock::now())),
    };
    let is_migrated = match migrations {
        Some(migrations) => controller::has_all(&migrations.list(client).await?, &by_cluster, mark),
        None => true,
    };
    // Whoever runs it once more, with nothing left to continue, knows of objects that are not as they should be: they were put back, or
    // written by an API server of another configuration.
    let again = is_migrated
        && record.as_ref().is_none_or(|record| here.iter().all(|one| record.has_all_of(&one.resource.name())));
    let mut done = Vec::new();
    if let Some(migrations) = migrations {
        done = controller::migrate(client, migrations, &by_cluster, (mark, again), !common.json).await?;
    }
    let Some(record) = record else { return Ok(done) };
    let record = if again { record.again(clock::now()) } else { record };
    let pace = Duration::from_secs(1) / args.rate;
    let mut rewriting = Rewriting { client, record, pace, is_shown: !common.json };
    for target in here {
        done.push(rewriting.resource(target).await?);
    }
    Ok(done)
}

fn next(complete: bool, retirement: Option<&Retirement>) -> Vec<String> {
    if !complete {
        return vec![
            "see why objects could not be written: `kubectl describe storageversionmigration NAME` shows it of a migration of the cluster, the log of kube-apiserver of others".to_owned(),
            "then run this again: what is done is not done twice".to_owned(),
        ];
    }
    let Some(retirement) = retirement else {
        return vec![
            "on a control-plane node: nodeseal etcd scan (docs/operations/etcd.md)".to_owned(),
            "then destroy the old KEK when no backup of etcd needs it: nodeseal keys retire (docs/operations/rotate.md)"
                .to_owned(),
        ];
    };
    let mut next: Vec<_> = retirement.all.iter().map(Retirable::next).collect();
    if retirement.is_early {
        next.push("scan once more, 8 minutes after the key_id has moved, before an old KEK may be destroyed: nodeseal etcd scan".to_owned());
    }
    next
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_that_passes_over_other_nodes_is_shown_with_what_has_to_be_seen_on_them_before() {
        let row = json!({
            "id": "0123456789abcdef0123456789abcdef", "state": "deactivated", "key_id": "", "created": 0, "since": 0,
            "uses": 1, "shared": true, "wraps": 0, "check": "", "must_be_shared": false, "unneeded_since": 1000,
        });
        let row = serde_json::from_value(row).unwrap();
        let retirement = Retirement { all: vec![retire::retirable(&row)], is_early: false };
        let next = next(true, Some(&retirement));
        let says_it = ["on each of them"].iter().any(|words| next[0].contains(words));
        // `keys retire` without the flag refuses, and says it.
        assert!(!next[0].contains("--not-shared") || says_it, "{next:?}");
    }
}
