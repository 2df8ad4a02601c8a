//! Answers of the daemon, and the stable schema behind `--json`: fields are only ever added.

use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::keyring::keeper::{KekRow, KeyTable};
use crate::sandbox::Enforced;
use crate::types::{Chain, Class};

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To `bundle request` and `bundle make`: a file, in hexadecimal.
    File(String),
    /// To `credentials seal`.
    CredentialStored {},
    /// To `keys rotate`.
    Key(KekRow),
    /// To the other `keys` verbs.
    Keys(KeyTable),
    /// To any.
    Refused(Refusal),
    /// To `reload`.
    Reloaded {},
    /// To `reseal`.
    Resealed {
        /// The device that sealed the node root.
        backend: String,
        /// The policy that the node root is bound to now.
        policy: String,
    },
    /// To `status`.
    Status(Box<Status>),
}

/// Why not, and what next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// See [`Class::label`].
    pub class: String,
    /// The whole chain.
    pub error: String,
    /// What to do.
    pub hint: String,
}

impl Refusal {
    /// From an error of ours.
    pub fn new(error: &dyn Error, class: Class, hint: &str) -> Self {
        Self { class: class.label().to_owned(), error: Chain(error).to_string(), hint: hint.to_owned() }
    }
}

/// The state of a running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// An Encrypt would be answered.
    pub healthy: bool,
    /// Release of the daemon.
    pub version: String,
    /// Of the daemon.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// From the configuration.
    pub cluster: String,
    /// The KMS socket.
    pub socket: String,
    /// What Status of KMS v2 reports.
    pub key_id: Option<String>,
    /// The same as kube-apiserver's metrics show it.
    pub key_id_hash: Option<String>,
    /// Encryptions with the active KEK; an upper bound.
    pub uses: Option<u64>,
    /// KEKs, and how many of them decrypt.
    pub keys: usize,
    /// See `keys`.
    pub keys_usable: usize,
    /// The device that the node root is sealed by; unknown while the keys are not open.
    #[serde(default)]
    pub seal_backend: Option<String>,
    /// What the node root is bound to; unknown while the keys are not open.
    pub seal_policy: Option<String>,
    /// An old copy of the state directory would be recognised.
    #[serde(default)]
    pub guarded: bool,
    /// Whom the recovery file is encrypted to; empty if there is none.
    #[serde(default)]
    pub recovery_recipients: Vec<String>,
    /// `hardware only`, `rooted` or `direct`.
    #[serde(default)]
    pub mode: String,
    /// In the order of the configuration.
    #[serde(default)]
    pub providers: Vec<ProviderRow>,
    /// Copies of KEKs by providers that are still to be made.
    #[serde(default)]
    pub wraps_owed: usize,
    /// Texts that were given out with fewer copies of their KEK than there should be; an upper bound. Only a new KEK and a
    /// migration of the cluster's storage replace them.
    #[serde(default)]
    pub texts_short_of_wraps: u64,
    /// Why the key_id does not name the providers' keys as they are now.
    #[serde(default)]
    pub waits: Option<String>,
    /// For how long the providers that are well have not been enough to wrap a new KEK.
    #[serde(default)]
    pub outage_seconds: u64,
    /// kube-apiserver is told not to write, by `write.on_outage`.
    #[serde(default)]
    pub stops_writes: bool,
    /// What the daemon has kept itself from; unknown in an older one.
    #[serde(default)]
    pub sandbox: Option<Enforced>,
    /// Warnings of the configuration.
    pub warnings: Vec<String>,
}

/// One provider for showing. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRow {
    /// As the operator calls it.
    pub name: String,
    /// As in the configuration.
    pub kind: String,
    /// `required`, `optional` or `decrypt-only`.
    pub role: String,
    /// Identity of its key, once it was seen.
    pub key: Option<String>,
    /// The version that the key_id names.
    pub version: Option<String>,
    /// Since it last did what was asked.
    pub answered_seconds_ago: Option<u64>,
    /// Class of its last failure, if it has failed since.
    pub class: Option<String>,
    /// What it said.
    pub error: Option<String>,
    /// Its circuit is open: no call is made for a while.
    pub held_back: bool,
}
