//! Which connections are open, when each was last heard of, and which one goes when there are too many of them, or too much waits for
//! peers that take nothing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::limits::{ANSWERS_UNTAKEN_MAX, BLOCKED_CONNECTIONS_MAX, READ_AHEAD_BYTES};
use crate::audit::{Event, emit};
use crate::telemetry::{self, Refused};
use crate::types::lock;

/// All open connections.
pub(super) struct Connections {
    started: Instant,
    capacity: usize,
    open: Mutex<HashMap<u64, Arc<Slot>>>,
    next_id: AtomicU64,
    /// Connections whose socket takes nothing more.
    blocked: AtomicUsize,
    /// Answers that are ready and not taken.
    untaken: AtomicUsize,
}

/// One open connection.
pub(super) struct Slot {
    id: u64,
    /// Milliseconds after `Connections::started`.
    last_heard: AtomicU64,
    has_called: AtomicBool,
    /// It was told to end for what it does not take.
    is_closed: AtomicBool,
    /// Since when its socket takes nothing more, in milliseconds and one after `Connections::started`; 0: it takes what comes.
    blocked_since: AtomicU64,
    untaken: AtomicUsize,
    /// Bytes that were read in this turn of the connection's task.
    read: AtomicUsize,
    /// Tells the connection's task to end.
    pub(super) close: Notify,
    all: Arc<Connections>,
}

impl Connections {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            capacity,
            open: Mutex::default(),
            next_id: AtomicU64::new(0),
            blocked: AtomicUsize::new(0),
            untaken: AtomicUsize::new(0),
        })
    }

    /// Registers a connection. Above the capacity, the one that goes is also given: of those that never made a call the longest
    /// idle, and only then of the others, so that a flood of silent connections does not cost kube-apiserver its own.
    pub(super) fn add(self: &Arc<Self>) -> (Registered, Option<Arc<Slot>>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot {
            id,
            last_heard: AtomicU64::new(self.now()),
            has_called: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            blocked_since: AtomicU64::new(0),
            untaken: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            close: Notify::new(),
            all: Arc::clone(self),
        });
        let mut open = self.lock();
        let evicted = (open.len() >= self.capacity).then(|| longest_idle(&open)).flatten();
        if let Some(evicted) = &evicted {
            open.remove(&evicted.id);
        }
        open.insert(id, Arc::clone(&slot));
        (Registered(slot), evicted)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    #[cfg(test)]
    pub(super) fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Closes the one that `choose` takes from all.
    fn close(&self, choose: impl FnOnce(&HashMap<u64, Arc<Slot>>) -> Option<Arc<Slot>>) {
        let chosen = {
            let mut open = self.lock();
            let chosen = choose(&open);
            chosen.inspect(|slot| drop(open.remove(&slot.id)))
        };
        if let Some(slot) = chosen {
            // What it holds is free with its end, which is soon: it does not count any more.
            slot.note_blocked(false);
            slot.is_closed.store(true, Ordering::Relaxed);
            self.untaken.fetch_sub(slot.untaken.load(Ordering::Relaxed), Ordering::Relaxed);
            telemetry::refused(Refused::Connection);
            emit(&Event::ConnectionEvicted { open: self.count(), reason: "it does not read its answers" });
            slot.close.notify_one();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        // The map is whole after every operation.
        lock::lock(&self.open)
    }
}

fn longest_idle(open: &HashMap<u64, Arc<Slot>>) -> Option<Arc<Slot>> {
    open.values()
        .min_by_key(|slot| (slot.has_called.load(Ordering::Relaxed), slot.last_heard.load(Ordering::Relaxed), slot.id))
        .cloned()
}

impl Slot {
    /// A call came in.
    pub(super) fn note_call(&self) {
        self.has_called.store(true, Ordering::Relaxed);
    }

    /// The connection's task is polled once more.
    pub(super) fn begin_turn(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    pub(super) fn note_read(&self, bytes: usize) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The calls that came have their turn first.
    pub(super) fn has_read_enough(&self) -> bool {
        self.read.load(Ordering::Relaxed) >= READ_AHEAD_BYTES
    }

    /// Its socket takes nothing more, or takes what comes again. Of too many such connections the one goes that has been so for longest.
    pub(super) fn note_blocked(&self, is_blocked: bool) {
        let now = if is_blocked && !self.is_closed() { self.all.now() + 1 } else { 0 };
        let before = self.blocked_since.swap(now, Ordering::Relaxed);
        match (before != 0, now != 0) {
            (false, true) => {
                if self.all.blocked.fetch_add(1, Ordering::Relaxed) >= BLOCKED_CONNECTIONS_MAX {
                    let since = |slot: &Arc<Self>| slot.blocked_since.load(Ordering::Relaxed);
                    self.all.close(|open| {
                        open.values().filter(|slot| since(slot) != 0).min_by_key(|slot| (since(slot), slot.id)).cloned()
                    });
                }
            }
            (true, false) => {
                self.all.blocked.fetch_sub(1, Ordering::Relaxed);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// An answer of it is ready. Of too many that nobody takes, the connection goes that has the most.
    pub(super) fn note_answer(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
        if !self.is_closed() && self.all.untaken.fetch_add(1, Ordering::Relaxed) >= ANSWERS_UNTAKEN_MAX {
            let worst = |slot: &Arc<Self>| {
                (slot.untaken.load(Ordering::Relaxed), Reverse(slot.last_heard.load(Ordering::Relaxed)))
            };
            self.all.close(|open| open.values().max_by_key(|slot| worst(slot)).cloned());
        }
    }

    /// One of them was taken, or nobody can take it any more.
    pub(super) fn note_taken(&self) {
        self.untaken.fetch_sub(1, Ordering::Relaxed);
        if !self.is_closed() {
            self.all.untaken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }
}

/// Takes the connection off the list when its task ends.
pub(super) struct Registered(pub(super) Arc<Slot>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.all.lock().remove(&self.0.id);
    }
}

/// A stream that notes when it was last heard of.
pub(super) struct Heard<S> {
    stream: S,
    slot: Arc<Slot>,
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S, slot: Arc<Slot>) -> Self {
        Self { stream, slot }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if result.is_ready() {
            self.slot.last_heard.store(self.slot.all.now(), Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_capacity_the_longest_idle_goes_and_silent_ones_go_first() {
        let all = Connections::new(3);
        let (kube, none) = all.add();
        kube.0.note_call();
        assert!(none.is_none());
        let (silent, _) = all.add();
        let (_newer, _) = all.add();
        let (_another, evicted) = all.add();
        assert_eq!(evicted.map(|slot| slot.id), Some(silent.0.id), "the one that made a call stays");
        assert_eq!(all.count(), 3);
        drop(silent);
        assert_eq!(all.count(), 3, "an evicted connection is off the list already");
        drop(kube);
        assert_eq!(all.count(), 2);
    }
    #[test]
    fn of_too_many_that_take_nothing_the_one_goes_that_has_been_so_for_longest() {
        let all = Connections::new(2 * BLOCKED_CONNECTIONS_MAX);
        let slots: Vec<_> = (0..BLOCKED_CONNECTIONS_MAX).map(|_| all.add().0).collect();
        slots.iter().for_each(|slot| slot.0.note_blocked(true));
        // One that takes what comes again is not among them.
        slots[0].0.note_blocked(false);
        let (busy, _) = all.add();
        busy.0.note_blocked(true);
        assert_eq!(all.count(), BLOCKED_CONNECTIONS_MAX + 1);
        let before = all.now();
        while all.now() == before {
            std::hint::spin_loop();
        }
        slots[0].0.note_blocked(true);
        assert_eq!((all.count(), all.blocked()), (BLOCKED_CONNECTIONS_MAX, BLOCKED_CONNECTIONS_MAX));
        assert!(!all.lock().contains_key(&slots[1].0.id), "the next oldest");
        drop(slots);
    }

    #[test]
    fn of_too_many_answers_that_nobody_takes_those_of_the_worst_go() {
        let all = Connections::new(8);
        let ((few, _), (many, _)) = (all.add(), all.add());
        (0..10).for_each(|_| few.0.note_answer());
        (0..ANSWERS_UNTAKEN_MAX).for_each(|_| many.0.note_answer());
        assert_eq!(all.count(), 1);
        // The one that was closed, before its tasks have ended.
        (0..ANSWERS_UNTAKEN_MAX).for_each(|_| many.0.note_taken());
        assert!(all.lock().contains_key(&few.0.id));
        (0..10).for_each(|_| few.0.note_taken());
        assert_eq!(all.untaken.load(Ordering::Relaxed), 0);
    }
}
