//! The whole file, checked: a type that cannot be wrong.

use std::path::PathBuf;

use super::problems::Problem;
use super::providers::Providers;
use super::seal::Seal;
use crate::api;
use crate::audit::log;
use crate::keyring::MaxAge;
use crate::sandbox;
use crate::seal::client::SealerClient;
use crate::types::ClusterId;

/// Everything that the programs need to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it comes from.
    pub path: PathBuf,
    /// What was found worth a warning.
    pub warnings: Vec<Problem>,
    /// Goes into every key_id and AAD.
    pub cluster: ClusterId,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The KMS socket.
    pub listen: api::Settings,
    /// The operator's socket.
    pub control_socket: PathBuf,
    /// The socket where the status alone is told.
    pub status_socket: PathBuf,
    /// Whose group that socket belongs to; absent: what its folder says, or our own.
    pub status_group: Option<u32>,
    /// Where metrics are given out, if they are.
    pub metrics: Option<api::scrape::Place>,
    /// The sealing device.
    pub seal: Seal,
    /// When a local KEK is replaced.
    pub max_age: MaxAge,
    /// Keys that live elsewhere, if any are to wrap local KEKs.
    pub providers: Option<Providers>,
    /// What the daemons keep themselves from.
    pub sandbox: sandbox::Settings,
    /// A changed file is read again without being told.
    pub watch: bool,
    /// Lines.
    pub log_format: log::Format,
    /// Which lines.
    pub log_level: log::Level,
}

impl Config {
    /// The way to this node's sealer.
    pub fn sealer(&self) -> SealerClient {
        match &self.seal.socket {
            Some(socket) => SealerClient::Socket(socket.clone()),
            None => SealerClient::spawning(self.path.clone()),
        }
    }
}
