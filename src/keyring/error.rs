//! Two kinds of failure: of one call ([`KeyringError`]), and of the keys' owner ([`KeeperError`]).

use std::path::PathBuf;

mod hints;

use super::bundle::BundleError;
use super::evidence::NoProof;
use super::kek_file::KekFileError;
use super::recovery::RecoveryError;
use super::ring::{AdoptError, MoveError};
use super::rooted::ProvidersError;
use super::state_file::StateError;
use crate::envelope::EnvelopeError;
use crate::provider::ProviderKind;
use crate::sandbox::memory::MemoryError;
use crate::seal::client::SealerError;
use crate::seal::credentials::CredentialStoreError;
use crate::seal::duplicate::{ParentError, ScalarError};
use crate::seal::fault::FaultCode;
use crate::seal::root::RootError;
use crate::store::StoreError;
use crate::types::clock::UnixSeconds;
use crate::types::random::RandomError;
use crate::types::{Class, Explained, KekId};

/// Why one Encrypt, Decrypt or Status was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A node that has no KEK yet.
    #[error("this node waits for the keys of another node")]
    AwaitsBundle,
    /// As many calls wait for the providers as may.
    #[error("{} calls wait for the providers already", super::WAITING_MAX)]
    Crowded,
    /// The caller's bytes.
    #[error("the request does not match what Nodeseal wrote")]
    Envelope(#[source] EnvelopeError),
    /// 2^32 encryptions were made with the active KEK.
    #[error("the local KEK has reached its limit of encryptions")]
    Exhausted,
    /// Not unsealed yet, or never will be: the log says why.
    #[error("the keys are still sealed")]
    Locked,
    /// The providers, where a call cannot do without them.
    #[error("the providers could not serve the call")]
    Providers(#[source] ProvidersError),
    /// No randomness for a nonce.
    #[error("no nonce can be made")]
    Random(#[source] RandomError),
    /// The next block of uses could not be written in time.
    #[error("the use counter cannot be written")]
    Reservation,
    /// The text is whole, and its KEK is not here.
    #[error("the ciphertext needs the local KEK {0}, which this node does not have")]
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
            Self::Providers(error) => error.class(),
            Self::Crowded => Class::Throttled,
            Self::AwaitsBundle
            | Self::Exhausted
            | Self::Locked
            | Self::Random(_)
            | Self::Reservation
            | Self::Waiting => Class::Unavailable,
            Self::UnknownKek(_) => Class::NotFound,
        }
    }
}

const ROLLBACK: FaultCode = FaultCode::Rollback;

/// Why the keys could not be opened or changed. Nothing on disk was lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// `init` on a node that was set up.
    #[error("this node is already set up")]
    AlreadySetUp,
    /// Another question to the sealing device is not answered yet.
    #[error("the sealing device is busy with another operation of Nodeseal")]
    Busy,
    /// Its disk or its device does not come back.
    #[error("the keeper of the keys has not answered for {} s", .0.as_secs())]
    Hung(std::time::Duration),
    /// The same before it came to this request, which it will not carry out.
    #[error("the keeper of the keys has not answered for {} s, and had not begun with this: nothing was done", .0.as_secs())]
    NotBegun(std::time::Duration),
    /// A request or a bundle.
    #[error("the file of another node cannot be used")]
    Bundle(#[source] BundleError),
    /// The confirmation is not the id.
    #[error("the confirmation does not name the KEK")]
    Confirmation,
    /// A credential.
    #[error("a credential cannot be stored or opened")]
    Credentials(#[source] CredentialStoreError),
    /// The device, asked for a counter, its storage key or an import.
    #[error("the sealing device could not serve the request")]
    Device(#[source] SealerError),
    /// The TPM itself went back, or its counter was made anew by somebody else.
    #[error("the TPM's counter reads {value}, and the state directory knows of {expected}")]
    CounterBehind {
        /// What the counter reads.
        value: u64,
        /// What the state says.
        expected: u64,
    },
    /// A state from before the guard, where the guard's counter is there.
    #[error("{}: {}: it was written at {written}, before the state directory had a guard", ROLLBACK.code(), ROLLBACK.message(), written = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(*written)))]
    BeforeGuard {
        /// When the copy was written; seconds since 1970.
        written: UnixSeconds,
    },
    /// Another seal of the same node root than the one that the state was written with.
    #[error("node/root.seal is not the seal that this node made last: an older one was restored")]
    OtherSeal,
    /// A former KEK does not open, and the recovery file may have the last copy of it.
    #[error("local KEK {0} does not open here, and recovery.age may hold its last copy")]
    MayBeInRecoveryFile(KekId),
    /// The folder of an earlier root has keys of its time.
    #[error("a recovery has kept the earlier files in {folder}, and the KEK may be among them", folder = .0.display())]
    KeptFolder(PathBuf),
    /// Recorded as destroyed, and something that has its key could not be removed.
    #[error("local KEK {kek} is recorded as destroyed, but its key could not be removed from the disk")]
    NotGone {
        /// Which one.
        kek: KekId,
        /// Why not.
        #[source]
        source: Box<KeeperError>,
    },
    /// `init` where files of an earlier node lie.
    #[error("there are files of an earlier node here: {0}")]
    LeftOver(String),
    /// `recover` while the old keys may open again.
    #[error("the keys of this node may still open")]
    MayStillOpen(#[source] Box<KeeperError>),
    /// `recover` that has to be told which KEK encrypts.
    #[error("other nodes have the active KEK of this recovery file")]
    SharedRecovery,
    /// `recover --abort` where nothing was begun.
    #[error("no recovery of this node was interrupted")]
    NothingInterrupted,
    /// The pending KEK is on this node alone, and the active one on others too.
    #[error("other nodes have the active KEK but not local KEK {0}")]
    NotShared(KekId),
    /// Members that were given the pending KEK, and nobody has shown that they have it.
    #[error("there is no receipt of {0} for this KEK")]
    NoReceipt(String),
    /// Of another root, damaged, or changed.
    #[error("the file of member {name} cannot be used")]
    MemberFile {
        /// As the node calls itself.
        name: String,
        /// In which way.
        #[source]
        source: BundleError,
    },
    /// Two names for one node.
    #[error("this is the identity of member {0}, under another name")]
    MemberTwice(String),
    /// `members add` of a name that is known with another storage key.
    #[error("member {0} is known with another TPM than this identity has")]
    OtherTpm(String),
    /// A token has no key that others could encrypt to.
    #[error("this node is sealed by a token, and keys of other nodes are encrypted to a TPM")]
    TokenCannotAsk,
    /// `members add` of what this node has made.
    #[error("this is the identity of this node itself")]
    OwnIdentity,
    /// A name that was never added.
    #[error("there is no member {0}")]
    UnknownMember(String),
    /// `members remove` of a name that several nodes have.
    #[error("several nodes have that name: {0}")]
    SeveralNodes(String),
    /// The pending KEK is on other nodes too, or came from one.
    #[error(
        "other nodes have local KEK {0} and can still activate it: without it this node could not read what they write then"
    )]
    PendingElsewhere(KekId),
    /// This node sees its own activation alone.
    #[error("other nodes have local KEK {0} too, and may still write under it: this node cannot see what they use")]
    InUseElsewhere(KekId),
    /// Nothing that was seen of etcd speaks for it.
    #[error("local KEK {kek} stays: {why}")]
    NoProof {
        /// It.
        kek: KekId,
        /// What is missing.
        why: NoProof,
    },
    /// The same of a key at a provider.
    #[error("the way to the {kind} key {key} stays: {why}", kind = kind.label())]
    NoProofOfKey {
        /// Of the provider.
        kind: ProviderKind,
        /// Its identity.
        key: String,
        /// What is missing.
        why: NoProof,
    },
    /// Of another cluster, as far as can be told.
    #[error(
        "the scan counted no object under any KEK of this node, so it may be of another cluster or of a part of etcd"
    )]
    ScanElsewhere,
    /// A scan that says what no scan can say.
    #[error("the scan names more keys than are kept, or something that is no key")]
    UnfitScan,
    /// The key_id names keys of providers, and has not moved since the KEK was active.
    #[error(
        "local KEK {0} was active under the key_id that is reported now: kube-apiserver may still encrypt with what it protects, and a storage migration rewrites nothing before the key_id changes"
    )]
    UnderKeyId(KekId),
    /// A node that has the active KEK was forgotten.
    #[error("nodes that have the active KEK were not given local KEK {kek}: {lacking}")]
    NotAllWereGiven {
        /// The pending one.
        kek: KekId,
        /// Which ones were not, as far as their names are known.
        lacking: String,
    },
    /// `keys activate` without an id.
    #[error("no KEK is in pre-activation")]
    NothingPending {
        /// Other nodes have the active KEK, and one of them may have made the next one.
        is_shared: bool,
    },
    /// A node that has no KEK of its own yet.
    #[error("this node waits for a bundle of another node")]
    AwaitsBundle,
    /// A write of `current` failed, and what it says now is not known.
    #[error("it is unknown which node root is valid, because the file `current` could not be written")]
    Unsure,
    /// `rotate-root` without anything to fall back to.
    #[error("there is no recovery file, and the keys of this node would depend on one new seal only")]
    NoRecoveryFile,
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
    #[error(
        "no provider of the new configuration is known to unwrap local KEK {kek}, but one of the present configuration is"
    )]
    LastOpener {
        /// Which one.
        kek: KekId,
    },
    /// A configuration without a provider that could open what others, or this node in mode "direct", may have stored.
    #[error(
        "provider `{provider}` may be the only one that opens some stored data: no other provider of the new configuration has shown that it opens what {key} has made"
    )]
    OnlyWay {
        /// As the present configuration calls it.
        provider: String,
        /// Its identity.
        key: String,
    },
    /// A configuration that hands what Nodeseal has not made to nobody any more.
    #[error(
        "provider `{provider}` opens what another plugin has encrypted, and no other provider of the new configuration does"
    )]
    OnlyForeign {
        /// As the present configuration calls it.
        provider: String,
    },
    /// Nobody opened the keys yet.
    #[error("the keys are still sealed")]
    Locked,
    /// Its sealed copy did not open when the service started.
    #[error("local KEK {0} is not in memory, because its sealed copy did not open")]
    NotOpened(KekId),
    /// No locked page.
    #[error("no memory for a key")]
    Memory(#[source] MemoryError),
    /// The states do not allow it.
    #[error("the state of the KEK cannot be changed")]
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
    /// `recover` with a KEK that has encrypted too much already.
    #[error("local KEK {0} has no uses left for a node that shares it")]
    UsedUp(KekId),
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
    /// The token has refused our PIN.
    pub(super) fn is_wrong_pin(&self) -> bool {
        let (Self::Root(RootError::Sealer(SealerError::Device(fault))) | Self::Device(SealerError::Device(fault))) =
            self
        else {
            return false;
        };
        fault.code == FaultCode::HsmPin
    }

    /// A file of a KEK could not be read, and is not lost: another owner, no descriptor, no memory.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::KekMissing { source: StoreError::Newer { .. }, .. } => false,
            Self::KekMissing { source, .. } => !source.is_lost(),
            _ => false,
        }
    }
}
