//! `nodeseal metrics`: the metrics of the running daemon as OpenMetrics text, the same as its own endpoint gives; also for the textfile collector
//! of node_exporter.
//!
//! That the daemon is away is a value too (`nodeseal_up 0`, exit code 0), so that a file made from this is never an old one that looks well. A
//! daemon that is there and cannot be asked (configuration, rights, too busy) is an error.

use super::asked::{Asked, Unanswered};
use super::common::Common;
use super::output::{Done, print};
use super::schema;
use crate::control::metrics::{families, text, up_family};

pub(super) fn run(common: &Common) -> Done {
    let asked = Asked::load(common)?;
    let families = match asked.metrics() {
        Ok((status, measured)) => families(&status, asked.config.is_err(), measured),
        Err(Unanswered::Other(error)) if error.is_away() => vec![up_family(false)],
        Err(why) => return Err(why.failed(asked)),
    };
    print(common, schema::METRICS, &serde_json::json!({ "families": families }), || text(families.clone()))
}
