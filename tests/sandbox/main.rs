//! Small programs under the daemons' real confinement: what a daemon does passes, what an intruder in it would do is stopped.
//!
//! Each probe is a process of its own: this test program once more, with a probe's name in its environment. It confines itself as a
//! daemon does, tries one thing, and ends with what came of it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and leaves files as a crash would"
)]

mod harmless;
mod malicious;
#[cfg(target_arch = "x86_64")]
mod numbers;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nodeseal::sandbox::{Access, Mode, Needs, Policy, Settings, confine};

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It did what it tried.
    Done,
    /// The kernel said no.
    Refused,
    /// The kernel ended the process.
    Killed,
    /// It ended itself.
    Aborted,
}

/// What a probe may use.
struct Ground {
    /// Declared.
    state: PathBuf,
    /// Not declared.
    outside: PathBuf,
    /// Declared, and somebody listens.
    port: u16,
    /// Not declared, and somebody listens.
    other_port: u16,
    /// The process that started it.
    parent: i32,
}

type Tried = Result<(), Box<dyn std::error::Error>>;
type Probe = fn(&Ground) -> Tried;

const REFUSED: i32 = 3;
const SIGSYS: i32 = 31;
const SIGABRT: i32 = 6;

/// In the environment: name, policy, folder, declared port, other port.
const VARIABLE: &str = "NODESEAL_PROBE";

/// What a probe says before all else: how much the kernel knows of Landlock.
const ABI: &str = "landlock ABI ";

const POLICIES: [(&str, Policy); 4] = [
    ("daemon", Policy::Daemon),
    ("sealer", Policy::TpmSealer),
    ("module", Policy::ModuleSealer),
    ("starter", Policy::Starter),
];

/// The child's side. Without its variable it is no probe and does nothing.
#[test]
fn probe() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let words: Vec<_> = order.split(' ').collect();
    let policy = POLICIES.iter().find(|(name, _)| *name == words[1]).unwrap().1;
    let dir = Path::new(words[2]);
    let ground = Ground {
        state: dir.join("state"),
        outside: dir.join("outside"),
        port: words[3].parse().unwrap(),
        other_port: words[4].parse().unwrap(),
        parent: std::os::unix::process::parent_id().try_into().unwrap(),
    };
    let probe = find(words[0]).unwrap();
    #[cfg(target_arch = "x86_64")]
    if words[0] == numbers::NAME {
        numbers::be_traced();
    }
    let needs = Needs::default().users().name_service().path(&ground.state, Access::Keep, "state").port(ground.port);
    let settings = Settings { mode: Mode::BestEffort, ..Settings::default() };
    nodeseal::sandbox::process::harden().unwrap();
    let confined = confine(&settings, &needs, policy).unwrap();
    eprintln!("{ABI}{}", confined.enforced().landlock_abi);
    let code = match probe(&ground) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            REFUSED
        }
    };
    std::process::exit(code);
}

fn find(name: &str) -> Option<Probe> {
    #[cfg(target_arch = "x86_64")]
    if name == numbers::NAME {
        return Some(|_| numbers::ask_for_parent());
    }
    harmless::find(name).or_else(|| malicious::find(name))
}

/// What a probe is given, for as long as it runs.
struct Grounds {
    _dir: tempfile::TempDir,
    _listeners: [TcpListener; 2],
    _socket: UnixListener,
}

/// A probe that is to be started.
fn order(name: &str, policy: &str) -> (Command, Grounds) {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["state", "outside"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join("outside/file"), "x").unwrap();
    let socket = UnixListener::bind(dir.path().join("outside/socket")).unwrap();
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let order = format!("{name} {policy} {} {} {}", dir.path().display(), ports[0], ports[1]);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "probe", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, order)
        // A name server that does not answer is not waited for.
        .env("RES_OPTIONS", "timeout:1 attempts:1")
        .stdin(Stdio::null());
    (command, Grounds { _dir: dir, _listeners: listeners, _socket: socket })
}

fn run(name: &str, policy: &str) -> (End, String) {
    let (mut command, _grounds) = order(name, policy);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let end = match (output.status.code(), output.status.signal()) {
        (Some(0), _) => End::Done,
        (Some(REFUSED), _) => End::Refused,
        (_, Some(SIGSYS)) => End::Killed,
        (_, Some(SIGABRT)) => End::Aborted,
        other => panic!("{name} under {policy} ended with {other:?}: {said}"),
    };
    (end, said)
}

#[test]
fn what_a_daemon_does_passes() {
    for (name, _) in harmless::ALL {
        let (end, said) = run(name, "daemon");
        let expected = if *name == "abort" { End::Aborted } else { End::Done };
        assert_eq!(end, expected, "{name}: {said}");
    }
}

#[test]
fn what_an_intruder_would_do_is_stopped() {
    let name = format!("nodeseal-probe-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    for (name, how, _) in malicious::ALL {
        for (policy, stops) in [("daemon", true), ("sealer", true), ("module", *how != malicious::How::ByList)] {
            let (end, said) = run(name, policy);
            let is_known = |abi: u8| !(0..abi).any(|older| said.contains(&format!("{ABI}{older}\n")));
            let stops = stops && !matches!(how, malicious::How::ByLaterRule(abi) if !is_known(*abi));
            if stops {
                assert_ne!(end, End::Done, "{name} under {policy}: {said}");
            }
            if *how == malicious::How::Fatal && !(*name == "execve" && policy == "module") {
                assert_eq!(end, End::Killed, "{name} under {policy}: {said}");
            }
        }
    }
}

/// So that a probe is known to try what it says: the same without any confinement.
#[test]
fn what_is_stopped_would_have_been_done() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("outside")).unwrap();
    std::fs::write(dir.path().join("outside/file"), "x").unwrap();
    let _socket = UnixListener::bind(dir.path().join("outside/socket")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let ground = Ground {
        state: dir.path().join("state"),
        outside: dir.path().join("outside"),
        port,
        other_port: port,
        parent: std::os::unix::process::parent_id().try_into().unwrap(),
    };
    for (name, how, probe) in malicious::ALL.iter().filter(|(_, how, _)| *how != malicious::How::Fatal) {
        probe(&ground).unwrap_or_else(|error| panic!("{name} ({how:?}): {error}"));
    }
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
}
