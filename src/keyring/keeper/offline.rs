//! The keeper without a daemon: for the operator's tool while `nodeseald` does not run, or cannot open the keys.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::arrival::Message;
use super::errands::Slot;
use super::handle::KeeperHandle;
use super::{Keeper, Settings};
use crate::keyring::error::KeeperError;
use crate::keyring::live::Keyring;
use crate::keyring::open::Trust;
use crate::store::Disk;
use crate::types::random;

/// Opens the keys once, lets `work` ask the keeper, and closes them again. With `accept_rollback` a state directory that the guard
/// calls old is taken as it is, gets a new KEK, and the next reseal gives it a new counter.
pub fn with_keeper<D: Disk + Clone, T: Send>(
    settings: &Settings<D>,
    accept_rollback: bool,
    work: impl FnOnce(&KeeperHandle) -> Result<T, KeeperError> + Send,
) -> Result<T, KeeperError> {
    let trust = if accept_rollback { Trust::Accepted } else { Trust::Guarded };
    let (own, messages) = channel();
    let keyring = Keyring::opening(settings.cluster.clone(), |_| ());
    let mut keeper = Keeper::open(settings, &keyring, &own, trust)?;
    let handle = KeeperHandle(own.clone());
    thread::scope(|scope| {
        let worker = scope.spawn(random::carried(move || {
            let result = work(&handle);
            handle.stop();
            result
        }));
        let mut is_stopping = false;
        loop {
            while let Some(request) = keeper.errands.next_waiting() {
                keeper.requested(request);
            }
            keeper.settle(Instant::now());
            // What is under way is brought to its end first.
            if is_stopping && keeper.errands.is_free(Slot::Device) {
                break;
            }
            match messages.recv_timeout(POLL) {
                Ok(Message::Stop) => is_stopping = true,
                Ok(message) => keeper.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        keeper.give_back_uses();
        worker.join().unwrap_or(Err(KeeperError::Locked))
    })
}

/// Between two looks at what is due.
const POLL: Duration = Duration::from_millis(50);
