//! `nodeseal dev`: everything in one folder with a software TPM or a token of software, for trying it out and for tests.
//!
//! Does what systemd would: holds the listening sockets of both daemons, hands them over (LISTEN_FDS), and starts again what dies,
//! so that a client sees no closed socket. The same folder again, also after a `kill -9` of any part, finds the same keys; so it does with another `--backend`, since a device that has once sealed
//! here stays configured.

mod child;
mod layout;
mod leftovers;
mod softhsm;
mod swtpm;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use toml::{Table, Value};

use self::child::{Child, ChildError};
use self::layout::{Layout, LayoutError};
use self::softhsm::{SoftHsm, SoftHsmError};
use self::swtpm::{Swtpm, SwtpmError};
use super::args::{Common, DevArgs};
use super::failed::Failed;
use super::keys::quoted;
use super::output::Done;
use super::schema;
use crate::api::probe;
use crate::config::{self, ConfigError};
use crate::control::say;
use crate::keyring::KeeperError;
use crate::socket::listen::{self, ListenError};
use crate::types::{Backend, Class, Explained};

/// From the start to the first Encrypt that would be answered. swtpm and its first key take well below a second.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at the children. Short, since a client may be waiting in the socket's backlog.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error("a program cannot be started")]
    Child(#[source] ChildError),
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    #[error("the folder cannot be used")]
    Layout(#[source] LayoutError),
    #[error("a socket cannot be made")]
    Listen(#[source] ListenError),
    #[error("Encrypt is still refused after {} s", READY_TIMEOUT.as_secs())]
    NotReady,
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
    #[error("the node cannot be set up")]
    SetUp(#[source] KeeperError),
    #[error("the software TPM cannot be started")]
    Swtpm(#[source] SwtpmError),
    #[error("the token cannot be made")]
    Token(#[source] SoftHsmError),
}

impl Explained for DevError {
    fn class(&self) -> Class {
        match self {
            Self::Config(error) => error.class(),
            Self::Listen(error) => error.class(),
            Self::SetUp(error) => error.class(),
            Self::Layout(_) => Class::Misconfigured,
            Self::Child(_) | Self::NotReady | Self::Runtime(_) | Self::Swtpm(_) | Self::Token(_) => Class::Unavailable,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Config(error) => error.hint(),
            Self::Listen(error) => error.hint(),
            Self::SetUp(error) => error.hint(),
            Self::Layout(error) => error.hint(),
            Self::Child(_) => "nodeseald and nodeseal-sealer must be in the folder of nodeseal itself",
            Self::NotReady => "see the logs in the folder log/",
            Self::Runtime(_) => "see the limits of processes and descriptors",
            Self::Swtpm(error) => error.hint(),
            Self::Token(error) => error.hint(),
        }
    }
}

pub(super) fn run(common: &Common, args: &DevArgs) -> Done {
    match up(common, args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(DevError::Config(problems)) => Err(Failed::config(&problems)),
        Err(error) => Err(error.into()),
    }
}

fn up(common: &Common, args: &DevArgs) -> Result<(), DevError> {
    // The default path is not a fragment; whatever was named is.
    let fragment = (common.config.as_os_str() != config::DEFAULT_PATH).then_some(common.config.as_path());
    let layout = Layout::open(&args.dir).map_err(DevError::Layout)?;
    leftovers::end(layout.root());
    let (swtpm, token) = devices(&layout, args.backend)?;
    let seal = seal_table(args.backend, swtpm.as_ref(), token.as_ref());
    if let Some(kept) = layout.write_config(seal, fragment).map_err(DevError::Layout)? {
        let text = "nodeseal.toml was changed since nodeseal dev wrote it. It is written again, and yours is kept as";
        say::warning(super::PROGRAM, &format!("{text} {}; give your settings with --config FILE", kept.display()));
    }
    let config = config::load(&layout.config()).map_err(DevError::Config)?;
    let sealer_socket = listen::bind(&layout.sealer_socket(), 0o600).map_err(DevError::Listen)?;
    let kms_socket = listen::bind(&config.listen.socket, config.listen.mode).map_err(DevError::Listen)?;
    let mut sealer = Child::new("nodeseal-sealer", &layout, sealer_socket);
    if let Some(token) = &token {
        sealer = sealer.with_environment(softhsm::CONF_VARIABLE, token.conf());
    }
    sealer.start().map_err(DevError::Child)?;
    if !is_set_up(&config.state_dir) {
        super::init::set_up(&config, &[], false).map_err(DevError::SetUp)?;
    }
    let daemon = Child::new("nodeseald", &layout, kms_socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DevError::Runtime)?;
    let mut dev = Dev { swtpm, sealer, daemon };
    let result = dev
        .daemon
        .start()
        .map_err(DevError::Child)
        .and_then(|()| runtime.block_on(dev.supervise(&layout, &config, common.json)));
    dev.stop();
    result
}

/// The wanted device, and the other one if it has sealed here before.
fn devices(layout: &Layout, backend: Backend) -> Result<(Option<Swtpm>, Option<SoftHsm>), DevError> {
    let swtpm = match backend == Backend::Tpm2 || layout.has_tpm() {
        true => Some(Swtpm::start(layout).map_err(DevError::Swtpm)?),
        false => None,
    };
    let token = match backend == Backend::Pkcs11 || SoftHsm::exists(layout) {
        true => Some(SoftHsm::open(layout).map_err(DevError::Token)?),
        false => None,
    };
    Ok((swtpm, token))
}

fn seal_table(backend: Backend, swtpm: Option<&Swtpm>, token: Option<&SoftHsm>) -> Table {
    let mut seal = Table::new();
    seal.insert("backend".into(), Value::String(backend.label().into()));
    seal.extend(swtpm.map(|swtpm| ("tpm2".to_owned(), Value::Table(swtpm.table()))));
    seal.extend(token.map(|token| ("pkcs11".to_owned(), Value::Table(token.table()))));
    seal
}

struct Dev {
    swtpm: Option<Swtpm>,
    sealer: Child,
    daemon: Child,
}

impl Dev {
    async fn supervise(&mut self, layout: &Layout, config: &config::Config, json: bool) -> Result<(), DevError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(DevError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DevError::Runtime)?;
        let give_up = Instant::now() + READY_TIMEOUT;
        let mut is_ready = false;
        loop {
            if let Some(swtpm) = &mut self.swtpm {
                if self.sealer.is_due() {
                    swtpm.power_cycle(layout).map_err(DevError::Swtpm)?;
                }
                swtpm.keep(layout).map_err(DevError::Swtpm)?;
            }
            self.sealer.keep().map_err(DevError::Child)?;
            self.daemon.keep().map_err(DevError::Child)?;
            if !is_ready {
                is_ready = probe::round_trip(&config.listen.socket).await.is_ok();
                match is_ready {
                    true => self.announce(layout, config, json),
                    false if Instant::now() > give_up => return Err(DevError::NotReady),
                    false => {}
                }
            }
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn announce(&self, layout: &Layout, config: &config::Config, json: bool) {
        let next = to_try(&layout.config());
        if !json {
            return say::result(&ready(layout, config, &next));
        }
        let line = json!({
            "schema": schema::DEV,
            "event": "ready",
            "socket": config.listen.socket,
            "control": config.control_socket,
            "config": layout.config(),
            "logs": layout.logs(),
            "next": next,
            "pids": {
                "nodeseal": std::process::id(),
                "nodeseald": self.daemon.pid(),
                "nodeseal_sealer": self.sealer.pid(),
                "swtpm": self.swtpm.as_ref().map(Swtpm::pid),
            },
        });
        say::result(&line.to_string());
    }

    /// In the order in which they need each other.
    fn stop(&mut self) {
        self.daemon.stop();
        self.sealer.stop();
        if let Some(swtpm) = &mut self.swtpm {
            swtpm.stop();
        }
    }
}

/// For people: the word that scripts wait for, what lies where, and what to type in another terminal.
fn ready(layout: &Layout, config: &config::Config, next: &[String]) -> String {
    let (socket, control) = (config.listen.socket.display(), config.control_socket.display());
    let (file, logs) = (layout.config(), layout.logs());
    let mut text = format!(
        "ready\n  KMS socket      {socket}\n  control socket  {control}\n  configuration   {}\n  logs            {}\n  \
         Ctrl-C ends it; the same folder finds the same keys again",
        file.display(),
        logs.display()
    );
    for step in next {
        text += &format!("\nnext: {step}");
    }
    text
}

/// A round trip, a rotation, and what a kube-apiserver needs.
fn to_try(config: &Path) -> Vec<String> {
    let config = quoted(config);
    ["status --probe", "keys rotate --activate", "encryption-config"]
        .map(|verb| format!("nodeseal --config {config} {verb}"))
        .to_vec()
}

/// In the layout of now, or in that of release 0.1.
fn is_set_up(state_dir: &Path) -> bool {
    ["current", "state"].iter().any(|name| state_dir.join(name).exists())
}
