//! Answers of the daemon, and the stable schema behind `--json`: fields are only ever added.

use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::keyring::keeper::{KekRow, KeyTable};
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
    /// Warnings of the configuration.
    pub warnings: Vec<String>,
}
