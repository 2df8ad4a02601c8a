//! Connections to one address: those that rest, those that are being made, and the requests that wait for one.
//!
//! A connection is made in a task of its own, for whoever waits when it is there. A request that gives up loses its place in the
//! line and takes nothing along: a provider whose connections take longer than an attempt is reached by the next attempt.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::{ErrorKind, ProviderError};

/// Connections that rest until the next request. More than these are closed after their answer.
const IDLE_MAX: usize = 8;
/// Vault closes a connection that rests after 5 minutes (`http_idle_timeout`), proxies and firewalls often after one.
const IDLE_MAX_AGE: Duration = Duration::from_secs(30);
/// Connections that are being made at once, also when nobody waits for them any more.
const MAKING_MAX: usize = 8;
/// Of one connection, from looking up the name to the end of the TLS handshake. Longer than any attempt: two lost packets in a row
/// cost three seconds (RFC 6298).
const MAKING_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends one request after the other.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Makes one connection.
pub(super) trait Connect: Send + Sync + 'static {
    fn connect(&self) -> impl Future<Output = Result<Sender, ProviderError>> + Send;
}

/// A connection for one request.
pub(super) struct Taken {
    pub(super) sender: Sender,
    /// Nothing was asked by it before, so that the peer cannot have closed it for resting too long.
    pub(super) is_fresh: bool,
}

struct Resting {
    since: Instant,
    sender: Sender,
}

type Waiting = oneshot::Sender<Result<Taken, ProviderError>>;

#[derive(Default)]
struct Line {
    resting: Vec<Resting>,
    waiting: VecDeque<Waiting>,
    making: usize,
}

impl Line {
    /// Connections to be made now, one for each that waits, up to the limit. They count as being made from here on.
    fn missing(&mut self) -> usize {
        self.waiting.retain(|waiting| !waiting.is_closed());
        let missing = self.waiting.len().min(MAKING_MAX).saturating_sub(self.making);
        self.making += missing;
        missing
    }
}

/// All connections to one address.
pub(super) struct Pool<C> {
    line: Mutex<Line>,
    connect: C,
}

impl<C: Connect> Pool<C> {
    pub(super) fn new(connect: C) -> Arc<Self> {
        Arc::new(Self { line: Mutex::default(), connect })
    }

    /// How its connections are made.
    pub(super) const fn connect(&self) -> &C {
        &self.connect
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that rests, or the first that comes free or is made from now on.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Taken, ProviderError> {
        let (answer, missing) = {
            let line = &mut *self.line();
            line.resting.retain(|resting| resting.since.elapsed() < IDLE_MAX_AGE && !resting.sender.is_closed());
            if let Some(Resting { sender, .. }) = line.resting.pop() {
                return Ok(Taken { sender, is_fresh: false });
            }
            let (tell, answer) = oneshot::channel();
            line.waiting.push_back(tell);
            (answer, line.missing())
        };
        self.make(missing);
        let lost = || ProviderError::new(ErrorKind::Away, "the connection was given up");
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// After its answer was read to the end.
    pub(super) fn give_back(&self, sender: Sender) {
        self.hand_over(&mut self.line(), Taken { sender, is_fresh: false });
    }

    fn hand_over(&self, line: &mut Line, taken: Taken) {
        let mut taken = taken;
        if taken.sender.is_closed() {
            return;
        }
        while let Some(waiting) = line.waiting.pop_front() {
            match waiting.send(Ok(taken)) {
                Err(Ok(unwanted)) => taken = unwanted,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        if line.resting.len() < IDLE_MAX {
            line.resting.push(Resting { since: Instant::now(), sender: taken.sender });
        }
    }

    /// The lock is not held here: a runtime that ends drops a task where it is spawned.
    fn make(self: &Arc<Self>, number: usize) {
        for _ in 0..number {
            let making = Making { pool: Arc::clone(self) };
            tokio::spawn(async move {
                let late = |_| {
                    let detail = format!("no connection in {MAKING_TIMEOUT:?}");
                    Err(ProviderError::new(ErrorKind::Away, detail))
                };
                let pool = Arc::clone(&making.pool);
                let made = timeout(MAKING_TIMEOUT, pool.connect.connect()).await.unwrap_or_else(late);
                pool.made(made);
                drop(making);
                // Those for whom the limit left no room before.
                let missing = pool.line().missing();
                pool.make(missing);
            });
        }
    }

    fn made(&self, made: Result<Sender, ProviderError>) {
        let line = &mut *self.line();
        match made {
            Ok(sender) => self.hand_over(line, Taken { sender, is_fresh: true }),
            Err(error) => {
                line.waiting.retain(|waiting| !waiting.is_closed());
                // Each attempt that is still under way is for one of those who wait. This one was for all others.
                let others = line.making.saturating_sub(1);
                for _ in others..line.waiting.len() {
                    line.waiting.pop_front().map(|waiting| waiting.send(Err(error.again())));
                }
            }
        }
    }
}

/// Counts one connection that is being made, also when its task ends with its runtime.
struct Making<C: Connect> {
    pool: Arc<Pool<C>>,
}

impl<C: Connect> Drop for Making<C> {
    fn drop(&mut self) {
        self.pool.line().making -= 1;
    }
}
