//! Single sequences of faults, each with what has to hold after it. What is enumerated in [`super`] holds for all of them; these
//! are the ones whose rule takes more than one node, one boot or one operation to state.

mod bundles;
mod changes;
mod checks;
mod clocks;
mod copies;
mod crossed;
mod damage;
mod devices;
mod epochs;
mod fallen_back;
mod fellows;
mod foreign;
mod guards;
mod kept;
mod leavers;
mod members;
mod openers;
mod opens_foreign;
mod others;
mod parted;
mod retired;
mod roots;
mod space;
mod swapped;
mod told;
mod uses;
mod ways;

use super::node::Node;
use super::operations::{self, DAY};
use super::running::Running;
use crate::keyring::keeper::KeeperHandle;
use crate::store::sim::{Crash, Extent, Failure, Fault, StepKind};
use crate::types::KekId;

/// Newest generations of a file that are of no use: torn, empty, gone.
const LOSSES: [Option<&[u8]>; 3] = [Some(b"NODESEAL torn"), Some(b""), None];

/// The node on the disk as a kill at this moment leaves it, with its newest state lost in this way.
fn without_newest_state(node: &Node, loss: Option<&[u8]>) -> Node {
    let node = node.on(node.disk.after_kill());
    node.set("state", loss.map(<[u8]>::to_vec));
    node
}

/// The next boot on whatever the last one left, while nothing else happens.
fn boot(node: &mut Node) -> Running {
    node.disk = node.disk.after_cut(Crash::Lost);
    let running = node.start();
    running.first_attempt().unwrap_or_else(|error| panic!("the node does not open: {error}"));
    running
}

/// The same, and everything that was ever given out is read.
fn boot_and_read(node: &mut Node) -> Running {
    let running = boot(node);
    node.ledger.assert_holds(&running);
    running
}

/// What the disk does while `work` is done by a node that runs; nothing goes wrong.
fn steps(node: &Node, work: impl FnOnce(&Node, &Running)) -> Vec<StepKind> {
    let trial = node.on(node.disk.copy());
    let running = trial.start();
    running.first_attempt().unwrap();
    trial.disk.plan(None);
    work(&trial, &running);
    trial.disk.steps()
}

/// A pending KEK that has the copies which the rules demand.
fn pending(running: &Running) -> KekId {
    running.ask(KeeperHandle::rotate).unwrap();
    running.kek("pre-activation")
}

const FULL: Fault = Fault::Error(Failure::NoSpace, Extent::FromThenOn);
