//! Two kinds of failure: of one call ([`KeyringError`]), and of the keys' owner ([`KeeperError`]).

use super::bundle::BundleError;
use super::kek_file::KekFileError;
use super::recovery::RecoveryError;
use super::ring::{AdoptError, MoveError};
use super::rooted::ProvidersError;
use super::state_file::StateError;
use crate::envelope::EnvelopeError;
use crate::sandbox::memory::MemoryError;
use crate::seal::client::SealerError;
use crate::seal::credentials::CredentialsError;
use crate::seal::duplicate::{ParentError, ScalarError};
use crate::seal::fault::FaultCode;
use crate::seal::root::RootError;
use crate::store::StoreError;
use crate::types::clock::UnixSeconds;
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
    /// The providers, where a call cannot do without them.
    #[error("the providers did not do what the call needs")]
    Providers(#[source] ProvidersError),
    /// No randomness for a nonce.
    #[error("no nonce can be made")]
    Random(#[source] RandomError),
    /// The next block of uses could not be written in time.
    #[error("the use counter cannot be written")]
    Reservation,
    /// The text is whole, and its KEK is not here.
    #[error("the text needs the local KEK {0}, which this node does not have")]
    UnknownKek(KekId),
    /// The keys are open, and no provider has wrapped a KEK of this node yet.
    #[error("no provider has wrapped a local KEK of this node yet")]
    Waiting,
}

impl KeyringError {
    /// Decides gRPC code and metric label.
    pub fn class(&self) -> Class {
        match self {
            Self::Envelope(_) => Class::Corrupt,
            Self::Providers(error) => error.class,
            Self::Exhausted | Self::Locked | Self::Random(_) | Self::Reservation | Self::Waiting => Class::Unavailable,
            Self::UnknownKek(_) => Class::NotFound,
        }
    }
}

const ROLLBACK: FaultCode = FaultCode::Rollback;

/// Why the keys could not be opened or changed. Nothing on disk was lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// `init` on a node that was set up.
    #[error("this node is set up already")]
    AlreadySetUp,
    /// Another question to the sealing device is not answered yet.
    #[error("the sealing device is busy with another operation of ours")]
    Busy,
    /// A request or a bundle.
    #[error("the file of another node cannot be used")]
    Bundle(#[source] BundleError),
    /// The confirmation is not the id.
    #[error("the confirmation does not name the KEK")]
    Confirmation,
    /// A credential.
    #[error("a credential cannot be stored or opened")]
    Credentials(#[source] CredentialsError),
    /// The device, asked for a counter, its storage key or an import.
    #[error("the sealing device did not do what was asked")]
    Device(#[source] SealerError),
    /// The TPM itself went back, or its counter was made anew by somebody else.
    #[error("the TPM's counter reads {value}, and the state directory knows of {expected}")]
    CounterBehind {
        /// What the counter reads.
        value: u64,
        /// What the state says.
        expected: u64,
    },
    /// Drawn once in four thousand million times.
    #[error("nothing can be made for the other node's TPM")]
    Duplicate(#[source] ScalarError),
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
    /// `recover` where nothing is lost.
    #[error("the keys of this node open: there is nothing to recover")]
    KeysOpen,
    /// A configuration without a provider that could open a KEK.
    #[error("no provider of the new configuration opens local KEK {kek}, which one of the present configuration does")]
    LastOpener {
        /// Which one.
        kek: KekId,
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
    /// A recovery file of another cluster.
    #[error("the recovery file belongs to cluster `{0}`")]
    OtherCluster(String),
    /// A storage key that nothing can be made for.
    #[error("keys cannot be encrypted to this TPM's storage key")]
    Parent(#[source] ParentError),
    /// No randomness.
    #[error("no key can be made")]
    Random(#[source] RandomError),
    /// The recovery file.
    #[error("the recovery file cannot be used")]
    Recovery(#[source] RecoveryError),
    /// `recover` has not finished.
    #[error("a recovery of this node was interrupted")]
    RecoveryPending,
    /// An old copy of the state directory.
    #[error("{}: {}: it was written at {written} and lacks at least {changes} later changes of keys; what was encrypted under keys made since does not open", ROLLBACK.code(), ROLLBACK.message(), written = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(*written)))]
    RolledBack {
        /// How far the counter is ahead. Changes that follow each other within the time of one count share it.
        changes: u64,
        /// When the copy was written; seconds since 1970.
        written: UnixSeconds,
    },
    /// The node root.
    #[error("the node root cannot be used")]
    Root(#[source] RootError),
    /// What the other node calls active was left here.
    #[error("the other node's keyring is older than this node's")]
    Stale(#[source] AdoptError),
    /// `state` does not fit this node.
    #[error("the file `state` cannot be used")]
    State(#[source] StateError),
    /// The state directory.
    #[error("the state directory cannot be used")]
    Store(#[source] StoreError),
    /// Not enough providers have wrapped it for the operator's rules.
    #[error("local KEK {kek} is not wrapped by enough providers yet; missing: {providers}")]
    Unwrapped {
        /// Which one.
        kek: KekId,
        /// Their names.
        providers: String,
    },
}

impl KeeperError {
    /// Decides retry, health and exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::AlreadySetUp
            | Self::Confirmation
            | Self::CounterBehind { .. }
            | Self::KeysOpen
            | Self::LastOpener { .. }
            | Self::Move(_)
            | Self::RecoveryPending
            | Self::RolledBack { .. }
            | Self::Stale(_) => Class::Denied,
            Self::OtherCluster(_) => Class::Misconfigured,
            Self::Bundle(error) => error.class(),
            Self::Credentials(error) => error.class(),
            Self::Device(error) => error.class(),
            Self::Duplicate(error) => error.class(),
            Self::Parent(error) => error.class(),
            Self::Recovery(error) => error.class(),
            Self::KekFile { .. } | Self::NotOpened(_) | Self::State(_) => Class::Corrupt,
            Self::KekMissing { source, .. } | Self::Store(source) => source.class(),
            Self::Busy | Self::Locked | Self::Memory(_) | Self::Random(_) | Self::Unwrapped { .. } => {
                Class::Unavailable
            }
            Self::Root(error) => error.class(),
        }
    }

    /// What the operator does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::AlreadySetUp => {
                "to make a new KEK: `nodeseal keys rotate`; a second init would make everything encrypted so far unreadable"
            }
            Self::Bundle(error) => error.hint(),
            Self::Busy => "wait for the first operation to end; a device that never answers is given up after a minute",
            Self::Confirmation => "repeat the full id of the KEK behind --confirm",
            Self::Credentials(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Duplicate(error) => error.hint(),
            Self::Parent(error) => error.hint(),
            Self::CounterBehind { .. } => FaultCode::CounterGone.hint(),
            Self::KeysOpen => {
                "if this device is to be given up, move the node to another first: `nodeseal reseal --to tpm2` or `--to pkcs11`"
            }
            Self::KekMissing { source: source @ StoreError::Newer { .. }, .. } => source.hint(),
            Self::KekFile { .. } | Self::KekMissing { .. } | Self::NotOpened(_) => {
                "restore the folder keyring/ from a backup of this node's state directory"
            }
            Self::LastOpener { .. } => {
                "keep the provider with write = false, rotate, migrate the cluster's storage and retire the KEK; or give it up: `nodeseal reload --abandon`"
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
            Self::OtherCluster(_) => {
                "set `cluster` in nodeseal.toml to that name, or take the recovery file of this cluster"
            }
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Recovery(error) => error.hint(),
            Self::RecoveryPending => "run `nodeseal recover` once more, with the same recovery file",
            Self::RolledBack { .. } => ROLLBACK.hint(),
            Self::Stale(_) => "let the other node accept a bundle of this one first",
            Self::Root(error) => error.hint(),
            Self::State(StateError::Cluster(_)) => {
                "set `cluster` in nodeseal.toml back to the name that this node was set up with"
            }
            Self::State(_) => "restore the whole state directory from one backup of this node",
            Self::Store(error) => error.hint(),
            Self::Unwrapped { .. } => {
                "see `nodeseal status` for what the providers said; it is tried again as soon as they answer"
            }
        }
    }
}
