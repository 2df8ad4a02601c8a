//! The TPM's counter that guards the state file: it tells a copy that was restored from the newest one.
//!
//! Every change of keys counts once. The file says what the counter reads when the file is the newest: `expected`. Order: the file
//! with `expected + 1`, then the count. A stop in between leaves the counter one behind, which the next start makes up for; a
//! counter that is ahead means that newer files existed. It is a check of ours and not of the TPM: it finds mistakes and swapped
//! disks, and does not stop somebody who is root on this node.

use super::error::KeeperError;
use super::state_file::{Guard, State};
use crate::seal::client::{SealerClient, SealerError};
use crate::seal::protocol::{Auth, CounterStep};
use crate::store::Generation;
use crate::types::Key;

/// How file and counter stand to each other, when both may be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// They agree, or there is no guard.
    Even,
    /// The counter has to count once more.
    Owed,
}

/// Compares; asks the device only if there is a guard.
pub(super) fn check(
    state: &State,
    generation: Generation,
    sealer: &SealerClient,
    auth: &Key,
) -> Result<Stand, KeeperError> {
    let Some(guard) = state.guard else { return Ok(Stand::Even) };
    let value = read(sealer, guard.index, auth).map_err(KeeperError::Device)?;
    stand(guard, value, generation).map_err(|behind| match behind {
        Some(changes) => KeeperError::RolledBack { changes, written: state.written },
        None => KeeperError::CounterBehind { value, expected: guard.expected },
    })
}

/// The number of changes that the file lacks, or `None` if the counter lacks some.
fn stand(guard: Guard, value: u64, generation: Generation) -> Result<Stand, Option<u64>> {
    // The newest file was damaged and said so: it may have been one change ahead.
    let tolerated = match generation {
        Generation::Newest => 0,
        Generation::Previous => 1,
    };
    match guard.expected.checked_sub(value) {
        Some(0) => Ok(Stand::Even),
        Some(1) => Ok(Stand::Owed),
        Some(_) => Err(None),
        None if value - guard.expected <= tolerated => Ok(Stand::Even),
        None => Err(Some(value - guard.expected)),
    }
}

/// Defines the counter.
pub(super) fn make(sealer: &SealerClient, index: u32, auth: &Key) -> Result<Guard, KeeperError> {
    let expected = count(sealer, CounterStep::Make, index, auth).map_err(KeeperError::Device)?;
    Ok(Guard { index, expected })
}

/// Lets the counter reach `expected`. Asked a second time, it counts no second time.
pub(super) fn pay(sealer: &SealerClient, guard: Guard, auth: &Key) -> Result<u64, SealerError> {
    match read(sealer, guard.index, auth)? {
        value if value < guard.expected => count(sealer, CounterStep::Advance, guard.index, auth),
        value => Ok(value),
    }
}

/// Undefines the counter.
pub(super) fn remove(sealer: &SealerClient, index: u32, auth: &Key) -> Result<(), SealerError> {
    count(sealer, CounterStep::Remove, index, auth).map(|_| ())
}

fn read(sealer: &SealerClient, index: u32, auth: &Key) -> Result<u64, SealerError> {
    count(sealer, CounterStep::Read, index, auth)
}

fn count(sealer: &SealerClient, step: CounterStep, index: u32, auth: &Key) -> Result<u64, SealerError> {
    let auth = Key::copy_of(auth.expose()).map(Auth::new).ok_or(SealerError::Protocol(None))?;
    sealer.counter(step, index, auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_one_change_ahead_and_never_behind_unless_the_newest_was_damaged() {
        let guard = Guard { index: 1, expected: 10 };
        let newest = |value| stand(guard, value, Generation::Newest);
        assert_eq!((newest(10), newest(9)), (Ok(Stand::Even), Ok(Stand::Owed)));
        assert_eq!((newest(11), newest(13), newest(8)), (Err(Some(1)), Err(Some(3)), Err(None)));
        let previous = |value| stand(guard, value, Generation::Previous);
        assert_eq!((previous(10), previous(11), previous(12)), (Ok(Stand::Even), Ok(Stand::Even), Err(Some(2))));
    }
}
