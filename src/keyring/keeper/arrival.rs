//! What comes back to the keeper: answers of the device and of providers, and what the API has seen. None of them has an asker that
//! waits, but through the reply that it carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::errands::Errand;
use super::request::{Reply, Request};
use super::{KekRow, KeyTable, Renewed, ResealOrder};
use crate::keyring::bundle::{Bundle, OpenRequest};
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::live::LiveKek;
use crate::keyring::member::{MemberKeys, Standing};
use crate::keyring::state_file::Guard;
use crate::provider::KeyState;
use crate::provider::set::WrapOutcome;
use crate::seal::client::SealerError;
use crate::seal::root::{FreshRoot, NodeRoot, RootError, SealedRoot};
use crate::types::{KekId, Key, MemberName};

/// Everything that the keeper's thread is sent.
pub(super) enum Message {
    Arrival(Arrival),
    Request(Asked),
    Stop,
}

/// A request that nobody has begun yet. Either the keeper begins it or whoever asked gives it up, never both: what was given up is
/// not carried out later.
pub(super) struct Asked {
    request: Request,
    is_settled: Arc<AtomicBool>,
}

impl Asked {
    /// With what gives it up.
    pub(super) fn new(request: Request) -> (Self, GiveUp) {
        let is_settled = Arc::new(AtomicBool::new(false));
        (Self { request, is_settled: Arc::clone(&is_settled) }, GiveUp(is_settled))
    }

    /// `None`: it was given up.
    pub(super) fn begin(self) -> Option<Request> {
        (!self.is_settled.swap(true, Ordering::AcqRel)).then_some(self.request)
    }
}

/// See [`Asked`].
pub(super) struct GiveUp(Arc<AtomicBool>);

impl GiveUp {
    /// Whether it will not be done: the keeper had not begun it.
    pub(super) fn is_in_time(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// See the module.
pub(super) enum Arrival {
    /// A node asked for a bundle of its own: what its device gave.
    BundleImported(Reply<KeyTable>, Box<Imported>),
    IdentityAsked(MemberName, Reply<Vec<u8>>, Result<Vec<u8>, SealerError>),
    BundleRequested(String, Reply<Vec<u8>>, Result<Vec<u8>, SealerError>),
    /// The daily look at root and counter.
    Checked(Box<Checked>),
    /// The counter that guards the state.
    Counted(Result<u64, SealerError>),
    /// Counters that guard nothing any more.
    CountersRemoved(Vec<(u32, Result<(), SealerError>)>),
    /// A KEK of another node.
    Keep(Arc<LiveKek>),
    /// The node root, for an errand.
    Opened(Errand, Result<NodeRoot, RootError>),
    /// The node root, for an operator's rotation.
    OpenedToRotate(Reply<KekRow>, Result<NodeRoot, RootError>),
    /// The node root, for KEKs of a recovery file.
    OpenedToRestore(Box<Export>, Reply<Vec<KekId>>, Result<NodeRoot, RootError>),
    /// A provider's name, and its key if it told it.
    Probed(String, Option<KeyState>),
    /// A new node root, sealed and proved, and not on disk yet.
    RootMade(Box<RootMade>),
    /// The same root, opened from its files.
    RootProved(Box<RootProved>),
    Resealed(Reply<SealedRoot>, Box<Resealed>),
    /// The API needs another block of uses.
    Reserve,
    Seen(Vec<(String, KeyState)>),
    Wrapped(KekId, Box<WrapOutcome>, WrapFor),
}

/// What a KEK was wrapped for.
pub(super) enum WrapFor {
    Errand(Errand),
    /// The operator waits for it.
    Rotation(Reply<KekRow>),
}

/// A bundle, and what of this node's disk opens it.
pub(super) enum Opener {
    Member(Standing, MemberKeys),
    Request(Bundle, OpenRequest),
}

/// What the device gave for a bundle.
pub(super) struct Imported {
    pub(super) opener: Opener,
    pub(super) transport: Result<Key, SealerError>,
    pub(super) root: Result<NodeRoot, RootError>,
}

/// What the device gave for a reseal.
pub(super) struct Resealed {
    pub(super) order: ResealOrder,
    pub(super) sealed: Result<(SealedRoot, Option<Guard>), KeeperError>,
}

/// What the device says of what it should open.
pub(super) struct Checked {
    pub(super) root: Result<NodeRoot, RootError>,
    /// Of the counter, where there is a guard.
    pub(super) counter: Option<Result<u64, SealerError>>,
    /// Who waits for it, if somebody does.
    pub(super) reply: Option<Reply<super::CheckReport>>,
}

/// What the device gave for another node root.
pub(super) struct RootMade {
    pub(super) reply: Reply<Renewed>,
    pub(super) made: Result<(FreshRoot, Option<Guard>), KeeperError>,
}

/// The root that was made, as every start opens it.
pub(super) struct RootProved {
    pub(super) reply: Reply<Renewed>,
    pub(super) guard: Option<Guard>,
    pub(super) root: Result<NodeRoot, RootError>,
}
