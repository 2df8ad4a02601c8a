//! The programs that run: `nodeseald` and, in [`sealer`], `nodeseal-sealer`.
//!
//! The start of `nodeseald` in one read: configuration, log, the process itself, sockets, keeper, control, API. The KMS socket
//! answers before the keys are open, so that kube-apiserver learns what is missing instead of waiting for a connection.

mod operator;
mod prepare;
mod reload;
mod remote;
pub mod sealer;

use std::collections::HashSet;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::operator::Operator;
use self::prepare::prepare;
use self::reload::Reloader;
use crate::api::listen::{self, ListenError};
use crate::api::{Server, Shutdown};
use crate::audit::{Event, emit};
use crate::config::Config;
use crate::control::{self, say};
use crate::keyring::keeper::{self, Settings};
use crate::sandbox::process;
use crate::store::RealDisk;
use crate::types::{Class, clock};

const PROGRAM: &str = "nodeseald";

/// `nodeseald`.
pub fn main() -> ExitCode {
    let config =
        match prepare(PROGRAM, "Serves the Kubernetes KMS API with keys that only this node's hardware can open") {
            Ok(config) => config,
            Err(code) => return code,
        };
    emit(&Event::ServiceStarted { program: PROGRAM });
    for warning in &config.warnings {
        emit(&Event::ConfigWarned { key: &warning.key, text: &warning.text });
    }
    let descriptors = process::raise_descriptor_limit();
    match sockets(&config) {
        Ok((kms, control)) => run(config, kms, control, descriptors),
        Err(error) => say::error(PROGRAM, &error, error.class(), error.hint()),
    }
}

fn sockets(config: &Config) -> Result<(UnixListener, UnixListener), ListenError> {
    let kms = match listen::from_supervisor()? {
        Some(listener) => listener,
        None => listen::bind(&config.listen.socket, config.listen.mode)?,
    };
    Ok((kms, listen::bind(&config.control_socket, CONTROL_MODE)?))
}

/// Long enough for a write that has begun.
const KEEPER_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Root alone; the peer check says the same once more.
const CONTROL_MODE: u32 = 0o600;

fn run(config: Config, kms: UnixListener, control: UnixListener, descriptors: u64) -> ExitCode {
    let (keyring, handle, keeper) = keeper::new(Settings {
        disk: RealDisk,
        state_dir: config.state_dir.clone(),
        cluster: config.cluster.clone(),
        sealer: config.sealer(),
        max_age: config.max_age,
        guarded: config.seal.guard.is_some(),
        now: clock::now,
    });
    let server = Server::new(&config.listen, &keyring, descriptors);
    let (socket, control_socket) = (config.listen.socket.clone(), config.control_socket.clone());
    let reloader = match Reloader::new(config, handle.clone()) {
        Ok(reloader) => Arc::new(reloader),
        Err(error) => {
            return say::error(PROGRAM, &error, Class::Unavailable, "see the limits of processes and memory");
        }
    };
    keyring.begin_with(reloader.rooted());
    let keeper = thread::spawn(keeper);
    let operator = Operator {
        reloader: Arc::clone(&reloader),
        keyring: Arc::clone(&keyring),
        keeper: handle.clone(),
        started: Instant::now(),
    };
    thread::spawn(move || control::serve(&control, &control_socket, |request| operator.answer(request)));
    let watching = Arc::clone(&reloader);
    thread::spawn(move || watching.watch());
    let served = serve(server, kms, &socket, reloader);
    handle.stop();
    // A keeper that waits for a hung device is left behind: its files are whole at every step (`store`).
    let give_up = Instant::now() + KEEPER_STOP_TIMEOUT;
    while !keeper.is_finished() && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(5));
    }
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(PROGRAM, &error, Class::Unavailable, "see the limits of processes, memory and descriptors")
        }
    }
}

/// The API's own runtime: one thread, which is this one.
fn serve(server: Server, kms: UnixListener, socket: &std::path::Path, reloader: Arc<Reloader>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        kms.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(kms)?;
        let shutdown = watch_signals(reloader)?;
        emit(&Event::ServiceReady { socket });
        server.run(listener, shutdown).await;
        Ok(())
    })
}

/// Stops on SIGTERM and SIGINT, and reads the configuration anew on SIGHUP.
fn watch_signals(reloader: Arc<Reloader>) -> std::io::Result<Shutdown> {
    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let reason = loop {
            tokio::select! {
                _ = terminate.recv() => break "SIGTERM",
                _ = interrupt.recv() => break "SIGINT",
                _ = hangup.recv() => {
                    let reloader = Arc::clone(&reloader);
                    thread::spawn(move || reloader.reload_and_tell(&HashSet::new(), "SIGHUP"));
                }
            }
        };
        emit(&Event::ServiceStopping { reason });
        // Fails only when the server is gone already.
        let _ = stop.send(true);
    });
    Ok(shutdown)
}
