//! Questions to the sealing device: one at a time, each on a thread of its own; and the counter that follows the state.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use subtle::ConstantTimeEq;

use super::arrival::{Arrival, Message};
use super::books::Change;
use super::errands::{Errand, Holder, Slot, Taken};
use super::{Keeper, trouble};
use crate::keyring::error::KeeperError;
use crate::keyring::guard;
use crate::keyring::state_file::State;
use crate::seal::client::{SealerClient, SealerError};
use crate::seal::root::{NodeRoot, Question, RootError};
use crate::store::Disk;
use crate::types::Backend;
use crate::types::random;
use crate::types::stack::{self, KEEPER_BYTES};

impl<D: Disk + Clone> Keeper<'_, D> {
    /// A question with the node root; `ask` makes the arrival that brings the answer back.
    pub(super) fn ask_device(
        &mut self,
        holder: Holder,
        ask: impl FnOnce(Question, &SealerClient) -> Arrival + Send + 'static,
    ) -> Result<(), KeeperError> {
        let question = Question::load(&self.books.home.root).map_err(KeeperError::Root)?;
        self.on_device(holder, move |sealer| ask(question, sealer))
    }

    /// The same without the node root.
    pub(super) fn on_device(
        &mut self,
        holder: Holder,
        ask: impl FnOnce(&SealerClient) -> Arrival + Send + 'static,
    ) -> Result<(), KeeperError> {
        self.errands.begin(Slot::Device, holder).map_err(|_: Taken| KeeperError::Busy)?;
        let (sealer, own): (SealerClient, Sender<Message>) = (self.settings.sealer.clone(), self.own.clone());
        let spawned = thread::Builder::new().name("device".into()).spawn(random::carried(move || {
            // Fails only when the keeper has stopped.
            let _ = own.send(Message::Arrival(stack::wiped::<KEEPER_BYTES, _>(|| ask(&sealer))));
        }));
        if spawned.is_err() {
            self.errands.end(Slot::Device);
            return Err(KeeperError::Busy);
        }
        Ok(())
    }

    /// Asks for the storage key that others can encrypt to, which a TPM has alone.
    pub(super) fn ask_parent(
        &mut self,
        arrival: impl FnOnce(Result<Vec<u8>, SealerError>) -> Arrival + Send + 'static,
    ) -> Result<(), KeeperError> {
        let pin = self.derived.pin.clone();
        if pin.backend() == Some(Backend::Pkcs11) {
            return Err(KeeperError::TokenCannotAsk);
        }
        self.on_device(Holder::Operator, move |sealer| arrival(sealer.parent(Some(&pin))))
    }

    /// Its answer has come.
    pub(super) fn device_is_free(&mut self) {
        self.errands.end(Slot::Device);
    }

    /// The question that is under way is one that no operator has asked.
    pub(super) fn device_works_for_us(&self) -> bool {
        self.errands.device_works_for_us()
    }

    /// Asks for the root without having been asked.
    pub(super) fn ask_for_errand(&mut self, errand: Errand) -> Result<(), KeeperError> {
        self.ask_device(Holder::Errand(errand), move |question, sealer| Arrival::Opened(errand, question.open(sealer)))
    }

    /// The device has opened the root for an errand.
    pub(super) fn opened(&mut self, errand: Errand, root: Result<NodeRoot, RootError>) {
        self.device_is_free();
        match errand {
            Errand::KeyId => self.root_for_key_id(root.map_err(KeeperError::Root)),
            Errand::Keep => self.kept(root.map_err(KeeperError::Root)),
            Errand::Rotate => self.rotate_since_due(root),
            // These ask for something else than the root.
            Errand::Check
            | Errand::Copies
            | Errand::Count
            | Errand::RecoveryFile
            | Errand::RemoveCounter
            | Errand::State => {}
        }
    }

    /// The device and the files must give the very root that everything else is sealed under.
    pub(super) fn check_root(&self, root: &NodeRoot) -> Result<(), KeeperError> {
        let theirs = root.state_mac_key(&self.settings.cluster);
        let same: bool = theirs.expose().ct_eq(self.books.mac_key().expose()).into();
        if same { Ok(()) } else { Err(KeeperError::Root(RootError::Verify)) }
    }

    /// Lets the counter follow; tried again after a pause.
    pub(super) fn pay_guard(&mut self, now: Instant) {
        // A count before the state is in both generations would make an old copy of what a power cut may leave.
        let is_safe = !self.books.is_state_owed;
        let Some(guard) = self.state().guard.filter(|_| self.books.is_count_owed && is_safe) else { return };
        self.errands.want(Errand::Count);
        if !self.errands.is_due(Errand::Count, now) || !self.errands.is_free(Slot::Device) {
            return;
        }
        let (auth, pin) = (Arc::clone(&self.derived.counter_auth), self.derived.pin.clone());
        let asked = self.on_device(Holder::Errand(Errand::Count), move |sealer| {
            Arrival::Counted(guard::pay(sealer, guard, &auth.copy(), &pin))
        });
        if let Err(error) = asked {
            self.count_failed(&error);
        }
    }

    pub(super) fn counted(&mut self, counted: Result<u64, SealerError>) {
        self.device_is_free();
        match counted {
            Ok(value) => {
                self.books.is_count_owed = self.state().guard.is_some_and(|guard| value < guard.expected);
                self.errands.hurry(Errand::Count);
                self.errands.want_if(Errand::Count, self.books.is_count_owed);
            }
            Err(error) => self.count_failed(&KeeperError::Device(error)),
        }
    }

    fn count_failed(&mut self, error: &KeeperError) {
        self.errands.failed(Errand::Count, Instant::now());
        trouble("advance the TPM's counter to the state", error);
    }

    /// Counters that guard nothing any more take room in the TPM, and let old copies of the state directory open.
    pub(super) fn remove_counters(&mut self, now: Instant) {
        let guard = self.state().guard.map(|guard| guard.index);
        let left = self.state().left_counters.iter().map(|(index, last)| (*index, *last));
        let left: Vec<(u32, Option<u64>)> = left.filter(|(index, _)| Some(*index) != guard).collect();
        self.errands.want_if(Errand::RemoveCounter, !left.is_empty());
        if !self.errands.is_due(Errand::RemoveCounter, now) || !self.errands.is_free(Slot::Device) {
            return;
        }
        let (auth, pin) = (Arc::clone(&self.derived.counter_auth), self.derived.pin.clone());
        let asked = self.on_device(Holder::Errand(Errand::RemoveCounter), move |sealer| {
            let discard = |(index, last)| (index, guard::discard(sealer, index, last, &auth.copy(), &pin));
            Arrival::CountersRemoved(left.into_iter().map(discard).collect())
        });
        if let Err(error) = asked {
            self.errands.failed(Errand::RemoveCounter, now);
            trouble(REMOVE, &error);
        }
    }

    pub(super) fn counters_removed(&mut self, removed: Vec<(u32, Result<(), SealerError>)>) {
        self.device_is_free();
        let mut left_counters = self.state().left_counters.clone();
        let mut failed = None;
        for (index, removed) in removed {
            match removed {
                Ok(()) => drop(left_counters.remove(&index)),
                Err(error) => failed = Some(KeeperError::Device(error)),
            }
        }
        if left_counters != self.state().left_counters
            && let Err(error) = self.change(Change::of_memory(State { left_counters, ..self.state().clone() }))
        {
            failed = Some(error);
        }
        match failed {
            Some(error) => {
                self.errands.failed(Errand::RemoveCounter, Instant::now());
                trouble(REMOVE, &error);
            }
            None => self.errands.done(Errand::RemoveCounter),
        }
    }
}

const REMOVE: &str = "remove the TPM's counter that is not used any more";
