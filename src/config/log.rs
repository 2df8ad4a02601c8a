//! `[log]`: form and level. serde knows their words.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::audit::log::{Format, Level};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<Format>,
    pub(super) level: Option<Level>,
}
