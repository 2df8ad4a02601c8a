//! What every change of keys writes beside the ring: the recovery file before it, the count of the guard after it.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::handle::Command;
use super::{Keeper, trouble};
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::guard;
use crate::keyring::recovery;
use crate::keyring::ring::{KekState, Ring};
use crate::keyring::state_file::State;
use crate::sandbox::memory::LockedKey;
use crate::seal::client::SealerError;
use crate::store::{Disk, Kind, LoadError};
use crate::types::{KekId, Key};

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Commits a ring with other keys or states. A crash at any place leaves a recovery file that opens all that can be in use.
    pub(super) fn change(&mut self, ring: Ring) -> Result<(), KeeperError> {
        self.change_state(State { ring, ..self.state.clone() })
    }

    /// The same for what else the state holds.
    pub(super) fn change_state(&mut self, mut next: State) -> Result<(), KeeperError> {
        self.write_recovery_file(&next)?;
        if let Some(guard) = &mut next.guard
            && !self.guard_owed
        {
            guard.expected += 1;
        }
        self.commit_state(next)?;
        // Changes while the TPM is away share one count.
        self.guard_owed = self.state.guard.is_some();
        self.pay_guard();
        Ok(())
    }

    /// Lets the counter follow; tried again at every tick.
    pub(super) fn pay_guard(&mut self) {
        let Some(guard) = self.state.guard.filter(|_| self.guard_owed && !self.device_is_asked) else { return };
        let auth = Arc::clone(&self.counter_auth);
        let asked = self.on_device(move |sealer| {
            let auth = copy(&auth).ok_or(SealerError::Protocol(None));
            Command::Counted(auth.and_then(|auth| guard::pay(sealer, guard, &auth)))
        });
        match asked {
            Ok(()) => self.is_own_errand = true,
            Err(error) => trouble(COUNT, &error),
        }
    }

    /// The device is free again, for whoever has waited for the end of an errand of ours.
    pub(super) fn errand_done(&mut self) {
        self.device_is_asked = false;
        self.is_own_errand = false;
        for command in std::mem::take(&mut self.queued) {
            // Fails only when the keeper has stopped.
            let _ = self.own.send(command);
        }
    }

    /// The device has answered.
    pub(super) fn counted(&mut self, counted: Result<u64, SealerError>) -> bool {
        self.errand_done();
        match counted {
            Ok(value) => {
                self.guard_owed = self.state.guard.is_some_and(|guard| value < guard.expected);
                self.pay_guard();
            }
            Err(error) => trouble(COUNT, &KeeperError::Device(error)),
        }
        true
    }

    /// Before the process ends: lets the counter catch up, so that the state directory is guarded while the machine is off. A device
    /// that does not answer in time is left to the next start.
    pub(super) fn finish(&mut self, commands: &Receiver<Command>) {
        let give_up = Instant::now() + FINISH_TIMEOUT;
        self.pay_guard();
        while self.guard_owed && self.device_is_asked {
            match commands.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(Command::Counted(counted)) => {
                    self.counted(counted);
                }
                Ok(other) => self.answer(other),
                Err(_) => return,
            }
        }
    }

    /// The keyring as it will be in this state.
    pub(super) fn export(&self, state: &State) -> Export {
        let usable = state.ring.entries().filter(|(_, kek)| *kek != KekState::Destroyed).map(|(entry, _)| entry.id);
        let key = |id: KekId| self.keks.get(&id)?.copy_key().map(|key| (id, key));
        Export {
            cluster: self.settings.cluster.clone(),
            written: (self.settings.now)(),
            ring: state.ring.clone(),
            keys: usable.filter_map(key).collect(),
        }
    }

    /// Both generations: a destroyed KEK must not stay in the one before.
    fn write_recovery_file(&self, next: &State) -> Result<(), KeeperError> {
        if next.recipients.is_empty() {
            return self.dir.destroy(recovery::FILE).map_err(KeeperError::Store);
        }
        let export = self.export(next);
        if !export.lacking().is_empty() {
            self.keep_recovery_file()?;
        }
        let file = recovery::encrypt(&next.recipients, &export).map_err(KeeperError::Recovery)?;
        self.dir.replace_both(recovery::FILE, Kind::Recovery, &file).map_err(KeeperError::Store)
    }

    /// A KEK whose sealed copy is damaged may be in the file that is about to be replaced, and nowhere else.
    fn keep_recovery_file(&self) -> Result<(), KeeperError> {
        let copy = format!("recovery-{}.age", (self.settings.now)());
        match self
            .dir
            .load(recovery::FILE, Kind::Recovery, |_, bytes| Ok::<_, std::convert::Infallible>(bytes.to_vec()))
        {
            Ok(old) => self.dir.replace(&copy, Kind::Recovery, &old.value).map_err(KeeperError::Store),
            Err(LoadError::Store(error)) if error.is_missing() => Ok(()),
            Err(LoadError::Store(error)) => Err(KeeperError::Store(error)),
            Err(LoadError::Content(never)) => match never {},
        }
    }
}

/// Below the time that the daemon gives its keeper to end.
const FINISH_TIMEOUT: Duration = Duration::from_millis(1500);

const COUNT: &str = "let the TPM's counter follow the state";

pub(super) fn copy(key: &LockedKey) -> Option<Key> {
    Key::copy_of(key.expose())
}
