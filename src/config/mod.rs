//! `/etc/nodeseal/nodeseal.toml`: read, checked once, and from then on a type that cannot be wrong.
//!
//! No field can hold a secret. Unknown keys are errors, and all mistakes are reported at once with their path and what to write
//! instead. Refuses a file that somebody else than root (or our own user) owns or can write to.

mod check;
mod lines;
mod load;
mod mistakes;
mod pcr_lint;
mod pkcs11;
pub mod providers;
mod raw;
mod sandbox;
mod schema;
mod shown;
mod sockets;
mod systemd;

use std::path::PathBuf;

pub use check::FILE_VERSION;
pub use load::{ConfigError, load, parse, sockets_despite};
pub use schema::schema;
pub use shown::{Shown, in_force};

use crate::api;
use crate::audit::log;
use crate::keyring::MaxAge;
use crate::keyring::keeper::{RenewOrder, ResealOrder};
use crate::keyring::recovery::{RECIPIENTS_MAX, Recipient, RecipientError};
use crate::seal::client::SealerClient;
use crate::seal::root::Parent;
use crate::sealer::settings::{Pkcs11Settings, TpmSettings};
use crate::types::{Backend, BackendError, Class, ClusterId, Explained, SealPolicy, SealTo};

/// Where the file is unless `--config` or `NODESEAL_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/nodeseal/nodeseal.toml";

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
    /// The sealing device.
    pub seal: Seal,
    /// When a local KEK is replaced.
    pub max_age: MaxAge,
    /// Keys that live elsewhere, if any are to wrap local KEKs.
    pub providers: Option<providers::Providers>,
    /// What the daemons keep themselves from.
    pub sandbox: crate::sandbox::Settings,
    /// A changed file is read anew without being told.
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

/// The sealing device.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Where a supervisor listens for the sealer; absent: the sealer is started for each question.
    pub socket: Option<PathBuf>,
    /// Which device seals what is sealed from now on; what was sealed names its own.
    pub backend: Backend,
    /// The TPM.
    pub tpm2: TpmSettings,
    /// The PKCS#11 token; there whenever it is the backend, and beside a TPM where the node root moves between both.
    pub pkcs11: Option<Pkcs11Settings>,
    /// What the node root is bound to beside the TPM.
    pub policy: SealPolicy,
    /// NV index of the TPM's counter that tells an old copy of the state directory.
    pub guard: Option<u32>,
}

impl Seal {
    /// The PIN that each question gives to the token, where the sealer is started for each and remembers none that was refused.
    pub fn own_pin_file(&self) -> Option<PathBuf> {
        let token = self.pkcs11.as_ref().filter(|_| self.socket.is_none())?;
        Some(token.pin_file.clone())
    }

    /// Where new seals go.
    pub const fn to(&self) -> SealTo {
        self.to_backend(self.backend)
    }

    /// A new seal by this device, whatever the configuration prefers.
    pub const fn to_backend(&self, backend: Backend) -> SealTo {
        match backend {
            Backend::Tpm2 => SealTo::Tpm2(self.policy),
            Backend::Pkcs11 => SealTo::Pkcs11,
        }
    }
}

/// Words of the operator that name no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// `--to`
    #[error("--to")]
    To(#[source] BackendError),
    /// `--recovery-recipient`
    #[error("--recovery-recipient")]
    Recipient(#[source] RecipientError),
    /// More than a recovery file has room for.
    #[error("there are more than {RECIPIENTS_MAX} recovery recipients")]
    Recipients,
}

impl Explained for OrderError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        "see the help of the verb: `--help`"
    }
}

/// Checks recipients as the operator gave them.
pub fn recipients(texts: &[String]) -> Result<Vec<Recipient>, OrderError> {
    if texts.len() > RECIPIENTS_MAX {
        return Err(OrderError::Recipients);
    }
    texts.iter().map(|text| text.parse().map_err(OrderError::Recipient)).collect()
}

impl Seal {
    /// What `reseal` is to do, by this configuration and the operator's words. Under the same storage root key as before, and no
    /// counter gives way, unless the caller says so.
    pub fn order(&self, to: Option<&str>, recovery: Option<Vec<String>>) -> Result<ResealOrder, OrderError> {
        let backend = to.map_or(Ok(self.backend), |to| to.parse().map_err(OrderError::To))?;
        let recipients = recovery.map(|texts| recipients(&texts)).transpose()?;
        // The counter is the TPM's: another device must not need it at the next start.
        let guard = self.guard.filter(|_| backend == Backend::Tpm2);
        let to = self.to_backend(backend);
        Ok(ResealOrder { to, guard, recipients, parent: Parent::Same, replace_counter: false })
    }

    /// What `rotate-root` is to do, by this configuration and the operator's words.
    pub fn renew_order(&self, dry_run: bool, without_recovery_file: bool) -> RenewOrder {
        let guard = self.guard.filter(|_| self.backend == Backend::Tpm2);
        RenewOrder { to: self.to(), guard, without_recovery_file, dry_run }
    }
}

/// A mistake or a warning: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Path of the key, such as `seal.tpm2.pcrs`.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
    /// Where the key stands in the file, from 1, if it does.
    pub line: Option<usize>,
}

impl Problem {
    /// Without a line.
    pub fn new(key: &str, text: impl Into<String>) -> Self {
        Self { key: key.to_owned(), text: text.into(), line: None }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}: {} (line {line})", self.key, self.text),
            None => write!(f, "{}: {}", self.key, self.text),
        }
    }
}

#[cfg(test)]
mod tests;
