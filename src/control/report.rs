//! Answers of the daemon: fields are only ever added. What `--json` makes of them is the tool's affair (docs/operations/json.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::family::Family;
use crate::keyring::evidence::Scan;
use crate::keyring::keeper::{CheckReport, KekRow, KeyTable, MemberRow, Renewed};
use crate::sandbox::Enforced;
use crate::types::clock::UnixSeconds;
use crate::types::{Chain, Explained};

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// To `bundle request` and `bundle make`: a file, in hexadecimal.
    File(String),
    /// To `credentials seal`.
    CredentialStored {},
    /// To `credentials remove`.
    CredentialRemoved {},
    /// What scans of etcd have seen, the oldest first, and when a recovery file was last rehearsed.
    Evidence {
        /// In seconds since 1970.
        rehearsed: Option<UnixSeconds>,
        scans: Vec<Scan>,
        /// Since when kube-apiserver is told what it is told now, in seconds since 1970.
        #[serde(default)]
        turned: UnixSeconds,
    },
    /// To the `debug` verbs.
    Debug(DebugReport),
    /// To `etcd scan`: questions may follow.
    EtcdOpening {},
    /// To `keys rotate`.
    Key(KekRow),
    /// To the other `keys` verbs.
    Keys(KeyTable),
    /// To `metrics`.
    Metrics {
        status: Box<Status>,
        /// What was counted, which no status tells.
        measured: Vec<Family>,
    },
    /// To the `members` verbs.
    Members(Vec<MemberRow>),
    /// To any.
    Refused(Refusal),
    /// To `reload`.
    Reloaded {
        /// See [`Status::pending`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pending: Vec<Pending>,
    },
    /// To `reseal`.
    Resealed {
        /// The device that sealed the node root.
        backend: String,
        /// The policy that the node root is bound to now.
        policy: String,
    },
    /// To `rotate-root`.
    RootRotated(RootRow),
    /// To `status`.
    Status(Box<Status>),
    /// To `status --deep`.
    Checked(CheckReport),
}

/// The level of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DebugReport {
    /// The configured one.
    pub level: String,
    /// Because of what it is raised; absent: it is not.
    pub incident: Option<String>,
    /// Until when.
    pub until: Option<UnixSeconds>,
}

/// What `rotate-root` has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootRow {
    /// The root that was left, 32 hexadecimal digits.
    pub(crate) old: String,
    /// The one that counts now; absent for a dry run.
    pub(crate) new: Option<String>,
    pub(crate) keks: usize,
    pub(crate) credentials: usize,
}

impl Answer {
    pub(crate) fn root_rotated(renewed: &Renewed) -> Self {
        let Renewed { old, new, keks, credentials } = renewed;
        let new = new.as_ref().map(ToString::to_string);
        Self::RootRotated(RootRow { old: old.to_string(), new, keks: *keks, credentials: *credentials })
    }
}

/// Why not, and what next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// See [`Class::label`](crate::types::Class::label).
    pub(crate) class: String,
    pub(crate) error: String,
    /// The same, cause by cause; empty in the answer of an older daemon.
    #[serde(default)]
    pub(crate) chain: Vec<String>,
    pub(crate) hint: String,
}

impl Refusal {
    pub(crate) fn new(error: &dyn Explained) -> Self {
        let (chain, class, hint) = (Chain(error).said(), error.class().label(), error.hint());
        Self { class: class.to_owned(), error: chain.join(": "), chain, hint: hint.to_owned() }
    }
}

/// The state of a running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// An Encrypt would be answered.
    pub(crate) healthy: bool,
    /// Release of the daemon.
    pub(crate) version: String,
    /// Of the daemon.
    pub(crate) pid: u32,
    /// Seconds since it started.
    pub(crate) uptime_seconds: u64,
    /// From the configuration.
    pub(crate) cluster: String,
    pub(crate) socket: String,
    /// What Status of KMS v2 reports.
    pub(crate) key_id: Option<String>,
    /// The same as kube-apiserver's metrics show it.
    pub(crate) key_id_hash: Option<String>,
    /// Encryptions with the active KEK; an upper bound.
    pub(crate) uses: Option<u64>,
    /// The active KEK is due for replacement, by age or by use.
    #[serde(default)]
    pub(crate) overdue: bool,
    /// When the active KEK is due by its age, in seconds since 1970; unknown while the keys are not open.
    #[serde(default)]
    pub(crate) due: Option<UnixSeconds>,
    /// What is due is replaced without being asked for; unknown in an older daemon.
    #[serde(default)]
    pub(crate) rotates_by_itself: Option<bool>,
    /// A KEK in pre-activation.
    #[serde(default)]
    pub(crate) pending_kek: Option<KekRow>,
    /// The clock is behind every release of this program, or behind the birth of a KEK that is in use.
    #[serde(default)]
    pub(crate) clock_doubted: bool,
    /// The node has no KEK yet, and waits for the bundle of another one.
    #[serde(default)]
    pub(crate) awaits_bundle: bool,
    /// Why the last attempt to open the keys failed; absent once they are open.
    #[serde(default)]
    pub(crate) seal_error: Option<String>,
    /// What the operator does next about it.
    #[serde(default)]
    pub(crate) seal_hint: Option<String>,
    /// When they are tried again; 0 while an attempt is under way.
    #[serde(default)]
    pub(crate) seal_retry_in_seconds: Option<u64>,
    /// The file that has to change before that.
    #[serde(default)]
    pub(crate) seal_waits_for_file: Option<String>,
    /// What stands below of keys, seal, rollback, recovery file and debts is known: the keys are open, and the keeper has answered.
    #[serde(default = "known")]
    pub(crate) keys_known: bool,
    /// KEKs, and how many of them decrypt.
    pub(crate) keys: usize,
    pub(crate) keys_usable: usize,
    /// The device that the node root is sealed by; unknown while the keys are not open.
    #[serde(default)]
    pub(crate) seal_backend: Option<String>,
    /// What the node root is bound to; unknown while the keys are not open.
    pub(crate) seal_policy: Option<String>,
    /// The device has opened the node root when it was asked last; absent while the keys are not open.
    #[serde(default)]
    pub(crate) would_open: Option<bool>,
    /// An old copy of the state directory would be recognised.
    #[serde(default)]
    pub(crate) guarded: bool,
    /// Whom the recovery file is encrypted to; empty if there is none.
    #[serde(default)]
    pub(crate) recovery_recipients: Vec<String>,
    /// When the recovery file was written last, in seconds since 1970: what was copied before is not the same.
    #[serde(default)]
    pub(crate) recovery_written: Option<UnixSeconds>,
    /// When a recovery file with all keys was last opened to see what it opens, in seconds since 1970.
    #[serde(default)]
    pub(crate) recovery_rehearsed: Option<UnixSeconds>,
    /// A KEK is younger than that.
    #[serde(default)]
    pub(crate) rehearsal_lacks_kek: bool,
    /// When etcd was last scanned whole, in seconds since 1970.
    #[serde(default)]
    pub(crate) etcd_scanned: Option<UnixSeconds>,
    /// The recovery file could not be written as it should be.
    #[serde(default)]
    pub(crate) recovery_owed: bool,
    /// Fingerprint of the key that signs this node's recovery files; unknown while the keys are not open.
    #[serde(default)]
    pub(crate) recovery_maker: Option<String>,
    /// `hardware only`, `rooted` or `direct`.
    #[serde(default)]
    pub(crate) mode: String,
    /// In the order of the configuration.
    #[serde(default)]
    pub(crate) providers: Vec<ProviderRow>,
    /// Missing copies of KEKs, which the providers still have to make.
    #[serde(default)]
    pub(crate) wraps_owed: usize,
    /// Ciphertexts that were given out with too few copies of their KEK; an upper bound. Only a new KEK and a
    /// migration of the cluster's storage replace them.
    #[serde(default)]
    pub(crate) texts_short_of_wraps: u64,
    /// Of each key that may open something stored and that no configured provider has, what it is and why it may be needed.
    #[serde(default)]
    pub(crate) lost_keys: Vec<String>,
    /// Why the key_id does not name the providers' keys as they are now.
    #[serde(default)]
    pub(crate) waits: Option<String>,
    /// What `write.epoch` has put into the key_id; absent in one that names no keys of providers.
    #[serde(default)]
    pub(crate) epoch: Option<u32>,
    /// When the calendar ends it, in seconds since 1970; absent if only the operator does.
    #[serde(default)]
    pub(crate) epoch_turns: Option<UnixSeconds>,
    /// For how long too few healthy providers have been there to wrap a new KEK.
    #[serde(default)]
    pub(crate) outage_seconds: u64,
    /// kube-apiserver is told not to write, by `write.on_outage`.
    #[serde(default)]
    pub(crate) stops_writes: bool,
    /// Decrypts that were refused since the start, by class.
    #[serde(default)]
    pub(crate) decrypts_refused: BTreeMap<String, u64>,
    /// Texts that need a KEK which neither this node nor a provider has; absent if there was none since the start.
    #[serde(default)]
    pub(crate) without_kek: Option<WithoutKek>,
    /// Lines of the log that were dropped since the start, because nobody read them.
    #[serde(default)]
    pub(crate) log_lines_dropped: u64,
    /// What the daemon has kept itself from; unknown in an older one.
    #[serde(default)]
    pub(crate) sandbox: Option<Enforced>,
    /// Warnings of the configuration.
    pub(crate) warnings: Vec<String>,
    /// What the configuration says and what does not run yet, as far as the keys are open.
    #[serde(default)]
    pub(crate) pending: Vec<Pending>,
}

/// See [`Status::without_kek`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WithoutKek {
    /// Decrypts that were refused for it.
    pub(crate) decrypts: u64,
    /// What the last one needs, 32 hexadecimal digits.
    pub(crate) kek: String,
    /// When the last one came, in seconds since 1970.
    pub(crate) last: UnixSeconds,
}

/// [`Status::mode`] of a node without providers.
pub(crate) const HARDWARE_ONLY: &str = "hardware only";

/// A part of the configuration that waits for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// A key or a table.
    pub(crate) key: String,
    /// What puts it in force: `restart nodeseald`, `nodeseal reseal`, or `nodeseal reload` for what was refused.
    pub(crate) until: String,
}

impl Pending {
    /// A part that is read at the start alone.
    pub(crate) fn restart(key: &str) -> Self {
        Self { key: key.to_owned(), until: "restart nodeseald".to_owned() }
    }

    /// A part that was refused, and is tried again.
    pub(crate) fn reload(key: &str) -> Self {
        Self { key: key.to_owned(), until: "nodeseal reload".to_owned() }
    }

    /// A part that the node root is sealed by.
    pub(crate) fn reseal(key: &str) -> Self {
        Self { key: key.to_owned(), until: "nodeseal reseal".to_owned() }
    }
}

impl Pending {
    pub(crate) fn is_reload(&self) -> bool {
        *self == Self::reload(&self.key)
    }

    pub(crate) fn is_reseal(&self) -> bool {
        *self == Self::reseal(&self.key)
    }
}

impl std::fmt::Display for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waits for: {}", self.key, self.until)
    }
}

/// Older daemons reported values that they did not know as if they did.
const fn known() -> bool {
    true
}

/// One provider for showing. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProviderRow {
    /// As the operator calls it.
    pub(crate) name: String,
    /// As in the configuration.
    pub(crate) kind: String,
    /// `required`, `optional` or `decrypt-only`.
    pub(crate) role: String,
    /// It is handed what another plugin has made.
    #[serde(default)]
    pub(crate) opens_foreign: bool,
    /// Identity of its key, once it was seen.
    pub(crate) key: Option<String>,
    /// The version that the key_id names.
    pub(crate) version: Option<String>,
    /// Since it last did what was asked.
    pub(crate) answered_seconds_ago: Option<u64>,
    /// Class of its last failure, if it has failed since.
    pub(crate) class: Option<String>,
    /// What it said.
    pub(crate) error: Option<String>,
    /// Its circuit is open: no call is made for a while.
    pub(crate) held_back: bool,
    /// Until the login ends, if it is not renewed before; absent without one, and for one without an end.
    #[serde(default)]
    pub(crate) login_ends_in_seconds: Option<u64>,
    /// Until its TLS certificate ends, as it was last shown.
    #[serde(default)]
    pub(crate) certificate_ends_in_seconds: Option<u64>,
}
