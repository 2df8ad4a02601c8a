//! The programs that run: `nodeseald` and, in [`sealer`], `nodeseal-sealer`.
//!
//! The start of `nodeseald` in one read: configuration, log, the process itself, sockets, keeper, control, API. The KMS socket
//! answers before the keys are open, so that kube-apiserver learns what is missing instead of waiting for a connection.

mod notify;
mod operator;
mod prepare;
mod reload;
mod remote;
pub mod sealer;

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::notify::Supervisor;
use self::operator::Operator;
use self::prepare::{confine, prepare, tell};
use self::reload::Reloader;
use crate::api::listen::{self, ListenError};
use crate::api::{Server, Shutdown};
use crate::audit::{Event, emit};
use crate::config::Config;
use crate::control::{self, say};
use crate::keyring::Keyring;
use crate::keyring::keeper::{self, Settings};
use crate::sandbox::{Confined, Policy, process};
use crate::seal::client::SealerClient;
use crate::store::RealDisk;
use crate::types::stack::{self, IDLE_BYTES};
use crate::types::{Class, clock};

const PROGRAM: &str = "nodeseald";
const ABOUT: &str = "Serves the Kubernetes KMS API with keys that only this node's hardware can open";

/// The command line, for the manual page.
pub fn command() -> clap::Command {
    prepare::command(PROGRAM, ABOUT)
}

/// `nodeseald`.
pub fn main() -> ExitCode {
    let config = match prepare(PROGRAM, ABOUT) {
        Ok(config) => config,
        Err(code) => return code,
    };
    emit(&Event::ServiceStarted { program: PROGRAM });
    for warning in &config.warnings {
        emit(&Event::ConfigWarned { key: &warning.key, text: &warning.text });
    }
    let descriptors = process::raise_descriptor_limit();
    let (kms, control) = match sockets(&config) {
        Ok(sockets) => sockets,
        Err(error) => return say::error(PROGRAM, &error, error.class(), error.hint()),
    };
    let sealer = match config.sealer().before_confinement() {
        Ok(sealer) => sealer,
        Err(error) => {
            return say::error(
                PROGRAM,
                &error,
                Class::Unavailable,
                "nodeseal-sealer must lie in the folder of nodeseald",
            );
        }
    };
    make_state_dir(&config);
    let supervisor = Arc::new(Supervisor::from_env());
    match confine(PROGRAM, &config.sandbox, &config.daemon_needs(), Policy::Daemon) {
        Ok(confined) => {
            tell(PROGRAM, &confined);
            run(config, Parts { kms, control, sealer, supervisor, descriptors, confined })
        }
        Err(code) => code,
    }
}

/// What was opened before the confinement, and the proof of it.
struct Parts {
    kms: UnixListener,
    control: UnixListener,
    sealer: SealerClient,
    supervisor: Arc<Supervisor>,
    descriptors: u64,
    confined: Confined,
}

/// What is not there cannot be given to the confined process, and `nodeseal init` may come later than the start. Whether it is there and
/// fit for use is the keeper's to say.
fn make_state_dir(config: &Config) {
    if DirBuilder::new().mode(0o700).create(&config.state_dir).is_ok()
        && let Some(user) = &config.sandbox.user
    {
        let _ = std::os::unix::fs::chown(&config.state_dir, Some(user.uid), Some(user.gid));
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

fn run(config: Config, parts: Parts) -> ExitCode {
    let Parts { kms, control, sealer, supervisor, descriptors, confined } = parts;
    let (keyring, handle, keeper) = keeper::new(Settings {
        disk: RealDisk,
        state_dir: config.state_dir.clone(),
        cluster: config.cluster.clone(),
        sealer: sealer.clone(),
        max_age: config.max_age,
        guarded: config.seal.guard.is_some(),
        now: clock::now,
    });
    let server = Server::new(&config.listen, &keyring, descriptors, &confined);
    let (socket, control_socket) = (config.listen.socket.clone(), config.control_socket.clone());
    let reloader = match Reloader::new(config, handle.clone(), sealer, confined) {
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
    let served = serve(server, kms, &socket, &Watched { reloader, keyring, supervisor });
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

/// What goes on beside the API on its event loop.
#[derive(Clone)]
struct Watched {
    reloader: Arc<Reloader>,
    keyring: Arc<Keyring>,
    supervisor: Arc<Supervisor>,
}

/// The API's own runtime: one thread, which is this one.
fn serve(server: Server, kms: UnixListener, socket: &std::path::Path, watched: &Watched) -> std::io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Plaintexts and round keys went through its frames; each use of a cipher has overwritten the nearest already.
    builder.enable_all().on_thread_park(stack::overwrite::<IDLE_BYTES>);
    let runtime = builder.build()?;
    runtime.block_on(async {
        kms.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(kms)?;
        let shutdown = watch_signals(watched)?;
        emit(&Event::ServiceReady { socket });
        if watched.supervisor.is_there() {
            tokio::spawn(report(Arc::clone(&watched.supervisor), Arc::clone(&watched.keyring)));
        }
        server.run(listener, shutdown).await;
        Ok(())
    })
}

/// Between two looks at keys that are not open yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ready is who can encrypt. From then on a sign of life in half of the time that the supervisor waits for one: this runs on the event
/// loop of the API, so that the sign says that the loop makes progress, and nothing about device or providers.
async fn report(supervisor: Arc<Supervisor>, keyring: Arc<Keyring>) {
    supervisor.status("opening the keys");
    let mut is_ready = false;
    loop {
        if !is_ready && let Some(key_id) = keyring.key_id_now() {
            is_ready = true;
            supervisor.ready(&format!("answering with {key_id}"));
        }
        let half = supervisor.watchdog().map(|watchdog| watchdog / 2);
        let pause = match (is_ready, half) {
            (true, None) => return,
            (true, Some(half)) => half,
            (false, half) => half.unwrap_or(LOOK_EVERY).min(LOOK_EVERY),
        };
        if half.is_some() {
            supervisor.alive();
        }
        tokio::time::sleep(pause).await;
    }
}

/// Stops on SIGTERM and SIGINT, and reads the configuration anew on SIGHUP.
fn watch_signals(watched: &Watched) -> std::io::Result<Shutdown> {
    let Watched { reloader, keyring, supervisor } = watched.clone();
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
                    // Before it was ready it is not told that it is.
                    let supervisor = keyring.key_id_now().map(|_| Arc::clone(&supervisor));
                    supervisor.iter().for_each(|supervisor| supervisor.reloading());
                    thread::spawn(move || {
                        reloader.reload_and_tell(&HashSet::new(), "SIGHUP");
                        supervisor.iter().for_each(|supervisor| {
                            supervisor.ready("the configuration was read anew: the log says what came of it");
                        });
                    });
                }
            }
        };
        supervisor.stopping();
        emit(&Event::ServiceStopping { reason });
        // Fails only when the server is gone already.
        let _ = stop.send(true);
    });
    Ok(shutdown)
}
