//! `nodeseal-sealer`: opens the configured device engine and answers, on the supervisor's socket, on one of its own, or on its
//! standard input when `nodeseald` started it for one question.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::notify::Supervisor;
use super::prepare::{confine, prepare, tell};
use crate::api::listen::{self, ListenError};
use crate::audit::{Event, emit};
use crate::config::Config;
use crate::control::say;
use crate::sandbox::Policy;
use crate::seal::starter;
use crate::sealer::{Devices, server};
#[cfg(any(feature = "tpm2", feature = "pkcs11"))]
use crate::types::Backend;
use crate::types::Class;

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
    let config = match prepare(PROGRAM, ABOUT) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match stdin() {
        Stdin::Question(stream) => one_question(&config, stream),
        Stdin::Asker(way) => start_others(&config, &way),
        Stdin::Other => listen(&config),
    }
}

fn one_question(config: &Config, stream: UnixStream) -> ExitCode {
    let (needs, policy) = config.sealer_needs();
    match confine(PROGRAM, &config.sandbox, &needs, policy) {
        Ok(confined) => finish(server::answer(stream, &mut engines(config, true), &confined)),
        Err(code) => code,
    }
}

/// Never asks a device itself. What each sealer needs is in the configuration as it is when it is started.
fn start_others(config: &Config, way: &OwnedFd) -> ExitCode {
    let program = std::env::current_exe().unwrap_or_else(|_| PROGRAM.into());
    match confine(PROGRAM, &config.sandbox, &config.sealer_needs().0, Policy::Starter) {
        Ok(_) => finish(starter::serve(way, &program, &config.path)),
        Err(code) => code,
    }
}

fn listen(config: &Config) -> ExitCode {
    emit(&Event::ServiceStarted { program: PROGRAM });
    let (listener, socket) = match listener(config) {
        Ok(listener) => listener,
        Err(error) => return say::error(PROGRAM, &error, error.class(), error.hint()),
    };
    let (needs, policy) = config.sealer_needs();
    let supervisor = Supervisor::from_env();
    match confine(PROGRAM, &config.sandbox, &needs, policy) {
        Ok(confined) => {
            tell(PROGRAM, &confined);
            supervisor.ready("waiting for questions");
            finish(server::serve(&listener, &socket, &mut engines(config, false), &confined, &needs))
        }
        Err(code) => code,
    }
}

/// One engine for each kind of device that is compiled in and configured.
#[cfg_attr(not(feature = "pkcs11"), expect(unused_variables, reason = "a build without engines configures none"))]
fn engines(config: &Config, only_one_question: bool) -> Devices {
    let devices = Devices::default();
    #[cfg(feature = "tpm2")]
    let devices = devices.with(Backend::Tpm2, Box::new(crate::sealer::tpm2::Tpm2::new(config.seal.tpm2.clone())));
    #[cfg(feature = "pkcs11")]
    let devices = match config.seal.pkcs11.clone() {
        Some(settings) => {
            use crate::sealer::pkcs11::Pkcs11;
            let engine = if only_one_question { Pkcs11::for_one_question(settings) } else { Pkcs11::new(settings) };
            devices.with(Backend::Pkcs11, Box::new(engine))
        }
        None => devices,
    };
    devices
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
        None => listen::bind_for(&socket, SOCKET_MODE, config.sandbox.user.as_ref().map(|user| user.uid))?,
    };
    Ok((listener, socket))
}

const DEFAULT_SOCKET: &str = "/run/nodeseal-sealer/sealer.sock";

fn finish(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say::error(PROGRAM, &error, Class::Unavailable, "see whether its client is of the same release"),
    }
}
