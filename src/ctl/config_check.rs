//! `nodeseal config check`: the same code that the daemons start with.

use std::process::ExitCode;

use serde_json::json;

use super::args::Common;
use super::output::{load, print};
use crate::config;
use crate::control::say;

pub(super) fn run(common: &Common) -> ExitCode {
    if common.json
        && let Err(error) = config::load(&common.config)
    {
        let problems: Vec<_> = error.problems().iter().map(|p| json!({ "key": p.key, "text": p.text })).collect();
        let report = json!({ "ok": false, "error": crate::types::Chain(&error).to_string(), "problems": problems });
        say::result(&report.to_string());
        return ExitCode::from(error.class().exit_code());
    }
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    print(common, &json!({ "ok": true, "cluster": config.cluster.as_str(), "warnings": warnings }), || {
        for warning in &warnings {
            say::warning(super::PROGRAM, warning);
        }
        format!("{} is fine", config.path.display())
    })
}
