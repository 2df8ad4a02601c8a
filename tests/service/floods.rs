//! Floods and stalls: while each goes on, an old client and new ones get their answers, and how long the slowest took is printed;
//! afterwards memory is bounded and every descriptor is back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use test_support::client::Client;
use test_support::node::Node;
use test_support::process::{StopOnDrop, descriptors, resident_mib, status_field, until};

use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, greeted, greeting, literal, silent,
};

/// One flood at a time, so that each has the machine.
static ALONE: Mutex<()> = Mutex::new(());

const FOR: Duration = Duration::from_millis(1200);
/// Locked out or not: kube-apiserver gives up after 3 s, and a busy machine of tests may take its time. A quiet one takes below 0.3 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const MEMORY_MIB: u64 = 64;
/// 1,024 connections and what is kept free (`api::limits`).
const DESCRIPTORS: usize = 1024 + 64;

const ENCRYPT: &str = "/v2.KeyManagementService/Encrypt";

/// What a hostile thread knows: when to stop, and where it counts.
struct Flood<'a> {
    socket: &'a Path,
    stop: &'a AtomicBool,
    sent: &'a AtomicU64,
}

impl Flood<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, n: u64) {
        self.sent.fetch_add(n, Ordering::Relaxed);
    }

    /// Writes this again and again; when the server closes the connection, on the next one.
    fn pour(&self, first: &[u8], again: &[u8], frames: u64) {
        while self.goes_on() {
            let Ok(mut stream) = greeted(self.socket) else { continue };
            if stream.write_all(first).is_err() {
                continue;
            }
            while self.goes_on() && stream.write_all(again).is_ok() {
                self.count(frames);
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Keeps connections until the end.
    fn hold(&self, held: &[UnixStream]) {
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(5));
        }
        for stream in held {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn assert_serves_during(what: &str, flood: impl Fn(&Flood<'_>) + Sync) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let slowest = slowest_answer_during(what, &flood);
    assert!(slowest < ANSWER_WITHIN, "{what}: an answer took {slowest:?}");
}

fn slowest_answer_during(what: &str, flood: &(impl Fn(&Flood<'_>) + Sync)) -> Duration {
    let node = Node::start_with("log.level = \"error\"\n");
    let pid = node.pid("nodeseald");
    let old = node.client();
    let stored = old.store().unwrap();
    drop(node.client());
    let before = until(Duration::from_secs(5), "the second connection is closed", || {
        let now = descriptors(pid);
        std::thread::sleep(Duration::from_millis(20));
        (descriptors(pid) == now).then_some(now)
    });
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let socket = node.socket();
    let mut slowest = Duration::ZERO;
    let mut answered = 0;
    let mut most_open = 0;
    std::thread::scope(|scope| {
        let _stopped = StopOnDrop(&stop);
        scope.spawn(|| flood(&Flood { socket: &socket, stop: &stop, sent: &sent }));
        let end = Instant::now() + FOR;
        while Instant::now() < end {
            let mut timed = |what: &dyn Fn()| {
                let started = Instant::now();
                what();
                slowest = slowest.max(started.elapsed());
                answered += 1;
            };
            timed(&|| old.assert_opens(&stored));
            timed(&|| drop(new_client(&node).store().expect("a new client is served")));
            most_open = most_open.max(descriptors(pid));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    old.assert_opens(&stored);
    let (now, peak) = (resident_mib(pid), status_field(pid, "VmHWM") / 1024);
    eprintln!(
        "{what}: {} sent, {answered} calls beside it, slowest {slowest:?}, {now} MiB now, {peak} MiB and {most_open} descriptors at most",
        sent.load(Ordering::Relaxed)
    );
    assert!(peak < MEMORY_MIB, "{what}: {peak} MiB");
    assert!(most_open <= DESCRIPTORS, "{what}: {most_open} descriptors");
    until(Duration::from_secs(10), "every descriptor is back", || (descriptors(pid) <= before).then_some(()));
    assert_eq!(node.pid("nodeseald"), pid, "it never died");
    slowest
}

/// While the kernel's queue of connections is full, a connect that does not wait gets EAGAIN and has to come again.
fn new_client(node: &Node) -> Client {
    until(ANSWER_WITHIN, "a new client gets a connection", || Client::try_connect(&node.socket()).ok())
}

#[test]
fn a_flood_of_pings() {
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    assert_serves_during("PING", |flood| flood.pour(&[], &pings, 1000));
}

#[test]
fn a_flood_of_settings() {
    let changing: Vec<u8> =
        (0..1000).flat_map(|n: u32| frame(SETTINGS, 0, 0, &[&[0, 4], &n.to_be_bytes()[..]].concat())).collect();
    assert_serves_during("SETTINGS", |flood| flood.pour(&[], &changing, 1000));
}

#[test]
fn a_flood_of_empty_continuations() {
    let head = frame(HEADERS, 0, 1, &block(ENCRYPT));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
    assert_serves_during("empty CONTINUATION", |flood| flood.pour(&head, &empty, 1000));
}

#[test]
fn a_flood_of_full_continuations() {
    let head = frame(HEADERS, 0, 1, &block(ENCRYPT));
    let fields = literal("x-filler", &"f".repeat(100)).repeat(100);
    let full = frame(CONTINUATION, 0, 1, &fields).repeat(20);
    assert_serves_during("full CONTINUATION", |flood| flood.pour(&head, &full, 20));
}

#[test]
fn a_hundred_thousand_rapid_resets() {
    const PAIRS: u32 = 100_000;
    let block = block(ENCRYPT);
    let pair = |stream| [frame(HEADERS, END_HEADERS, stream, &block), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])];
    assert_serves_during("rapid reset", |flood| {
        let mut sent = 0;
        while sent < PAIRS {
            let Ok(mut connection) = greeted(flood.socket) else { continue };
            for stream in (1..).step_by(2).take(PAIRS as usize) {
                if connection.write_all(&pair(stream).concat()).is_err() || sent == PAIRS {
                    break;
                }
                sent += 1;
                flood.count(1);
            }
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    });
}

#[test]
fn a_flood_of_window_updates() {
    let updates = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(1000);
    assert_serves_during("WINDOW_UPDATE", |flood| flood.pour(&[], &updates, 1000));
}

#[test]
fn a_flood_of_empty_data() {
    let head = frame(HEADERS, END_HEADERS, 1, &block(ENCRYPT));
    let empty = frame(DATA, 0, 1, &[]).repeat(1000);
    assert_serves_during("empty DATA", |flood| flood.pour(&head, &empty, 1000));
}

#[test]
fn a_flood_of_empty_and_tiny_data_on_many_calls() {
    // RUSTSEC-2026-0258: each frame was kept, and none counted against a window.
    let heads: Vec<u8> = (1..401).step_by(2).flat_map(|id| frame(HEADERS, END_HEADERS, id, &block(ENCRYPT))).collect();
    let empty: Vec<u8> = (1..401).step_by(2).flat_map(|id| frame(DATA, 0, id, &[]).repeat(20)).collect();
    // Padded, so that a frame has a length and no content.
    let padded: Vec<u8> = (1..401).step_by(2).flat_map(|id| frame(DATA, 8, id, &[3, 0, 0, 0]).repeat(20)).collect();
    let tiny: Vec<u8> = (1..401).step_by(2).flat_map(|id| frame(DATA, 0, id, &[0]).repeat(20)).collect();
    assert_serves_during("empty DATA on many calls", |flood| {
        std::thread::scope(|scope| {
            for again in [&empty, &padded, &tiny] {
                scope.spawn(|| flood.pour(&heads, again, 4000));
            }
        });
    });
}

#[test]
fn a_flood_of_priorities_and_of_frames_that_nobody_knows() {
    let both = [frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 9]), frame(0xEE, 0, 0, &[1; 50])].concat().repeat(500);
    assert_serves_during("PRIORITY and unknown", |flood| flood.pour(&[], &both, 1000));
}

#[test]
fn a_header_bomb() {
    // One entry of 4,000 bytes in the dynamic table, then a block that names it 4,000 times: 16 MB from 4 kB.
    let long = "b".repeat(3900);
    let mut insert = block(ENCRYPT);
    // Literal with incremental indexing; 3,900 in HPACK's integer of a 7-bit prefix.
    insert.extend([0x40, 1, b'x', 0x7F, 0xBD, 0x1D]);
    insert.extend(long.as_bytes());
    let mut bomb = block(ENCRYPT);
    bomb.extend(std::iter::repeat_n(0xBE, 4000));
    assert_serves_during("header bomb", |flood| {
        while flood.goes_on() {
            let Ok(mut stream) = greeted(flood.socket) else { continue };
            let _ = stream.write_all(&frame(HEADERS, END_HEADERS, 1, &insert));
            for id in (3..2001).step_by(2) {
                if stream.write_all(&frame(HEADERS, END_HEADERS, id, &bomb)).is_err() || !flood.goes_on() {
                    break;
                }
                flood.count(1);
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
}

#[test]
fn readers_that_stall_and_never_read_an_answer() {
    // Status: an answer for nothing. No window, and no byte is ever read.
    let call = |stream| {
        let head = frame(HEADERS, END_HEADERS, stream, &block("/v2.KeyManagementService/Status"));
        [head, frame(DATA, 1, stream, &[0; 5]), frame(PING, 0, 0, &[1; 8])].concat()
    };
    let no_window = greeting(&[(INITIAL_WINDOW_SIZE, 0)]);
    assert_serves_during("stalled readers", |flood| {
        let mut held = Vec::new();
        for index in 0..24 {
            let Ok(mut stream) = silent(flood.socket) else { continue };
            let _ = stream.set_write_timeout(Some(Duration::from_millis(20)));
            let settings = if index % 2 == 0 { greeting(&[]) } else { no_window.clone() };
            let _ = stream.write_all(&settings);
            for id in (1..20_001).step_by(2) {
                if stream.write_all(&call(id)).is_err() || !flood.goes_on() {
                    break;
                }
                flood.count(1);
            }
            held.push(stream);
        }
        flood.hold(&held);
    });
}

#[test]
fn many_readers_who_give_no_window_hold_a_bounded_number_of_answers() {
    // Each connection is read from, so that only the windows are to blame, and has as many calls as it may have.
    let calls: Vec<u8> = (1..1025)
        .step_by(2)
        .flat_map(|id| {
            let head = frame(HEADERS, END_HEADERS, id, &block("/v2.KeyManagementService/Status"));
            [head, frame(DATA, 1, id, &[0; 5])].concat()
        })
        .collect();
    assert_serves_during("no window", |flood| {
        let mut held = Vec::new();
        while flood.goes_on() && held.len() < 40 {
            let Ok(mut stream) = silent(flood.socket) else { continue };
            let mut reader = stream.try_clone().unwrap();
            std::thread::spawn(move || while matches!(reader.read(&mut [0; 4096]), Ok(1..)) {});
            let _ = stream.write_all(&[greeting(&[(INITIAL_WINDOW_SIZE, 0)]), calls.clone()].concat());
            flood.count(512);
            held.push(stream);
        }
        flood.hold(&held);
    });
}

#[test]
fn resets_that_the_server_is_brought_to_make() {
    // A window above 2^31 - 1 is an error of its stream (RFC 9113 §6.9.1): the call is reset, and does not count as one any more.
    let block = block(ENCRYPT);
    let pair = |stream| {
        [frame(HEADERS, END_HEADERS, stream, &block), frame(WINDOW_UPDATE, 0, stream, &[0x7F, 0xFF, 0xFF, 0xFF])]
            .concat()
    };
    let all: Vec<u8> = (1..40_001).step_by(2).flat_map(pair).collect();
    assert_serves_during("resets of ours", |flood| {
        while flood.goes_on() {
            let Ok(mut stream) = greeted(flood.socket) else { continue };
            if stream.write_all(&all).is_ok() {
                flood.count(20_000);
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // And of one who reads none of them.
        let Ok(mut stream) = silent(flood.socket) else { return };
        let _ = stream.write_all(&[greeting(&[]), all.clone()].concat());
    });
}

#[test]
fn prefaces_that_come_byte_by_byte_and_ones_that_are_none() {
    assert_serves_during("slow prefaces", |flood| {
        let mut slow: Vec<_> = (0..60).filter_map(|_| silent(flood.socket).ok()).collect();
        for byte in PREFACE.iter().chain(&[0; 100]) {
            slow.iter_mut().for_each(|stream| drop(stream.write_all(&[*byte])));
            if let Ok(mut none) = silent(flood.socket) {
                let _ = none.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
            flood.count(61);
            std::thread::sleep(Duration::from_millis(20));
        }
        flood.hold(&slow);
    });
}

#[test]
fn connections_that_come_and_go() {
    assert_serves_during("come and go", |flood| {
        while flood.goes_on() {
            if let Ok(mut stream) = silent(flood.socket) {
                let _ = stream.write_all(&greeting(&[])[..20]);
                flood.count(1);
            }
        }
    });
}
