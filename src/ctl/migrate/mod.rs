//! `nodeseal migrate`: has kube-apiserver write what is stored in etcd under the key that it writes with now.
//!
//! It never reads what an object has ([`crate::kube`]). Where the cluster can carry a migration out by itself
//! (StorageVersionMigration), it only asks for it; elsewhere it has each object written, one after the other. What is done stands in
//! objects of the cluster that carry our label, so whoever was interrupted continues, from any machine.
//!
//! Nothing is written before every API server is known to use one key: an object that is written by one that does not would be under
//! the old key, and count as done.

mod args;
mod controller;
mod mistake;
mod plan;
mod ready;
mod report;
mod retire;
mod rewrite;
mod run;
mod shown;
mod status;
mod targets;
mod walk;

use std::path::Path;

use super::common::Common;
use super::failed::Failed;
use super::output::{Done, harden};
use crate::kube::{Client, Kubeconfig};
use crate::types::{Class, Explain};

pub(super) use args::MigrateVerb;

/// Something is left to do: objects that could not be written, findings of the scan, API servers that do not agree yet.
const LEFT: u8 = 1;
/// It is not known how things are, or they could not be done.
const NOT_DONE: u8 = 2;

pub(super) fn run(common: &Common, verb: &MigrateVerb) -> Done {
    // A login is in memory: no core dump.
    let done = harden().and_then(|()| match verb {
        MigrateVerb::Plan(args) => walk::run(common, args).unwrap_or_else(|| plan::run(common, &args.plan)),
        MigrateVerb::Run(args) => run::run(common, args),
        MigrateVerb::Status(args) => status::run(common, args),
        MigrateVerb::Stop(args) => status::stop(common, args),
    });
    done.map_err(|failed| failed.with_exit(NOT_DONE))
}

fn client(kubeconfig: &Path) -> Result<Client, Failed> {
    let kubeconfig = Kubeconfig::read(kubeconfig)?;
    Ok(Client::new(kubeconfig)?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failed::new(&Explain::new(&error, Class::Unavailable, "try again")))
}
