//! How the keeper makes a new KEK and turns to it, asked or since it is due.

use std::time::{Duration, Instant};

use super::arrival::{Arrival, WrapFor};
use super::books::Change;
use super::errands::{Errand, Holder, Slot};
use super::request::Reply;
use super::{Activation, Keeper, KekRow, KeyTable, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::kek_store::draw_kek;
use crate::keyring::ring::MoveError;
use crate::keyring::state_file::{KeyIdBegan, Nodes, State};
use crate::seal::root::{NodeRoot, RootError};
use crate::store::Disk;
use crate::types::KekId;
use crate::types::clock::{EARLIEST, UnixSeconds};

/// Between two reminders.
const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Seconds. A KEK that became active so much later than now was activated by a clock that was wrong.
pub(super) const FUTURE_SECONDS: UnixSeconds = 24 * 3600;

/// What was told of rotations.
#[derive(Default)]
pub(super) struct Rotation {
    /// When the operator was last told that a shared KEK is due.
    overdue_told: Option<Instant>,
    /// The active KEK, and how near it was told to be due.
    near_told: Option<(KekId, u64)>,
    /// The end of the epoch, and how near it was told to be.
    pub(super) turn_told: Option<(UnixSeconds, u64)>,
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device for the root; [`Keeper::opened_to_rotate`] goes on.
    pub(super) fn rotate(&mut self, reply: Reply<KekRow>) -> bool {
        let asked = if self.state().awaits_bundle {
            Err(KeeperError::AwaitsBundle)
        } else if self.ring().pending().is_some() {
            Err(KeeperError::Move(MoveError::Pending))
        } else {
            let reply = reply.clone();
            self.ask_device(Holder::Operator, move |question, sealer| {
                Arrival::OpenedToRotate(reply, question.open(sealer))
            })
        };
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    /// The device has answered.
    pub(super) fn opened_to_rotate(&mut self, reply: Reply<KekRow>, root: Result<NodeRoot, RootError>) {
        self.device_is_free();
        let made = root.map_err(KeeperError::Root).and_then(|root| self.make_pending(&root));
        let id = match made {
            Ok(id) => id,
            Err(error) => return drop(reply.send(Err(error))),
        };
        // What is owed is paid later as well, and `activate` looks at it.
        match self.wrap_new(id, WrapFor::Rotation(reply.clone())) {
            Ok(true) => {}
            Ok(false) | Err(_) => drop(reply.send(self.row(&id))),
        }
    }

    /// Lets the providers wrap a KEK that was just made; `false` if there is nobody to ask now.
    fn wrap_new(&mut self, id: KekId, purpose: WrapFor) -> Result<bool, KeeperError> {
        let Some(rooted) = self.keyring.rooted().filter(|rooted| rooted.rules.local_kek) else { return Ok(false) };
        if self.owed_for(&rooted, &id).is_empty() || !self.errands.is_free(Slot::Providers) {
            return Ok(false);
        }
        self.wrap(&rooted, id, purpose).map(|()| true)
    }

    /// Turns to the pending KEK. Nodes that share the active one and lack the next one could not read what is written then.
    pub(super) fn activate(&mut self, activation: &Activation) -> Result<KeyTable, KeeperError> {
        if self.state().awaits_bundle {
            return Err(KeeperError::AwaitsBundle);
        }
        let pending = self.ring().pending().map(|entry| entry.id);
        if activation.id.or(pending).is_none() && self.has_turned(&activation.receipts) {
            // The first try has turned to it, and its answer was lost.
            return Ok(self.table());
        }
        let nothing = KeeperError::NothingPending { is_shared: self.needs_sharing() };
        let id = activation.id.or(pending).ok_or(nothing)?;
        let is_alone = self.ring().pending().is_some_and(|entry| entry.id == id && !entry.shared);
        if is_alone && self.needs_sharing() && !activation.not_shared {
            return Err(KeeperError::NotShared(id));
        }
        if self.needs_sharing() {
            if !activation.not_shared {
                self.check_all_were_given(&id)?;
            }
            // A member that is gone is removed by its name. None that is known is passed over.
            self.check_receipts(&id, activation)?;
        }
        self.turn_to_pending(&id)?;
        Ok(self.table())
    }

    /// Nobody is forgotten of those that have the active KEK. Of a KEK that another node has made, that one knows.
    fn check_all_were_given(&self, id: &KekId) -> Result<(), KeeperError> {
        let State { sharers, given, pending_is_own, .. } = self.state();
        let lacking = sharers.not_among(given);
        if !*pending_is_own || lacking.is_empty() {
            return Ok(());
        }
        Err(KeeperError::NotAllWereGiven { kek: *id, lacking: lacking.join(", ") })
    }

    /// Whether other nodes read what this one writes only if they have its KEK.
    pub(super) fn needs_sharing(&self) -> bool {
        self.ring().active().shared && self.state().roots.reported == Reported::LocalKek
    }

    fn turn_to_pending(&mut self, id: &KekId) -> Result<(), KeeperError> {
        let ring = self.ring().activate(id, (self.settings.now)()).map_err(KeeperError::Move)?;
        if !self.keys.has(id) {
            return Err(KeeperError::NotOpened(*id));
        }
        self.check_wraps(id)?;
        let used = ring.active().uses_reserved;
        let ring = ring.with_reservation(used.saturating_add(self.blocks.first()));
        self.change(Change::of_keys(self.state().turned(ring)))?;
        self.publish();
        emit(&Event::KeyActivated { kek: id, key_id: &self.key_id() });
        Ok(())
    }

    /// By age or by use, or since a start had no room for another one. Never of a KEK that other nodes have too, unless providers let
    /// them read what this node writes under a new one.
    pub(super) fn is_rotation_due(&self) -> bool {
        !self.needs_sharing() && !self.state().awaits_bundle && (self.is_overdue() || self.is_dead())
    }

    /// A start replaces such a KEK (`ring::resume`), and could not. Providers serve meanwhile.
    pub(super) fn is_dead(&self) -> bool {
        let active = self.ring().active();
        !active.shared && !self.keys.has(&active.id) && self.state().roots.reported != Reported::LocalKek
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.settings.max_age.is_due(self.ring(), (self.settings.now)())
    }

    /// A clock that is behind. One that ran ahead has been corrected already, as far as it matters.
    pub(super) fn is_clock_doubted(&self) -> bool {
        let now = (self.settings.now)();
        let in_use = [Some(self.ring().active()), self.ring().pending()];
        let is_ahead = |created| created > now.saturating_add(FUTURE_SECONDS);
        now < EARLIEST || in_use.into_iter().flatten().any(|entry| is_ahead(entry.created))
    }

    /// Once a day, while a shared KEK is due.
    fn tell_overdue(&mut self) {
        let told_lately = self.rotation.overdue_told.is_some_and(|told| told.elapsed() < TELL_EVERY);
        if self.needs_sharing() && !told_lately && self.is_overdue() {
            emit(&Event::KeyOverdue { kek: &self.ring().active().id });
            self.rotation.overdue_told = Some(Instant::now());
        }
    }

    /// Thirty, seven and one day before, and once after each start within those.
    fn tell_near(&mut self) {
        let kek = self.ring().active().id;
        let near = self.settings.max_age.is_near(self.ring(), (self.settings.now)());
        let told = near.map(|days| (kek, days)).filter(|_| !self.is_overdue());
        if self.rotation.near_told == told || self.state().awaits_bundle || self.is_clock_doubted() {
            return;
        }
        if let Some((kek, days)) = told {
            let (due, is_automatic) = (self.settings.max_age.due(self.ring()), !self.needs_sharing());
            emit(&Event::KeyDueSoon { kek: &kek, days, due, is_automatic });
        }
        self.rotation.near_told = told;
    }

    /// A clock that ran ahead must not make the active KEK young for as long as it was ahead. A clock that is behind the first
    /// release of this format is known to be wrong, and corrects nothing.
    fn correct_activation(&mut self) {
        let now = (self.settings.now)();
        let (activated, began) = (self.ring().activated(), self.state().key_id_began);
        let last = activated.max(began.at);
        if now < EARLIEST || last <= now + FUTURE_SECONDS {
            return;
        }
        emit(&Event::ClockDoubted { activated: last, now });
        let ring = self.ring().with_activation(activated.min(now));
        let key_id_began = KeyIdBegan { at: began.at.min(now), ..began };
        if let Err(error) = self.change(Change::of_memory(State { ring, key_id_began, ..self.state().clone() })) {
            trouble("correct the time of an activation", &error);
        }
    }

    /// Starts a rotation that is due, unless one is under way or has just failed.
    pub(super) fn rotate_if_due(&mut self, now: Instant) {
        self.correct_activation();
        self.tell_overdue();
        self.tell_near();
        self.tell_turn();
        self.errands.want_if(Errand::Rotate, self.is_rotation_due());
        let is_free = self.errands.is_free(Slot::Device) && self.errands.is_free(Slot::Providers);
        if !self.errands.is_due(Errand::Rotate, now) || !is_free {
            return;
        }
        if let Err(error) = self.ask_for_errand(Errand::Rotate) {
            self.rotation_failed(&error);
        }
    }

    /// Turns to the pending KEK, or to a new one.
    pub(super) fn rotate_since_due(&mut self, root: Result<NodeRoot, RootError>) {
        // A bundle may have gone out while the device was asked: other nodes have the active KEK now.
        if !self.is_rotation_due() {
            return self.errands.want_if(Errand::Rotate, false);
        }
        let turned = root.map_err(KeeperError::Root).and_then(|root| {
            let pending = self.ring().pending().map(|entry| entry.id);
            let id = match pending {
                Some(id) if self.keys.has(&id) => id,
                _ => self.make_pending(&root)?,
            };
            match self.wrap_new(id, WrapFor::Errand(Errand::Rotate))? {
                // The answer goes on from here.
                true => Ok(()),
                false => self.turn_to_pending(&id),
            }
        });
        match turned {
            Ok(()) => self.errands.want_if(Errand::Rotate, self.is_rotation_due()),
            Err(error) => self.rotation_failed(&error),
        }
    }

    /// The providers have wrapped the next KEK of a rotation that is due, or not all of them have.
    pub(super) fn wrapped_for_rotation(&mut self, kek: &KekId, enough: Result<(), KeeperError>) {
        if !self.is_rotation_due() {
            return self.errands.want_if(Errand::Rotate, false);
        }
        match enough.and_then(|()| self.turn_to_pending(kek)) {
            Ok(()) => self.errands.want_if(Errand::Rotate, self.is_rotation_due()),
            Err(error) => self.rotation_failed(&error),
        }
    }

    /// Makes a KEK, proves its sealed copy, and adds it in pre-activation. A pending one that does not open is given up for it.
    pub(super) fn make_pending(&mut self, root: &NodeRoot) -> Result<KekId, KeeperError> {
        self.check_root(root)?;
        let now = (self.settings.now)();
        let is_dead = self.ring().pending().is_some_and(|entry| !self.keys.has(&entry.id));
        let ring = if is_dead { self.ring().giving_up_pending(now) } else { self.ring().clone() };
        let (entry, key) = draw_kek(now)?;
        let id = entry.id;
        // Before anything is written: a ring that has no room for it leaves no file.
        let ring = ring.with_pending(entry).map_err(KeeperError::Move)?;
        let next = State { given: Nodes::new(), pending_is_own: true, ..self.state().with_ring(ring) };
        self.adopt_new(root, next, id, key, true)?;
        emit(&Event::KeyCreated { kek: &id });
        Ok(id)
    }

    pub(super) fn row(&self, id: &KekId) -> Result<KekRow, KeeperError> {
        let id = id.to_string();
        self.table().keys.into_iter().find(|row| row.id == id).ok_or(KeeperError::Locked)
    }

    fn rotation_failed(&mut self, error: &KeeperError) {
        self.errands.failed(Errand::Rotate, Instant::now());
        trouble("rotate the local KEK, which is due", error);
    }
}
