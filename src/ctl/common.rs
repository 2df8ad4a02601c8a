//! Options that every verb has.

use std::path::PathBuf;

use clap::Args;

use crate::config::DEFAULT_PATH;

/// Options of every verb.
#[derive(Args)]
pub(super) struct Common {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "NODESEAL_CONFIG", hide_env = true, default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// Print the result or the error as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}
