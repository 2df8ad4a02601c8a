//! What the operator tool and the daemon say to each other, and how both speak to people.
//!
//! One line of JSON each way on the control socket (0600, root or our own user). Nothing secret ever crosses it. On the status socket (0660,
//! its group besides) the status and the metrics are told and nothing else.

#[cfg(feature = "etcd")]
mod asking;
mod client;
pub(crate) mod consent;
pub(crate) mod failed;
#[cfg(feature = "etcd")]
mod frames;
pub(crate) mod metrics;
pub(crate) mod needs;
pub(crate) mod program;
pub(crate) mod report;
pub(crate) mod say;
mod server;

use serde::{Deserialize, Serialize};

#[cfg(feature = "etcd")]
pub(crate) use asking::Asking;
pub(crate) use client::{ControlError, ask, ask_either};
pub(crate) use report::{Answer, Status};
pub(crate) use server::{Answering, Door, serve};

/// Bytes of one line, either way.
pub(crate) const LINE_MAX_BYTES: u64 = 1024 * 1024;

/// What the operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(clippy::enum_variant_names, reason = "each is named as its verb, and `bundle request` is one")]
pub(crate) enum Request {
    /// `bundle accept`
    BundleAccept {
        /// The file, in hexadecimal.
        bundle: String,
        /// As the operator compared it; absent for a bundle of a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
    },
    /// `bundle make --member`, and for each member `keys rotate --members`
    BundleFor { name: String },
    /// `bundle make`
    BundleMake {
        /// The file, in hexadecimal.
        request: String,
        /// As the operator compared it.
        fingerprint: String,
    },
    /// `bundle request`
    BundleRequest {
        /// What this node is called, for people.
        node: String,
    },
    /// `credentials remove`
    CredentialRemove { name: String },
    /// `credentials seal`: only what is sealed already crosses the socket.
    CredentialStore {
        name: String,
        /// The payload of its file, in hexadecimal.
        sealed: String,
    },
    /// `debug off`
    DebugOff {},
    /// `debug on`
    DebugOn {
        /// For how long.
        minutes: u8,
        /// Because of what.
        incident: String,
    },
    /// `debug status`
    DebugStatus {},
    /// What scans of etcd have seen.
    Evidence {},
    /// `etcd scan`, of a running etcd and complete.
    EtcdScanned {
        /// [`Scan`](crate::keyring::evidence::Scan), in hexadecimal.
        scan: String,
    },
    /// `etcd scan`: what follows is no line ([`crate::etcd::question`]).
    EtcdOpen {},
    /// `keys activate`
    KeysActivate {
        /// Of a KEK in pre-activation; absent: the one that there is.
        #[serde(default)]
        id: Option<String>,
        /// Also if other nodes have the active one and not this one.
        #[serde(default)]
        not_shared: bool,
        /// Of members, in hexadecimal. Left out when empty: older daemons know no such field.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        receipts: Vec<String>,
        /// Only if every member has shown that it has it. Left out when false.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        when_all_have: bool,
    },
    /// `keys list`
    KeysList {},
    /// `keys retire`
    KeysRetire {
        /// Of a KEK that is not active.
        id: String,
        /// The id once more, typed by a person.
        confirm: String,
        /// Keep decrypting with it.
        compromised: bool,
        /// Never turn to it, and keep decrypting with it. Left out when false: older daemons know no such field.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        give_up: bool,
        /// Destroy it, also if another node had it and might have turned to it. Left out when false.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        not_shared: bool,
        /// Destroy it without a scan of etcd. Left out when false.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_scan: bool,
        /// There are no backups of etcd from before this time, in seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backups_before: Option<u64>,
    },
    /// `keys rotate`
    KeysRotate {},
    /// `members add`
    MembersAdd {
        /// What `members identity` has written on the other node, in hexadecimal.
        identity: String,
        /// As the operator compared it.
        fingerprint: String,
        /// Also in place of a member of that name that had another TPM. Left out when false.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replace: bool,
    },
    /// `members identity`
    MembersIdentity {
        /// What this node is called.
        name: String,
    },
    /// `members list`
    MembersList {},
    /// `members remove`
    MembersRemove { name: String },
    /// `bundle accept --receipt`
    Receipt {},
    /// `recover --rehearse`: it was done, and everything opened.
    Rehearsed {},
    /// `metrics`
    Metrics {},
    /// `reload`
    Reload {
        /// Also if a KEK is left that no provider opens.
        abandon: bool,
        /// Without a scan of etcd that speaks for it. Left out when false.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_scan: bool,
        /// There are no backups of etcd from before this time, in seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backups_before: Option<u64>,
    },
    /// `reseal`
    Reseal {
        /// The device to move to; absent: the configured one.
        to: Option<String>,
        /// Whom the recovery file is encrypted to from now on; absent: as before, empty: nobody.
        recipients: Option<Vec<String>>,
        /// The TPM's storage root key may be another one than before. Left out when false: older daemons know no such field.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        new_parent: bool,
    },
    /// `rotate-root`
    RotateRoot {
        /// Only show what would be done.
        dry_run: bool,
        /// Even without a recovery file.
        without_recovery_file: bool,
    },
    /// `status`
    Status {},
    /// `status --deep`
    StatusDeep {},
}

impl Request {
    /// It waits for nobody, changes nothing, and may be asked at each door.
    pub(crate) const fn only_looks(&self) -> bool {
        matches!(self, Self::Status {} | Self::Metrics {})
    }
}
