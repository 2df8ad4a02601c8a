//! The programs that run: `nodeseald` and, in [`sealer`], `nodeseal-sealer`.
//!
//! The start of `nodeseald` in one read: configuration, log, the process itself, sockets, keeper, control, API. The KMS socket
//! answers before the keys are open, so that kube-apiserver learns what is missing instead of waiting for a connection.

mod kek;
mod kept;
mod look;
mod notify;
#[cfg(feature = "etcd")]
mod opener;
mod operator;
mod prepare;
mod proof;
mod reload;
mod remote;
pub mod sealer;

use std::fs::DirBuilder;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::notify::Supervisor;
#[cfg(feature = "etcd")]
use self::opener::Opener;
use self::operator::Operator;
use self::prepare::{confine, prepare, tell};
use self::reload::Reloader;
use crate::api::scrape::{self, Listener, Page, Place};
use crate::api::{Server, Shutdown};
use crate::audit::{Event, emit, log};
use crate::config::Config;
use crate::control::failed::Failed;
use crate::control::{self, Door, metrics, program};
use crate::keyring::Keyring;
use crate::keyring::keeper::{self, Settings};
use crate::sandbox::{Confined, Policy, process};
use crate::seal::client::SealerClient;
use crate::socket::listen::{self, ListenError, Owners};
use crate::store::{RealDisk, RunFile};
use crate::types::stack::{self, IDLE_BYTES};
use crate::types::{Chain, Class, Explain, Explained, clock, lock};

const PROGRAM: &str = "nodeseald";
const ABOUT: &str = "Serves the Kubernetes KMS API with keys that only this node's hardware can open";

/// The command line, for the manual page.
pub fn command() -> clap::Command {
    prepare::command(PROGRAM, ABOUT)
}

/// `nodeseald`.
pub fn main() -> ExitCode {
    program::main(PROGRAM, prepare::parse(command()), |config| start(&config))
}

fn start(config: &Path) -> Result<ExitCode, Failed> {
    let config = prepare(config)?;
    emit(&Event::ServiceStarted { program: PROGRAM });
    for warning in &config.warnings {
        emit(&Event::ConfigWarned { key: &warning.key, text: &warning.text });
    }
    let descriptors = process::raise_descriptor_limit();
    let (kms, control) = sockets(&config)?;
    let status = status_socket(&config);
    let metrics = metrics_listener(&config);
    let sealer = config.sealer().before_confinement()?;
    make_state_dir(&config);
    // What a login may have used up, for the next process of this boot.
    let login_tries = RunFile::open(&config.control_socket.with_file_name("login-tries"));
    let supervisor = Arc::new(Supervisor::from_env());
    let confined = confine(&config.sandbox, &config.daemon_needs(), Policy::Daemon)?;
    log::write_beside();
    tell(PROGRAM, &confined);
    run(config, Parts { kms, control, status, metrics, sealer, supervisor, descriptors, confined, login_tries })
}

/// What was opened before the confinement, and the proof of it.
struct Parts {
    kms: UnixListener,
    control: UnixListener,
    status: Option<UnixListener>,
    metrics: Option<Listener>,
    sealer: SealerClient,
    supervisor: Arc<Supervisor>,
    descriptors: u64,
    confined: Confined,
    login_tries: Option<RunFile>,
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
    Ok((kms, listen::bind_apart(&config.control_socket, CONTROL_MODE)?))
}

/// Who only looks must not keep the keys closed: without this socket the control socket says the same.
fn status_socket(config: &Config) -> Option<UnixListener> {
    let owners = Owners { user: None, group: config.status_group };
    let bound = listen::bind_for(&config.status_socket, STATUS_MODE, owners);
    let told = bound.as_ref().err().map(|error| format!("is not served: {}; {}", Chain(error), error.hint()));
    if let Some(text) = told {
        emit(&Event::ConfigWarned { key: "control.status_socket", text: &text });
    }
    bound.ok()
}

/// The same for who only collects.
#[expect(
    clippy::disallowed_methods,
    reason = "the one port that can be asked for, of this machine alone, and before the confinement"
)]
fn metrics_listener(config: &Config) -> Option<Listener> {
    let owners = Owners { user: None, group: config.status_group };
    let bound = match config.metrics.as_ref()? {
        Place::Unix(path) => listen::bind_for(path, STATUS_MODE, owners)
            .map(Listener::Unix)
            .map_err(|error| format!("{}; {}", Chain(&error), error.hint())),
        Place::Loopback(address) => TcpListener::bind(address).map(Listener::Loopback).map_err(|error| {
            let hint = "choose a port that is free; under systemd the unit needs SocketBindAllow= (docs/operations/metrics.md)";
            format!("{address}: {error}; {hint}")
        }),
    };
    let told = bound.as_ref().err().map(|error| format!("is not served: {error}"));
    if let Some(text) = told {
        emit(&Event::ConfigWarned { key: "telemetry.metrics", text: &text });
    }
    bound.ok()
}

/// For ever.
fn collect_from(listener: Listener, text: impl Fn() -> String + Send + Sync + 'static) {
    let page = Page { content_type: metrics::CONTENT_TYPE, text };
    if let Err(error) = scrape::serve(listener, page) {
        emit(&Event::ConfigWarned { key: "telemetry.metrics", text: &format!("is not served: {error}") });
    }
}

/// Long enough for a write that has begun.
const KEEPER_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Root alone; the peer check says the same once more.
const CONTROL_MODE: u32 = 0o600;

/// Its group besides. The kernel knows who is in it, also where a user namespace hides from us who asks.
const STATUS_MODE: u32 = 0o660;

fn run(config: Config, parts: Parts) -> Result<ExitCode, Failed> {
    let Parts { kms, control, status, metrics, sealer, supervisor, descriptors, confined, login_tries } = parts;
    let (keyring, handle, keeper) = keeper::new(Settings {
        disk: RealDisk,
        state_dir: config.state_dir.clone(),
        cluster: config.cluster.clone(),
        sealer: sealer.clone(),
        max_age: config.max_age,
        guard: config.seal.guard,
        pin_file: config.seal.own_pin_file(),
        now: clock::now,
        is_synchronised: clock::is_synchronised,
    });
    let server = Server::new(&config.listen, &keyring, descriptors, &confined);
    let (socket, control_socket) = (config.listen.socket.clone(), config.control_socket.clone());
    let status_socket = config.status_socket.clone();
    let lacks = |hint| move |error: io::Error| Failed::new(&Explain::new(&error, Class::Unavailable, hint));
    let reloader = Reloader::new(config, handle.clone(), sealer, confined, login_tries);
    let reloader = Arc::new(reloader.map_err(lacks("see the limits of processes and memory"))?);
    keyring.begin_with(reloader.rooted());
    #[cfg(feature = "etcd")]
    let opener = Opener::new(Arc::clone(&keyring)).map_err(lacks("see the limit of descriptors"))?;
    let operator = Arc::new(Operator {
        #[cfg(feature = "etcd")]
        opener,
        reloader: Arc::clone(&reloader),
        keyring: Arc::clone(&keyring),
        keeper: handle.clone(),
        started: Instant::now(),
    });
    let (teller, collected) = (Arc::clone(&operator), Arc::clone(&operator));
    let watched = Watched { hangups: Hangups::new(), keyring, supervisor };
    let (watching, reloading) = (Arc::clone(&reloader), watched.clone());
    let started = spawn("keeper", keeper).and_then(|keeper| {
        spawn("control-socket", move || control::serve(&control, &control_socket, Door::Operator, operator))?;
        if let Some(status) = status {
            spawn("status-socket", move || control::serve(&status, &status_socket, Door::Status, teller))?;
        }
        if let Some(listener) = metrics {
            spawn("metrics", move || collect_from(listener, move || collected.metrics()))?;
        }
        spawn("watch", move || watching.watch())?;
        spawn("reload", move || reloading.reload_with(&reloader))?;
        Ok(keeper)
    });
    let served = started.and_then(|keeper| serve(server, kms, &socket, &watched).map(|()| keeper));
    handle.stop();
    let keeper = served.map_err(lacks("see the limits of processes, memory and descriptors"))?;
    // A keeper that waits for a hung device is left behind: its files are whole at every step (`store`).
    let give_up = Instant::now() + KEEPER_STOP_TIMEOUT;
    while !keeper.is_finished() && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(ExitCode::SUCCESS)
}

/// All threads but those of questions start with the process: later there may be none to be had.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(work)
}

/// What goes on beside the API on its event loop.
#[derive(Clone)]
struct Watched {
    hangups: Arc<Hangups>,
    keyring: Arc<Keyring>,
    supervisor: Arc<Supervisor>,
}

impl Watched {
    /// For ever: the configuration anew for each signal, and once for all that come meanwhile.
    fn reload_with(&self, reloader: &Reloader) {
        loop {
            self.hangups.wait();
            reloader.reload_and_tell("SIGHUP");
            // Before it was ready it is not told that it is.
            if self.keyring.key_id_now().is_some() {
                self.supervisor.ready("the configuration was reloaded: the log has the result");
            }
        }
    }
}

/// Signals that ask for a reload, for the one thread that does it.
#[derive(Default)]
struct Hangups {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Hangups {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn note(&self) {
        *lock::lock(&self.asked) = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        *lock::wait_while(&self.changed, lock::lock(&self.asked), |asked| !*asked) = false;
    }
}

/// The API's own runtime: one thread, which is this one.
fn serve(server: Server, kms: UnixListener, socket: &Path, watched: &Watched) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Plaintexts and round keys went through its frames; each use of a cipher has overwritten the nearest already.
    builder.enable_all().on_thread_park(stack::overwrite::<IDLE_BYTES>).max_blocking_threads(1);
    let runtime = builder.build()?;
    runtime.block_on(async {
        kms.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(kms)?;
        let shutdown = watch_signals(watched)?;
        emit(&Event::ServiceListening { socket });
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
    let (mut is_ready, mut told) = (false, None::<Instant>);
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
        if let Some(half) = half
            && told.is_none_or(|told| told.elapsed() + pause / 2 >= half)
        {
            supervisor.alive();
            told = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
    }
}

/// Stops on SIGTERM and SIGINT, and reads the configuration anew on SIGHUP.
fn watch_signals(watched: &Watched) -> io::Result<Shutdown> {
    let Watched { hangups, keyring, supervisor } = watched.clone();
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
                    if keyring.key_id_now().is_some() {
                        supervisor.reloading();
                    }
                    hangups.note();
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
