//! Lines on their way to standard error, which may be a pipe that nobody reads or a disk that hangs. Nobody who logs ever waits for it.
//! Where the journal takes records (`journal`), they go to it in the same way, each by itself.
//!
//! Before [`Ring::write_beside`] (and in a process without threads for good) a line is written by the one who has it, if the other
//! side takes it within [`PATIENCE`]. From then on lines go through a bounded ring to one thread. What does not fit is counted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::types::lock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::journal::{Way, as_line, way};

/// Bytes that wait. Some 5,000 lines: a burst of a second at level `debug`, and little beside the memory of keys and connections.
const MAX_BYTES: usize = 1024 * 1024;

/// Bytes of one write.
const BATCH_BYTES: usize = 64 * 1024;

/// For one line of a process that has no writer.
const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Ring {
    held: Mutex<Held>,
    changed: Condvar,
    dropped: AtomicU64,
}

struct Held {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Dropped and not told yet.
    untold: u64,
    has_writer: bool,
    is_writing: bool,
}

/// What the writer has to do next.
enum Work {
    Write {
        text: Vec<u8>,
        lines: u64,
    },
    /// All is written, and this many lines were dropped before it.
    Tell(u64),
    Idle,
}

impl Ring {
    pub(super) const fn new() -> Self {
        let held = Held { lines: VecDeque::new(), bytes: 0, untold: 0, has_writer: false, is_writing: false };
        Self { held: Mutex::new(held), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    /// Takes a line, or drops and counts it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut held = self.held();
        if !held.has_writer {
            // Under the lock: who asked first whether there is room has it.
            if !is_ready(PATIENCE) || write_out(line).is_err() {
                self.drop_lines(&mut held, 1);
            }
            return;
        }
        if held.bytes + line.len() > MAX_BYTES {
            self.drop_lines(&mut held, 1);
            return;
        }
        held.bytes += line.len();
        held.lines.push_back(line.to_vec());
        drop(held);
        self.changed.notify_all();
    }

    /// Since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Starts the writer. `tell` logs how many lines were dropped. `tick` is called after lines were written, and each second while it
    /// says that it wants to be. Without a thread to be had the lines go on being written by those who have them.
    pub(super) fn write_beside(&'static self, tell: fn(u64), tick: fn() -> bool) {
        let mut held = self.held();
        let work = move || self.write_for_ever(tell, tick);
        held.has_writer = held.has_writer || thread::Builder::new().name("log".into()).spawn(work).is_ok();
    }

    /// Waits until everything is written that came before, and no longer than this.
    pub(super) fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut held = self.held();
        while held.has_writer && (held.is_writing || !held.lines.is_empty() || held.untold > 0) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            held = lock::wait_for(&self.changed, held, left);
        }
    }

    fn write_for_ever(&self, tell: fn(u64), tick: fn() -> bool) {
        const TICK: Duration = Duration::from_secs(1);
        let mut wants_tick = false;
        loop {
            match self.next(wants_tick.then_some(TICK)) {
                Work::Write { text, lines } => {
                    let written = write_out(&text);
                    let mut held = self.held();
                    held.is_writing = false;
                    held.bytes -= text.len();
                    if written.is_err() {
                        // Not to be told: there is nobody.
                        self.dropped.fetch_add(lines, Ordering::Relaxed);
                    }
                    drop(held);
                    self.changed.notify_all();
                }
                Work::Tell(lines) => {
                    tell(lines);
                    self.held().is_writing = false;
                    self.changed.notify_all();
                }
                Work::Idle => {}
            }
            wants_tick = tick();
        }
    }

    /// Waits for work; with a limit for that long at most.
    fn next(&self, limit: Option<Duration>) -> Work {
        let mut held = self.held();
        if held.lines.is_empty() && held.untold == 0 {
            held = match limit {
                None => lock::wait(&self.changed, held),
                Some(limit) => lock::wait_for(&self.changed, held, limit),
            };
        }
        let (mut text, mut lines) = (Vec::new(), 0);
        // A datagram is one record.
        let batch = if matches!(way(), Way::Lines) { BATCH_BYTES } else { 0 };
        while let Some(line) = held.lines.pop_front_if(|line| text.is_empty() || text.len() + line.len() <= batch) {
            text.extend(line);
            lines += 1;
        }
        if lines > 0 {
            held.is_writing = true;
            return Work::Write { text, lines };
        }
        match std::mem::take(&mut held.untold) {
            0 => Work::Idle,
            untold => {
                held.is_writing = true;
                Work::Tell(untold)
            }
        }
    }

    fn drop_lines(&self, held: &mut Held, lines: u64) {
        held.untold += lines;
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Whole after every step.
        lock::lock(&self.held)
    }
}

/// Lines to standard error, or one record to the journal. What the journal does not take is a line as well.
fn write_out(text: &[u8]) -> io::Result<()> {
    match way() {
        Way::Lines => write_all(text),
        Way::Records(socket) if send(socket, text).is_ok() => Ok(()),
        Way::Records(_) | Way::LinesWithPriority => write_all(&as_line(text)),
    }
}

/// Waits for as long as it takes, as for standard error. An error is a journal that is not there, or a record that it has no room for.
fn send(socket: &UnixDatagram, record: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(record) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            sent => return sent.map(drop),
        }
    }
}

/// Standard error, or the journal, takes a line within this time. A file always does.
fn is_ready(limit: Duration) -> bool {
    let stderr = io::stderr();
    let out = match way() {
        Way::Records(socket) => socket.as_fd(),
        Way::Lines | Way::LinesWithPriority => stderr.as_fd(),
    };
    let mut asked = [PollFd::new(out, PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut asked, limit), Ok(1..))
}

/// Waits for as long as it takes, also if somebody has made the descriptor non-blocking.
fn write_all(mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match nix::unistd::write(io::stderr(), text).map_err(io::Error::from) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                is_ready(PATIENCE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
