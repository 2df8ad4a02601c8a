//! The TPM's counter that guards the state file: it tells a copy that was restored from the newest one.
//!
//! Every change of keys counts once. The file says what the counter reads when the file is the newest: `expected`. Order: the file
//! with `expected + 1`, then the count. A stop in between leaves the counter one behind, which the next start makes up for; a
//! counter that is ahead means that newer files existed. It is a check of ours and not of the TPM: it finds mistakes and swapped
//! disks, and does not stop somebody who is root on this node.

use super::error::KeeperError;
use super::state_file::{Guard, State};
use crate::seal::client::{SealerClient, SealerError};
use crate::seal::protocol::{Auth, CounterStep, DeviceBlob};
use crate::store::Generation;
use crate::types::{Class, Explained, Key};

/// How file and counter stand to each other, when both may be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// They agree, or there is no guard.
    Even,
    /// The counter has counted a change that was lost with the newest state; the state is to expect this value from now on.
    Ahead(u64),
    /// The counter has to count once more.
    Owed,
}

/// Compares; asks the device only if there is a guard, or is to be one at the index `wanted`.
pub(super) fn check(
    state: &State,
    generation: Generation,
    wanted: Option<u32>,
    sealer: &SealerClient,
    auth: &Key,
    pin: &DeviceBlob,
) -> Result<Stand, KeeperError> {
    let Some(guard) = state.guard else { return check_unguarded(state, wanted, sealer, auth, pin) };
    let value = read(sealer, guard.index, auth, pin).map_err(KeeperError::Device)?;
    stand(guard, value, generation).map_err(|behind| match behind {
        Some(changes) => KeeperError::RolledBack { changes, written: state.written },
        None => KeeperError::CounterBehind { value, expected: guard.expected },
    })
}

/// A counter of ours that this state does not know of was made after it was written.
fn check_unguarded(
    state: &State,
    wanted: Option<u32>,
    sealer: &SealerClient,
    auth: &Key,
    pin: &DeviceBlob,
) -> Result<Stand, KeeperError> {
    // One that is about to be made is no sign of an old copy, and neither is one that was left, as long as nothing more was counted.
    let Some(index) = wanted.filter(|index| state.guard_to_come != Some(*index)) else { return Ok(Stand::Even) };
    let left = state.left_counters.get(&index).copied();
    match read(sealer, index, auth, pin) {
        Ok(value) if left.is_some_and(|left| is_left(value, left)) => Ok(Stand::Even),
        Ok(_) => Err(KeeperError::BeforeGuard { written: state.written }),
        // It has to answer before an old copy can be told from one that was never guarded.
        Err(error) if error.class() == Class::Unavailable => Err(KeeperError::Device(error)),
        Err(_) => Ok(Stand::Even),
    }
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
        None if value - guard.expected <= tolerated => Ok(Stand::Ahead(value)),
        None => Err(Some(value - guard.expected)),
    }
}

/// What is done with a counter like ours at the index, whose authValue is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It is left alone: another installation may be guarded by it.
    Refused,
    /// It gives way: it is of a node root of this node that is gone.
    Replaced,
}

/// Defines the counter.
pub(super) fn make(
    sealer: &SealerClient,
    index: u32,
    auth: &Key,
    stranger: Stranger,
    pin: &DeviceBlob,
) -> Result<Guard, KeeperError> {
    let step = match stranger {
        Stranger::Refused => CounterStep::Make,
        Stranger::Replaced => CounterStep::Replace,
    };
    let expected = count(sealer, step, index, auth, pin).map_err(KeeperError::Device)?;
    Ok(Guard { index, expected })
}

/// Lets the counter reach `expected`. Asked a second time, it counts no second time.
pub(super) fn pay(sealer: &SealerClient, guard: Guard, auth: &Key, pin: &DeviceBlob) -> Result<u64, SealerError> {
    match read(sealer, guard.index, auth, pin)? {
        value if value < guard.expected => count(sealer, CounterStep::Advance, guard.index, auth, pin),
        value => Ok(value),
    }
}

/// What the counter reads.
pub(super) fn value(sealer: &SealerClient, index: u32, auth: &Key, pin: &DeviceBlob) -> Result<u64, SealerError> {
    read(sealer, index, auth, pin)
}

/// Undefines a counter that this node has left. Its authValue may be gone with the node root that it was of. One that opens and has
/// counted on guards a newer state than the one that says so, and is left alone.
pub(super) fn discard(
    sealer: &SealerClient,
    index: u32,
    last: Option<u64>,
    auth: &Key,
    pin: &DeviceBlob,
) -> Result<(), SealerError> {
    match read(sealer, index, auth, pin) {
        Ok(value) if !is_left(value, last) => return Ok(()),
        Err(error) if error.class() == Class::Unavailable => return Err(error),
        Ok(_) | Err(_) => {}
    }
    count(sealer, CounterStep::Discard, index, auth, pin).map(|_| ())
}

/// Whether a counter that opens under this node's root is the one that was left: a new one begins above all that the TPM ever had
/// (TPM 2.0 Part 3, TPM2_NV_Increment), and what was left may owe its last count.
fn is_left(value: u64, last: Option<u64>) -> bool {
    last.is_some_and(|last| value <= last)
}

/// The second index of a guard: two roots that follow each other never share one counter.
pub(super) const fn other_index(index: u32) -> u32 {
    index ^ 1
}

fn read(sealer: &SealerClient, index: u32, auth: &Key, pin: &DeviceBlob) -> Result<u64, SealerError> {
    count(sealer, CounterStep::Read, index, auth, pin)
}

/// The pin is the seal of the node root, whose storage root key hides the authValue on its way.
fn count(
    sealer: &SealerClient,
    step: CounterStep,
    index: u32,
    auth: &Key,
    pin: &DeviceBlob,
) -> Result<u64, SealerError> {
    sealer.counter(step, index, Auth::new(auth.duplicate()), Some(pin))
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
        assert_eq!((previous(10), previous(11), previous(12)), (Ok(Stand::Even), Ok(Stand::Ahead(11)), Err(Some(2))));
    }
}
