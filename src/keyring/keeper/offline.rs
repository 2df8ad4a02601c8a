//! The keeper without a daemon: for the operator's tool while `nodeseald` does not run, or cannot open the keys.

use std::sync::mpsc::channel;
use std::thread;

use super::handle::{Command, KeeperHandle};
use super::{Keeper, Settings};
use crate::keyring::error::KeeperError;
use crate::keyring::live::Keyring;
use crate::keyring::open::Trust;
use crate::store::Disk;

/// Opens the keys once, lets `work` ask the keeper, and closes them again. With `accept_rollback` a state directory that the guard
/// calls old is taken as it is, gets a new KEK, and the next reseal gives it a new counter.
pub fn with_keeper<D: Disk + Clone, T: Send>(
    settings: &Settings<D>,
    accept_rollback: bool,
    work: impl FnOnce(&KeeperHandle) -> Result<T, KeeperError> + Send,
) -> Result<T, KeeperError> {
    let trust = if accept_rollback { Trust::Accepted } else { Trust::Guarded };
    let (own, commands) = channel();
    let keyring = Keyring::opening(settings.cluster.clone(), |_| ());
    let mut keeper = Keeper::open(settings, &keyring, &own, trust)?;
    let handle = KeeperHandle(own.clone());
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work(&handle);
            handle.stop();
            result
        });
        while let Ok(command) = commands.recv() {
            match command {
                Command::Stop if !keeper.device_is_asked => break,
                // What is under way is brought to its end first.
                Command::Stop => {
                    let _ = own.send(Command::Stop);
                    thread::sleep(POLL);
                }
                other => keeper.answer(other),
            }
        }
        worker.join().unwrap_or(Err(KeeperError::Locked))
    })
}

/// Between two looks whether the device has answered.
const POLL: std::time::Duration = std::time::Duration::from_millis(5);
