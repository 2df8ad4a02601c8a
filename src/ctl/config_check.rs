//! `nodeseal config check`: the same code that the daemons start with.

use serde_json::json;

use super::args::Common;
use super::output::{Done, load, print};
use super::schema;
use crate::control::say;

pub(super) fn run(common: &Common) -> Done {
    let config = load(common)?;
    let warnings = &config.warnings;
    let value = json!({ "ok": true, "cluster": config.cluster.as_str(), "warnings": warnings });
    print(common, schema::CONFIG_CHECK, &value, || {
        for warning in warnings {
            say::warning(super::PROGRAM, &warning.to_string());
        }
        format!("{} is fine", config.path.display())
    })
}
