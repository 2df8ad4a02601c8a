//! Two kinds of failure: of one call ([`KeyringError`]), and of the keys' owner ([`KeeperError`]).

use super::kek_file::KekFileError;
use super::ring::MoveError;
use super::state_file::StateError;
use crate::envelope::EnvelopeError;
use crate::sandbox::memory::MemoryError;
use crate::seal::root::RootError;
use crate::store::StoreError;
use crate::types::random::RandomError;
use crate::types::{Class, KekId};

/// Why one Encrypt, Decrypt or Status was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The caller's bytes.
    #[error("the request does not fit what we wrote")]
    Envelope(#[source] EnvelopeError),
    /// 2^32 encryptions were made with the active KEK.
    #[error("the local KEK has reached its limit of encryptions")]
    Exhausted,
    /// Not unsealed yet, or never will be: the log says why.
    #[error("the keys are not unsealed")]
    Locked,
    /// No randomness for a nonce.
    #[error("no nonce can be made")]
    Random(#[source] RandomError),
    /// The next block of uses could not be written in time.
    #[error("the use counter cannot be written")]
    Reservation,
    /// The text is whole, and its KEK is not here.
    #[error("the text needs the local KEK {0}, which this node does not have")]
    UnknownKek(KekId),
}

impl KeyringError {
    /// Decides gRPC code and metric label.
    pub fn class(&self) -> Class {
        match self {
            Self::Envelope(_) => Class::Corrupt,
            Self::Exhausted | Self::Locked | Self::Random(_) | Self::Reservation => Class::Unavailable,
            Self::UnknownKek(_) => Class::NotFound,
        }
    }
}

/// Why the keys could not be opened or changed. Nothing on disk was lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// `init` on a node that was set up.
    #[error("this node is set up already")]
    AlreadySetUp,
    /// Another question to the sealing device is not answered yet.
    #[error("the sealing device is busy with another operation of ours")]
    Busy,
    /// The confirmation is not the id.
    #[error("the confirmation does not name the KEK")]
    Confirmation,
    /// The file of a KEK that is needed.
    #[error("the sealed copy of local KEK {kek} cannot be used")]
    KekFile {
        /// Which one.
        kek: KekId,
        /// In which way.
        #[source]
        source: KekFileError,
    },
    /// The file of a KEK that is needed is not there or damaged.
    #[error("the sealed copy of local KEK {kek} cannot be read")]
    KekMissing {
        /// Which one.
        kek: KekId,
        /// In which way.
        #[source]
        source: StoreError,
    },
    /// Nobody opened the keys yet.
    #[error("the keys are not unsealed")]
    Locked,
    /// Its sealed copy did not open when the service started.
    #[error("local KEK {0} is not in memory, since its sealed copy did not open")]
    NotOpened(KekId),
    /// No locked page.
    #[error("no memory for a key")]
    Memory(#[source] MemoryError),
    /// The states do not allow it.
    #[error("the KEK cannot be moved to that state")]
    Move(#[source] MoveError),
    /// No randomness.
    #[error("no key can be made")]
    Random(#[source] RandomError),
    /// The node root.
    #[error("the node root cannot be used")]
    Root(#[source] RootError),
    /// `state` does not fit this node.
    #[error("the file `state` cannot be used")]
    State(#[source] StateError),
    /// The state directory.
    #[error("the state directory cannot be used")]
    Store(#[source] StoreError),
}

impl KeeperError {
    /// Decides retry, health and exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::AlreadySetUp | Self::Confirmation | Self::Move(_) => Class::Denied,
            Self::KekFile { .. } | Self::NotOpened(_) | Self::State(_) => Class::Corrupt,
            Self::KekMissing { source, .. } | Self::Store(source) => source.class(),
            Self::Busy | Self::Locked | Self::Memory(_) | Self::Random(_) => Class::Unavailable,
            Self::Root(error) => error.class(),
        }
    }

    /// What the operator does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::AlreadySetUp => {
                "to make a new KEK: `nodeseal keys rotate`; a second init would make everything encrypted so far unreadable"
            }
            Self::Busy => "wait for the first operation to end; a device that never answers is given up after a minute",
            Self::Confirmation => "repeat the full id of the KEK behind --confirm",
            Self::KekFile { .. } | Self::KekMissing { .. } | Self::NotOpened(_) => {
                "restore the folder keyring/ from a backup of this node's state directory"
            }
            Self::Locked => "see the log of nodeseald for why the keys are not unsealed",
            Self::Memory(_) => "free memory, or raise the limit of locked memory",
            Self::Move(MoveError::Active) => {
                "make and activate another KEK first: `nodeseal keys rotate`, `nodeseal keys activate`"
            }
            Self::Move(MoveError::Pending) => {
                "activate it: `nodeseal keys activate ID`, or give it up: `nodeseal keys retire ID --confirm ID`"
            }
            Self::Move(MoveError::Former | MoveError::Destroyed) => "make a new KEK: `nodeseal keys rotate`",
            Self::Move(MoveError::Unknown) => "list the KEKs: `nodeseal keys list`",
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Root(error) => error.hint(),
            Self::State(StateError::Cluster(_)) => {
                "set `cluster` in nodeseal.toml back to the name that this node was set up with"
            }
            Self::State(_) => "restore the whole state directory from one backup of this node",
            Self::Store(error) => error.hint(),
        }
    }
}
