//! Which connections are open, when each was last heard of, and which one goes when there are too many.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// All open connections.
pub(super) struct Connections {
    started: Instant,
    capacity: usize,
    open: Mutex<HashMap<u64, Arc<Slot>>>,
    next_id: AtomicU64,
}

/// One open connection.
pub(super) struct Slot {
    id: u64,
    /// Milliseconds after `Connections::started`.
    last_heard: AtomicU64,
    has_called: AtomicBool,
    /// Tells the connection's task to end.
    pub(super) close: Notify,
    all: Arc<Connections>,
}

impl Connections {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), capacity, open: Mutex::default(), next_id: AtomicU64::new(0) })
    }

    /// Registers a connection. Above the capacity, the one that goes is also given: of those that never made a call the longest
    /// idle, and only then of the others, so that a flood of silent connections does not cost kube-apiserver its own.
    pub(super) fn add(self: &Arc<Self>) -> (Registered, Option<Arc<Slot>>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot {
            id,
            last_heard: AtomicU64::new(self.now()),
            has_called: AtomicBool::new(false),
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

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        // The map is whole after every operation.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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
}
