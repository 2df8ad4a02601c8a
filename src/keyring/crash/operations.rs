//! Every operation that writes to the state directory, one entry each in [`OPERATIONS`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::device::{PARENT, TRANSPORT};
use super::node::{Node, Running};
use super::provider::Provider;
use crate::keyring::bundle::{self, Bundle, BundleError, BundleRequest, Drawn, fingerprint};
use crate::keyring::export::Export;
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::recovery::Identity;
use crate::keyring::ring::{Entry, RetireTo, Ring};
use crate::keyring::{KeeperError, RESERVED_BLOCK_USES};
use crate::seal::agree;
use crate::store::sim::{Fault, SimDisk, StepKind};
use crate::types::{KekId, Key};

const DAY: u64 = 24 * 3600;

/// Something that a node does as a whole.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// From a disk without anything to where the operation begins. The node does not run then.
    pub(super) prepare: fn(&mut Node),
    pub(super) run: Run,
    /// Whether another key_id is reported afterwards.
    pub(super) moves: Moves,
}

/// How it is done.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Sets the node up; nothing was encrypted before.
    Init,
    /// On the state directory itself, while nothing runs.
    Offline(fn(&Node) -> Result<(), KeeperError>),
    /// By the running keeper.
    Online(fn(&Node, &Running) -> Result<(), Refused>),
    /// Sets the node up from its recovery file.
    Recover,
    /// The start of the keeper itself.
    Start,
}

/// What becomes of the key_id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// It may change when the operation comes through.
    May,
    /// It has changed when the node has started on a disk that is well.
    Must,
    Never,
}

/// The operation has said that it did not succeed.
#[derive(Debug)]
pub(super) struct Refused(#[expect(dead_code, reason = "for the message of an assertion that fails")] String);

impl From<KeeperError> for Refused {
    fn from(error: KeeperError) -> Self {
        Self(crate::types::Chain(&error).to_string())
    }
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "init", prepare: |_| {}, run: Run::Init, moves: Moves::Never },
    Operation { name: "init after one that was killed", prepare: kill_init, run: Run::Init, moves: Moves::Never },
    Operation { name: "first start", prepare: set_up, run: Run::Start, moves: Moves::Never },
    Operation { name: "start", prepare: grow_and_rotate, run: Run::Start, moves: Moves::Never },
    Operation { name: "start after an init that was killed", prepare: kill_init, run: Run::Start, moves: Moves::Never },
    Operation {
        name: "start with a destroyed KEK whose file is still there",
        prepare: half_destroy,
        run: Run::Start,
        moves: Moves::Never,
    },
    Operation {
        name: "start with a damaged state",
        prepare: |node| {
            grow_and_rotate(node);
            node.damage("state");
        },
        run: Run::Start,
        moves: Moves::Must,
    },
    Operation {
        name: "start when a rotation is due",
        prepare: |node| {
            grow(node);
            node.clock = 365 * DAY;
        },
        run: Run::Start,
        moves: Moves::Must,
    },
    Operation {
        name: "start when a rotation is due and a KEK is pending",
        prepare: |node| {
            grow_and_rotate(node);
            node.clock = 365 * DAY;
        },
        run: Run::Start,
        moves: Moves::Must,
    },
    Operation {
        name: "rotate",
        prepare: grow,
        run: Run::Online(|_, running| Ok(running.handle.rotate().map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "activate",
        prepare: grow_and_rotate,
        run: Run::Online(|node, running| Ok(running.handle.activate(node.target.unwrap()).map(|_| ())?)),
        moves: Moves::May,
    },
    Operation {
        name: "rotation that is due",
        prepare: |node| {
            grow(node);
            node.later = 365 * DAY;
        },
        run: Run::Online(rotate_by_age),
        moves: Moves::Must,
    },
    Operation {
        name: "rotation that is due, to the pending KEK",
        prepare: |node| {
            grow_and_rotate(node);
            node.later = 365 * DAY;
        },
        run: Run::Online(rotate_by_age),
        moves: Moves::Must,
    },
    Operation { name: "first KEK that a provider wraps", prepare: set_up_rooted, run: Run::Start, moves: Moves::Never },
    Operation { name: "start with a provider", prepare: grow_rooted, run: Run::Start, moves: Moves::Never },
    Operation {
        name: "rotation at the provider",
        prepare: grow_rooted,
        run: Run::Online(rotate_at_provider),
        // After a start it moves as soon as the provider was asked often enough.
        moves: Moves::May,
    },
    Operation {
        name: "retire as compromised",
        prepare: |node| {
            condemn_former(node);
            node.ledger.condemned = None;
        },
        run: Run::Online(|node, running| retire(node, running, RetireTo::Compromised)),
        moves: Moves::Never,
    },
    Operation {
        name: "destroy a KEK that was active",
        prepare: condemn_former,
        run: Run::Online(|node, running| retire(node, running, RetireTo::Destroyed)),
        moves: Moves::Never,
    },
    Operation {
        name: "destroy a pending KEK",
        prepare: |node| {
            grow_and_rotate(node);
            node.ledger.condemned = node.target;
        },
        run: Run::Online(|node, running| retire(node, running, RetireTo::Destroyed)),
        moves: Moves::Never,
    },
    Operation {
        name: "reseal",
        prepare: grow,
        run: Run::Online(|node, running| Ok(running.ask(|keeper| keeper.reseal(node.order())).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation { name: "reseal without a keeper", prepare: grow, run: Run::Offline(Node::reseal), moves: Moves::May },
    Operation { name: "init with recovery file and guard", prepare: insure, run: Run::Init, moves: Moves::Never },
    Operation {
        name: "rotate with recovery file and guard",
        prepare: |node| {
            insure(node);
            grow(node);
        },
        run: Run::Online(|_, running| Ok(running.ask(KeeperHandle::rotate).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "activate with recovery file and guard",
        prepare: |node| {
            insure(node);
            grow_and_rotate(node);
        },
        run: Run::Online(|node, running| Ok(running.handle.activate(node.target.unwrap()).map(|_| ())?)),
        moves: Moves::May,
    },
    Operation {
        name: "destroy with recovery file and guard",
        prepare: |node| {
            insure(node);
            condemn_former(node);
        },
        run: Run::Online(|node, running| retire(node, running, RetireTo::Destroyed)),
        moves: Moves::Never,
    },
    Operation {
        name: "start with a damaged state, recovery file and guard",
        prepare: |node| {
            insure(node);
            grow_and_rotate(node);
            node.damage("state");
        },
        run: Run::Start,
        moves: Moves::Must,
    },
    Operation {
        name: "reseal that brings recovery file and guard",
        prepare: |node| {
            grow(node);
            insure(node);
        },
        run: Run::Online(|node, running| Ok(running.ask(|keeper| keeper.reseal(node.order())).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "ask for a bundle",
        prepare: grow,
        run: Run::Online(|_, running| Ok(running.ask(|keeper| keeper.bundle_request("cp-2".into())).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "make a bundle, with recovery file and guard",
        prepare: be_asked,
        run: Run::Online(|node, running| {
            let make = |keeper: &KeeperHandle| keeper.bundle_make(node.file.to_vec(), fingerprint(&node.file));
            Ok(running.ask(make).map(|_| ())?)
        }),
        moves: Moves::Never,
    },
    Operation {
        name: "accept a bundle, with recovery file and guard",
        prepare: be_given,
        run: Run::Online(accept),
        moves: Moves::May,
    },
    Operation { name: "recover an empty node", prepare: lose_all, run: Run::Recover, moves: Moves::Must },
    Operation {
        name: "recover beside keys that do not open",
        prepare: lose_root,
        run: Run::Recover,
        moves: Moves::Must,
    },
    Operation { name: "reserve uses", prepare: grow, run: Run::Online(reserve), moves: Moves::Never },
];

/// Recovery file and guard from now on.
pub(super) fn insure(node: &mut Node) {
    node.guard = Some(0x0180_0001);
    node.identity = Some(Arc::new(Identity::generate()));
}

/// The disk is gone, but for a copy of the recovery file; the next one is done without file and guard.
fn lose_all(node: &mut Node) {
    insure(node);
    grow(node);
    node.keep_recovery_file();
    node.disk = SimDisk::default();
    node.guard = None;
    node.identity = None;
}

/// As a new mainboard does. The old keys stay on the disk, for the day on which the old one is found again.
fn lose_root(node: &mut Node) {
    insure(node);
    grow(node);
    node.keep_recovery_file();
    for name in ["node/root.seal", "node/root.seal.prev"] {
        node.damage(name);
    }
    let files = node.files().into_iter().filter(|(name, _)| !name.starts_with("lock"));
    node.kept = files.collect();
}

/// The request of another node is there.
fn be_asked(node: &mut Node) {
    insure(node);
    grow(node);
    let request = BundleRequest {
        cluster: "c1".parse().unwrap(),
        nonce: [1; 32],
        expires: u64::MAX,
        node: "cp-2".into(),
        half: agree::public_half(&Key::copy_of(&[2; 32]).unwrap()).unwrap(),
        parent: hex::decode(PARENT).unwrap(),
    };
    node.file = Arc::new(request.encode());
}

/// This node has asked, and another one has answered with two KEKs of its own.
fn be_given(node: &mut Node) {
    insure(node);
    grow(node);
    let mut file = Vec::new();
    node.live(|running| file = running.ask(|keeper| keeper.bundle_request("cp-1".into())).unwrap());
    let key = |byte| Key::copy_of(&[byte; 32]).unwrap();
    let entry = |byte| Entry { id: KekId::from_bytes([byte; 16]), created: 1, uses_reserved: 2, shared: true };
    let ring = Ring::new(entry(3), 1).with_pending(entry(4)).unwrap().activate(&entry(4).id, 2).unwrap();
    let keys = vec![(entry(3).id, key(13)), (entry(4).id, key(14))];
    let export = Export { cluster: "c1".parse().unwrap(), written: 3, ring, keys };
    let drawn = Drawn { transport: Key::copy_of(&TRANSPORT).unwrap(), secret: key(5), nonce: [6; 12] };
    let request = BundleRequest::decode(&file).unwrap();
    let bundle = Bundle::seal(&request, bundle::digest(&file), vec![1], &drawn, &export).unwrap();
    node.file = Arc::new(bundle.encode());
}

fn accept(node: &Node, running: &Running) -> Result<(), Refused> {
    match running.ask(|keeper| keeper.bundle_accept(node.file.to_vec(), fingerprint(&node.file))) {
        // The first try took it in, and its answer was lost.
        Err(KeeperError::Bundle(BundleError::NoRequest)) if running.kek("active") == KekId::from_bytes([4; 16]) => {
            Ok(())
        }
        answer => Ok(answer.map(|_| ())?),
    }
}

fn set_up(node: &mut Node) {
    node.init().unwrap();
}

/// All is done but for the marker, which says that nothing is.
fn kill_init(node: &mut Node) {
    let trial = node.on(node.disk.copy());
    trial.disk.plan(None);
    trial.init().unwrap();
    let proof = trial.disk.steps().iter().rposition(|step| *step == StepKind::Read).unwrap();
    node.disk.plan(Some((proof + 1, Fault::KillBefore)));
    assert!(node.init().is_err());
    node.disk = node.disk.after_kill();
    assert!(node.files().contains_key("init.pending"));
}

/// A node with a past: one KEK that was active, and texts of both.
fn grow(node: &mut Node) {
    set_up(node);
    node.live(|running| running.renew().unwrap());
}

fn set_up_rooted(node: &mut Node) {
    node.provider = Some(Provider::new());
    set_up(node);
}

fn grow_rooted(node: &mut Node) {
    set_up_rooted(node);
    node.live(|running| running.renew().unwrap());
}

/// Until another key_id is reported. A fault is got over within moments, or not at all while it lasts.
fn rotate_at_provider(node: &Node, running: &Running) -> Result<(), Refused> {
    let provider = node.provider.as_ref().unwrap();
    if running.keyring.key_id_now() == node.left {
        provider.rotate_to(2);
    }
    let has_moved = running.until(&node.disk, || running.keyring.key_id_now() != node.left);
    if has_moved { Ok(()) } else { Err(Refused("the key_id has not moved".to_owned())) }
}

pub(super) fn grow_and_rotate(node: &mut Node) {
    grow(node);
    let mut pending = None;
    node.live(|running| {
        running.handle.rotate().unwrap();
        pending = Some(running.kek("pre-activation"));
    });
    node.target = pending;
}

fn condemn_former(node: &mut Node) {
    grow(node);
    let mut former = None;
    node.live(|running| former = Some(running.kek("deactivated")));
    node.target = former;
    node.ledger.condemned = former;
}

fn half_destroy(node: &mut Node) {
    condemn_former(node);
    let target = node.target.unwrap();
    let files: Vec<_> = node.files().into_iter().filter(|(name, _)| name.contains(&target.to_string())).collect();
    assert_eq!(files.len(), 2, "both generations");
    node.live(|running| drop(running.handle.retire(target, RetireTo::Destroyed).unwrap()));
    files.into_iter().for_each(|(name, bytes)| node.set(&name, Some(bytes)));
    node.ledger.is_gone = true;
}

fn retire(node: &Node, running: &Running, to: RetireTo) -> Result<(), Refused> {
    Ok(running.handle.retire(node.target.unwrap(), to).map(|_| ())?)
}

/// Half a block asks for the next one.
fn reserve(_: &Node, running: &Running) -> Result<(), Refused> {
    // The start of the block was used by what came before.
    running.keyring.claim(RESERVED_BLOCK_USES / 2);
    // Answered after the reservation was made.
    running.table();
    match running.keyring.left() > RESERVED_BLOCK_USES / 2 {
        true => Ok(()),
        false => Err(Refused("no block was reserved".into())),
    }
}

fn rotate_by_age(node: &Node, running: &Running) -> Result<(), Refused> {
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
        if node.disk.was_struck() && !is_struck {
            // What was begun ends within this time, or has failed.
            is_struck = true;
            give_up = Instant::now() + Duration::from_millis(200);
        }
        if Instant::now() > give_up {
            return Err(Refused("the key_id is the old one".into()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
