//! `[local_kek]`: whether there is one, and when it is replaced.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::problems::{Checked, Problems};
use crate::keyring::MaxAge;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalKek {
    enabled: Option<bool>,
    max_age: Option<String>,
}

impl LocalKek {
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }
}

pub(super) fn check(problems: &mut Problems, table: LocalKek) -> Checked<MaxAge> {
    let Some(text) = table.max_age else { return Ok(MaxAge::DEFAULT) };
    humantime::parse_duration(&text).ok().and_then(MaxAge::new).map_or_else(
        || {
            let [low, high] = [MaxAge::MIN, MaxAge::MAX].map(days);
            problems
                .refuse("local_kek.max_age", format!("{text:?} is not a time from {low} to {high}, such as \"90d\""))
        },
        Ok,
    )
}

fn days(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
