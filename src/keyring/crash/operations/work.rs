//! How each operation is prepared and done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::keyring::bundle::{self, Bundle, BundleError, BundleRequest, Drawn, fingerprint};
use crate::keyring::crash::device::{PARENT, TRANSPORT};
use crate::keyring::crash::node::{Node, TO};
use crate::keyring::crash::provider::Provider;
use crate::keyring::crash::running::Running;
use crate::keyring::epoch::ProviderMemory;
use crate::keyring::evidence::{KekUse, Reach, Scan};
use crate::keyring::export::Export;
use crate::keyring::keeper::{KeeperHandle, KeyTable, Proof, RenewOrder};
use crate::keyring::member::{self, MemberKeys, STANDING_VALID_SECONDS, Standing};
use crate::keyring::recovery::Identity;
use crate::keyring::ring::{Entry, MoveError, RetireTo, Ring};
use crate::keyring::{KeeperError, RESERVED_BLOCK_USES};
use crate::seal::agree;
use crate::store::sim::{Fault, SimDisk};
use crate::types::{KekId, Key, clock, hex};

pub(in crate::keyring::crash) const DAY: u64 = 24 * 3600;

/// The operation has said that it did not succeed.
#[derive(Debug)]
pub(in crate::keyring::crash) enum Refused {
    /// By the keeper.
    Keeper(KeeperError),
    /// It does not come.
    NotSeen(#[expect(dead_code, reason = "for the message of an assertion that fails")] &'static str),
}

impl Refused {
    /// Refused since it was done before.
    pub(in crate::keyring::crash) fn is_done(&self) -> bool {
        use MoveError::{Active, Destroyed, Pending};
        matches!(self, Self::Keeper(KeeperError::Move(Active | Destroyed | Pending)))
    }
}

impl From<KeeperError> for Refused {
    fn from(error: KeeperError) -> Self {
        Self::Keeper(error)
    }
}

/// Recovery file and guard from now on.
pub(in crate::keyring::crash) fn insure(node: &mut Node) {
    node.guard = Some(0x0180_0001);
    node.identity = Some(Arc::new(Identity::generate()));
}

/// The disk is gone, but for a copy of the recovery file; the next one is done without file and guard.
pub(in crate::keyring::crash) fn lose_all(node: &mut Node) {
    insure(node);
    grow(node);
    node.keep_recovery_file();
    node.disk = SimDisk::default();
    node.guard = None;
    node.identity = None;
}

/// As a new mainboard does. The old keys stay on the disk, for the day on which the old one is found again.
pub(in crate::keyring::crash) fn lose_root(node: &mut Node) {
    insure(node);
    grow(node);
    node.keep_recovery_file();
    for name in ["node/root.seal", "node/root.seal.prev"] {
        node.damage(name);
    }
    // What counts is named anew, and the spare room belongs to nobody.
    let is_kept = |name: &str| !["lock", "current", "spare"].iter().any(|other| name.starts_with(other));
    let files = node.files().into_iter().filter(|(name, _)| is_kept(name));
    node.kept = files.collect();
}

/// The very same call was made before, and the machine lost its power in the middle of it.
pub(in crate::keyring::crash) fn kill_recover(node: &mut Node) {
    lose_root(node);
    let trial = node.on(node.disk.copy());
    trial.disk.plan(None);
    trial.recover().unwrap();
    let steps = trial.disk.steps();
    let is_change = |at: &usize| Fault::KillBefore.fits(steps[*at]);
    let middle = (steps.len() / 2..steps.len()).find(is_change).unwrap();
    node.disk.plan(Some((middle, Fault::KillBefore)));
    assert!(node.recover().is_err());
    node.disk = node.disk.after_kill();
}

/// The request of another node is there.
pub(in crate::keyring::crash) fn be_asked(node: &mut Node) {
    insure(node);
    grow(node);
    let request = BundleRequest {
        cluster: "c1".parse().unwrap(),
        nonce: [1; 32],
        expires: clock::LAST,
        node: "cp-2".into(),
        half: agree::public_half(&Key::copy_of(&[2; 32]).unwrap()).unwrap(),
        parent: hex::decode(PARENT).unwrap(),
    };
    node.file = Arc::new(request.encode());
}

/// What another node calls itself.
pub(in crate::keyring::crash) const MEMBER: &str = "cp-9";

/// Of a node that follows from this byte.
pub(in crate::keyring::crash) fn member_keys(byte: u8) -> MemberKeys {
    MemberKeys::new(&key(byte)).unwrap()
}

/// The storage key of a node that follows from this byte.
pub(in crate::keyring::crash) fn other_parent(byte: u8) -> Vec<u8> {
    let mut parent = hex::decode(PARENT).unwrap();
    let half = agree::public_half(&key(byte)).unwrap();
    // The TPM has a length before x and y each.
    let (x, y) = half.split_at(32);
    let at = parent.len();
    parent[at - 66..at - 34].copy_from_slice(x);
    parent[at - 32..].copy_from_slice(y);
    parent
}

/// Another node has shown its identity.
pub(in crate::keyring::crash) fn meet_a_member(node: &mut Node) {
    insure(node);
    grow(node);
    let parent = hex::decode(PARENT).unwrap();
    node.file = Arc::new(member_keys(77).identity(&"c1".parse().unwrap(), MEMBER.parse().unwrap(), parent).unwrap());
}

/// It is known, and there is a KEK that it does not have.
pub(in crate::keyring::crash) fn know_a_member(node: &mut Node) {
    meet_a_member(node);
    let file = node.file.to_vec();
    node.live(|running| {
        running.ask(|keeper| keeper.add_member(file.clone(), fingerprint(&file))).unwrap();
        running.ask(KeeperHandle::rotate).unwrap();
    });
}

/// It is known, and has given two KEKs of its own, one of them in pre-activation.
pub(in crate::keyring::crash) fn be_given_by_a_member(node: &mut Node) {
    meet_a_member(node);
    let file = node.file.to_vec();
    let mut own = Vec::new();
    node.live(|running| {
        running.ask(|keeper| keeper.add_member(file.clone(), fingerprint(&file))).unwrap();
        own = running.ask(|keeper| keeper.identity("cp-1".parse().unwrap())).unwrap();
    });
    let drawn = Drawn { transport: Key::copy_of(&TRANSPORT).unwrap(), secret: key(5), nonce: [6; 12] };
    let expires = node.clock + STANDING_VALID_SECONDS;
    let own = member::Identity::decode(&own).unwrap();
    node.file = Arc::new(Standing::seal(&own, &member_keys(77), vec![1], &drawn, expires, &theirs()).unwrap());
}

/// What the member gives to this node, whose identity it is: this ring, whose keys follow from the first byte of their ids.
pub(in crate::keyring::crash) fn bundle_of_member(own: &[u8], ring: Ring, now: u64) -> Vec<u8> {
    let drawn = Drawn { transport: Key::copy_of(&TRANSPORT).unwrap(), secret: key(5), nonce: [6; 12] };
    let own = member::Identity::decode(own).unwrap();
    let keys = ring.usable().map(|(entry, _)| (entry.id, key(entry.id.as_bytes()[0].wrapping_add(10)))).collect();
    let (cluster, roots, copies) = ("c1".parse().unwrap(), ProviderMemory::default(), Vec::new());
    let export = Export { cluster, written: 3, roots, ring, keys, copies };
    Standing::seal(&own, &member_keys(77), vec![1], &drawn, now + STANDING_VALID_SECONDS, &export).unwrap()
}

fn key(byte: u8) -> Key {
    Key::copy_of(&[byte; 32]).unwrap()
}

/// The keyring of another node.
fn theirs() -> Export {
    let entry = |byte| Entry { id: KekId::from_bytes([byte; 16]), created: 1, uses_reserved: 2, shared: true };
    let ring = Ring::new(entry(3), 1).with_pending(entry(4)).unwrap().activate(&entry(4).id, 2).unwrap();
    let keys = vec![(entry(3).id, key(13)), (entry(4).id, key(14))];
    let (cluster, roots, copies) = ("c1".parse().unwrap(), ProviderMemory::default(), Vec::new());
    Export { cluster, written: 3, roots, ring, keys, copies }
}

/// This node has asked, and another one has answered with two KEKs of its own.
pub(in crate::keyring::crash) fn be_given(node: &mut Node) {
    insure(node);
    grow(node);
    let mut file = Vec::new();
    node.live(|running| file = running.ask(|keeper| keeper.bundle_request("cp-1".into())).unwrap());
    let drawn = Drawn { transport: Key::copy_of(&TRANSPORT).unwrap(), secret: key(5), nonce: [6; 12] };
    let request = BundleRequest::decode(&file).unwrap();
    let bundle = Bundle::seal(&request, bundle::digest(&file), vec![1], &drawn, &theirs()).unwrap();
    node.file = Arc::new(bundle.encode());
}

/// For the node that has made this request.
pub(in crate::keyring::crash) fn make_bundle(request: &[u8], running: &Running) -> Result<Vec<u8>, KeeperError> {
    running.ask(|keeper| keeper.bundle_make(request.to_vec(), fingerprint(request)))
}

pub(in crate::keyring::crash) fn accept_file(bundle: &[u8], running: &Running) -> Result<KeyTable, KeeperError> {
    running.ask(|keeper| keeper.bundle_accept(bundle.to_vec(), Some(fingerprint(bundle))))
}

pub(in crate::keyring::crash) fn accept(node: &Node, running: &Running) -> Result<(), Refused> {
    match accept_file(&node.file, running) {
        // The first try took it in, and its answer was lost.
        Err(KeeperError::Bundle(BundleError::NoRequest)) if running.kek("active") == KekId::from_bytes([4; 16]) => {
            Ok(())
        }
        answer => Ok(answer.map(|_| ())?),
    }
}

pub(in crate::keyring::crash) fn set_up(node: &mut Node) {
    node.init().unwrap();
}

/// All is done but for the file that says what counts.
pub(in crate::keyring::crash) fn kill_init(node: &mut Node) {
    let trial = node.on(node.disk.copy());
    trial.disk.plan(None);
    trial.init().unwrap();
    // The last moment at which nothing counts yet.
    for at in (0..trial.disk.steps().len()).rev() {
        let killed = node.on(node.disk.copy());
        killed.disk.plan(Some((at, Fault::KillBefore)));
        drop(killed.init());
        let disk = killed.disk.after_kill();
        if !node.on(disk.copy()).files().contains_key("current") {
            node.disk = disk;
            return assert!(node.files().keys().any(|name| name.ends_with("/state")));
        }
    }
    panic!("`current` is there from the first step on");
}

/// The layout of release 0.1: everything lies in the state directory itself.
pub(in crate::keyring::crash) fn flatten(node: &mut Node) {
    let files = node.files();
    for (name, bytes) in files {
        let Some((_, rest)) = name.strip_prefix("roots/").and_then(|rest| rest.split_once('/')) else {
            if name.starts_with("current") {
                node.scribble(&name, None);
            }
            continue;
        };
        if let Some((folder, _)) = rest.split_once('/') {
            node.make_dir(folder);
        }
        node.scribble(rest, Some(bytes));
        node.scribble(&name, None);
    }
}

pub(in crate::keyring::crash) fn renew_root(node: &Node, running: &Running) -> Result<(), Refused> {
    let order = RenewOrder { to: TO, guard: node.guard, without_recovery_file: true, dry_run: false };
    Ok(running.ask(|keeper| keeper.renew_root(order.clone())).map(|_| ())?)
}

/// A node with a past: one KEK that was active, and texts of both.
pub(in crate::keyring::crash) fn grow(node: &mut Node) {
    set_up(node);
    node.live(|running| running.renew().unwrap());
}

pub(in crate::keyring::crash) fn set_up_rooted(node: &mut Node) {
    node.provider = Some(Provider::new());
    set_up(node);
}

pub(in crate::keyring::crash) fn grow_rooted(node: &mut Node) {
    set_up_rooted(node);
    node.live(|running| running.renew().unwrap());
}

/// Until another key_id is reported. A fault is got over within moments, or not at all while it lasts.
pub(in crate::keyring::crash) fn rotate_at_provider(node: &Node, running: &Running) -> Result<(), Refused> {
    let provider = node.provider.as_ref().unwrap();
    if running.keyring.key_id_now() == node.left {
        provider.rotate_to(2);
    }
    let has_moved = running.until(node, || running.keyring.key_id_now() != node.left);
    if has_moved { Ok(()) } else { Err(Refused::NotSeen("the key_id has not moved")) }
}

pub(in crate::keyring::crash) fn grow_and_rotate(node: &mut Node) {
    grow(node);
    let mut pending = None;
    node.live(|running| {
        running.handle.rotate().unwrap();
        pending = Some(running.kek("pre-activation"));
    });
    node.target = pending;
}

pub(in crate::keyring::crash) fn condemn_former(node: &mut Node) {
    grow(node);
    let mut former = None;
    node.live(|running| former = Some(running.kek("deactivated")));
    node.target = former;
    node.ledger.condemned = former;
}

/// The one that is damaged has no texts.
pub(in crate::keyring::crash) fn damage_one_and_condemn_another(node: &mut Node) {
    insure(node);
    set_up(node);
    let (mut first, mut second) = (None, None);
    node.live(|running| {
        first = Some(running.kek("active"));
        running.renew().unwrap();
        second = Some(running.kek("active"));
        running.renew().unwrap();
    });
    node.damage_both(&format!("keyring/{}.kek", second.unwrap()));
    node.target = first;
}

/// A text of another node came here, which the provider opens.
pub(in crate::keyring::crash) fn read_a_neighbour(node: &mut Node) {
    grow_rooted(node);
    let neighbour = node.neighbour();
    let running = neighbour.start();
    running.first_attempt().unwrap();
    node.target = Some(running.kek("active"));
    node.ledger.take(running.encrypt().unwrap());
}

pub(in crate::keyring::crash) fn keep_others(node: &Node, running: &Running) -> Result<(), Refused> {
    let target = node.target.unwrap().to_string();
    let is_kept = running.until(node, || {
        node.ledger.read_all(running);
        running.table().keys.iter().any(|row| row.id == target)
    });
    if is_kept { Ok(()) } else { Err(Refused::NotSeen("no copy was made")) }
}

pub(in crate::keyring::crash) fn half_destroy(node: &mut Node) {
    condemn_former(node);
    let target = node.target.unwrap();
    let files: Vec<_> = node.files().into_iter().filter(|(name, _)| name.contains(&target.to_string())).collect();
    assert_eq!(files.len(), 2, "both generations");
    node.live(|running| drop(running.handle.retire(target, RetireTo::Destroyed, Proof::Waived).unwrap()));
    files.into_iter().for_each(|(name, bytes)| node.scribble(&name, Some(bytes)));
    node.ledger.is_gone = true;
}

/// A scan that has counted something under the active KEK, and the date of a rehearsal.
pub(in crate::keyring::crash) fn keep_scan(running: &Running) -> Result<(), Refused> {
    let active = running.table().keys[0].id.clone();
    let keks = vec![KekUse { kek: active, objects: 3 }];
    let scan = Scan { at: 1, revision: 7, objects: 5, foreign: 0, reach: Reach::Whole, keks, keys: Vec::new() };
    running.handle.scanned(scan)?;
    Ok(running.handle.rehearsed().map(|_| ())?)
}

pub(in crate::keyring::crash) fn retire(node: &Node, running: &Running, to: RetireTo) -> Result<(), Refused> {
    Ok(running.handle.retire(node.target.unwrap(), to, Proof::Waived).map(|_| ())?)
}

/// Half a block asks for the next one.
pub(in crate::keyring::crash) fn reserve(_: &Node, running: &Running) -> Result<(), Refused> {
    // The start of the block was used by what came before.
    running.keyring.claim(RESERVED_BLOCK_USES / 2);
    // Answered after the reservation was made.
    running.table();
    match running.keyring.left() > RESERVED_BLOCK_USES / 2 {
        true => Ok(()),
        false => Err(Refused::NotSeen("no block was reserved")),
    }
}

pub(in crate::keyring::crash) fn rotate_by_age(node: &Node, running: &Running) -> Result<(), Refused> {
    let old = running.keyring.key_id_now();
    if running.clock.swap(node.later, Ordering::SeqCst) == node.later {
        // The keeper itself tries again after a minute.
        return Ok(running.renew()?);
    }
    let mut give_up = Instant::now() + Duration::from_secs(30);
    let mut is_struck = false;
    while running.keyring.key_id_now() == old {
        // Every question lets the keeper look at the clock.
        running.table();
        if node.was_struck() && !is_struck {
            // What was begun ends within this time, or has failed.
            is_struck = true;
            give_up = Instant::now() + Duration::from_millis(200);
        }
        if Instant::now() > give_up {
            return Err(Refused::NotSeen("the key_id is the old one"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
