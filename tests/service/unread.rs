//! A log that nobody reads, and one that is read again: the service goes on, and says how much is missing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::pipe;
use serde_json::Value;
use test_support::client::{Client, Refusal, limited, request};
use test_support::process;
use test_support::runtime;
use test_support::swtpm::Swtpm;
use tokio::task::JoinSet;

use crate::alone::{Alone, NODESEALD};

/// More lines than a pipe and the ring of the log hold together: 1 MiB of some 200 bytes each.
const CALLS: usize = 12_000;
const AT_ONCE: usize = 100;

/// A daemon whose log goes into a pipe.
struct Unread {
    alone: Alone,
    log: File,
}

impl Unread {
    fn start(alone: Alone) -> (Self, Client) {
        let (log, stderr) = pipe().unwrap();
        let unread = Self::start_with(alone, log.into(), stderr);
        let client = unread.alone.wait_until_ready();
        (unread, client)
    }

    fn start_with(mut alone: Alone, log: File, stderr: OwnedFd) -> Self {
        let config = alone.config();
        let mut command = Command::new(process::program(NODESEALD));
        alone.spawn_with(command.arg("--config").arg(config), Stdio::from(stderr));
        Self { alone, log }
    }
}

/// This many refused and answered Decrypts each.
fn call_often(client: &Client, calls: usize) {
    let stored = client.store().unwrap();
    for _ in 0..calls / AT_ONCE {
        let mut all = JoinSet::new();
        for _ in 0..AT_ONCE / 2 {
            let mut bad = request(&stored.text, &stored.key_id);
            bad.ciphertext[60] ^= 1;
            for request in [bad, request(&stored.text, &stored.key_id)] {
                all.spawn_on(client.clone().decrypting(request), runtime::shared());
            }
        }
        let answers = limited(async { Ok::<_, Refusal>(all.join_all().await) }).unwrap();
        let broken = answers.iter().find(|answer| matches!(answer, Err(Refusal::Broken(_))));
        assert!(broken.is_none(), "{broken:?}");
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_log_that_nobody_reads_stops_no_call_and_what_it_lacks_is_said_when_it_is_read_again() {
    let tpm = Swtpm::start();
    let (mut unread, client) = Unread::start(Alone::set_up(&tpm));
    call_often(&client, CALLS);
    // Also for one who comes now.
    unread.alone.client().store().unwrap();
    let status = unread.alone.tool(&["status", "--json"]).json();
    let dropped = status["log_lines_dropped"].as_u64().unwrap();
    assert!(dropped > 0, "{status}");
    let metrics = unread.alone.tool(&["metrics"]).out;
    let sample = metrics.lines().find_map(|line| line.strip_prefix("nodeseal_log_lines_dropped "));
    assert!(sample.unwrap().parse::<u64>().unwrap() >= dropped, "{metrics}");
    assert!(unread.alone.tool(&["status"]).out.contains("log lines were dropped"));

    let (send, lines) = channel();
    let log = BufReader::new(unread.log.try_clone().unwrap());
    std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let await_event = |name: &str| loop {
        let line = lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{name} comes"));
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == name {
            return event;
        }
    };
    let told = await_event("log.dropped");
    assert!(told["lines"].as_u64().unwrap() >= dropped, "{told} and {dropped}");
    client.store().unwrap();
    // What is logged last is written before the process ends.
    assert_eq!(unread.alone.stop(), 0);
    await_event("service.stopping");
}

#[test]
fn a_log_that_nobody_reads_stops_neither_a_stop_nor_a_start() {
    let tpm = Swtpm::start();
    let (mut unread, client) = Unread::start(Alone::set_up(&tpm));
    call_often(&client, CALLS);
    let started = Instant::now();
    assert_eq!(unread.alone.stop(), 0);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());

    // The same pipe for the next one, full from the beginning.
    let (log, stderr) = pipe().unwrap();
    fcntl(stderr.as_fd(), FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&stderr, &[b'\n'; 4096]).is_ok() {}
    fcntl(stderr.as_fd(), FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let Unread { alone, .. } = unread;
    let unread = Unread::start_with(alone, log.into(), stderr);
    unread.alone.wait_until_ready().store().unwrap();
}

#[test]
fn calls_that_are_refused_alike_are_one_line_a_second_with_their_number() {
    const REFUSED: u64 = 2_000;
    let tpm = Swtpm::start();
    let alone = Alone::set_up(&tpm);
    let (unread, client) = Unread::start(alone);
    let (has_ended, end) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let mut log = unread.log.try_clone().unwrap();
    let ended = Arc::clone(&has_ended);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        assert!(ended.load(Ordering::Relaxed));
        text
    });
    call_often(&client, usize::try_from(REFUSED).unwrap() * 2);
    let took = end.elapsed().as_secs();
    has_ended.store(true, Ordering::Relaxed);
    let mut unread = unread;
    assert_eq!(unread.alone.stop(), 0);
    drop(unread);
    let refused: Vec<_> =
        lines(&reader.join().unwrap()).into_iter().filter(|line| line["event"] == "request.refused").collect();
    let count: u64 = refused.iter().map(|line| line["count"].as_u64().unwrap()).sum();
    // Before the keys were open, Status was refused too.
    let first = refused.iter().find(|line| line["op"] == "v2.Decrypt").unwrap();
    assert_eq!((first["class"].as_str(), first["count"].as_u64()), (Some("corrupt"), Some(1)), "{first}");
    assert!(first["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{first}");
    assert!(count >= REFUSED, "{count} of {REFUSED}");
    assert!(u64::try_from(refused.len()).unwrap() <= took + 8, "{} lines in {took} s", refused.len());
}
