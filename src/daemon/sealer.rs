//! `nodeseal-sealer`: opens the configured device engine and answers, on the supervisor's socket, on one of its own, or on its
//! standard input when `nodeseald` started it for one question.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::look::Looks;
use super::notify::Supervisor;
use super::prepare::{confine, parse, prepare, tell};
use crate::audit::{Event, emit};
use crate::config::{self, Config};
use crate::control::failed::Failed;
use crate::control::program;
use crate::sandbox::{Confined, Policy};
use crate::seal::starter;
use crate::sealer::server::{Anew, Engines};
use crate::sealer::{Devices, server};
use crate::socket::listen::{self, ListenError, Owners};
#[cfg(any(feature = "tpm2", feature = "pkcs11"))]
use crate::types::Backend;
use crate::types::{Chain, Class, Explain, Explained};

const PROGRAM: &str = "nodeseal-sealer";
const ABOUT: &str = "Seals and opens the node root with this machine's device, for nodeseald";

/// Its owner, which is `sandbox.user` or ours, and root: nodeseald and the operator's tool.
const SOCKET_MODE: u32 = 0o600;

/// The command line, for the manual page.
pub fn command() -> clap::Command {
    super::prepare::command(PROGRAM, ABOUT)
}

/// `nodeseal-sealer`.
pub fn main() -> ExitCode {
    program::main(PROGRAM, parse(command()), |config| start(&config))
}

fn start(config: &Path) -> Result<ExitCode, Failed> {
    let config = prepare(config)?;
    match stdin() {
        Stdin::Question(stream) => one_question(&config, stream),
        Stdin::Asker(way) => start_others(&config, &way),
        Stdin::Other => listen(&config),
    }
}

fn one_question(config: &Config, stream: UnixStream) -> Result<ExitCode, Failed> {
    let (needs, policy) = config.sealer_needs();
    let mut devices = engines(config, true, &tries(config));
    let confined = confine(&config.sandbox, &needs, policy)?;
    finish(server::answer(stream, &mut devices, &confined))
}

/// Never asks a device itself. What each sealer needs is in the configuration as it is when it is started.
fn start_others(config: &Config, way: &OwnedFd) -> Result<ExitCode, Failed> {
    let program = std::env::current_exe().unwrap_or_else(|_| PROGRAM.into());
    confine(&config.sandbox, &config.sealer_needs().0, Policy::Starter)?;
    finish(starter::serve(way, &program, &config.path))
}

fn listen(config: &Config) -> Result<ExitCode, Failed> {
    emit(&Event::ServiceStarted { program: PROGRAM });
    let (listener, socket) = listener(config)?;
    let tries = tries(config);
    let (engines, policy) = engines_of(config, &tries);
    let supervisor = Supervisor::from_env();
    let confined = confine(&config.sandbox, &engines.needs, policy)?;
    tell(PROGRAM, &confined);
    supervisor.ready("waiting for requests");
    let mut runs = Runs { config: config.clone(), policy, tries, looks: Looks::default() };
    finish(server::serve(&listener, &socket, engines, &confined, || runs.anew(&confined)))
}

/// What a sealer that goes on listening is made of.
fn engines_of(config: &Config, tries: &Tries) -> (Engines, Policy) {
    let (needs, policy) = config.sealer_needs();
    (Engines { devices: engines(config, false, tries), needs: needs.and(config.own_needs()) }, policy)
}

/// The configuration that the engines were made by, and what its file looked like when it was read last.
struct Runs {
    config: Config,
    policy: Policy,
    tries: Tries,
    looks: Looks,
}

impl Runs {
    /// A file that cannot be used changes nothing.
    fn anew(&mut self, confined: &Confined) -> Anew {
        let now = Looks::at([self.config.path.clone()], &self.looks);
        if now == self.looks {
            return Anew::Same;
        }
        self.looks = now;
        let next = match config::load(&self.config.path) {
            Ok(next) => next,
            Err(error) => {
                let told = Chain(&error).to_string();
                emit(&Event::ConfigRefused { reason: CHANGED, error: &told, hint: error.hint() });
                return Anew::Same;
            }
        };
        let (new, old) = (&next.seal, &self.config.seal);
        if (&new.tpm2, &new.pkcs11) == (&old.tpm2, &old.pkcs11) {
            return Anew::Same;
        }
        emit(&Event::ConfigReloaded { reason: CHANGED });
        let (engines, policy) = engines_of(&next, &self.tries);
        if policy != self.policy || confined.lacks(&engines.needs).is_some() {
            return Anew::NextProcess;
        }
        self.config = next;
        Anew::Others(engines)
    }
}

const CHANGED: &str = "a file has changed";

/// One engine for each kind of device that is compiled in and configured.
#[cfg_attr(not(feature = "pkcs11"), expect(unused_variables, reason = "a build without engines configures none"))]
fn engines(config: &Config, only_one_question: bool, tries: &Tries) -> Devices {
    let devices = Devices::default();
    #[cfg(feature = "tpm2")]
    let devices = devices.with(Backend::Tpm2, Box::new(crate::sealer::tpm2::Tpm2::new(config.seal.tpm2.clone())));
    #[cfg(feature = "pkcs11")]
    let devices = match config.seal.pkcs11.clone() {
        Some(settings) => {
            use crate::sealer::pkcs11::Pkcs11;
            let engine = if only_one_question { Pkcs11::for_one_question(settings) } else { Pkcs11::new(settings) };
            let engine = match tries {
                Some(file) => engine.remembering_in(file),
                None => engine,
            };
            devices.with(Backend::Pkcs11, Box::new(engine))
        }
        None => devices,
    };
    devices
}

/// Where engines remember which PIN a token may have counted. Opened before the confinement, which has no room for it.
#[cfg(feature = "pkcs11")]
type Tries = Option<crate::store::RunFile>;
/// There is no token to spend one at.
#[cfg(not(feature = "pkcs11"))]
struct Tries;

/// Beside the sealer's socket, or without one beside the operator's: folders of our own that end with the boot.
#[cfg(feature = "pkcs11")]
fn tries(config: &Config) -> Tries {
    config.seal.pkcs11.as_ref()?;
    let socket = config.seal.socket.as_ref().unwrap_or(&config.control_socket);
    crate::store::RunFile::open(&socket.with_file_name("pin-tries"))
}

#[cfg(not(feature = "pkcs11"))]
const fn tries(_config: &Config) -> Tries {
    Tries
}

/// What descriptor 0 is.
enum Stdin {
    /// A stream: one question, as `seal::client` asks it.
    Question(UnixStream),
    /// Whole messages: questions for others, as `seal::starter` hands them on.
    Asker(OwnedFd),
    /// Nothing of ours.
    Other,
}

fn stdin() -> Stdin {
    let stdin = io::stdin();
    match (getsockopt(&stdin.as_fd(), sockopt::SockType), stdin.as_fd().try_clone_to_owned()) {
        (Ok(SockType::Stream), Ok(fd)) => Stdin::Question(fd.into()),
        (Ok(SockType::SeqPacket), Ok(fd)) => Stdin::Asker(fd),
        _ => Stdin::Other,
    }
}

fn listener(config: &Config) -> Result<(std::os::unix::net::UnixListener, PathBuf), ListenError> {
    let socket = config.seal.socket.clone().unwrap_or_else(|| Path::new(DEFAULT_SOCKET).to_owned());
    let listener = match listen::from_supervisor()? {
        Some(listener) => listener,
        None => {
            let user = config.sandbox.user.as_ref().map(|user| user.uid);
            listen::bind_for(&socket, SOCKET_MODE, Owners { user, group: None })?
        }
    };
    Ok((listener, socket))
}

const DEFAULT_SOCKET: &str = "/run/nodeseal-sealer/sealer.sock";

fn finish(result: io::Result<()>) -> Result<ExitCode, Failed> {
    let hint = "check that its client is from the same release";
    result.map_err(|error| Failed::new(&Explain::new(&error, Class::Unavailable, hint)))?;
    Ok(ExitCode::SUCCESS)
}
