//! How the rest of the program asks the keeper: questions over a channel, each with its own way back.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::keyring::KeeperError;
use crate::keyring::epoch::Record;
use crate::keyring::keeper::bundles::Imported;
use crate::keyring::keeper::reseal::Resealed;
use crate::keyring::live::LiveKek;
use crate::keyring::recovery::Recipient;
use crate::keyring::ring::RetireTo;
use crate::keyring::rooted::Rooted;
use crate::provider::KeyState;
use crate::provider::set::WrapOutcome;
use crate::seal::client::SealerError;
use crate::seal::root::{NodeRoot, RootError, SealedRoot};
use crate::types::clock::UnixSeconds;
use crate::types::{Backend, CredentialName, KekId, SealPolicy, SealTo, Secret};

/// `status` is for when something is wrong, and must not hang with it.
const OVERVIEW_TIMEOUT: Duration = Duration::from_secs(1);

/// One KEK for showing. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KekRow {
    /// 32 hexadecimal digits.
    pub id: String,
    /// SP 800-57's word.
    pub state: String,
    /// What kube-apiserver stores beside texts of this KEK; empty for one that has served under key_ids of providers.
    pub key_id: String,
    /// Seconds since 1970.
    pub created: UnixSeconds,
    /// Seconds since 1970 of the last change of state; for the active KEK its activation.
    pub since: UnixSeconds,
    /// Encryptions that may have been made; an upper bound.
    pub uses: u64,
    /// Other nodes have it too.
    #[serde(default)]
    pub shared: bool,
    /// Copies that providers have made.
    #[serde(default)]
    pub wraps: usize,
}

/// All KEKs for showing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyTable {
    /// What Status reports.
    pub key_id: String,
    /// The active one first.
    pub keys: Vec<KekRow>,
}

/// What `status` shows of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// KEKs that the node knows of, without those that were destroyed.
    pub keks: usize,
    /// Those in memory.
    pub usable: usize,
    /// The kind of device that sealed the node root.
    pub backend: Option<Backend>,
    /// What the node root is bound to.
    pub policy: SealPolicy,
    /// An old copy of the state directory would be recognised.
    pub guarded: bool,
    /// Whom the recovery file is encrypted to; empty if there is none.
    pub recipients: Vec<String>,
    /// Of providers.
    pub roots: RootsReport,
}

/// What the keeper knows of providers and of the copies that they have made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootsReport {
    /// Their keys.
    pub records: Vec<Record>,
    /// Copies that are still to be made: one for each KEK and provider.
    pub owed: usize,
    /// Texts that were given out with fewer copies; an upper bound.
    pub short_texts: u64,
    /// Why the key_id does not name the providers' keys as they are now.
    pub waits: Option<String>,
}

/// What is to be made anew around the same keys.
#[derive(Clone, Debug)]
pub struct ResealOrder {
    /// By which device, under which policy.
    pub to: SealTo,
    /// NV index of the counter that guards the state from now on, if any.
    pub guard: Option<u32>,
    /// Whom the recovery file is encrypted to from now on; absent: as before.
    pub recipients: Option<Vec<Recipient>>,
}

pub(super) type Reply<T> = Sender<Result<T, KeeperError>>;

/// A question, or an order without an answer.
pub(super) enum Command {
    Activate(KekId, Reply<KeyTable>),
    BundleAccept(Vec<u8>, String, Reply<KeyTable>),
    BundleImported(Reply<KeyTable>, Box<Imported>),
    BundleMake(Vec<u8>, String, Reply<Vec<u8>>),
    BundleRequest(String, Reply<Vec<u8>>),
    BundleRequested(String, Reply<Vec<u8>>, Result<Vec<u8>, SealerError>),
    /// Providers, and whether copies that none of them opens are given up.
    Configure(Option<Arc<Rooted>>, bool, Reply<()>),
    CredentialOpen(CredentialName, Reply<Secret>),
    CredentialReplace(CredentialName, Secret, Reply<()>),
    CredentialStore(CredentialName, Vec<u8>, Reply<()>),
    /// The counter that guards the state.
    Counted(Result<u64, SealerError>),
    /// A KEK of another node.
    Keep(Arc<LiveKek>),
    List(Reply<KeyTable>),
    Opened(Purpose, Result<NodeRoot, RootError>),
    Overview(Reply<Overview>),
    /// A provider's name, and its key if it told it.
    Probed(String, Option<KeyState>),
    Reseal(ResealOrder, Reply<SealedRoot>),
    Resealed(Reply<SealedRoot>, Box<Resealed>),
    Reserve,
    Retire(KekId, RetireTo, Reply<KeyTable>),
    Rotate(Reply<KekRow>),
    Seen(Vec<(String, KeyState)>),
    Stop,
    Wrapped(KekId, Box<WrapOutcome>, Purpose),
}

/// What a node root was opened for, or a KEK was wrapped.
pub(super) enum Purpose {
    /// A copy that is owed.
    Debt,
    /// Another key_id.
    Epoch,
    /// A sealed copy of other nodes' KEKs.
    Keep,
    Rotate(Reply<KekRow>),
    RotateSinceDue,
}

/// Asks the keeper. Cheap to clone; every question blocks until it is answered.
#[derive(Clone)]
pub struct KeeperHandle(pub(super) Sender<Command>);

impl KeeperHandle {
    /// All KEKs with their states.
    pub fn list(&self) -> Result<KeyTable, KeeperError> {
        self.ask(Command::List)
    }

    /// Makes a KEK in pre-activation.
    pub fn rotate(&self) -> Result<KekRow, KeeperError> {
        self.ask(Command::Rotate)
    }

    /// Turns to a KEK in pre-activation.
    pub fn activate(&self, id: KekId) -> Result<KeyTable, KeeperError> {
        self.ask(|reply| Command::Activate(id, reply))
    }

    /// Marks or destroys a KEK that is not active. The caller has asked for confirmation.
    pub fn retire(&self, id: KekId, to: RetireTo) -> Result<KeyTable, KeeperError> {
        self.ask(|reply| Command::Retire(id, to, reply))
    }

    /// Counts, and the policy of the seal. Does not wait for a device that is asked to open the keys.
    pub fn overview(&self) -> Result<Overview, KeeperError> {
        let (reply, answer) = channel();
        self.0.send(Command::Overview(reply)).map_err(|_| KeeperError::Locked)?;
        answer.recv_timeout(OVERVIEW_TIMEOUT).map_err(|_| KeeperError::Locked)?
    }

    /// A request for the keys of another node; `node` is this one's name, for people.
    pub fn bundle_request(&self, node: String) -> Result<Vec<u8>, KeeperError> {
        self.ask(|reply| Command::BundleRequest(node, reply))
    }

    /// All keys, for the node that made the request. The operator has compared the request's fingerprint.
    pub fn bundle_make(&self, request: Vec<u8>, fingerprint: String) -> Result<Vec<u8>, KeeperError> {
        self.ask(|reply| Command::BundleMake(request, fingerprint, reply))
    }

    /// Takes over the keys of another node. The operator has compared the bundle's fingerprint.
    pub fn bundle_accept(&self, bundle: Vec<u8>, fingerprint: String) -> Result<KeyTable, KeeperError> {
        self.ask(|reply| Command::BundleAccept(bundle, fingerprint, reply))
    }

    /// Stores a credential that was sealed under this node's root.
    pub fn store_credential(&self, name: CredentialName, payload: Vec<u8>) -> Result<(), KeeperError> {
        self.ask(|reply| Command::CredentialStore(name, payload, reply))
    }

    /// The bytes that were sealed under this name.
    pub fn open_credential(&self, name: CredentialName) -> Result<Secret, KeeperError> {
        self.ask(|reply| Command::CredentialOpen(name, reply))
    }

    /// Seals other bytes under this name.
    pub fn replace_credential(&self, name: CredentialName, content: Secret) -> Result<(), KeeperError> {
        self.ask(|reply| Command::CredentialReplace(name, content, reply))
    }

    /// Other providers from now on, or none. With `abandon`, also if a KEK is left that none of them opens.
    pub fn configure(&self, rooted: Option<Arc<Rooted>>, abandon: bool) -> Result<(), KeeperError> {
        self.ask(|reply| Command::Configure(rooted, abandon, reply))
    }

    /// Seals the node root anew, and what goes with it.
    pub fn reseal(&self, order: ResealOrder) -> Result<SealedRoot, KeeperError> {
        self.ask(|reply| Command::Reseal(order, reply))
    }

    /// Lets the thread end.
    pub fn stop(&self) {
        let _ = self.0.send(Command::Stop);
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, KeeperError> {
        let (reply, answer) = channel();
        self.0.send(command(reply)).map_err(|_| KeeperError::Locked)?;
        answer.recv().map_err(|_| KeeperError::Locked)?
    }
}

impl Command {
    /// Whether its answer takes the sealing device.
    pub(super) const fn asks_the_device(&self) -> bool {
        matches!(self, Self::BundleAccept(..) | Self::BundleRequest(..) | Self::Reseal(..) | Self::Rotate(_))
    }

    /// The answer while the keys are not open.
    pub(super) fn refuse(self) {
        // A reply that nobody waits for any more is no error.
        let _ = match self {
            Self::Activate(_, reply)
            | Self::BundleAccept(_, _, reply)
            | Self::List(reply)
            | Self::Retire(_, _, reply) => reply.send(Err(KeeperError::Locked)).is_ok(),
            Self::BundleMake(_, _, reply) | Self::BundleRequest(_, reply) => {
                reply.send(Err(KeeperError::Locked)).is_ok()
            }
            Self::Configure(_, _, reply)
            | Self::CredentialReplace(_, _, reply)
            | Self::CredentialStore(_, _, reply) => reply.send(Err(KeeperError::Locked)).is_ok(),
            Self::CredentialOpen(_, reply) => reply.send(Err(KeeperError::Locked)).is_ok(),
            Self::Overview(reply) => reply.send(Err(KeeperError::Locked)).is_ok(),
            Self::Reseal(_, reply) => reply.send(Err(KeeperError::Locked)).is_ok(),
            Self::Rotate(reply) => reply.send(Err(KeeperError::Locked)).is_ok(),
            Self::BundleImported(..)
            | Self::BundleRequested(..)
            | Self::Counted(_)
            | Self::Keep(_)
            | Self::Opened(..)
            | Self::Probed(..)
            | Self::Resealed(..)
            | Self::Reserve
            | Self::Seen(_)
            | Self::Stop
            | Self::Wrapped(..) => true,
        };
    }
}
