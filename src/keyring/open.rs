//! From disk to memory: opening the keys of a node. Writes nothing.

use std::collections::{BTreeSet, HashSet};

use super::epoch::Reported;
use super::error::KeeperError;
use super::files::{CURRENT, STATE};
use super::guard::{self, Stand};
use super::home::Home;
use super::kek_store::{load_kek, unknown_keks};
use super::ring::Entry;
use super::ring::bytes::VERSION_4;
use super::ring::resume::{Encrypts, Facts, Lost, Resumed};
use super::state_file::{SealMark, State};
use super::uses::RESERVED_BLOCK_USES;
use crate::audit::{Event, emit};
use crate::seal::client::SealerClient;
use crate::seal::root::NodeRoot;
use crate::store::{Disk, Generation, Kind, LoadError, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::{Chain, ClusterId, Explained, KekId, Key};

/// What the keeper starts from.
pub(super) struct Opened {
    pub(super) state: State,
    pub(super) root: NodeRoot,
    /// Every KEK that can decrypt, with its id.
    pub(super) keks: Vec<(KekId, Key)>,
    /// What encrypts from now on.
    pub(super) encrypts: Encrypts,
    /// The state is not, or not whole, what is on disk: it is to be written anew.
    pub(super) has_changed: bool,
    /// The counter has to count once more.
    pub(super) owed: bool,
}

/// How the keys are opened.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) sealer: &'a SealerClient,
    pub(super) trust: Trust,
    /// NV index of the counter that the configuration asks for.
    pub(super) guard: Option<u32>,
    pub(super) now: UnixSeconds,
}

/// What to make of a state that the guard calls old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Take it: the operator has said so.
    Accepted,
    /// Refuse it.
    Guarded,
    /// Refuse it, and count nothing: nothing is going to be used or written.
    Looking,
}

/// Opens the node root by the device, then state and KEKs.
pub(super) fn open<D: Disk + Clone>(home: &Home<D>, opening: &Opening<'_>) -> Result<Opened, KeeperError> {
    let (dir, Opening { cluster, sealer, now, .. }) = (&home.root, opening);
    if home.fell_back {
        emit(&Event::StateFellBack { file: CURRENT });
    }
    let (root, damaged) = NodeRoot::open(dir, sealer).map_err(KeeperError::Root)?;
    for file in damaged {
        emit(&Event::StateFellBack { file });
    }
    let mac_key = root.state_mac_key(cluster);
    let read = |version: u8, bytes: &[u8]| {
        State::decode(version, bytes, cluster, &root.id(), &mac_key).map(|state| (version, state))
    };
    let loaded = dir.load(STATE, Kind::State, read).map_err(|error| match error {
        LoadError::Content(source) => KeeperError::State(source),
        LoadError::Store(source) => KeeperError::Store(source),
    })?;
    let generation = loaded.generation;
    let (version, mut state) = loaded.value;
    let mut lost = match (generation, version) {
        (Generation::Newest, _) => Lost::Nothing,
        (Generation::Previous, VERSION_4..) => Lost::Reservation,
        (Generation::Previous, _) => Lost::Unknown,
    };
    if lost != Lost::Nothing {
        emit(&Event::StateFellBack { file: STATE });
    }
    let before = state.clone();
    check_seal(&root, &state, opening.trust)?;
    let owed = check_guard(&mut state, generation, &root, opening, &mut lost)?;
    let wrapping_key = root.kek_wrapping_key(cluster);
    let mut keks = Vec::new();
    let mut why_not = None;
    for (entry, _) in state.ring.usable().filter(|(entry, _)| !state.is_placeholder(&entry.id)) {
        match load_kek(dir, cluster, &root.id(), &wrapping_key, &entry.id) {
            Ok((_, key)) => keks.push((entry.id, key)),
            // Not lost: the next attempt may read it, and going on without it would lose what only it opens.
            Err(error) if error.may_pass() => return Err(error),
            // What only this KEK opens is NOT_FOUND until its file is restored.
            Err(error) => {
                report(OPEN_KEK, &error);
                if entry.id == state.ring.active().id {
                    why_not = Some(error);
                }
            }
        }
    }
    for id in unknown_keks(dir, &state.ring)? {
        match load_kek(dir, cluster, &root.id(), &wrapping_key, &id) {
            Ok((label, key)) => {
                keks.push((label.id, key));
                let uses_reserved = RESERVED_BLOCK_USES;
                let found = Entry { id: label.id, created: label.created, uses_reserved, shared: false };
                state.ring = state.ring.with_found(found, *now);
            }
            Err(error) if error.may_pass() => return Err(error),
            Err(error) => report(OPEN_KEK, &error),
        }
    }
    if state.awaits_bundle {
        return Ok(Opened { has_changed: state != before, state, root, keks, encrypts: Encrypts::Nothing, owed });
    }
    let opens: HashSet<KekId> = keks.iter().map(|(id, _)| *id).collect();
    let has_copies = state.roots.reported != Reported::LocalKek;
    let facts = Facts { lost, opens: &opens, has_copies, block_uses: RESERVED_BLOCK_USES };
    let Resumed { ring, encrypts } = state.ring.resume(&facts, *now);
    if let (Encrypts::Nothing, Some(error)) = (encrypts, why_not) {
        return Err(error);
    }
    state.ring = ring;
    Ok(Opened { has_changed: state != before || lost != Lost::Nothing, state, root, keks, encrypts, owed })
}

/// An older or weaker seal that was put back is noticed, and refused where a guard is on.
fn check_seal(root: &NodeRoot, state: &State, trust: Trust) -> Result<(), KeeperError> {
    let Some(expected) = state.seal else { return Ok(()) };
    let now = SealMark::of(root.sealed());
    if now.digest == expected.digest || state.next_seal.is_some_and(|next| next.digest == now.digest) {
        return Ok(());
    }
    if state.guard.is_some() && trust != Trust::Accepted {
        return Err(KeeperError::OtherSeal);
    }
    emit(&Event::SealOther { generation: now.generation, expected: expected.generation });
    Ok(())
}

/// Whether the counter has to count once more.
fn check_guard(
    state: &mut State,
    generation: Generation,
    root: &NodeRoot,
    opening: &Opening<'_>,
    lost: &mut Lost,
) -> Result<bool, KeeperError> {
    let (auth, pin) = (root.counter_auth(opening.cluster), &root.sealed().blob);
    let stand = guard::check(state, generation, opening.guard, opening.sealer, &auth, pin);
    match (stand, opening.trust) {
        (Ok(Stand::Even), _) => Ok(false),
        (Ok(Stand::Ahead(value)), _) => {
            // Whatever is written next must agree with the counter, or the start after it is refused.
            if let Some(guard) = &mut state.guard {
                guard.expected = value;
            }
            Ok(false)
        }
        // Nothing is counted for a look.
        (Ok(Stand::Owed), Trust::Looking) => Ok(true),
        (Ok(Stand::Owed), _) => {
            // The last stop came between write and count.
            let Some(Err(source)) = state.guard.map(|guard| guard::pay(opening.sealer, guard, &auth, pin)) else {
                return Ok(false);
            };
            report("advance the TPM's counter to the state", &KeeperError::Device(source));
            Ok(true)
        }
        (Err(error), Trust::Accepted) => {
            report("compare the state with the TPM's counter", &error);
            // Whatever counter is there now says nothing of this state any more.
            state.guard_to_come = state.guard.map(|guard| guard.index).or(opening.guard);
            state.guard = None;
            *lost = Lost::RolledBack;
            Ok(false)
        }
        (Err(error), Trust::Guarded | Trust::Looking) => Err(error),
    }
}

/// NV indices of all counters of a root, the one that guards it first of all: `None` if it cannot be asked.
pub(super) fn counters<D: Disk>(
    dir: &StateDir<D>,
    cluster: &ClusterId,
    sealer: &SealerClient,
) -> Option<BTreeSet<u32>> {
    let (root, _) = NodeRoot::open(dir, sealer).ok()?;
    let mac_key = root.state_mac_key(cluster);
    let read = |version, bytes: &[u8]| State::decode(version, bytes, cluster, &root.id(), &mac_key);
    let state = dir.load(STATE, Kind::State, read).ok()?.value;
    Some(state.left_counters.into_keys().chain(state.guard.map(|guard| guard.index)).collect())
}

const OPEN_KEK: &str = "open a local KEK";

fn report(what: &'static str, error: &KeeperError) {
    emit(&Event::StateTroubled { what, error: &Chain(error).to_string(), hint: error.hint() });
}
