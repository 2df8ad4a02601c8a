//! Why a migration is not begun, or not ended.

use crate::types::{Class, Explained};

#[derive(Debug, thiserror::Error)]
pub(super) enum Mistake {
    #[error("it is not known which resources are to be migrated")]
    NoResources,
    #[error("the API server serves none of the resources that are to be migrated")]
    NothingServed,
    #[error("it is not known which key_id the API servers must report")]
    NoKey,
    #[error("there is no provider {0}, and the other one does not write")]
    NoProvider(String),
    #[error("this node's nodeseald does not say which key_id the API servers must report: {0}")]
    Away(String),
    #[error("this is no hash of a key_id: {0}")]
    Hash(String),
    #[error("the API servers do not report one key_id after {minutes} min: {first}")]
    Differ { minutes: u16, first: String },
    #[error("nobody has begun the migrations within {minutes} min")]
    NobodyBegins { minutes: u64 },
    #[error("somebody has removed the migration of {0}")]
    Removed(String),
    #[error("the list of {0} is not in the order of its names")]
    Order(String),
    #[error("{count} objects of {resource} in a row could not be written, the last one: {last}")]
    Row { count: u32, resource: String, last: String },
}

impl Explained for Mistake {
    fn class(&self) -> Class {
        match self {
            Self::NoResources
            | Self::NothingServed
            | Self::NoKey
            | Self::NoProvider(_)
            | Self::Hash(_)
            | Self::Order(_) => Class::Misconfigured,
            Self::Away(_) | Self::Differ { .. } | Self::NobodyBegins { .. } | Self::Removed(_) | Self::Row { .. } => {
                Class::Unavailable
            }
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::NoProvider(_) => "name the providers as the configuration does: nodeseal status",
            Self::NoResources => {
                "name the file of kube-apiserver's --encryption-provider-config with --encryption-config, or the resources with --resources"
            }
            Self::NothingServed => {
                "compare the names with `kubectl api-resources`; one of a group is written NAME.GROUP"
            }
            Self::NoKey => {
                "run it on a control-plane node whose nodeseald runs, or name the hash that `nodeseal status` shows there with --key-id-hash"
            }
            Self::Away(_) => {
                "start nodeseald, and run this as root; or name the hash that `nodeseal status` shows on a control-plane node with --key-id-hash"
            }
            Self::Hash(_) => "write it as `nodeseal status` shows it: sha256: and 64 hexadecimal digits",
            Self::Differ { .. } => {
                "nothing was written. See `nodeseal status` on each node, and the log of that API server; then run this again"
            }
            Self::NobodyBegins { .. } => {
                "kube-controller-manager carries them out, with the feature gate StorageVersionMigrator: see its log; or have the objects written from here: `nodeseal migrate stop`, then run with --rewrite"
            }
            Self::Removed(_) => "run it again: it continues where it was",
            Self::Order(_) => {
                "this API server keeps them in another way: write them with `kubectl get -o json` and `kubectl replace`"
            }
            Self::Row { .. } => {
                "see the log of kube-apiserver: a right is missing (docs/operations/migrate-rbac.yaml), its KMS plugin does not answer, or an admission webhook fails. Then run this again: it continues where it was"
            }
        }
    }
}
