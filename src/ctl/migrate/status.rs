//! `nodeseal migrate status`: what stands in the cluster. Exit 0: all is done; 1: something is under way or has failed.
//!
//! `nodeseal migrate stop`: removes what is unfinished.

use std::process::ExitCode;

use super::args::ClusterArgs;
use super::controller::state;
use super::report::{DONE, Done as Row, FAILED, Known, RUNNING, Status, Stopped};
use super::targets::By;
use super::{LEFT, client, runtime};
use crate::ctl::common::Common;
use crate::ctl::output::{Done, counted, print, print_done};
use crate::ctl::schema;
use crate::kube::{Client, KubeError, Migration, Migrations, Record, State};

pub(super) fn run(common: &Common, args: &ClusterArgs) -> Done {
    let mut client = client(&args.kubeconfig)?;
    let (api, resources) = runtime()?.block_on(read(&mut client))?;
    let complete = resources.iter().all(|known| known.done.state == DONE);
    let status = Status { api, complete, resources };
    print(common, schema::MIGRATE_STATUS, &status, || status.render())?;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(LEFT) })
}

pub(super) async fn read(client: &mut Client) -> Result<(Option<String>, Vec<Known>), KubeError> {
    let migrations = Migrations::find(client).await?;
    let mut known = Vec::new();
    if let Some(migrations) = &migrations {
        known.extend(migrations.list(client).await?.iter().map(of_migration));
    }
    match Record::read(client).await {
        Ok(record) => known.extend(record.iter().flat_map(of_record)),
        // Whoever needs no right to write objects need not have one to read how far that is.
        Err(error) if error.status() == Some(403) && migrations.is_some() => {}
        Err(error) => return Err(error),
    }
    known.sort_by(|a, b| (&a.key_id_hash, &a.done.resource).cmp(&(&b.key_id_hash, &b.done.resource)));
    Ok((migrations.map(|migrations| migrations.api()), known))
}

fn of_migration(one: &Migration) -> Known {
    let done = Row {
        resource: one.resource.clone(),
        by: By::Cluster.label(),
        state: state(one.state),
        objects: None,
        failed: 0,
        names: Vec::new(),
        migration: Some(one.name.clone()),
    };
    Known { key_id_hash: format!("sha256:{}", one.mark), done }
}

fn of_record(record: &Record) -> Vec<Known> {
    let of = |(resource, progress): (&String, &crate::kube::Progress)| {
        let done = Row {
            resource: resource.clone(),
            by: By::Here { annotated: false }.label(),
            state: match (progress.finished, progress.failed) {
                (false, _) => RUNNING,
                (true, 0) => DONE,
                (true, _) => FAILED,
            },
            objects: Some(progress.written),
            failed: progress.failed,
            names: Vec::new(),
            migration: None,
        };
        Known { key_id_hash: format!("sha256:{}", record.mark), done }
    };
    record.resources.iter().map(of).collect()
}

pub(super) fn stop(common: &Common, args: &ClusterArgs) -> Done {
    let mut client = client(&args.kubeconfig)?;
    let removed = runtime()?.block_on(async {
        let mut removed = Vec::new();
        let Some(migrations) = Migrations::find(&mut client).await? else { return Ok(removed) };
        for one in migrations.list(&mut client).await? {
            if one.state != State::Done {
                migrations.remove(&mut client, &one).await?;
                removed.push(one.name);
            }
        }
        Ok::<_, KubeError>(removed)
    })?;
    let next = match removed.is_empty() {
        true => Vec::new(),
        false => vec![
            "what kube-controller-manager has begun it carries to its end all the same, which is harmless".to_owned(),
        ],
    };
    let stopped = Stopped { removed };
    print_done(common, schema::MIGRATE_STOP, &stopped, &next, || {
        let removed = &stopped.removed;
        format!("removed {}\n{}", counted(removed.len(), "unfinished migration"), removed.join("\n"))
    })
}
