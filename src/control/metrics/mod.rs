//! The metrics of a node: one table of what its status tells and of what it has counted ([`crate::telemetry`]), for the endpoint of the daemon
//! and for `nodeseal metrics`, which print the same text.
//!
//! A value that is not known has no sample. No label holds anything that `nodeseal status` would not show, and none a word of a server. There
//! are at most [`SERIES_MAX`] series, whatever callers and providers do.

pub(super) mod family;
mod measured;
mod openmetrics;
mod table;

pub use family::{Bucket, Durations, Family, Kind, Sample};
pub use measured::measured;
pub use openmetrics::{CONTENT_TYPE, text};
pub use table::up_family;

use super::report::Status;

/// Of one node; a test counts the worst one.
pub const SERIES_MAX: usize = 500;

/// Everything, as it is told to whoever asks. `is_broken`: the configuration cannot be used any more.
pub fn families(status: &Status, is_broken: bool, measured: Vec<Family>) -> Vec<Family> {
    let mut all = table::of_status(status, is_broken);
    all.extend(measured);
    all
}
