//! `nodeseal etcd`: what is stored in etcd, under which key, and whether it opens. It reads etcd and changes nothing there.

mod args;
pub(in crate::ctl) mod cluster;
mod evidence;
mod names;
mod progress;
mod report;
mod scan;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod triage;

use super::common::Common;
use super::output::Done;

pub(super) use args::{EtcdVerb, LiveArgs};
pub(super) use scan::{encryption_config, is_asked, scan_live};

pub(super) fn run(common: &Common, verb: &EtcdVerb) -> Done {
    match verb {
        EtcdVerb::Scan(args) => scan::run(common, args),
        EtcdVerb::Triage(args) => triage::run(common, args),
    }
}
