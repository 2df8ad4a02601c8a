//! How the keeper makes a new KEK and turns to it, asked or since it is due; and how it asks the sealing device.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::handle::{Command, Purpose, Reply};
use super::{Keeper, KekRow, KeyTable, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::open;
use crate::keyring::ring::{MoveError, Ring};
use crate::keyring::uses::RESERVED_BLOCK_USES;
use crate::seal::client::SealerClient;
use crate::seal::root::{NodeRoot, Question, RootError};
use crate::store::Disk;
use crate::types::KekId;
use crate::types::stack::{self, KEEPER_BYTES};

/// First and last pause between attempts at a rotation that is due and fails; each one asks the device.
const RETRY_MIN: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// Between two reminders.
const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device for the root; [`Keeper::opened`] goes on.
    pub(super) fn rotate(&mut self, reply: Reply<KekRow>) -> bool {
        let asked = match self.state.ring.pending() {
            Some(_) => Err(KeeperError::Move(MoveError::Pending)),
            None => {
                let purpose = Purpose::Rotate(reply.clone());
                self.ask_device(|question, sealer| Command::Opened(purpose, question.open(sealer)))
            }
        };
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    /// The device has answered.
    pub(super) fn opened(&mut self, purpose: Purpose, root: Result<NodeRoot, RootError>) -> bool {
        self.errand_done();
        match purpose {
            Purpose::Debt => {}
            Purpose::Epoch => {
                let made = root.map_err(KeeperError::Root).and_then(|root| self.make_pending(&root));
                if let Err(error) = made {
                    self.epoch_failed(&error);
                }
                self.pursue();
            }
            Purpose::Keep => self.kept(root.map_err(KeeperError::Root)),
            Purpose::Rotate(reply) => match root.map_err(KeeperError::Root).and_then(|root| self.make_pending(&root)) {
                Ok(id) => match self.wrap_new(id, Purpose::Rotate(reply.clone())) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => drop(reply.send(self.row(&id))),
                },
                Err(error) => drop(reply.send(Err(error))),
            },
            Purpose::RotateSinceDue => self.rotate_since_due(root),
        }
        true
    }

    /// Lets the providers wrap a KEK that was just made; `false` if there is nobody to ask.
    fn wrap_new(&mut self, id: KekId, purpose: Purpose) -> Result<bool, KeeperError> {
        match self.keyring.rooted().filter(|rooted| rooted.rules.local_kek) {
            Some(rooted) if !self.owed_for(&rooted, &id).is_empty() => self.wrap(&rooted, id, purpose).map(|()| true),
            Some(_) | None => Ok(false),
        }
    }

    pub(super) fn activate(&mut self, id: &KekId) -> Result<KeyTable, KeeperError> {
        let ring = self.state.ring.activate(id, (self.settings.now)()).map_err(KeeperError::Move)?;
        if !self.keks.contains_key(id) {
            return Err(KeeperError::NotOpened(*id));
        }
        self.check_wraps(id)?;
        let used = ring.active().uses_reserved;
        self.change(ring.with_reservation(used + RESERVED_BLOCK_USES))?;
        self.publish();
        emit(&Event::KeyActivated { kek: id, key_id: &self.key_id() });
        Ok(self.table())
    }

    /// By age or by use. Never of a KEK that other nodes have too, unless providers let them read what this node writes under a new one.
    pub(super) fn is_rotation_due(&self) -> bool {
        (!self.state.ring.active().shared || self.state.roots.reported != Reported::LocalKek) && self.is_overdue()
    }

    fn is_overdue(&self) -> bool {
        self.settings.max_age.is_due(&self.state.ring, (self.settings.now)())
    }

    /// Once a day, while a shared KEK is due.
    fn tell_overdue(&mut self) {
        let told_lately = self.overdue_told.is_some_and(|told| told.elapsed() < TELL_EVERY);
        let active = self.state.ring.active();
        if active.shared && self.state.roots.reported == Reported::LocalKek && !told_lately && self.is_overdue() {
            emit(&Event::KeyOverdue { kek: &active.id });
            self.overdue_told = Some(Instant::now());
        }
    }

    /// Starts a rotation that is due, unless one is under way or has just failed.
    pub(super) fn rotate_if_due(&mut self) {
        self.tell_overdue();
        let waits = self.rotation_retry.is_some_and(|(at, _)| Instant::now() < at);
        if !self.is_rotation_due() || waits || self.device_is_asked || self.remote.is_asked {
            return;
        }
        if let Err(error) = self.run_errand(Purpose::RotateSinceDue) {
            self.rotation_failed(&error);
        }
    }

    /// Asks for the root without having been asked.
    pub(super) fn run_errand(&mut self, purpose: Purpose) -> Result<(), KeeperError> {
        self.ask_device(|question, sealer| Command::Opened(purpose, question.open(sealer)))?;
        self.is_own_errand = true;
        Ok(())
    }

    /// Turns to the pending KEK, or to a new one.
    pub(super) fn rotate_since_due(&mut self, root: Result<NodeRoot, RootError>) {
        if self.state.ring.pending().is_some_and(|entry| !self.keks.contains_key(&entry.id)) {
            self.state.ring = self.state.ring.without_pending((self.settings.now)());
        }
        let pending = self.state.ring.pending().map(|entry| entry.id);
        let id = match pending {
            Some(id) => Ok(id),
            None => root.map_err(KeeperError::Root).and_then(|root| self.make_pending(&root)),
        };
        let turned = id.and_then(|id| match self.wrap_new(id, Purpose::RotateSinceDue)? {
            // The answer goes on from here.
            true => Ok(()),
            false => self.activate(&id).map(drop),
        });
        match turned {
            Ok(()) => self.rotation_retry = None,
            Err(error) => self.rotation_failed(&error),
        }
    }

    /// The device and the files must give the very root that everything else is sealed under.
    pub(super) fn check_root(&self, root: &NodeRoot) -> Result<(), KeeperError> {
        let same: bool = root.state_mac_key(&self.settings.cluster).expose().ct_eq(self.mac_key.expose()).into();
        if same { Ok(()) } else { Err(KeeperError::Root(RootError::Verify)) }
    }

    /// Makes a KEK and turns to it, since the newest state was lost and may have left the active one. In one write: a whole state
    /// with the old KEK would be believed by the next start.
    pub(super) fn leave_active(&mut self, root: &NodeRoot, ring: &Ring) -> Result<(), KeeperError> {
        let now = (self.settings.now)();
        let (entry, key) = open::create_kek(&self.dir, &self.settings.cluster, root, now)?;
        let id = entry.id;
        let ring = ring.with_pending(entry).and_then(|ring| ring.activate(&id, now)).map_err(KeeperError::Move)?;
        self.take_in(id, key)?;
        self.change(ring.with_reservation(RESERVED_BLOCK_USES))?;
        emit(&Event::KeyCreated { kek: &id });
        emit(&Event::KeyActivated { kek: &id, key_id: &self.key_id() });
        Ok(())
    }

    /// Makes a KEK, proves its sealed copy, and adds it in pre-activation.
    fn make_pending(&mut self, root: &NodeRoot) -> Result<KekId, KeeperError> {
        self.check_root(root)?;
        let cluster = &self.settings.cluster;
        let (entry, key) = open::create_kek(&self.dir, cluster, root, (self.settings.now)())?;
        let ring = self.state.ring.with_pending(entry.clone()).map_err(KeeperError::Move)?;
        self.take_in(entry.id, key)?;
        self.change(ring)?;
        emit(&Event::KeyCreated { kek: &entry.id });
        Ok(entry.id)
    }

    pub(super) fn row(&self, id: &KekId) -> Result<KekRow, KeeperError> {
        let id = id.to_string();
        self.table().keys.into_iter().find(|row| row.id == id).ok_or(KeeperError::Locked)
    }

    pub(super) fn rotation_failed(&mut self, error: &KeeperError) {
        let pause = self.rotation_retry.map_or(RETRY_MIN, |(_, pause)| (pause * 2).min(RETRY_MAX));
        self.rotation_retry = Some((Instant::now() + pause, pause));
        trouble("rotate the local KEK, which is due", error);
    }

    /// One question at a time, on a thread of its own; `ask` makes the command that brings the answer back.
    pub(super) fn ask_device(
        &mut self,
        ask: impl FnOnce(Question, &SealerClient) -> Command + Send + 'static,
    ) -> Result<(), KeeperError> {
        let question = Question::load(&self.dir).map_err(KeeperError::Root)?;
        self.on_device(move |sealer| ask(question, sealer))
    }

    /// The same without the node root.
    pub(super) fn on_device(
        &mut self,
        ask: impl FnOnce(&SealerClient) -> Command + Send + 'static,
    ) -> Result<(), KeeperError> {
        if self.device_is_asked {
            return Err(KeeperError::Busy);
        }
        let (sealer, own): (SealerClient, Sender<Command>) = (self.settings.sealer.clone(), self.own.clone());
        let spawned = thread::Builder::new().name("device".into()).spawn(move || {
            // Fails only when the keeper has stopped.
            let _ = own.send(stack::wiped::<KEEPER_BYTES, _>(|| ask(&sealer)));
        });
        spawned.map_err(|_| KeeperError::Busy)?;
        self.device_is_asked = true;
        Ok(())
    }
}
