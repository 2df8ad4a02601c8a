//! `[decrypt]`: who is asked to open a wrap.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Checked, Problems};
use crate::provider::set::Strategy;

/// `[decrypt]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Decrypt {
    strategy: Option<String>,
}

pub(super) fn check(problems: &mut Problems, table: &Decrypt) -> Checked<Strategy> {
    match table.strategy.as_deref() {
        None | Some("fastest") => Ok(Strategy::Fastest),
        Some("ordered") => Ok(Strategy::Ordered),
        Some("round-robin") => Ok(Strategy::RoundRobin),
        Some(other) => problems
            .refuse("decrypt.strategy", format!("{other:?} is none of \"fastest\", \"ordered\", \"round-robin\"")),
    }
}
