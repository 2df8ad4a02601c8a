//! One operation while its device, its provider or its clock is not as it should be.

use std::thread;
use std::time::Duration;

use super::cases::{Done, Plan, boot, run, run_again};
use super::device::Trouble;
use super::node::Node;
use super::operations::{DAY, Operation, Refused, Run};
use super::provider::Silence;
use super::running::Running;
use crate::store::sim::Crash;

/// A device that fails, is away or is slow at one question.
pub(super) fn device_case(operation: &'static Operation, template: &Node, at: usize, trouble: Trouble) {
    let mut node = template.on(template.disk.copy());
    node.device = node.device.apart();
    let (running, result) = match (operation.run, trouble) {
        (Run::Online(work), Trouble::Late) => late(work, &mut node, at),
        _ => {
            let Done { running, result } = run(operation, &mut node, Some(Plan::Device(at, trouble)));
            (running, result)
        }
    };
    let open = running.as_ref().filter(|running| running.keyring.key_id_now().is_some());
    if let Some(running) = open {
        node.ledger.encrypt(running);
        node.ledger.assert_holds(running);
    }
    if matches!((operation.run, trouble), (Run::Online(_), Trouble::Away)) {
        // The next boot comes before the device is back.
        let mut next = node.on(node.disk.after_cut(Crash::Lost));
        next.device = next.device.apart();
        next.device.plan(Some((0, Trouble::Away)));
        let running = next.start();
        assert!(running.first_attempt().is_err(), "the keys open without the device");
        next.device.release();
        running.opens_by_itself();
        next.ledger.observe(&running);
        next.ledger.assert_holds(&running);
    }
    node.plan(None);
    go_on(operation, node, running, &result);
}

/// All is well again: what was refused is done again, and the node lives on.
fn go_on(operation: &'static Operation, mut node: Node, running: Option<Running>, result: &Result<(), String>) {
    if result.is_err() {
        run_again(operation, &node, running.as_ref());
    }
    node.answered();
    if let Some(running) = running {
        node.ledger.encrypt(&running);
        node.ledger.assert_holds(&running);
    }
    boot(operation, node.on(node.disk.after_cut(Crash::Lost)), true);
}

type Work = fn(&Node, &Running) -> Result<(), Refused>;

/// While the device takes its time the node serves, and its keeper answers.
fn late(work: Work, node: &mut Node, at: usize) -> (Option<Running>, Result<(), String>) {
    let running = node.start();
    running.first_attempt().unwrap();
    node.ledger.encrypt(&running);
    node.plan(Some(Plan::Device(at, Trouble::Late)));
    let (result, text) = thread::scope(|scope| {
        let worker = scope.spawn(|| work(node, &running));
        while !worker.is_finished() && !node.device.is_held() {
            thread::sleep(Duration::from_millis(1));
        }
        let text = node.device.is_held().then(|| {
            let overview = running.handle.overview();
            assert!(overview.is_ok(), "the keeper waits for the device: {overview:?}");
            running.encrypt()
        });
        node.device.release();
        (worker.join().unwrap(), text)
    });
    result.unwrap_or_else(|refused| panic!("a device that is slow was given up: {refused:?}"));
    text.into_iter().for_each(|text| node.ledger.take(text.unwrap()));
    (Some(running), Ok(()))
}

/// A provider that says nothing from one question on.
pub(super) fn provider_case(operation: &'static Operation, template: &Node, at: usize, silence: Silence) {
    let mut node = template.on(template.disk.copy());
    let Done { running, result } = run(operation, &mut node, Some(Plan::Provider(at, silence)));
    let open = running.as_ref().filter(|running| running.keyring.key_id_now().is_some());
    if let Some(running) = open {
        node.ledger.encrypt_alone(running);
    }
    node.plan(None);
    go_on(operation, node, running, &result);
}

/// What becomes of a clock between two boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    Ahead,
    Back,
    To1970,
}

impl Jump {
    pub(super) const ALL: [Self; 3] = [Self::Ahead, Self::Back, Self::To1970];
    const SECONDS: u64 = 400 * DAY;

    fn from(self, clock: u64) -> u64 {
        match self {
            Self::Ahead => clock + Self::SECONDS,
            Self::Back => clock - Self::SECONDS,
            Self::To1970 => 0,
        }
    }
}

/// A clock that is wrong at one boot and right at the next: keys open, and are replaced in time from then on.
pub(super) fn clock_case(operation: &Operation, template: &Node, jump: Jump) {
    let mut node = template.on(template.disk.copy());
    let Done { running, result } = run(operation, &mut node, None);
    result.unwrap();
    running.iter().for_each(|running| node.ledger.encrypt(running));
    node.answered();
    drop(running);
    let right = node.clock.max(node.later) + 1000 * DAY;
    let mut last = None;
    for clock in [right, jump.from(right), right + DAY] {
        node = node.on(node.disk.after_cut(Crash::Lost));
        node.clock = clock;
        let running = node.start();
        running.first_attempt().unwrap_or_else(|error| panic!("the node does not open at {clock}: {error}"));
        node.ledger.encrypt(&running);
        node.ledger.assert_holds(&running);
        last = running.row("active");
    }
    let last = last.unwrap();
    if last.shared && node.provider.is_none() {
        return;
    }
    // Its age, and a day for what the wrong clock may hide.
    node.clock = right + DAY + 91 * DAY;
    let running = node.start();
    running.first_attempt().unwrap();
    running.wait_for("a KEK from the time of the wrong clock is not replaced", || {
        running.row("active").unwrap().id != last.id
    });
    node.ledger.encrypt(&running);
    node.ledger.assert_holds(&running);
}
