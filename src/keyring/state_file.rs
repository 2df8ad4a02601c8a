//! The file `state`: the ring of local KEKs and their use counters, authenticated under the node root (docs/formats.md, "State").
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | cluster: u16 length, bytes | generation u64 |
//! written u64 | guard: u8, if 1: NV index u32, expected u64, if 2: NV index u32 |
//! recovery recipients: u8 count, each u16 length, bytes |
//! roots, as `epoch` has it |
//! seal, next seal: each u8, and if 1: generation u64, SHA-256 of the device's blob |
//! recovery file: u8, and if 1: SHA-256 of its payload | flags u8 (1 = waits for a bundle, 2 = the pending KEK was made here) |
//! sharers, given: each u8 count, each 16 bytes, u16 length, bytes |
//! left counters: u8 count, each u32, u8, and if 1: u64 | keys, as `marks` has them |
//! first KEK under the key_id: u8, and if 1: 16 bytes |
//! ring, as `ring::bytes` has it | MAC, 32 bytes
//! ```
//!
//! The MAC is over `nodeseal state`, a zero byte, the version of the file and everything before the MAC; up to version 3 over the
//! latter alone. Version 1 has not the lines from `written` on, version 2 not that of the roots, and version 3 not those below it.
//!
//! key_ids of local KEKs are not stored: each is a function of cluster and KEK id, and the record of every KEK that ever was stays
//! in the file. Those of providers' keys are: what was left must not come back.

mod nodes;

use std::collections::BTreeMap;

use self::nodes::ascending;
pub use self::nodes::{NodeMark, Nodes};
use super::epoch::ProviderMemory;
use super::mac::{HMAC_SHA256, MAC_BYTES, mac};
use super::marks::Marks;
use super::recovery::{Recipient, known_recipient};
use super::ring::bytes::{VERSION_1, VERSION_2, VERSION_4, read_ring, write_ring};
use super::ring::{Former, FormerState, Ring};
use crate::seal::root::SealedRoot;
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, RootId};

const LABEL: &[u8] = b"nodeseal state\0";

/// What a state says of the seal of the node root, so that another one is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealMark {
    /// Counts the seals of this root.
    pub generation: u64,
    /// SHA-256 of the device's blob.
    pub digest: [u8; 32],
}

/// NV indices of counters that are left, and what each read last: one that reads more counts for a newer state. `None`: it was of a
/// node root that cannot be asked any more.
pub type LeftCounters = BTreeMap<u32, Option<u64>>;

const AWAITS_BUNDLE: u8 = 1;
const PENDING_IS_OWN: u8 = 2;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Grows by one with each write.
    pub generation: u64,
    /// When it was written.
    pub written: UnixSeconds,
    /// What tells an old copy of this file, if the operator wants that.
    pub guard: Option<Guard>,
    /// NV index of a counter that is about to be made: one that is there without a guard is no sign of an old copy.
    pub guard_to_come: Option<u32>,
    /// The seal of the node root; `None` until the first change after release 0.1.
    pub seal: Option<SealMark>,
    /// The seal that is about to take its place.
    pub next_seal: Option<SealMark>,
    /// SHA-256 of the recovery file's payload, if there is to be one.
    pub recovery: Option<[u8; 32]>,
    /// Other nodes that were given the active KEK, or gave it.
    pub sharers: Nodes,
    /// Other nodes that were given the pending KEK.
    pub given: Nodes,
    /// This node has made the pending KEK, and knows who was given it.
    pub pending_is_own: bool,
    /// NV indices of counters of this node that guard nothing any more and are still to be removed.
    pub left_counters: LeftCounters,
    /// The node has no KEK of its own and waits for a bundle: the active entry of the ring stands for nothing.
    pub awaits_bundle: bool,
    /// Recipients of the recovery file. Empty: the operator refused one.
    pub recipients: Vec<Recipient>,
    /// What the key_id names, and what is known of providers.
    pub roots: ProviderMemory,
    /// What keys at providers have done here.
    pub marks: Marks,
    /// When the key_id of providers' keys that is reported began.
    pub key_id_began: KeyIdBegan,
    /// All local KEKs.
    pub ring: Ring,
}

/// Where the key_id that is reported began. What served or came here after that may have served under it, here or on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIdBegan {
    /// When; 0 is not known.
    pub at: UnixSeconds,
    /// Which KEKs had ceased to be active by then.
    pub after: FormerThen,
}

/// See [`KeyIdBegan`]. KEKs are in the order in which they ceased to be active or came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormerThen {
    /// Not known.
    Unknown,
    /// None.
    None,
    /// Those up to this one.
    UpTo(KekId),
}

impl KeyIdBegan {
    /// Of a state that does not tell.
    pub const UNKNOWN: Self = Self { at: 0, after: FormerThen::Unknown };

    /// Now, with this ring.
    pub fn now(ring: &Ring, now: UnixSeconds) -> Self {
        // What was only taken in moves to another place once it serves.
        let stays = |former: &&Former| former.state != FormerState::Found;
        let last = ring.former().iter().rfind(stays);
        let after = last.map_or(FormerThen::None, |last| FormerThen::UpTo(last.entry.id));
        Self { at: now, after }
    }

    /// Whether this KEK, which is not active any more, had ceased to be so before. What is not known is not so.
    pub fn is_after(&self, id: &KekId, ring: &Ring) -> bool {
        let place = |id: &KekId| ring.former().iter().position(|former| former.entry.id == *id);
        match self.after {
            FormerThen::Unknown | FormerThen::None => false,
            // One that has become active since is in no place.
            FormerThen::UpTo(last) => place(&last).zip(place(id)).is_some_and(|(last, at)| at <= last),
        }
    }
}

/// The TPM's counter that this file must agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// NV index.
    pub index: u32,
    /// What the counter reads, or is about to read, when this file is the newest.
    pub expected: u64,
}

/// Why the file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Of another cluster.
    #[error("the state belongs to cluster `{0}`")]
    Cluster(String),
    /// Cut or changed.
    #[error("the state cannot be read")]
    Format(#[source] WireError),
    /// Changed by somebody without the node root.
    #[error("the state does not authenticate under this node's root")]
    Mac,
    /// Of another node root.
    #[error("the state belongs to node root {0}")]
    Root(RootId),
}

impl SealMark {
    /// Of the file as it is.
    pub fn of(sealed: &SealedRoot) -> Self {
        Self { generation: sealed.generation, digest: sealed.digest() }
    }
}

impl State {
    /// Whether this id stands for a KEK that the node does not have yet.
    pub fn is_placeholder(&self, id: &KekId) -> bool {
        self.awaits_bundle && self.ring.active().id == *id
    }

    /// With this ring. Where no KEK is pending in it, nobody was given one.
    pub fn with_ring(&self, ring: Ring) -> Self {
        let has_pending = ring.pending().is_some();
        let given = if has_pending { self.given.clone() } else { Nodes::new() };
        Self { ring, given, pending_is_own: has_pending && self.pending_is_own, ..self.clone() }
    }

    /// Under another guard, or none. The counter of the one before is on record until it is removed.
    pub fn guarded_by(&self, guard: Option<Guard>) -> Self {
        let mut next = Self { guard, guard_to_come: None, ..self.clone() };
        next.left_counters.extend(self.guard.map(|guard| (guard.index, Some(guard.expected))));
        if let Some(guard) = guard {
            next.left_counters.remove(&guard.index);
        }
        next
    }

    /// With this ring, whose active KEK was the pending one: whoever was given that one has the active one now.
    pub fn turned(&self, ring: Ring) -> Self {
        let sharers = match (ring.active().shared, self.pending_is_own) {
            (false, _) => Nodes::new(),
            (true, true) => self.given.clone(),
            (true, false) => self.sharers.clone(),
        };
        Self { sharers, given: Nodes::new(), pending_is_own: false, ..self.with_ring(ring) }
    }

    /// A first state with nothing but its keys.
    pub fn bare(ring: Ring) -> Self {
        Self {
            generation: 1,
            written: 0,
            guard: None,
            guard_to_come: None,
            seal: None,
            next_seal: None,
            recovery: None,
            sharers: Nodes::new(),
            given: Nodes::new(),
            pending_is_own: false,
            left_counters: LeftCounters::new(),
            awaits_bundle: false,
            recipients: Vec::new(),
            roots: ProviderMemory::default(),
            marks: Marks::default(),
            key_id_began: KeyIdBegan::UNKNOWN,
            ring,
        }
    }

    /// The payload of the file.
    pub fn encode(&self, cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(HMAC_SHA256).raw(root.as_bytes()).bytes16(cluster.as_str().as_bytes()).u64(self.generation);
        w.u64(self.written);
        match (self.guard, self.guard_to_come) {
            (Some(Guard { index, expected }), _) => w.u8(1).u32(index).u64(expected),
            (None, Some(index)) => w.u8(2).u32(index),
            (None, None) => w.u8(0),
        };
        w.u8(u8::try_from(self.recipients.len()).unwrap_or(u8::MAX));
        for recipient in self.recipients.iter().take(usize::from(u8::MAX)) {
            w.bytes16(recipient.to_string().as_bytes());
        }
        self.roots.write(&mut w);
        for mark in [self.seal, self.next_seal] {
            match mark {
                None => w.u8(0),
                Some(SealMark { generation, digest }) => w.u8(1).u64(generation).raw(&digest),
            };
        }
        match self.recovery {
            None => w.u8(0),
            Some(digest) => w.u8(1).raw(&digest),
        };
        w.u8((u8::from(self.awaits_bundle) * AWAITS_BUNDLE) | (u8::from(self.pending_is_own) * PENDING_IS_OWN));
        for nodes in [&self.sharers, &self.given] {
            nodes.write(&mut w);
        }
        w.u8(u8::try_from(self.left_counters.len()).unwrap_or(u8::MAX));
        for (index, last) in self.left_counters.iter().take(usize::from(u8::MAX)) {
            w.u32(*index);
            match last {
                None => w.u8(0),
                Some(last) => w.u8(1).u64(*last),
            };
        }
        self.marks.write(&mut w);
        match self.key_id_began.after {
            FormerThen::Unknown => w.u8(0),
            FormerThen::UpTo(kek) => w.u8(1).raw(kek.as_bytes()),
            FormerThen::None => w.u8(2),
        };
        w.u64(self.key_id_began.at);
        write_ring(&mut w, &self.ring);
        let tag = mac(mac_key, &[LABEL, &[VERSION_4], w.as_bytes()]).finalize();
        w.raw(&tag).finish()
    }

    /// Authenticates and reads the payload.
    pub fn decode(
        version: u8,
        bytes: &[u8],
        cluster: &ClusterId,
        root: &RootId,
        mac_key: &Key,
    ) -> Result<Self, StateError> {
        let (body, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(StateError::Format(WireError::Short("MAC")))?;
        let mut r = Reader::new(body);
        let stored_root = read_head(&mut r, cluster)?;
        if stored_root != *root {
            return Err(StateError::Root(stored_root));
        }
        let is_whole = match version {
            ..VERSION_4 => mac(mac_key, &[body]).is(tag),
            VERSION_4.. => mac(mac_key, &[LABEL, &[version], body]).is(tag),
        };
        if !is_whole {
            return Err(StateError::Mac);
        }
        read_body(version, r).map_err(StateError::Format)
    }
}

fn read_head(r: &mut Reader<'_>, cluster: &ClusterId) -> Result<RootId, StateError> {
    if r.u8("algorithm").map_err(StateError::Format)? != HMAC_SHA256 {
        return Err(StateError::Format(WireError::BadValue("algorithm")));
    }
    let root = RootId::from_bytes(r.array("root id").map_err(StateError::Format)?);
    let stored = r.text16("cluster").map_err(StateError::Format)?;
    if stored != cluster.as_str() {
        return Err(StateError::Cluster(stored.to_owned()));
    }
    Ok(root)
}

fn read_body(version: u8, mut r: Reader<'_>) -> Result<State, WireError> {
    let generation = r.u64("generation")?;
    let (written, (guard, guard_to_come), recipients) = match version {
        VERSION_1 => (0, (None, None), Vec::new()),
        _ => (r.time("written")?, read_guard(version, &mut r)?, read_recipients(&mut r)?),
    };
    let roots = match version {
        VERSION_1 | VERSION_2 => ProviderMemory::default(),
        _ => ProviderMemory::read(&mut r)?,
    };
    let mut state =
        State { generation, written, guard, guard_to_come, recipients, roots, ..State::bare(Ring::empty()) };
    if version >= VERSION_4 {
        state.seal = read_mark(&mut r)?;
        state.next_seal = read_mark(&mut r)?;
        state.recovery = if flag(&mut r, "recovery file")? { Some(r.array("recovery file")?) } else { None };
        let flags = r.u8("flags")?;
        if flags & !(AWAITS_BUNDLE | PENDING_IS_OWN) != 0 {
            return Err(WireError::BadValue("flags"));
        }
        state.awaits_bundle = flags & AWAITS_BUNDLE != 0;
        state.pending_is_own = flags & PENDING_IS_OWN != 0;
        state.sharers = Nodes::read(&mut r, "sharers")?;
        state.given = Nodes::read(&mut r, "given")?;
        state.left_counters = read_left_counters(&mut r)?;
        state.marks = Marks::read(&mut r)?;
        let after = match r.u8("former KEKs")? {
            0 => FormerThen::Unknown,
            1 => FormerThen::UpTo(KekId::from_bytes(r.array("KEK")?)),
            2 => FormerThen::None,
            _ => return Err(WireError::BadValue("former KEKs")),
        };
        state.key_id_began = KeyIdBegan { at: r.time("key_id")?, after };
    } else {
        // It does not tell what keys have done.
        state.marks = Marks::of_unknown(&state.roots);
    }
    state.ring = read_ring(version, &mut r)?;
    r.end()?;
    Ok(state)
}

fn read_left_counters(r: &mut Reader<'_>) -> Result<LeftCounters, WireError> {
    let one = |r: &mut Reader<'_>| {
        let index = r.u32("left counter")?;
        Ok((index, if flag(r, "left counter")? { Some(r.u64("left counter")?) } else { None }))
    };
    let left = (0..r.u8("left counters")?).map(|_| one(r)).collect::<Result<Vec<_>, WireError>>()?;
    ascending(left.iter().map(|(index, _)| *index).collect(), "left counters")?;
    Ok(left.into_iter().collect())
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, WireError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::BadValue(field)),
    }
}

fn read_mark(r: &mut Reader<'_>) -> Result<Option<SealMark>, WireError> {
    if !flag(r, "seal")? {
        return Ok(None);
    }
    Ok(Some(SealMark { generation: r.u64("seal generation")?, digest: r.array("seal digest")? }))
}

type Guards = (Option<Guard>, Option<u32>);

fn read_guard(version: u8, r: &mut Reader<'_>) -> Result<Guards, WireError> {
    match r.u8("guard")? {
        0 => Ok((None, None)),
        1 => Ok((Some(Guard { index: r.u32("guard index")?, expected: r.u64("guard value")? }), None)),
        2 if version >= VERSION_4 => Ok((None, Some(r.u32("guard index")?))),
        _ => Err(WireError::BadValue("guard")),
    }
}

fn read_recipients(r: &mut Reader<'_>) -> Result<Vec<Recipient>, WireError> {
    let one = |r: &mut Reader<'_>| {
        let text = r.text16("recipient")?;
        known_recipient(text).ok_or(WireError::BadValue("recipient"))
    };
    (0..r.u8("recipients")?).map(|_| one(r)).collect()
}

#[cfg(test)]
mod tests;
