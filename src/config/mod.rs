//! `/etc/nodeseal/nodeseal.toml`: read, checked once, and from then on a type that cannot be wrong.
//!
//! No field can hold a secret. Unknown keys are errors, and all mistakes are reported at once with their path and what
//! to write instead. Refuses a file that somebody else than root (or our own user) owns or can write to.
//!
//! Each table of the file has a module of its own, in which serde's mirror of the table stands beside its check. They
//! stand on `problems` and `forms`, and `check` puts them together. No module here uses one that uses it: `tests/house`
//! holds that.

mod check;
mod checked;
mod control;
mod forms;
mod lines;
mod listen;
mod load;
mod local_kek;
mod log;
mod mistakes;
mod needs;
mod orders;
mod pcr_lint;
mod pkcs11;
mod problems;
pub mod providers;
mod sandbox;
mod schema;
mod seal;
mod shown;
mod sockets;
mod systemd;
mod telemetry;

pub use check::FILE_VERSION;
pub use checked::Config;
pub use load::{ConfigError, load, parse, sockets_despite};
pub use orders::{OrderError, recipients};
pub use problems::Problem;
pub use schema::schema;
pub use seal::Seal;
pub use shown::{Shown, in_force};

/// Where the file is unless `--config` or `NODESEAL_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/nodeseal/nodeseal.toml";

#[cfg(test)]
mod tests;
