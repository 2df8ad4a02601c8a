//! Why the running configuration is kept, and what the operator does about it.

use std::io;
use std::time::Duration;

use crate::config::ConfigError;
use crate::keyring::KeeperError;
use crate::provider::ProviderError;
use crate::sandbox::{Lack, Lost};
use crate::types::random::RandomError;
use crate::types::{Class, ClusterId, Explained};

/// What the proof of one provider may take, login included. All are asked at once.
pub(in crate::daemon) const PROOF_TIMEOUT: Duration = Duration::from_secs(15);
/// What an operator waits for a reload that is under way: the proofs of most configurations.
pub(super) const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the running configuration is kept.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum ReloadError {
    #[error("another reload has been running for {} s", TURN_TIMEOUT.as_secs())]
    Busy,
    #[error("the configuration cannot be used{}", .0.few())]
    Config(#[source] ConfigError),
    #[error("this node was set up with the cluster `{was}`, which can never be changed")]
    Cluster { was: ClusterId },
    #[error("it needs rights that this process has given up permanently")]
    Confined {
        #[source]
        lack: Lack,
        /// `providers = "any"` runs.
        has_any: bool,
    },
    #[error("the keys do not allow it{}", shown(.silent))]
    Keeper {
        /// Who stays and has not shown that it opens something, and why.
        silent: Vec<String>,
        #[source]
        source: KeeperError,
    },
    #[error("provider `{provider}` did not prove itself")]
    Proof {
        provider: String,
        #[source]
        source: ProviderError,
    },
    #[error("provider `{provider}` did not prove itself within {} s", PROOF_TIMEOUT.as_secs())]
    Late { provider: String },
    #[error("provider `{provider}` did not prove itself: {lost}")]
    Lost { provider: String, lost: Lost },
    #[error("no key can be made for the test")]
    Random(#[source] RandomError),
    #[error("the providers' thread cannot be started")]
    Runtime(#[source] io::Error),
    #[error("the configuration is in force, except the changed files of a provider, which are retried")]
    Files(#[source] Box<Self>),
}

impl Explained for ReloadError {
    fn class(&self) -> Class {
        match self {
            Self::Busy => Class::Throttled,
            Self::Config(error) => error.class(),
            Self::Cluster { .. } | Self::Confined { .. } | Self::Lost { .. } => Class::Misconfigured,
            Self::Keeper { source, .. } => source.class(),
            Self::Proof { source, .. } => source.class(),
            Self::Files(why) => why.class(),
            Self::Late { .. } | Self::Random(_) | Self::Runtime(_) => Class::Unavailable,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Busy => "wait until the log has its result, then reload again",
            Self::Config(error) => error.hint(),
            Self::Cluster { .. } => {
                "put the name of the cluster back: with another one nodeseald would not start again"
            }
            Self::Confined { has_any: true, .. } => {
                "restart nodeseald (`systemctl restart nodeseal.service`: with its socket unit no request is lost), which grants what is configured by then; so that later files there need none, name their folders in `allow_paths` under [sandbox] before that restart"
            }
            Self::Confined { has_any: false, .. } => {
                "restart nodeseald (`systemctl restart nodeseal.service`: with its socket unit no request is lost), which grants what is configured by then; for providers that come later without one, write `providers = \"any\"` under [sandbox] before that restart"
            }
            Self::Keeper { source, .. } => source.hint(),
            Self::Proof { source, .. } => source.hint(),
            Self::Lost { .. } => {
                "restart nodeseald (`systemctl restart nodeseal.service`: with its socket unit no request is lost), which grants the folder as it is by then; if its owner removes and creates it at each start, name the folder above it in `allow_paths` under [sandbox] before that restart (for a socket: `providers = \"any\"`)"
            }
            Self::Files(why) => why.hint(),
            Self::Late { .. } => "check network and login of the provider, then reload again",
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Runtime(_) => "see the limits of processes, memory and descriptors",
        }
    }
}

impl From<KeeperError> for ReloadError {
    fn from(source: KeeperError) -> Self {
        Self::Keeper { silent: Vec::new(), source }
    }
}

fn shown(silent: &[String]) -> String {
    let all = silent.join("; ");
    if all.is_empty() { all } else { format!(" ({all})") }
}

impl ReloadError {
    /// Who has not proved itself.
    pub(super) fn provider(&self) -> Option<&str> {
        match self {
            Self::Proof { provider, .. } | Self::Late { provider } => Some(provider),
            _ => None,
        }
    }
}
