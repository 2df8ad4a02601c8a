//! The metrics of a node: one table of what its status tells and of what it has counted ([`crate::telemetry`]), for the endpoint of the daemon
//! and for `nodeseal metrics`, which print the same text.
//!
//! A value that is not known has no sample. No label holds anything that `nodeseal status` would not show, and none a word of a server. There
//! are at most 500 series, whatever callers and providers do: a test counts those of the worst node.

pub(super) mod family;
mod measured;
mod openmetrics;
mod table;

pub(crate) use family::{Bucket, Durations, Family, Kind, Sample};
pub(crate) use measured::measured;
pub(crate) use openmetrics::{CONTENT_TYPE, text};
pub(crate) use table::up_family;

use super::report::Status;

/// Of one node.
#[cfg(test)]
const SERIES_MAX: usize = 500;

/// Everything, as it is told to whoever asks. `is_broken`: the configuration cannot be used any more.
pub(crate) fn families(status: &Status, is_broken: bool, measured: Vec<Family>) -> Vec<Family> {
    let mut all = table::of_status(status, is_broken);
    all.extend(measured);
    all
}
