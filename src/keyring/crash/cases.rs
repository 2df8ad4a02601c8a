//! One operation, one fault of the disk, and the life after it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::device::Trouble;
use super::node::Node;
use super::operations::{Moves, Operation, Run};
use super::provider::Silence;
use super::running::Running;
use crate::keyring::{KeeperError, recovery};
use crate::store::sim::{Crash, Extent, Failure, Fault};
use crate::types::KekId;
use crate::types::random::drawn::{self, Draws};

/// What goes wrong at which step or question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    Device(usize, Trouble),
    Disk(usize, Fault),
    Provider(usize, Silence),
}

impl Node {
    /// Lets it happen from now on; with `None` all is well.
    pub(super) fn plan(&self, plan: Option<Plan>) {
        let (mut disk, mut device, mut provider) = (None, None, None);
        match plan {
            None => {}
            Some(Plan::Device(at, trouble)) => device = Some((at, trouble)),
            Some(Plan::Disk(at, fault)) => disk = Some((at, fault)),
            Some(Plan::Provider(at, silence)) => provider = Some((at, silence)),
        }
        self.disk.plan(disk);
        self.device.plan(device);
        self.provider.iter().for_each(|own| own.plan(provider));
    }
}

/// What one operation did in a case.
pub(super) struct Done {
    pub(super) running: Option<Running>,
    pub(super) result: Result<(), String>,
}

/// Does the operation where something is planned.
pub(super) fn run(operation: &Operation, node: &mut Node, plan: Option<Plan>) -> Done {
    match operation.run {
        Run::Init => {
            node.plan(plan);
            Done { running: None, result: init(node) }
        }
        Run::Recover => {
            node.plan(plan);
            Done { running: None, result: node.recover().map_err(|error| format!("{error:?}")) }
        }
        Run::Offline(work) => {
            node.plan(plan);
            Done { running: None, result: work(node).map_err(|error| format!("{error:?}")) }
        }
        Run::Start => {
            node.plan(plan);
            let running = node.start();
            let result = match node.provider {
                None => running.first_attempt().map_err(|error| format!("{error:?}")),
                Some(_) => match running.until(node, || running.keyring.key_id_now().is_some()) {
                    true => Ok(()),
                    false => Err("no key_id is reported".to_owned()),
                },
            };
            Done { running: Some(running), result }
        }
        Run::Online(work) => {
            let running = node.start();
            running.first_attempt().unwrap();
            node.ledger.encrypt(&running);
            node.plan(plan);
            let result = work(node, &running).map_err(|error| format!("{error:?}"));
            Done { running: Some(running), result }
        }
    }
}

fn init(node: &Node) -> Result<(), String> {
    node.init().map_err(|error| format!("{error:?}"))
}

/// The operation once more, by the same process where it is one that goes on.
pub(super) fn run_again(operation: &Operation, node: &Node, running: Option<&Running>) {
    match (operation.run, running) {
        // What failed may have been the very last step.
        (Run::Init, _) => match node.init() {
            Ok(_) | Err(KeeperError::AlreadySetUp) => {}
            Err(error) => panic!("init cannot be run again: {error:?}"),
        },
        (Run::Recover, _) => match node.recover() {
            Ok(()) | Err(KeeperError::KeysOpen) => {}
            Err(error) => panic!("recover cannot be run again: {error:?}"),
        },
        (Run::Offline(work), _) => work(node).unwrap(),
        (Run::Online(work), Some(running)) => work(node, running).unwrap(),
        (Run::Start, Some(running)) => running.opens_by_itself(),
        (Run::Online(_) | Run::Start, None) => unreachable!("these run"),
    }
}

/// One operation, one fault at one step; with `at` behind the last step, after the operation was answered.
///
/// The keeper goes on with errands of its own after an answer, so that a run may take a step more or fewer than the one
/// that was measured. Returns whether this one did: such a case proves what it proves, for another step than it names.
pub(super) fn disk_case(operation: &'static Operation, template: &Node, at: usize, fault: Fault, steps: usize) -> bool {
    let mut node = template.on(template.disk.copy());
    let Done { running, result } = run(operation, &mut node, Some(Plan::Disk(at, fault)));
    let is_struck = node.disk.was_struck();
    let is_off = is_struck != (at < steps);
    if let Some(running) = &running {
        node.ledger.observe(running);
    }
    let is_answered = result.is_ok();
    if !is_struck {
        result.unwrap();
        running.iter().for_each(|running| node.ledger.encrypt(running));
    }
    if fault.ends_the_process() {
        if is_answered {
            node.answered();
        }
        for disk in node.disk.outcomes(fault) {
            boot(operation, node.on(disk), is_answered);
        }
        return is_off;
    }
    // Two bad reads in a row are both copies of a KEK, and the start does not wait for a disk that may never be well again.
    let may_lack = matches!((operation.run, fault), (Run::Start, Fault::Error(Failure::Io, Extent::Twice)));
    let open = running.as_ref().filter(|running| running.keyring.key_id_now().is_some());
    if let Some(running) = open {
        // While the disk fails, what is in memory serves. A start on a disk that takes nothing has no uses to give out.
        match (operation.run, fault) {
            (Run::Start, Fault::Error(_, Extent::FromThenOn)) => node.ledger.encrypt_if_reserved(running),
            // The operation itself takes what was reserved.
            (_, Fault::Error(_, Extent::FromThenOn)) if operation.name == "reserve uses" => {
                node.ledger.encrypt_if_reserved(running);
            }
            _ => node.ledger.encrypt(running),
        }
        node.ledger.assert_holds_for(running, may_lack);
    }
    if let (false, Some(running), Fault::Error(failure, _)) = (is_answered, open, fault)
        && failure.lets_remove()
        && node.disk.was_struck()
        // Its state may be on the disk although the call that wrote it failed: what it names must stay.
        && !operation.name.starts_with("accept")
    {
        assert_every_kek_file_is_named(&node, running);
    }
    // What fails once and is not got over leaves what failing from then on leaves.
    if is_answered || matches!(fault, Fault::Error(_, Extent::FromThenOn)) {
        boot(operation, node.on(node.disk.after_cut(Crash::Lost)), is_answered);
    }
    node.plan(None);
    if !is_answered {
        run_again(operation, &node, running.as_ref());
    }
    node.answered();
    if let Some(running) = running {
        node.ledger.encrypt(&running);
        node.ledger.assert_holds_for(&running, may_lack);
    }
    boot(operation, node.on(node.disk.after_cut(Crash::Lost)), true);
    is_off
}

impl Node {
    /// The operation was reported as done.
    pub(super) fn answered(&mut self) {
        self.ledger.is_gone |= self.ledger.condemned.is_some();
    }
}

/// How many boots there were, and how many of them were tried: each that differs in a byte from all others.
#[derive(Debug, Default)]
pub(super) struct Boots {
    pub(super) all: usize,
    pub(super) tried: BTreeSet<(&'static str, bool, [u8; 32])>,
}

pub(super) static BOOTS: Mutex<Boots> = Mutex::new(Boots { all: 0, tried: BTreeSet::new() });

/// The next boot on a disk that is well, and the life after it. What is the same to the last byte is tried once: many faults leave
/// one disk, and draws that can be had again ([`drawn`]) let it be seen.
pub(super) fn boot(operation: &'static Operation, node: Node, is_answered: bool) {
    let is_new = {
        let mut boots = BOOTS.lock().unwrap();
        boots.all += 1;
        boots.tried.insert((operation.name, is_answered, node.digest()))
    };
    if is_new {
        let draws = drawn::from(Some(Draws::of(&format!("boot after {}", operation.name))));
        next_boot(operation, node, is_answered);
        drawn::from(draws);
    }
}

/// See [`boot`].
fn next_boot(operation: &Operation, mut node: Node, is_answered: bool) {
    if matches!(operation.run, Run::Init) && !is_answered {
        // Nobody was told that the node is set up. Whether the daemon or the operator comes first is open.
        let other = node.on(node.disk.copy());
        run_again(operation, &other, None);
        live_on(operation, other, true);
        if node.start().first_attempt().is_err() {
            init(&node).unwrap();
        }
    }
    if matches!(operation.run, Run::Recover) && !is_answered {
        let other = node.on(node.disk.copy());
        run_again(operation, &other, None);
        live_on(operation, other, true);
        if node.start().first_attempt().is_err() {
            node.recover().unwrap();
        }
    }
    node.clock = node.clock.max(node.later);
    if operation.moves == Moves::Must {
        let running = node.start();
        running.first_attempt().unwrap();
        assert_ne!(
            node.left.as_ref(),
            running.keyring.key_id_now().as_ref(),
            "the key_id that had to go is still there"
        );
    }
    node.disk = node.disk.after_cut(Crash::Lost);
    live_on(operation, node, is_answered);
}

fn live_on(operation: &Operation, mut node: Node, is_answered: bool) {
    let running = node.start();
    running.first_attempt().unwrap_or_else(|error| panic!("the node does not open: {error}"));
    let key_id = running.keyring.key_id_now();
    if operation.moves == Moves::Never && !node.ledger.is_empty() {
        assert_eq!(node.ledger.key_id(), key_id.as_ref(), "the key_id has changed");
    }
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
    drop(running);
    // A plain boot, before anything is changed.
    let mut node = node.on(node.disk.after_cut(Crash::Lost));
    let running = node.start();
    running.first_attempt().unwrap_or_else(|error| panic!("the node does not open at the second boot: {error}"));
    match node.provider {
        None => assert_eq!(key_id, running.keyring.key_id_now(), "the second boot has another key_id"),
        // It may still be about to turn to what the provider has now, and never back.
        Some(_) => node.ledger.observe(&running),
    }
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
    running.wait_for("the recovery file lacks a KEK that is in use", || is_recovery_file_complete(&node, &running));
    if let (Run::Online(work), false) = (operation.run, is_answered) {
        match work(&node, &running) {
            Ok(()) => {}
            Err(refused) if refused.is_done() => {}
            Err(refused) => panic!("the operation cannot be done again: {refused:?}"),
        }
        node.answered();
        node.ledger.encrypt(&running);
    }
    running.renew().unwrap_or_else(|error| panic!("no rotation is possible any more: {error:?}"));
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
    drop(running);
    match node.init() {
        Err(KeeperError::AlreadySetUp) => {}
        other => panic!("a second init is not refused: {other:?}"),
    }
    let mut node = node.on(node.disk.after_cut(Crash::Lost));
    assert_tidy(&node);
    let running = node.start();
    running.first_attempt().unwrap();
    match node.provider {
        None => assert_eq!(node.ledger.key_id(), running.keyring.key_id_now().as_ref()),
        Some(_) => node.ledger.observe(&running),
    }
    node.ledger.assert_holds(&running);
    if let Some(reader) = &node.reader {
        node.ledger.assert_opens_elsewhere(reader);
    }
}

/// Both generations of the recovery file, if there is one, have every KEK whose sealed copy is not damaged.
fn is_recovery_file_complete(node: &Node, running: &Running) -> bool {
    let (Some(identity), Some(newest)) = (&node.identity, node.file(recovery::FILE)) else { return true };
    let previous = node.file(&format!("{}.prev", recovery::FILE)).filter(|previous| *previous != newest);
    let is_whole = |kek: &KekId| node.file(&format!("keyring/{kek}.kek")).is_some_and(|file| file.len() > 100);
    let rows = running.table().keys.into_iter().filter(|row| row.state != "destroyed");
    let in_use: Vec<KekId> = rows.map(|row| row.id.parse().unwrap()).filter(is_whole).collect();
    [Some(newest), previous].into_iter().flatten().all(|file| {
        let Ok((export, _)) = recovery::decrypt(identity, &file) else { return false };
        in_use.iter().all(|kek| export.keys.iter().any(|(id, _)| id == kek))
    })
}

/// A change that failed leaves no KEK behind that no state names. What is tried again may be there for a moment.
fn assert_every_kek_file_is_named(node: &Node, running: &Running) {
    running.wait_for("a KEK file is there that is in no state", || {
        let rows = running.table().keys;
        node.kek_files().iter().all(|name| rows.iter().any(|row| name.contains(&row.id)))
    });
}

/// Nothing is gone that was to be kept, and nothing lies about that no name leads to any more.
fn assert_tidy(node: &Node) {
    let files = node.files();
    for (name, kept) in &node.kept {
        assert!(files.values().any(|bytes| bytes == kept), "{name} is gone, which was to be kept");
    }
    let gone = node.ledger.condemned.filter(|_| node.ledger.is_gone).map(|kek| kek.to_string());
    for name in files.keys() {
        assert!(!name.starts_with("init.pending"), "{name} would let init make everything anew");
        assert!(gone.as_ref().is_none_or(|kek| !name.contains(kek.as_str())), "{name} is of a destroyed KEK");
        assert!(!name.ends_with(".new") && !name.ends_with(".old"), "{name} is left behind");
    }
}
