//! `nodeseal migrate plan`. Exit 0: `run` would write, perhaps after a wait; 1: not every API server uses the key yet.

use std::process::ExitCode;

use super::args::PlanArgs;
use super::ready::wait;
use super::report::{Plan, Planned};
use super::{LEFT, client, runtime, targets};
use crate::ctl::common::Common;
use crate::ctl::output::{Done, print};
use crate::ctl::schema;

pub(super) fn run(common: &Common, args: &PlanArgs) -> Done {
    let mut client = client(&args.cluster.kubeconfig)?;
    let (ready, targets) = runtime()?.block_on(async {
        let targets = targets::find(&mut client, args).await?;
        wait(common, args, &mut client, false).await.map(|ready| (ready, targets))
    })?;
    let planned = targets.all.iter().map(|one| Planned { resource: one.resource.name(), by: one.by.label() }).collect();
    let plan = Plan::new(&ready, args.wait, planned, targets.notes);
    print(common, schema::MIGRATE_PLAN, &plan, || plan.render(&ready.how))?;
    Ok(if plan.ready { ExitCode::SUCCESS } else { ExitCode::from(LEFT) })
}
