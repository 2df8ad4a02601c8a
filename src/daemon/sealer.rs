//! `nodeseal-sealer`: opens the configured device engine and answers, on the supervisor's socket, on one of its own, or on its
//! standard input when `nodeseald` started it for one question.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::prepare::prepare;
use crate::api::listen::{self, ListenError};
use crate::audit::{Event, emit};
use crate::config::Config;
use crate::control::say;
use crate::sealer::{Devices, server};
#[cfg(any(feature = "tpm2", feature = "pkcs11"))]
use crate::types::Backend;
use crate::types::Class;

const PROGRAM: &str = "nodeseal-sealer";

/// Our own user and root: nodeseald and the operator's tool.
const SOCKET_MODE: u32 = 0o600;

/// `nodeseal-sealer`.
pub fn main() -> ExitCode {
    let config = match prepare(PROGRAM, "Seals and opens the node root with this machine's device, for nodeseald") {
        Ok(config) => config,
        Err(code) => return code,
    };
    let question = question_on_stdin();
    let mut devices = engines(&config, question.is_some());
    if let Some(stream) = question {
        return finish(server::answer(stream, &mut devices));
    }
    emit(&Event::ServiceStarted { program: PROGRAM });
    match listener(&config) {
        Ok((listener, socket)) => finish(server::serve(&listener, &socket, &mut devices)),
        Err(error) => say::error(PROGRAM, &error, error.class(), error.hint()),
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

/// A connected stream socket on descriptor 0, as `seal::client` sets it up.
fn question_on_stdin() -> Option<UnixStream> {
    let stdin = io::stdin();
    let kind = getsockopt(&stdin.as_fd(), sockopt::SockType).ok()?;
    if kind != SockType::Stream {
        return None;
    }
    stdin.as_fd().try_clone_to_owned().ok().map(UnixStream::from)
}

fn listener(config: &Config) -> Result<(std::os::unix::net::UnixListener, PathBuf), ListenError> {
    let socket = config.seal.socket.clone().unwrap_or_else(|| Path::new(DEFAULT_SOCKET).to_owned());
    let listener = match listen::from_supervisor()? {
        Some(listener) => listener,
        None => listen::bind(&socket, SOCKET_MODE)?,
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
