//! The KMS API: v2 and v1beta1 on one unix socket. Alone names tonic and HTTP servers; the messages are those of `kms`.
//!
//! ```text
//! listen ▶ peer check ▶ paced reads ▶ authority fix ▶ HTTP/2 (hyper) ▶ admission ▶ v1 | v2 adapter ▶ keyring
//! ```
//!
//! Metrics have an endpoint, a thread and a runtime of their own ([`scrape`]).
//!
//! Everything else runs on one thread: a call is microseconds of work in memory. The only wait is for a block of uses (`keyring::uses`).

mod admission;
mod answer;
pub mod authority;
pub(crate) mod codec;
mod connections;
pub mod limits;
mod paced;
mod pb;
pub mod probe;
pub mod scrape;
mod serve;
mod status;
mod v1;
mod v2;

use std::path::PathBuf;

use crate::envelope::Api;

pub use serve::{Server, Shutdown};

/// The KMS socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where; under socket activation only for the log.
    pub socket: PathBuf,
    /// At most 0660.
    pub mode: u32,
    /// SO_PEERCRED: who may speak.
    pub allow_uids: Vec<u32>,
    /// Which APIs are served.
    pub apis: Vec<Api>,
    /// What KMS v2 calls itself.
    pub v2_version: V2Version,
}

/// The version in a v2 Status. It must not change while kube-apiserver runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum V2Version {
    /// Kubernetes 1.29 and later.
    #[default]
    V2,
    /// The only one that Kubernetes 1.27 and 1.28 accept; later ones still do (kmsv2/envelope.go in k8s.io/apiserver).
    V2beta1,
}

impl Settings {
    /// Owner and group: kube-apiserver runs as root, and a group can be let in.
    pub const DEFAULT_MODE: u32 = 0o660;
}
