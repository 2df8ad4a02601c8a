//! The listening sockets: their modes, who takes over from whom, what a supervisor holds, and how a stop ends.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;
use test_support::client::{Client, finish, framed, limited};
use test_support::node::Node;
use test_support::process::{StopOnDrop, program, signal, until};
use test_support::runtime;
use test_support::swtpm::Swtpm;
use tokio::net::UnixStream;

use crate::alone::{Alone, NODESEALD};

#[test]
fn a_socket_never_has_a_mode_that_lets_others_in() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    for (extra, mode) in [("", 0o660), ("listen.mode = \"0600\"", 0o600)] {
        alone.extra = extra.into();
        alone.write_config(&tpm);
        for _ in 0..5 {
            let folder = alone.home().join("run");
            let stop = AtomicBool::new(false);
            let seen = std::thread::scope(|scope| {
                // Looks at everything in the folder as fast as it can while the daemon makes its sockets.
                let watcher = scope.spawn(|| {
                    let mut modes = BTreeSet::new();
                    while !stop.load(Ordering::Relaxed) {
                        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                        modes.extend(
                            entries.filter_map(|entry| Some(entry.path().symlink_metadata().ok()?.mode() & 0o7777)),
                        );
                    }
                    modes
                });
                {
                    let _stop = StopOnDrop(&stop);
                    alone.start_locked();
                }
                watcher.join().unwrap()
            });
            assert!(seen.iter().all(|seen| seen & !0o660 == 0), "modes {seen:?} (decimal)");
            assert_eq!(fs::metadata(alone.socket()).unwrap().mode() & 0o7777, mode);
            assert_eq!(fs::metadata(folder.join("control.sock")).unwrap().mode() & 0o7777, 0o600);
            assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o022, 0);
            // swtpm has no resource manager: a session of a sealer that is killed stays, and it has room for three.
            alone.wait_until_ready();
            alone.kill();
        }
    }
    // Whatever the caller's umask is.
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(program(NODESEALD)).arg("--config").arg(alone.config());
    alone.spawn(&mut command);
    alone.wait_until_ready();
    assert_eq!(fs::metadata(alone.socket()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(alone.home().join("run/control.sock")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_stale_socket_is_taken_over_and_a_living_one_is_not() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let stored = alone.start().store().unwrap();
    alone.kill();
    assert!(alone.socket().exists(), "a power cut leaves it behind");
    let client = alone.start();
    client.assert_opens(&stored);

    let inode = || fs::metadata(alone.socket()).unwrap().ino();
    let before = inode();
    let second = alone.run_another(&alone.config());
    assert!(second.assert_refused(69).err.contains("another process answers"), "{second:?}");
    // With a socket of its own, the control socket is in the way.
    let config = fs::read_to_string(alone.config()).unwrap().replace("run/kms.sock", "run/other.sock");
    let other = alone.home().join("other.toml");
    fs::write(&other, &config).unwrap();
    alone.run_another(&other).assert_refused(69);
    // With sockets of its own, the keys are in use: it stays up and says so.
    assert_eq!(inode(), before);
    client.assert_opens(&stored);
    Client::connect(&alone.socket()).assert_opens(&stored);

    // What is not a socket is nobody's to remove.
    alone.kill();
    fs::remove_file(alone.socket()).unwrap();
    fs::write(alone.socket(), b"precious").unwrap();
    alone.run_another(&alone.config()).assert_refused(78);
    assert_eq!(fs::read(alone.socket()).unwrap(), b"precious");
    fs::remove_file(alone.socket()).unwrap();
    // A folder that others can write to is no place for one.
    let run = alone.home().join("run");
    fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    alone.run_another(&alone.config()).assert_refused(78);
    fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    alone.start().assert_opens(&stored);
}

#[test]
fn two_daemons_on_one_state_directory_never_both_serve() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    let stored = client.store().unwrap();
    let text = fs::read_to_string(alone.config()).unwrap();
    let text = text.replace("run/kms.sock", "run2/kms.sock").replace("run/control.sock", "run2/control.sock");
    let config = alone.home().join("second.toml");
    fs::write(&config, text).unwrap();
    let log = fs::File::create(alone.home().join("second.log")).unwrap();
    let mut second = Command::new(program(NODESEALD)).arg("--config").arg(&config).stderr(log).spawn().unwrap();
    let socket = alone.home().join("run2/kms.sock");
    let second_client = until(Duration::from_secs(10), "the second answers", || Client::try_connect(&socket).ok());
    let refused = second_client.status();
    let log = until(Duration::from_secs(10), "the second says why", || {
        let log = fs::read_to_string(alone.home().join("second.log")).unwrap();
        log.contains("in use by another").then_some(log)
    });
    let answered = refused.is_ok();
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(!answered, "{log}");
    client.assert_opens(&stored);
}

#[test]
fn the_supervisors_socket_outlives_the_daemon_and_a_waiting_client_gets_its_answer() {
    let node = Node::start();
    let inode = || fs::metadata(node.socket()).unwrap().ino();
    let before = inode();
    let stored = node.client().store().unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        node.kill("nodeseald");
        let started = Instant::now();
        // Connected while nobody is there: waits in the socket's queue.
        let client = Client::connect(&node.socket());
        client.assert_opens(&stored);
        slowest = slowest.max(started.elapsed());
    }
    eprintln!("FIGURE: a client that came during a restart waited {slowest:?} at most");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert_eq!(inode(), before, "the socket is the same file");
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_refused() {
    let tpm = Swtpm::start();
    let alone = Alone::set_up(&tpm);
    let output = test_support::node::run(
        Command::new("sh")
            .args(["-c", "exec timeout 20 env LISTEN_FDS=1 \"$@\" 3</dev/null", "sh", NODESEALD, "--config"])
            .arg(alone.config()),
    );
    output.assert_refused(78);
}

#[test]
fn a_stop_finishes_what_has_begun_and_leaves_a_socket_that_is_taken_over() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let stored = alone.start().store().unwrap();
    let idle = alone.client();
    let message = framed(&[&[0x0A, 32][..], &[5; 32], &[0x12, 3], b"uid"].concat());
    let (first, rest) = message.split_at(10);
    // Twenty calls of which half a body has come.
    let mut begun = limited(async {
        let stream = UnixStream::connect(alone.socket()).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut begun = Vec::new();
        for _ in 0..20 {
            let mut send = send.clone().ready().await.unwrap();
            let request = Request::post("http://localhost/v2.KeyManagementService/Encrypt")
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let (response, mut body) = send.send_request(request, false).unwrap();
            body.send_data(Bytes::copy_from_slice(first), false).unwrap();
            begun.push((response, body));
        }
        Ok(begun)
    })
    .unwrap();
    // A call behind them on the same connection was answered, so the server has them all.
    assert!(idle.status().is_ok());
    signal(alone.pid(), Signal::SIGTERM);
    alone.await_event("service.stopping", "SIGTERM");
    assert_eq!(alone.exit_code(), None, "it waits for them");
    let answers = runtime::shared().block_on(async {
        let mut answers = Vec::new();
        for (response, mut body) in begun.drain(..) {
            body.send_data(Bytes::copy_from_slice(rest), true).unwrap();
            answers.push(finish(response).await.is_ok());
        }
        answers
    });
    assert_eq!(answers, [true; 20]);
    let code = until(Duration::from_secs(3), "it ends when they are answered", || alone.exit_code());
    assert_eq!(code, 0);
    assert!(idle.status().is_err(), "the idle connection is gone");
    assert_eq!(alone.tool(&["status"]).assert_refused(69).out, "");
    let mut next = alone;
    next.stop_reaped();
    next.start().assert_opens(&stored);
}

#[test]
fn a_stop_is_quick_with_idle_clients_and_bounded_with_ones_that_never_finish() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let idle: Vec<_> = (0..50).map(|_| alone.start_if_needed()).collect();
    let silent: Vec<_> = (0..50).map(|_| crate::raw::silent(&alone.socket()).unwrap()).collect();
    let started = Instant::now();
    assert_eq!(alone.stop(), 0);
    let took = started.elapsed();
    eprintln!("FIGURE: a stop with 50 idle and 50 silent connections took {took:?}");
    assert!(took < Duration::from_secs(7), "{took:?}");
    drop((idle, silent));
}
