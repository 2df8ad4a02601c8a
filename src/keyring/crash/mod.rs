//! Whole operations, each stopped at every step by everything that can happen to a disk, and at every question by what can happen
//! to a device and to a provider: what was ever answered holds.
//!
//! Nobody lists the steps: a run without a fault counts them, and every fault that fits is planned at each. A new operation is one
//! entry in [`operations`].
//!
//! Each case draws the same random bytes as the one before it, so that two faults which leave the same disk are seen to do so, and
//! what comes after is tried once. Nothing is taken for the same that differs in one byte.

mod cases;
pub(in crate::keyring) mod device;
mod formats;
mod ledger;
mod node;
mod operations;
mod outages;
mod provider;
mod regressions;
mod running;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use self::cases::{BOOTS, Boots, disk_case, run};
use self::device::Trouble;
use self::node::Node;
use self::operations::{OPERATIONS, Operation, Run};
use self::outages::{Jump, clock_case, device_case, provider_case};
use self::provider::Silence;
use self::running::Running;
use crate::store::sim::{Extent, Failure, Fault, StepKind};
use crate::types::random::drawn::{self, Draws};

/// Threads. More than processors, since a keeper that could not open waits for half a second.
const WORKERS: usize = 16;

/// Questions. A provider is asked for its version again and again; after these an operation has ended.
const PROVIDER_QUESTIONS_MAX: usize = 12;

/// Cases. So many may have one that did not take the steps that were measured: an errand of the keeper was faster or slower.
const OFF_ONE_IN: usize = 500;

/// Something that happens to an operation.
#[derive(Clone, Copy, Debug)]
enum Case {
    Clock(Jump),
    Device(usize, Trouble),
    Disk(usize, Fault),
    Provider(usize, Silence),
}

/// An operation, and how long it is without a fault.
struct Measured {
    operation: &'static Operation,
    /// A node that is about to do it.
    template: Node,
    steps: Vec<StepKind>,
    /// To the device.
    questions: usize,
    /// To the provider, if there is one.
    provider_questions: usize,
}

impl Measured {
    fn new(operation: &'static Operation, reader: Option<&Arc<Running>>) -> Self {
        let mut template = Node::new();
        (operation.prepare)(&mut template);
        template.left = template.ledger.key_id().cloned();
        template.reader = reader.filter(|_| template.provider.is_some()).cloned();
        let mut trial = template.on(template.disk.copy());
        trial.device = trial.device.apart();
        let done = run(operation, &mut trial, None);
        let steps = trial.disk.steps();
        let provider_questions = trial.provider.as_ref().map_or(0, |provider| provider.asked());
        done.result.unwrap();
        // The keeper ends when the device has counted.
        drop(done.running);
        let questions = trial.device.asked();
        let provider_questions = provider_questions.min(PROVIDER_QUESTIONS_MAX);
        Self { operation, template, steps, questions, provider_questions }
    }

    /// Each step, and the moment after the last one, with everything that fits; each question with everything.
    fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = Jump::ALL.map(Case::Clock).to_vec();
        for silence in Silence::ALL {
            cases.extend((0..self.provider_questions).map(|at| Case::Provider(at, silence)));
        }
        for trouble in Trouble::ALL {
            // Nobody is there who could do something else meanwhile.
            let is_of_use = trouble != Trouble::Late || matches!(self.operation.run, Run::Online(_));
            cases.extend((0..self.questions).filter(|_| is_of_use).map(|at| Case::Device(at, trouble)));
        }
        // Where one copy is damaged, a bad sector is the loss of the other one.
        let name = self.operation.name;
        // And before the first text, a lost reservation cannot be told from one that was never made.
        let has_one_copy = name.contains("damaged") || name.starts_with("first KEK") || name.starts_with("recover");
        let faults = Fault::all().into_iter();
        let is_loss = |fault: &Fault| {
            matches!(fault, Fault::Error(Failure::BadSector, _) | Fault::Error(Failure::Io, Extent::Twice))
        };
        for fault in faults.filter(|fault| !(has_one_copy && is_loss(fault))) {
            let fitting = self.steps.iter().enumerate().filter(|(_, step)| fault.fits(**step));
            // The end before a step is that after the one before it.
            let count = if fault == Fault::KillBefore { 1 } else { usize::MAX };
            cases.extend(fitting.take(count).map(|(at, _)| Case::Disk(at, fault)));
            if fault.ends_the_process() && fault != Fault::KillBefore {
                cases.push(Case::Disk(self.steps.len(), fault));
            }
        }
        cases
    }

    /// Whether it took another number of steps than was measured, or what went wrong.
    fn try_case(&self, case: Case) -> Result<bool, String> {
        let (operation, template) = (self.operation, &self.template);
        drawn::from(Some(Draws::of(operation.name)));
        let done = catch_unwind(AssertUnwindSafe(|| {
            match case {
                Case::Clock(jump) => clock_case(operation, template, jump),
                Case::Device(at, trouble) => device_case(operation, template, at, trouble),
                Case::Disk(at, fault) => return disk_case(operation, template, at, fault, self.steps.len()),
                Case::Provider(at, silence) => provider_case(operation, template, at, silence),
            }
            false
        }));
        let text = match done {
            Ok(is_off) => return Ok(is_off),
            Err(panic) => message(panic.as_ref()),
        };
        let step = match case {
            Case::Disk(at, _) => self.steps.get(at),
            Case::Clock(_) | Case::Device(..) | Case::Provider(..) => None,
        };
        Err(format!("{}, {case:?} {step:?}: {text}", self.operation.name))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// How many there are of each kind.
#[derive(Default)]
struct Count {
    steps: usize,
    disk: usize,
    questions: usize,
    device: usize,
    provider: usize,
    clock: usize,
}

impl Count {
    fn add(&mut self, one: &Measured, cases: &[Case]) {
        self.steps += one.steps.len();
        self.questions += one.questions + one.provider_questions;
        for case in cases {
            match case {
                Case::Clock(_) => self.clock += 1,
                Case::Device(..) => self.device += 1,
                Case::Disk(_, fault) => self.disk += fault.outcomes(),
                Case::Provider(..) => self.provider += 1,
            }
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { steps, disk, questions, device, provider, clock } = self;
        write!(
            f,
            "{steps:>3} steps, {disk:>4} faults of the disk, {questions:>2} questions, {device:>2} faults of the "
        )?;
        write!(f, "device, {provider:>2} of the provider, {clock} of the clock")
    }
}

#[test]
fn no_operation_that_is_stopped_at_any_step_by_any_fault_loses_a_key() {
    // One of them alone: NODESEAL_OPERATION=reseal
    let only = std::env::var("NODESEAL_OPERATION").ok();
    let chosen = OPERATIONS.iter().filter(|operation| only.as_ref().is_none_or(|only| only == operation.name));
    let reader = Node::reader();
    let measured: Vec<Measured> = chosen.map(|operation| Measured::new(operation, Some(&reader))).collect();
    let started = Instant::now();
    let (mut cases, mut all) = (Vec::new(), Count::default());
    for one in &measured {
        let (own, mut count) = (one.cases(), Count::default());
        count.add(one, &own);
        println!("{count}: {}", one.operation.name);
        assert!(one.steps.len() > 5 && count.disk > 5 * one.steps.len(), "{}: too little happened", one.operation.name);
        all.add(one, &own);
        cases.extend(own.into_iter().map(|case| (one, case)));
    }
    // Those that wait go first.
    cases.sort_by_key(|(_, case)| matches!(case, Case::Disk(..)));
    let (next, off, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((one, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match one.try_case(*case) {
                        Ok(is_off) => drop(off.fetch_add(usize::from(is_off), Ordering::Relaxed)),
                        Err(text) => {
                            // At once: a run that is cut short has said what it found.
                            println!("WRONG {text}");
                            wrong.lock().unwrap().push(text);
                        }
                    }
                }
            });
        }
    });
    let (off, wrong) = (off.into_inner(), wrong.into_inner().unwrap());
    let Boots { all: boots, tried } = &*BOOTS.lock().unwrap();
    println!("{all} of {} operations, {off} of other steps, {:.0?}", measured.len(), started.elapsed());
    println!("{boots} boots, {} of them different", tried.len());
    assert!(off <= cases.len() / OFF_ONE_IN, "the runs are not those that were measured: {off} of {}", cases.len());
    let is_enough = measured.len() >= 35 && all.disk >= 20_000 && all.device >= 200 && all.provider >= 15;
    assert!(only.is_some() || is_enough, "too little happened");
    assert!(wrong.is_empty(), "{} cases of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
