//! Founding the keyring of a node: `init` makes the first KEK, or waits for the keys of another node; `recover` takes the KEKs of a
//! recovery file.
//!
//! Each builds a folder of its own below `roots/`, proves it by the way that every start takes, and counts from the moment at which
//! `current` names it. What is stopped before that leaves everything as it was, but for a folder that the next run removes; so the
//! same command line can be run again. Neither ever overwrites or moves keys: `init` refuses where there are some, and `recover` keeps
//! them where they are. `recover` refuses while they may still open.

mod counter;
mod marker;

use self::counter::{Counter, make_beside};
pub use self::marker::Marker;
use super::error::KeeperError;
use super::export::Export;
use super::files::{self, INIT_MARKER, RECOVER_MARKER, STATE};
use super::guard::{self, Stranger};
use super::home::{Home, ROOTS};
use super::kek_file::KekLabel;
use super::kek_store::{draw_kek, save_kek};
use super::maker::MakerKey;
use super::marks::Marks;
use super::open::{self, Opening, Trust};
use super::recovery::{self, Recipient};
use super::ring::{Entry, Ring};
use super::state_file::{Nodes, SealMark, State};
use super::wraps_file::{self, WrapSet};
use super::{kek_file, uses};
use crate::audit::{Event, emit};
use crate::seal::client::SealerClient;
use crate::seal::root::FreshRoot;
use crate::store::{Disk, Kind, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::{Class, ClusterId, Explained, KekId, Key, SealTo};

/// What both need to know.
pub struct Founding<'a> {
    /// Goes into every AAD.
    pub cluster: &'a ClusterId,
    /// Who seals the node root.
    pub sealer: &'a SealerClient,
    /// By which device.
    pub to: SealTo,
    /// NV index of the counter that guards the state, if the operator wants one.
    pub guard: Option<u32>,
    /// A counter at that index that our authValue does not open gives way: the operator says that it is of an earlier installation of
    /// this very node. A recovery takes its place in any case.
    pub replace_counter: bool,
    /// Whom the recovery file is encrypted to; empty if the operator refused one.
    pub recipients: &'a [Recipient],
}

/// Which KEK encrypts after a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The one that the file calls active: for a node of a cluster whose other nodes have it too.
    ActiveKek,
    /// A new one: the file may be older than the last rotation, and a key_id that was left must not come back.
    NewKek,
    /// A new one, unless other nodes have the active one: then the operator has to say which.
    Unsaid,
}

/// What the operator says of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverOrder {
    /// See [`Resume`].
    pub resume: Resume,
    /// The keys that are here are given up, although they may open again.
    pub give_up_device: bool,
}

/// What a recovery gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The KEK that encrypts now.
    pub kek: KekId,
    /// How many KEKs came back.
    pub keks: usize,
    /// KEKs that the file lists without a key.
    pub lacking: Vec<KekId>,
    /// Folder inside of the state directory with what was there before.
    pub kept_in: Option<String>,
    /// Other nodes have the KEK that encrypts.
    pub is_shared: bool,
}

/// Sets a node up: node root, first KEK, state. Refuses where any keys are, unless an earlier init did not finish.
pub fn init<D: Disk + Clone>(
    dir: &StateDir<D>,
    founding: &Founding<'_>,
    now: UnixSeconds,
) -> Result<KekId, KeeperError> {
    let (entry, key) = draw_kek(now)?;
    let kek = entry.id;
    let state = State { recipients: founding.recipients.to_vec(), ..State::bare(Ring::new(entry, now)) };
    set_up(dir, founding, state, vec![(kek, key)], now)?;
    emit(&Event::KeyCreated { kek: &kek });
    Ok(kek)
}

/// Sets a node up without a KEK of its own: it encrypts nothing before it has accepted a bundle of another node.
pub fn join<D: Disk + Clone>(dir: &StateDir<D>, founding: &Founding<'_>, now: UnixSeconds) -> Result<(), KeeperError> {
    // Stands for nothing: no key of this id exists.
    let (entry, _) = draw_kek(now)?;
    let state =
        State { recipients: founding.recipients.to_vec(), awaits_bundle: true, ..State::bare(Ring::new(entry, now)) };
    set_up(dir, founding, state, Vec::new(), now)
}

fn set_up<D: Disk + Clone>(
    dir: &StateDir<D>,
    founding: &Founding<'_>,
    state: State,
    keys: Vec<(KekId, Key)>,
    now: UnixSeconds,
) -> Result<(), KeeperError> {
    let store = KeeperError::Store;
    let mut home = Home::of(dir.inside(""))?;
    if home.top.exists(RECOVER_MARKER).map_err(store)? {
        return Err(KeeperError::RecoveryPending);
    }
    // Of release 0.1: what lies there is half made.
    let is_marked = home.top.exists(INIT_MARKER).map_err(store)? && home.current.is_none();
    if home.current.is_some() || (!is_marked && has_root(&home)?) {
        // Whoever is told so may count on it after a power cut.
        home.tidy().map_err(store)?;
        return Err(KeeperError::AlreadySetUp);
    }
    let left = leftovers(&home)?;
    if let Some(first) = left.first().filter(|_| !is_marked) {
        return Err(KeeperError::LeftOver(first.clone()));
    }
    // One that did not finish may have made the counter, under a root that it has taken with it.
    let is_begun = is_marked || home.has_half_made().map_err(store)?;
    let stranger = if is_begun || founding.replace_counter { Stranger::Replaced } else { Stranger::Refused };
    home.tidy().map_err(store)?;
    if let Some(name) = home.unnamed().map_err(store)? {
        return Err(KeeperError::LeftOver(name));
    }
    build(&mut home, founding, Kept { state, keys, copies: Vec::new() }, now, false, Counter::At(stranger))?;
    if is_marked {
        home.top.destroy(INIT_MARKER).map_err(store)?;
    }
    Ok(())
}

/// Sets a node up with the KEKs of a recovery file, under a new node root.
pub fn recover<D: Disk + Clone>(
    dir: &StateDir<D>,
    founding: &Founding<'_>,
    export: Export,
    order: RecoverOrder,
    now: UnixSeconds,
) -> Result<Recovered, KeeperError> {
    let store = KeeperError::Store;
    if export.cluster != *founding.cluster {
        return Err(KeeperError::OtherCluster(export.cluster.to_string()));
    }
    let mut home = Home::of(dir.inside(""))?;
    // Of release 0.1: its recovery has moved the keys away, and what lies there is half made.
    let is_marked = home.top.exists(RECOVER_MARKER).map_err(store)? && home.current.is_none();
    let had_keys = has_root(&home)?;
    let mut former = None;
    if had_keys && !is_marked {
        let given_up = may_be_given_up(&home, founding, order, now);
        if matches!(given_up, Err(KeeperError::KeysOpen)) {
            home.tidy().map_err(store)?;
        }
        given_up?;
        former = open::counters(&home.root, founding.cluster, founding.sealer);
    }
    let lacking = export.lacking();
    let resumed = match order.resume {
        Resume::Unsaid if export.ring.active().shared => return Err(KeeperError::SharedRecovery),
        Resume::ActiveKek => resume_active(&export, now)?,
        Resume::NewKek | Resume::Unsaid => export.ring.clone(),
    };
    let Export { ring, roots, mut keys, copies, .. } = export;
    let keks = keys.len();
    let ring = match order.resume {
        Resume::ActiveKek => resumed,
        Resume::NewKek | Resume::Unsaid => {
            let (entry, key) = draw_kek(now)?;
            let id = entry.id;
            keys.push((id, key));
            let ring = ring.without_pending(now).with_pending(entry).map_err(KeeperError::Move)?;
            ring.activate(&id, now).map_err(KeeperError::Move)?
        }
    };
    home.tidy().map_err(store)?;
    if let Some(name) = home.unnamed().map_err(store)? {
        return Err(KeeperError::LeftOver(name));
    }
    let is_kept = had_keys || home.top.exists(recovery::FILE).map_err(store)?;
    // KEKs without a key are kept in the record: their key_ids never come back.
    let kek = ring.active().id;
    let is_shared = ring.active().shared;
    let recipients = founding.recipients.to_vec();
    let sharers = if is_shared { Nodes::fellows() } else { Nodes::new() };
    let state = State { recipients, marks: Marks::of_unknown(&roots), roots, sharers, ..State::bare(ring) };
    let counter = Counter::Beside(former.unwrap_or_default());
    build(&mut home, founding, Kept { state, keys, copies }, now, is_kept, counter)?;
    if home.top.exists(RECOVER_MARKER).map_err(store)? {
        home.top.destroy(RECOVER_MARKER).map_err(store)?;
    }
    emit(&Event::KeysRecovered { keys: keks, kek: &kek });
    let kept = home.current.iter().flat_map(|current| current.kept.last()).next();
    let kept_in = kept.filter(|_| is_kept).map(|name| format!("{ROOTS}/{name}"));
    Ok(Recovered { kek, keks, lacking, kept_in, is_shared })
}

/// Removes what an interrupted recovery has begun. The keys that were there before are as they were.
pub fn abort_recovery<D: Disk + Clone>(dir: &StateDir<D>) -> Result<(), KeeperError> {
    let mut home = Home::of(dir.inside(""))?;
    let store = KeeperError::Store;
    if home.top.exists(RECOVER_MARKER).map_err(store)? && home.current.is_none() {
        return bring_back(&home);
    }
    if !home.has_half_made().map_err(store)? {
        return Err(KeeperError::NothingInterrupted);
    }
    home.tidy().map_err(store)
}

/// Of release 0.1: the keys that its recovery has moved away come back, and what it has made gives way.
fn bring_back<D: Disk + Clone>(home: &Home<D>) -> Result<(), KeeperError> {
    let store = KeeperError::Store;
    let marker = home.top.load(RECOVER_MARKER, Kind::InitMarker, |_, bytes| Marker::decode(bytes));
    let Marker { folder, moved } = marker.map_err(|_| KeeperError::RecoveryPending)?.value;
    if folder.is_empty() {
        return Err(KeeperError::RecoveryPending);
    }
    let from = home.top.inside(&folder);
    let old = files::of_root(&from).map_err(store)?;
    if moved {
        for name in files::of_root(&home.top).map_err(store)? {
            home.top.destroy(&name).map_err(store)?;
        }
    }
    for name in old.iter().map(String::as_str).chain([recovery::FILE]) {
        if from.exists(name).map_err(store)? {
            let back = format!("{folder}/{name}");
            home.top.move_out(&back, name).map_err(store)?;
        }
    }
    home.top.destroy(RECOVER_MARKER).map_err(store)
}

/// Whether the keys that are here are lost, or the operator says that they are to be.
fn may_be_given_up<D: Disk + Clone>(
    home: &Home<D>,
    founding: &Founding<'_>,
    order: RecoverOrder,
    now: UnixSeconds,
) -> Result<(), KeeperError> {
    let opening = Opening {
        cluster: founding.cluster,
        sealer: founding.sealer,
        trust: Trust::Looking,
        guard: founding.guard,
        now,
    };
    let error = match open::open(home, &opening) {
        // It waits for a bundle, and has no key that could be lost.
        Ok(opened) if opened.state.awaits_bundle => return Ok(()),
        Ok(_) => return Err(KeeperError::KeysOpen),
        Err(error) => error,
    };
    // What is away for the moment, or not understood, is not lost.
    match error.class() {
        Class::Unavailable | Class::Throttled | Class::Internal | Class::Misconfigured if !order.give_up_device => {
            Err(KeeperError::MayStillOpen(Box::new(error)))
        }
        _ => Ok(()),
    }
}

/// The device makes and seals a root, everything is written into a folder of its own and read back by the way that every start
/// takes, and then that folder counts. With `keep` the old one stays.
fn build<D: Disk + Clone>(
    home: &mut Home<D>,
    founding: &Founding<'_>,
    Kept { mut state, keys, copies }: Kept,
    now: UnixSeconds,
    keep: bool,
    counter: Counter,
) -> Result<(), KeeperError> {
    let (cluster, store) = (founding.cluster, KeeperError::Store);
    // First: a device that does not do this leaves no trace.
    let fresh = FreshRoot::make(founding.sealer, founding.to, None).map_err(KeeperError::Root)?;
    let root = &fresh.root;
    let dir = home.make_folder(&root.id()).map_err(store)?;
    fresh.save(&dir).map_err(KeeperError::Root)?;
    for (id, key) in &keys {
        save_kek(&dir, cluster, root, &label(&state.ring, id)?, key)?;
    }
    let mac_key = root.state_mac_key(cluster);
    for (id, set) in &copies {
        let bytes = set.encode(id, cluster, &root.id(), &mac_key);
        dir.replace_both(&wraps_file::file_name(id), Kind::Wraps, &bytes).map_err(store)?;
    }
    let file = match founding.recipients.is_empty() || state.awaits_bundle {
        true => None,
        false => {
            let (cluster, roots, ring) = (cluster.clone(), state.roots.clone(), state.ring.clone());
            let export = Export { cluster, written: now, roots, ring, keys, copies };
            let maker = MakerKey::of(root, founding.cluster);
            Some(recovery::encrypt(founding.recipients, &export, &maker).map_err(KeeperError::Recovery)?)
        }
    };
    state.recovery = file.as_deref().map(super::keeper::digest);
    state.written = now;
    state.seal = Some(SealMark::of(root.sealed()));
    let auth = root.counter_auth(cluster);
    if let Some(index) = founding.guard {
        let make = |index, stranger| guard::make(founding.sealer, index, &auth, stranger, &root.sealed().blob);
        state.guard = Some(match &counter {
            Counter::At(stranger) => make(index, *stranger)?,
            Counter::Beside(left) => make_beside(index, left, make)?,
        });
    }
    state.left_counters = counter.left(founding.guard, state.guard);
    let bytes = state.encode(cluster, &root.id(), &mac_key);
    dir.replace_both(STATE, Kind::State, &bytes).map_err(store)?;
    let opening = Opening { cluster, sealer: founding.sealer, trust: Trust::Guarded, guard: founding.guard, now };
    open::open(&home.beside(&root.id()), &opening)?;
    if keep {
        home.keep_with_the_old(recovery::FILE).map_err(store)?;
    }
    home.turn(&root.id(), keep).map_err(store)?;
    home.tidy().map_err(store)?;
    if let Some(file) = file {
        home.top.replace_both(recovery::FILE, Kind::Recovery, &file).map_err(store)?;
    }
    Ok(())
}

/// What a node begins with.
struct Kept {
    state: State,
    keys: Vec<(KekId, Key)>,
    copies: Vec<(KekId, WrapSet)>,
}

/// The ring of a node that goes on with the file's active KEK. Other nodes have it too, or why would it be kept: so it counts
/// against a sharer's part of the limit, and no age replaces it without being asked.
///
/// The file is as old as the last change of keys, and says nothing of what was encrypted since. A rotation is due at half of a
/// sharer's part, so that no more than this was used by a node that was rotated when it was told to; the other half is left.
///
/// Nor does it say who was given the pending KEK. So that one is given up, until a node that has it brings it back.
fn resume_active(export: &Export, now: UnixSeconds) -> Result<Ring, KeeperError> {
    let id = export.ring.active().id;
    if !export.keys.iter().any(|(known, _)| *known == id) {
        return Err(KeeperError::NotOpened(id));
    }
    let ring = export.ring.giving_up_pending(now).all_shared().with_reservation(uses::rotate_at(true));
    match ring.active().uses_reserved < uses::hard_limit(true) {
        true => Ok(ring),
        false => Err(KeeperError::UsedUp(id)),
    }
}

fn label(ring: &Ring, id: &KekId) -> Result<KekLabel, KeeperError> {
    let entry: Option<&Entry> = ring.entries().find(|(entry, _)| entry.id == *id).map(|(entry, _)| entry);
    entry.map(|entry| KekLabel { id: entry.id, created: entry.created }).ok_or(KeeperError::NotOpened(*id))
}

/// Whether a root was set up here: its seal, its state, or a KEK.
fn has_root<D: Disk + Clone>(home: &Home<D>) -> Result<bool, KeeperError> {
    let names = files::of_root(&home.root).map_err(KeeperError::Store)?;
    let is_key = |name: &&String| *name == STATE || *name == crate::seal::root::FILE || name.starts_with(kek_file::DIR);
    Ok(names.iter().any(|name| is_key(&name)))
}

/// Whatever else of ours would be overwritten, or would open nothing any more.
fn leftovers<D: Disk + Clone>(home: &Home<D>) -> Result<Vec<String>, KeeperError> {
    let store = KeeperError::Store;
    let mut names = files::of_root(&home.root).map_err(store)?;
    for row in files::FILES.iter().filter(|row| row.kind == Some(Kind::Recovery)) {
        names.extend(files::matching(&home.top, row).map_err(store)?);
    }
    Ok(names)
}
