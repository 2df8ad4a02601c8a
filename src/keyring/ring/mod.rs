//! The states of local KEKs as a pure state machine (NIST SP 800-57 Part 1 §7). No IO, no clock, no key bytes.
//!
//! A [`Ring`] has exactly one active KEK by its shape. Every move gives a new ring or says why not, and no move brings a key_id
//! back that was ever left: a KEK that is not pending can never become active.
//!
//! ```
//! use nodeseal::keyring::ring::{Entry, KekState, MoveError, Ring};
//! use nodeseal::types::KekId;
//!
//! let kek = |byte| Entry { id: KekId::from_bytes([byte; 16]), created: 0, uses_reserved: 0, shared: false };
//! let (first, second) = (kek(1).id, kek(2).id);
//! let ring = Ring::new(kek(1), 100);
//! // Rotation has two steps, since other nodes have to learn the KEK before anything is encrypted with it.
//! let ring = ring.with_pending(kek(2))?;
//! assert_eq!(ring.active().id, first);
//! let ring = ring.activate(&second, 200)?;
//! assert_eq!(ring.active().id, second);
//! // What was left decrypts, and is never active again.
//! let state = |id| ring.entries().find(|(entry, _)| entry.id == id).map(|(_, state)| state);
//! assert_eq!(state(first), Some(KekState::Deactivated));
//! assert_eq!(ring.activate(&first, 300), Err(MoveError::Former));
//! # Ok::<(), MoveError>(())
//! ```

mod adopt;
pub mod bytes;
pub mod resume;

pub use adopt::AdoptError;

use crate::types::KekId;
use crate::types::clock::UnixSeconds;

/// What the ring knows of one KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub id: KekId,
    /// When it was made.
    pub created: UnixSeconds,
    /// Encryptions that may have been made with it: the end of the last reserved block.
    pub uses_reserved: u64,
    /// Other nodes have it too, and count their own encryptions.
    pub shared: bool,
}

/// A KEK that was active, or was given up before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its identity, age and uses, as they were while it was active.
    pub entry: Entry,
    /// Since when it is as it is.
    pub since: UnixSeconds,
    /// Whether it still decrypts, and whether somebody else may have its key.
    pub state: FormerState,
}

/// States after the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormerState {
    /// Still decrypts, but somebody else may have the key.
    Compromised,
    /// Decrypts only.
    Deactivated,
    /// The key is gone; the record stays, so that its key_id is never used again.
    Destroyed,
    /// Its file lay here, and no state of this node named it: it was never active here. Decrypts only, until another node's keyring
    /// says that it is the active one.
    Found,
}

/// SP 800-57's names for all states, for showing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekState {
    /// Made, not yet used.
    PreActivation,
    /// Encrypts and decrypts.
    Active,
    /// See [`FormerState::Deactivated`].
    Deactivated,
    /// See [`FormerState::Compromised`].
    Compromised,
    /// See [`FormerState::Destroyed`].
    Destroyed,
}

impl KekState {
    /// As shown by `nodeseal keys list`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::PreActivation => "pre-activation",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }
}

impl From<FormerState> for KekState {
    fn from(state: FormerState) -> Self {
        match state {
            FormerState::Compromised => Self::Compromised,
            FormerState::Deactivated | FormerState::Found => Self::Deactivated,
            FormerState::Destroyed => Self::Destroyed,
        }
    }
}

/// All local KEKs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    active: Entry,
    activated: UnixSeconds,
    pending: Vec<Entry>,
    former: Vec<Former>,
}

/// A move that the states do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The active KEK must be replaced first.
    #[error("this KEK is the active one")]
    Active,
    /// Already gone.
    #[error("this KEK is destroyed")]
    Destroyed,
    /// It was active before.
    #[error("this KEK was active before, and a former key_id is never used again")]
    Former,
    /// Two pending KEKs would be a choice without a reason.
    #[error("a KEK is already in pre-activation")]
    Pending,
    /// No such KEK.
    #[error("no KEK has this id")]
    Unknown,
}

impl Ring {
    /// A node's first KEK is active at once.
    pub fn new(first: Entry, now: UnixSeconds) -> Self {
        Self { active: first, activated: now, pending: Vec::new(), former: Vec::new() }
    }

    /// A place for the ring that is read next.
    pub(in crate::keyring) fn empty() -> Self {
        let nothing = Entry { id: KekId::from_bytes([0; KekId::LEN]), created: 0, uses_reserved: 0, shared: false };
        Self::new(nothing, 0)
    }

    /// From what was stored. `None` if an id stands twice or more than one is pending.
    pub fn from_parts(active: Entry, activated: UnixSeconds, pending: Vec<Entry>, former: Vec<Former>) -> Option<Self> {
        let ring = Self { active, activated, pending, former };
        let mut ids: Vec<_> = ring.entries().map(|(entry, _)| entry.id).collect();
        ids.sort();
        let unique = ids.windows(2).all(|pair| pair[0] != pair[1]);
        (unique && ring.pending.len() <= 1).then_some(ring)
    }

    /// The one that encrypts.
    pub fn active(&self) -> &Entry {
        &self.active
    }

    /// Since when.
    pub fn activated(&self) -> UnixSeconds {
        self.activated
    }

    /// The one in pre-activation, if any.
    pub fn pending(&self) -> Option<&Entry> {
        self.pending.first()
    }

    /// Those that were active, oldest first.
    pub fn former(&self) -> &[Former] {
        &self.former
    }

    /// All, with their states: the active one, the pending one, the former ones.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, KekState)> {
        std::iter::once((&self.active, KekState::Active))
            .chain(self.pending.iter().map(|entry| (entry, KekState::PreActivation)))
            .chain(self.former.iter().map(|former| (&former.entry, former.state.into())))
    }

    /// Adds a KEK in pre-activation.
    pub fn with_pending(&self, entry: Entry) -> Result<Self, MoveError> {
        if !self.pending.is_empty() {
            return Err(MoveError::Pending);
        }
        let mut ring = self.clone();
        ring.pending.push(entry);
        Ok(ring)
    }

    /// Turns to the pending KEK; the active one decrypts only from now on.
    pub fn activate(&self, id: &KekId, now: UnixSeconds) -> Result<Self, MoveError> {
        match self.state_of(id)? {
            KekState::PreActivation => {}
            KekState::Active => return Err(MoveError::Active),
            KekState::Compromised | KekState::Deactivated => return Err(MoveError::Former),
            KekState::Destroyed => return Err(MoveError::Destroyed),
        }
        let mut ring = self.clone();
        let index = ring.pending.iter().position(|entry| entry.id == *id).ok_or(MoveError::Unknown)?;
        let next = ring.pending.remove(index);
        let entry = std::mem::replace(&mut ring.active, next);
        ring.activated = now;
        ring.former.push(Former { entry, since: now, state: FormerState::Deactivated });
        Ok(ring)
    }

    /// Marks a KEK that is not active as compromised or destroyed, or gives up the pending one. The caller has asked for confirmation.
    pub fn retire(&self, id: &KekId, to: RetireTo, now: UnixSeconds) -> Result<Self, MoveError> {
        let mut ring = self.clone();
        let state = match to {
            RetireTo::Compromised => FormerState::Compromised,
            RetireTo::Destroyed | RetireTo::GoneEverywhere => FormerState::Destroyed,
            RetireTo::GivenUp => return self.giving_up(id, now),
        };
        match self.state_of(id)? {
            KekState::Active => return Err(MoveError::Active),
            KekState::Destroyed => return Err(MoveError::Destroyed),
            KekState::PreActivation => {
                let index = ring.pending.iter().position(|entry| entry.id == *id).ok_or(MoveError::Unknown)?;
                let entry = ring.pending.remove(index);
                ring.former.push(Former { entry, since: now, state });
            }
            KekState::Compromised | KekState::Deactivated => {
                for former in ring.former.iter_mut().filter(|former| former.entry.id == *id) {
                    former.state = state;
                    former.since = now;
                }
            }
        }
        Ok(ring)
    }

    /// Records that encryptions up to `uses` may be made with the active KEK. Never goes back.
    pub fn with_reservation(&self, uses: u64) -> Self {
        let mut ring = self.clone();
        ring.active.uses_reserved = ring.active.uses_reserved.max(uses);
        ring
    }

    /// Records that encryptions up to `uses` may have been made with the pending KEK.
    pub fn with_pending_uses(&self, uses: u64) -> Self {
        let mut ring = self.clone();
        for entry in &mut ring.pending {
            entry.uses_reserved = entry.uses_reserved.max(uses);
        }
        ring
    }

    /// Takes in a KEK whose file was found but that the stored state does not know: it decrypts, and never encrypts.
    pub fn with_found(&self, entry: Entry, now: UnixSeconds) -> Self {
        let mut ring = self.clone();
        ring.former.push(Former { entry, since: now, state: FormerState::Found });
        ring
    }

    /// The active KEK counts as activated at `at`: what the clock said then cannot be.
    pub fn with_activation(&self, at: UnixSeconds) -> Self {
        Self { activated: at, ..self.clone() }
    }

    /// Records that exactly so many encryptions were made with the active KEK. The caller knows it: nothing encrypts any more.
    pub fn with_true_uses(&self, uses: u64) -> Self {
        let mut ring = self.clone();
        ring.active.uses_reserved = ring.active.uses_reserved.min(uses);
        ring
    }

    /// KEKs that decrypt: all but those that were destroyed.
    pub fn usable(&self) -> impl Iterator<Item = (&Entry, KekState)> {
        self.entries().filter(|(_, state)| *state != KekState::Destroyed)
    }

    /// Gives up the pending KEK without forgetting it: whether it became active is unknown when the newest state was lost. Where
    /// other nodes have it they may have turned to it, and then this one follows them.
    pub fn without_pending(&self, now: UnixSeconds) -> Self {
        let mut ring = self.clone();
        let given_up = ring.pending.drain(..).map(|entry| {
            let state = if entry.shared { FormerState::Found } else { FormerState::Deactivated };
            Former { entry, since: now, state }
        });
        ring.former.extend(given_up);
        ring
    }

    /// Gives up a pending KEK that was never active here. Another node may still turn to it, and then this one does too.
    pub fn giving_up_pending(&self, now: UnixSeconds) -> Self {
        let mut ring = self.clone();
        let given_up = ring.pending.drain(..).map(|entry| Former { entry, since: now, state: FormerState::Found });
        ring.former.extend(given_up);
        ring
    }

    /// Whether another node can turn to this KEK, so that this one would have to follow: it has never been active here.
    pub fn may_return(&self, id: &KekId) -> bool {
        let is_found = |former: &&Former| former.state == FormerState::Found;
        let found = self.former.iter().filter(is_found).map(|former| &former.entry);
        self.pending.iter().chain(found).any(|entry| entry.id == *id && entry.shared)
    }

    fn giving_up(&self, id: &KekId, now: UnixSeconds) -> Result<Self, MoveError> {
        let is_found = |former: &Former| former.entry.id == *id && former.state == FormerState::Found;
        match self.state_of(id)? {
            KekState::PreActivation => Ok(self.giving_up_pending(now)),
            _ if self.former.iter().any(is_found) => Ok(self.clone()),
            KekState::Active => Err(MoveError::Active),
            KekState::Destroyed => Err(MoveError::Destroyed),
            KekState::Compromised | KekState::Deactivated => Err(MoveError::Former),
        }
    }

    /// Every KEK is known to another node from now on.
    pub fn all_shared(&self) -> Self {
        let mut ring = self.clone();
        let former = ring.former.iter_mut().map(|former| &mut former.entry);
        for entry in [&mut ring.active].into_iter().chain(ring.pending.iter_mut()).chain(former) {
            entry.shared = true;
        }
        ring
    }

    fn state_of(&self, id: &KekId) -> Result<KekState, MoveError> {
        self.entries().find(|(entry, _)| entry.id == *id).map(|(_, state)| state).ok_or(MoveError::Unknown)
    }
}

/// Where [`Ring::retire`] leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetireTo {
    /// Goes on decrypting.
    Compromised,
    /// Never decrypts again.
    Destroyed,
    /// The same, and no other node can turn to it any more.
    GoneEverywhere,
    /// Goes on decrypting. Only a pending KEK can be given up.
    GivenUp,
}

impl RetireTo {
    /// What an operator says by these words.
    pub const fn said(compromised: bool, give_up: bool, not_shared: bool) -> Self {
        match (give_up, compromised, not_shared) {
            (true, _, _) => Self::GivenUp,
            (false, true, _) => Self::Compromised,
            (false, false, true) => Self::GoneEverywhere,
            (false, false, false) => Self::Destroyed,
        }
    }

    /// Whether the key goes.
    pub const fn destroys(self) -> bool {
        matches!(self, Self::Destroyed | Self::GoneEverywhere)
    }

    /// Whether it may be done to a KEK that [may return](Ring::may_return).
    pub const fn passes_over_others(self, is_pending: bool) -> bool {
        match self {
            Self::GivenUp => true,
            Self::GoneEverywhere => !is_pending,
            Self::Compromised | Self::Destroyed => false,
        }
    }
}

#[cfg(test)]
mod tests;
