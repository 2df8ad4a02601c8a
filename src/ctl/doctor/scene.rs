//! What the checks look at: a file system, the configuration, what the daemon says, the time, and the device. All of it is a
//! parameter, so that a test has a folder for `/`.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::finding::Finding;
use crate::config::{self, Config, ConfigError};
use crate::control::report::Status;
use crate::control::{self, Answer, ControlError, Request};
use crate::ctl::common::Common;
use crate::ctl::machine::Machine;
pub(super) use crate::ctl::machine::Unread;
use crate::keyring::keeper::KeyTable;
use crate::sandbox;
use crate::seal::protocol::DeviceInfo;
use crate::types::clock::{self, UnixSeconds};
use crate::types::{Backend, Chain, Explained};

/// What the daemon says.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Status(Box<Status>),
    /// Nobody listens.
    Away(String),
    /// Somebody listens, and does not say.
    Silent {
        why: String,
        hint: String,
    },
}

/// Room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// Some file systems count none.
    pub(super) counts_files: bool,
}

/// What is outside this program, and not a file.
pub(super) struct Asks {
    pub(super) status: fn(&Scene) -> Told,
    /// Only for who may use the control socket.
    pub(super) keys: fn(&Scene) -> Option<KeyTable>,
    pub(super) device: fn(&Config, Option<Backend>) -> Result<DeviceInfo, Finding>,
    pub(super) room: fn(&Path) -> io::Result<Room>,
}

pub(super) struct Scene {
    /// Its files.
    pub(super) machine: Machine,
    pub(super) config_path: PathBuf,
    pub(super) config: Result<Config, ConfigError>,
    pub(super) now: UnixSeconds,
    pub(super) asks: Asks,
    told: OnceLock<Told>,
    keys: OnceLock<Option<KeyTable>>,
    device: OnceLock<Result<DeviceInfo, Finding>>,
}

impl Scene {
    pub(super) fn of_machine(common: &Common) -> Self {
        let asks = Asks { status: ask_status, keys: ask_keys, device: ask_device, room };
        let config = config::load(&common.config);
        Self::new(PathBuf::from("/"), common.config.clone(), config, 0, clock::now(), asks)
    }

    pub(super) fn new(
        root: PathBuf,
        config_path: PathBuf,
        config: Result<Config, ConfigError>,
        root_uid: u32,
        now: UnixSeconds,
        asks: Asks,
    ) -> Self {
        let (told, keys, device) = Default::default();
        let machine = Machine::new(root, root_uid);
        Self { machine, config_path, config, now, asks, told, keys, device }
    }

    /// With this answer in place of the daemon's.
    #[cfg(test)]
    pub(super) fn with_told(self, told: Told) -> Self {
        Self { told: OnceLock::from(told), ..self }
    }

    /// A path of the machine, where it is here.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.machine.at(path)
    }

    pub(super) fn told(&self) -> &Told {
        self.told.get_or_init(|| (self.asks.status)(self))
    }

    /// For checks that take what the daemon says.
    pub(super) fn status(&self) -> Result<&Status, Finding> {
        match self.told() {
            Told::Status(status) => Ok(status),
            Told::Away(_) => Err(Finding::skip("nodeseald does not run, and only it tells")),
            Told::Silent { why, .. } => Err(Finding::skip(format!("nodeseald does not tell: {why}"))),
        }
    }

    pub(super) fn keys(&self) -> Option<&KeyTable> {
        self.keys.get_or_init(|| (self.asks.keys)(self)).as_ref()
    }

    /// One question, whoever asks for its answer.
    pub(super) fn device(&self) -> Result<&DeviceInfo, Finding> {
        let ask = || {
            let sealed_by = match self.told() {
                Told::Status(status) => status.seal_backend.as_deref().and_then(|backend| backend.parse().ok()),
                Told::Away(_) | Told::Silent { .. } => None,
            };
            (self.asks.device)(self.config()?, sealed_by)
        };
        self.device.get_or_init(ask).as_ref().map_err(Clone::clone)
    }

    /// For checks that go by the configuration.
    pub(super) fn config(&self) -> Result<&Config, Finding> {
        self.config.as_ref().map_err(|_| Finding::skip("there is no configuration that can be used (ND-001)"))
    }

    /// Something was set up here; unknown where that may not be looked at.
    pub(super) fn is_set_up(&self) -> Option<bool> {
        let config = self.config.as_ref().ok()?;
        let folder = self.at(&config.state_dir);
        // `state` is where release 0.1 had it.
        let is_there = |name: &str| folder.join(name).try_exists();
        match (is_there("current"), is_there("state")) {
            (Ok(true), _) | (_, Ok(true)) => Some(true),
            (Ok(false), Ok(false)) => Some(false),
            (Err(error), _) | (_, Err(error)) => (error.kind() == ErrorKind::NotFound).then_some(false),
        }
    }

    pub(super) fn meta(&self, path: impl AsRef<Path>) -> Result<Metadata, Unread> {
        self.machine.meta(path)
    }

    /// Of a link itself.
    pub(super) fn link_meta(&self, path: impl AsRef<Path>) -> Result<Metadata, Unread> {
        fs::symlink_metadata(self.at(path)).map_err(Unread::of)
    }

    /// Their ids.
    pub(super) fn processes(&self) -> Vec<String> {
        self.machine.processes().unwrap_or_default()
    }

    /// The text of a small regular file; wiped, since some hold keys.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Result<Zeroizing<String>, Unread> {
        self.machine.read(path)
    }

    /// Names in a folder; none where it cannot be read.
    pub(super) fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

impl Unread {
    /// Where it is nothing to worry about that it is not there.
    pub(super) fn skipped(&self, path: impl AsRef<Path>) -> Finding {
        Finding::skip(self.text(path))
    }
}

/// A configuration with mistakes still names the sockets of a daemon that has read it before.
fn sockets(scene: &Scene) -> Option<(PathBuf, PathBuf)> {
    match &scene.config {
        Ok(config) => Some((config.control_socket.clone(), config.status_socket.clone())),
        Err(error) => config::sockets_despite(&scene.config_path, error),
    }
}

fn ask_status(scene: &Scene) -> Told {
    let Some((control, status)) = sockets(scene) else {
        return Told::Away("there is no configuration that names its sockets".to_owned());
    };
    match control::ask_either(&control, &status, &Request::Status {}) {
        Ok(Answer::Status(status)) => Told::Status(status),
        Ok(_) => Told::silent(&ControlError::Protocol),
        Err(error) if error.is_unreachable() => Told::Away(Chain(&error).to_string()),
        Err(error) => Told::silent(&error),
    }
}

impl Told {
    fn silent(error: &ControlError) -> Self {
        Self::Silent { why: Chain(error).to_string(), hint: error.hint().to_owned() }
    }
}

fn ask_keys(scene: &Scene) -> Option<KeyTable> {
    match control::ask(&sockets(scene)?.0, &Request::KeysList {}) {
        Ok(Answer::Keys(table)) => Some(table),
        Ok(_) | Err(_) => None,
    }
}

/// A sealer that this program starts itself runs as the service's user, to whom device and files belong, so root becomes that one. The
/// token is not asked: a login that fails counts.
fn ask_device(config: &Config, sealed_by: Option<Backend>) -> Result<DeviceInfo, Finding> {
    let backend = sealed_by.unwrap_or(config.seal.backend);
    if backend == Backend::Pkcs11 {
        return Err(Finding::skip("a token is only asked by `nodeseal status --device`: a login that fails counts"));
    }
    if config.seal.socket.is_none() {
        sandbox::become_owner(&config.state_dir).map_err(|error| Finding::skip(Chain(&error).to_string()))?;
    }
    config.sealer().describe(backend).map_err(|error| Finding::fail(Chain(&error).to_string(), error.hint()))
}

fn room(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(Room { bytes, files: stat.f_favail, counts_files: stat.f_files > 0 })
}
