//! The command line of the `etcd` verbs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::etcd::count::Ask;
use crate::etcd::{Endpoint, TlsFiles};

#[derive(Subcommand)]
pub(in super::super) enum EtcdVerb {
    /// Count what every object is encrypted with, and ask whether it opens
    Scan(ScanArgs),
    /// Say of each object that does not open why, and what brings it back. It changes nothing
    Triage(TriageArgs),
}

#[derive(Args)]
pub(in super::super) struct ScanArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// What kube-apiserver is told to encrypt: the file of its --encryption-provider-config
    #[arg(long, value_name = "FILE")]
    pub(super) encryption_config: Option<PathBuf>,
    /// What to ask nodeseald: nothing, each DEK or seed once, or every object
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Open::Seeds)]
    pub(super) open: Open,
    /// Show the names of the objects that a finding is about
    #[arg(long)]
    pub(super) names: bool,
}

#[derive(Args)]
pub(in super::super) struct TriageArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// What kube-apiserver is told to encrypt: the file of its --encryption-provider-config
    #[arg(long, value_name = "FILE")]
    pub(super) encryption_config: Option<PathBuf>,
    /// Look only at the objects that this scan names: the output of `nodeseal etcd scan --json --names`
    #[arg(long, value_name = "FILE", conflicts_with = "read_errors")]
    pub(super) scan: Option<PathBuf>,
    /// Look only at the objects that kube-apiserver could not read: its answer StorageReadError, or several
    #[arg(long, value_name = "FILE")]
    pub(super) read_errors: Option<PathBuf>,
    /// A KEK by its id, or a provider's key as the answer shows it, that nobody has any more: show the calls that delete what needs it
    #[arg(long, value_name = "KEY")]
    pub(super) lost: Vec<String>,
}

/// A running etcd.
#[derive(Args, Clone, Default)]
pub(in super::super) struct LiveArgs {
    /// Client URLs of etcd, or unix:///PATH of kine; by default those of this node's kube-apiserver
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(in super::super) endpoints: Vec<Endpoint>,
    /// Certificate authority of etcd
    #[arg(long, value_name = "FILE", requires = "endpoints")]
    cacert: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", requires_all = ["cacert", "key"])]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// You have looked: no kube-apiserver has --etcd-servers-overrides. For a machine where its flags cannot be seen
    #[arg(long)]
    pub(super) undivided: bool,
}

/// Where the objects are.
#[derive(Args)]
pub(super) struct SourceArgs {
    #[command(flatten)]
    pub(super) live: LiveArgs,
    /// A snapshot, or the file `member/snap/db` of an etcd that is stopped
    #[arg(long, value_name = "FILE", conflicts_with = "endpoints")]
    pub(super) snapshot: Option<PathBuf>,
    /// Read only the keys that begin so: a part of etcd, such as /registry/secrets/
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    /// kube-apiserver's --etcd-prefix; by default that of this node's kube-apiserver, or /registry
    #[arg(long, value_name = "PREFIX")]
    pub(super) etcd_prefix: Option<String>,
}

impl LiveArgs {
    pub(super) fn tls(&self) -> Option<TlsFiles> {
        let identity = self.cert.clone().zip(self.key.clone());
        Some(TlsFiles { ca: self.cacert.clone()?, identity })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Open {
    None,
    Seeds,
    All,
}

impl Open {
    pub(super) const fn ask(self) -> Ask {
        match self {
            Self::None => Ask::Nothing,
            Self::Seeds => Ask::Seeds,
            Self::All => Ask::All,
        }
    }
}
