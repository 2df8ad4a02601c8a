//! Whole operations, each stopped at every step by everything that can happen to a disk: what was ever answered holds.
//!
//! Nobody lists the steps: a run without a fault counts them, and every fault that fits is planned at each. A new operation is one
//! entry in [`operations`].

mod device;
mod formats;
mod ledger;
mod node;
mod operations;
mod provider;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use self::node::{Node, Running};
use self::operations::{Moves, OPERATIONS, Operation, Run};
use crate::keyring::KeeperError;
use crate::store::sim::{Crash, Extent, Failure, Fault, SimDisk, StepKind};

/// Threads. More than processors, since a keeper that could not open waits for half a second.
const WORKERS: usize = 16;

/// What one operation did in a case.
struct Done {
    running: Option<Running>,
    result: Result<(), String>,
}

/// Does the operation on a disk where something is planned.
fn run(operation: &Operation, node: &mut Node, plan: Option<(usize, Fault)>) -> Done {
    match operation.run {
        Run::Init => {
            node.disk.plan(plan);
            Done { running: None, result: init(node) }
        }
        Run::Recover => {
            node.disk.plan(plan);
            Done { running: None, result: node.recover().map_err(|error| format!("{error:?}")) }
        }
        Run::Offline(work) => {
            node.disk.plan(plan);
            Done { running: None, result: work(node).map_err(|error| format!("{error:?}")) }
        }
        Run::Start => {
            node.disk.plan(plan);
            let running = node.start();
            let result = match node.provider {
                None => running.first_attempt().map_err(|error| format!("{error:?}")),
                Some(_) => match running.until(&node.disk, || running.keyring.key_id_now().is_some()) {
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
            node.disk.plan(plan);
            let result = work(node, &running).map_err(|error| format!("{error:?}"));
            Done { running: Some(running), result }
        }
    }
}

fn init(node: &Node) -> Result<(), String> {
    node.init().map_err(|error| format!("{error:?}"))
}

/// The operation once more, by the same process where it is one that goes on.
fn run_again(operation: &Operation, node: &Node, running: Option<&Running>) {
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
fn case(operation: &Operation, template: &Node, at: usize, fault: Fault, steps: usize) {
    let mut node = template.on(template.disk.copy());
    let Done { running, result } = run(operation, &mut node, Some((at, fault)));
    assert_eq!(node.disk.was_struck(), at < steps, "the planned step was not reached");
    if let Some(running) = &running {
        node.ledger.observe(running);
    }
    let is_answered = result.is_ok();
    if at == steps {
        result.unwrap();
        running.iter().for_each(|running| node.ledger.encrypt(running));
    }
    if fault.ends_the_process() {
        if is_answered {
            node.answered();
        }
        for disk in next_disks(&node.disk, fault) {
            boot(operation, node.on(disk), is_answered);
        }
        return;
    }
    // Two bad reads in a row are both copies of a KEK, and the start does not wait for a disk that may never be well again.
    let may_lack = matches!((operation.run, fault), (Run::Start, Fault::Error(Failure::Io, Extent::Twice)));
    let open = running.as_ref().filter(|running| running.keyring.key_id_now().is_some());
    if let Some(running) = open {
        // While the disk fails, what is in memory serves.
        node.ledger.encrypt(running);
        node.ledger.assert_holds_for(running, may_lack);
    }
    // What fails once and is not got over leaves what failing from then on leaves.
    if is_answered || matches!(fault, Fault::Error(_, Extent::FromThenOn)) {
        boot(operation, node.on(node.disk.after_cut(Crash::Lost)), is_answered);
    }
    node.disk.plan(None);
    if !is_answered {
        run_again(operation, &node, running.as_ref());
    }
    node.answered();
    if let Some(running) = running {
        node.ledger.encrypt(&running);
        node.ledger.assert_holds_for(&running, may_lack);
    }
    boot(operation, node.on(node.disk.after_cut(Crash::Lost)), true);
}

/// What the next boot may find. Outcomes that leave the same on the disk are one.
fn next_disks(disk: &SimDisk, fault: Fault) -> Vec<SimDisk> {
    if fault != Fault::Cut {
        return vec![disk.after_kill()];
    }
    let mut disks: Vec<SimDisk> = Vec::new();
    for crash in Crash::ALL {
        let next = disk.after_cut(crash);
        if disks.iter().all(|disk| disk.tree() != next.tree()) {
            disks.push(next);
        }
    }
    disks
}

impl Node {
    /// The operation was reported as done.
    fn answered(&mut self) {
        self.ledger.is_gone |= self.ledger.condemned.is_some();
    }
}

/// The next boot on a disk that is well, and the life after it.
fn boot(operation: &Operation, mut node: Node, is_answered: bool) {
    if matches!(operation.run, Run::Init) && !is_answered {
        // Nobody was told that the node is set up. Whether the daemon or the operator comes first is open.
        let other = node.on(node.disk.copy());
        run_again(operation, &other, None);
        live_on(operation, other);
        if node.start().first_attempt().is_err() {
            init(&node).unwrap();
        }
    }
    if matches!(operation.run, Run::Recover) && !is_answered {
        let other = node.on(node.disk.copy());
        run_again(operation, &other, None);
        live_on(operation, other);
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
    live_on(operation, node);
}

fn live_on(operation: &Operation, mut node: Node) {
    let running = node.start();
    running.first_attempt().unwrap_or_else(|error| panic!("the node does not open: {error}"));
    let key_id = running.keyring.key_id_now();
    if operation.moves == Moves::Never && !node.ledger.is_empty() {
        assert_eq!(node.ledger.key_id(), key_id.as_ref(), "the key_id has changed");
    }
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
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
        // It may still be about to turn to what the provider has now, and never back.
        Some(_) => node.ledger.observe(&running),
    }
    node.ledger.assert_holds(&running);
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

/// An operation, and how long it is without a fault.
struct Measured {
    operation: &'static Operation,
    /// A node that is about to do it.
    template: Node,
    steps: Vec<StepKind>,
}

impl Measured {
    fn new(operation: &'static Operation) -> Self {
        let mut template = Node::new();
        (operation.prepare)(&mut template);
        template.left = template.ledger.key_id().cloned();
        let mut trial = template.on(template.disk.copy());
        let Done { running, result } = run(operation, &mut trial, None);
        let steps = trial.disk.steps();
        result.unwrap();
        drop(running);
        Self { operation, template, steps }
    }

    /// Each step, and the moment after the last one, with everything that fits.
    fn cases(&self) -> Vec<(usize, Fault)> {
        let mut cases = Vec::new();
        for fault in Fault::all() {
            let fitting = self.steps.iter().enumerate().filter(|(_, step)| fault.fits(**step));
            // The end before a step is that after the one before it.
            let count = if fault == Fault::KillBefore { 1 } else { usize::MAX };
            cases.extend(fitting.take(count).map(|(at, _)| (at, fault)));
            if fault.ends_the_process() && fault != Fault::KillBefore {
                cases.push((self.steps.len(), fault));
            }
        }
        cases
    }

    /// What went wrong, if something did.
    fn try_case(&self, at: usize, fault: Fault) -> Option<String> {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            case(self.operation, &self.template, at, fault, self.steps.len());
        }));
        let text = message(panic.err()?.as_ref());
        Some(format!("{}, step {at} {:?}, {fault:?}: {text}", self.operation.name, self.steps.get(at)))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[test]
fn no_operation_that_is_stopped_at_any_step_by_any_fault_of_the_disk_loses_a_key() {
    // One of them alone: NODESEAL_OPERATION=reseal
    let only = std::env::var("NODESEAL_OPERATION").ok();
    let chosen = OPERATIONS.iter().filter(|operation| only.as_ref().is_none_or(|only| only == operation.name));
    let measured: Vec<Measured> = chosen.map(Measured::new).collect();
    let started = Instant::now();
    let (mut cases, mut all_faults) = (Vec::new(), 0);
    for one in &measured {
        let own = one.cases();
        let faults: usize = own.iter().map(|(_, fault)| fault.outcomes()).sum();
        println!("{:>3} steps, {faults:>4} faults: {}", one.steps.len(), one.operation.name);
        assert!(one.steps.len() > 5 && faults > 5 * one.steps.len(), "{}: too little happened", one.operation.name);
        all_faults += faults;
        cases.extend(own.into_iter().map(|(at, fault)| (one, at, fault)));
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((one, at, fault)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = one.try_case(*at, *fault);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let steps: usize = measured.iter().map(|one| one.steps.len()).sum();
    println!("{steps} steps, {all_faults} faults of {} operations, {:.0?}", measured.len(), started.elapsed());
    assert!(only.is_some() || (measured.len() >= 25 && all_faults >= 15_000), "too little happened");
    assert!(wrong.is_empty(), "{} cases of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
