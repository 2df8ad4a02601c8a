//! The command line of the `migrate` verbs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::ctl::etcd::LiveArgs;
use crate::kube::Server;

#[derive(Subcommand)]
pub(in super::super) enum MigrateVerb {
    /// Show what `run` would do, once all API servers report one key_id; or the way from one KMS to another, and its next step
    Plan(PlanVerbArgs),
    /// Wait until all API servers report one key_id, then have every object written under it
    Run(RunArgs),
    /// Show what is done
    Status(ClusterArgs),
    /// Remove the unfinished StorageVersionMigration objects that `run` has made
    Stop(ClusterArgs),
}

#[derive(Args)]
pub(in super::super) struct PlanVerbArgs {
    #[command(flatten)]
    pub(super) plan: PlanArgs,
    /// Show the way from this provider to the one of --to, what of it is done, and what is next
    #[arg(long, value_name = "PROVIDER", requires = "to", conflicts_with = "from_plugin")]
    pub(super) from: Option<String>,
    /// See --from
    #[arg(long, value_name = "PROVIDER", requires = "from")]
    pub(super) to: Option<String>,
    /// The same from another KMS plugin to Nodeseal, which takes its place: the socket on which the plugin stays
    #[arg(long, value_name = "unix:///PATH", value_parser = socket)]
    pub(super) from_plugin: Option<PathBuf>,
}

/// As an EncryptionConfiguration names it.
fn socket(text: &str) -> Result<PathBuf, &'static str> {
    let path = text.strip_prefix("unix://").filter(|path| path.starts_with('/'));
    path.map(PathBuf::from).ok_or("a socket is written as unix:///PATH")
}

#[derive(Args, Clone)]
pub(in super::super) struct ClusterArgs {
    /// How to reach the cluster, and as whom
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: PathBuf,
}

#[derive(Args, Clone)]
pub(in super::super) struct PlanArgs {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// URLs of all API servers, if they do not enter themselves into the cluster
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(super) api_servers: Vec<Server>,
    /// What kube-apiserver is told to encrypt: the file of its --encryption-provider-config
    #[arg(long, value_name = "FILE")]
    pub(super) encryption_config: Option<PathBuf>,
    /// Only these resources, as an EncryptionConfiguration names them: secrets, deployments.apps
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) resources: Vec<String>,
    /// The resources are under KMS v1, and there is no EncryptionConfiguration here that says it
    #[arg(long, requires = "resources", conflicts_with = "encryption_config")]
    pub(super) kms_v1: bool,
    /// Hash of the key_id that must be reported, as `nodeseal status` shows it [default: that of this node]
    #[arg(long, value_name = "HASH")]
    pub(super) key_id_hash: Option<String>,
    /// How long to wait for the API servers: 3 + N + M of KEP-3299
    #[arg(long, value_name = "MINUTES", default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=1440))]
    pub(super) wait: u16,
    /// Write the objects from here, even if the cluster can do it by itself
    #[arg(long)]
    pub(super) rewrite: bool,
}

#[derive(Args)]
pub(in super::super) struct RunArgs {
    #[command(flatten)]
    pub(super) plan: PlanArgs,
    /// Objects a second that are written from here at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rate: u32,
    /// Then scan etcd, which is that of this node unless --endpoints names another
    #[arg(long)]
    pub(super) scan: bool,
    /// Scan at once, even if it is too early for `keys retire` to go by it
    #[arg(long)]
    pub(super) scan_now: bool,
    #[command(flatten)]
    pub(super) etcd: LiveArgs,
}

impl RunArgs {
    pub(super) fn scans(&self) -> bool {
        self.scan || self.scan_now || !self.etcd.endpoints.is_empty()
    }
}
