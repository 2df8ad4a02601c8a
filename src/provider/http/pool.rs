//! Connections to one address: those that rest, those that are being made, and the requests that wait for one.
//!
//! A connection is made in a task of its own at [`Home`], for whoever waits when it is there. A request that gives up loses its place in
//! the line and takes nothing along: a provider whose connections take longer than an attempt is reached by the next attempt.
//!
//! A connection lives in one runtime, whose reactor wakes it. Each runtime that asks has a line of its own, so that an answer
//! wakes the thread that waits for it and no other. The calls at home (probes) go by the connection of another line that has rested
//! longest, if there is one: that keeps it warm, and the first text after a pause pays for no handshake.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::home::Home;
use super::super::{ErrorKind, ProviderError};
use crate::types::lock;

/// Connections of a line that rest until the next request: those of eight calls that make two requests at once. More than these are closed
/// after their answer.
const IDLE_MAX: usize = 16;
/// Above two intervals of probes (60 s each), which keep connections warm. Below what forgets them without a word: Azure's load balancer
/// after 4 minutes, AWS's NAT gateway after 350 s. Whoever closes earlier (Vault after 5 minutes, many proxies after one) says so, and is heard.
const IDLE_MAX_AGE: Duration = Duration::from_secs(170);
/// Connections of a line that are being made at once, also when nobody waits for them any more.
const MAKING_MAX: usize = 8;
/// Of one connection, from looking up the name to the end of the TLS handshake. Longer than any attempt: two lost packets in a row
/// cost three seconds (RFC 6298).
const MAKING_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends one request after the other.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A connection.
pub(super) struct Made {
    pub(super) sender: Sender,
    /// Whom it goes to.
    pub(super) to: IpAddr,
}

/// Makes one connection.
pub(super) trait Connect: Send + Sync + 'static {
    /// It is made here and lives there.
    fn connect(&self, there: &Handle) -> impl Future<Output = Result<Made, ProviderError>> + Send;
}

/// A connection for one request.
pub(super) struct Taken {
    pub(super) made: Made,
    /// Nothing was asked by it before, so that the peer cannot have closed it for resting too long.
    pub(super) is_fresh: bool,
    /// The runtime that it lives in.
    lives_in: Id,
}

struct Resting {
    since: Instant,
    made: Made,
}

type Waiting = oneshot::Sender<Result<Taken, ProviderError>>;

/// Of one runtime.
struct Line {
    of: Id,
    /// The last one has rested for the shortest time.
    resting: VecDeque<Resting>,
    waiting: VecDeque<Waiting>,
    making: usize,
}

impl Line {
    const fn new(of: Id) -> Self {
        Self { of, resting: VecDeque::new(), waiting: VecDeque::new(), making: 0 }
    }

    /// Connections to be made now, one for each that waits, up to the limit. They count as being made from here on.
    fn missing(&mut self) -> usize {
        self.waiting.retain(|waiting| !waiting.is_closed());
        let missing = self.waiting.len().min(MAKING_MAX).saturating_sub(self.making);
        self.making += missing;
        missing
    }

    fn rested(&mut self) -> &mut VecDeque<Resting> {
        self.resting.retain(|resting| resting.since.elapsed() < IDLE_MAX_AGE && !resting.made.sender.is_closed());
        &mut self.resting
    }

    fn taken(&self, resting: Resting) -> Taken {
        Taken { made: resting.made, is_fresh: false, lives_in: self.of }
    }

    fn hand_over(&mut self, taken: Taken) {
        let mut taken = taken;
        if taken.made.sender.is_closed() {
            return;
        }
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(Ok(taken)) {
                Err(Ok(unwanted)) => taken = unwanted,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        if self.resting.len() < IDLE_MAX {
            self.resting.push_back(Resting { since: Instant::now(), made: taken.made });
        }
    }
}

/// One for each runtime that has asked: in `nodeseald` two at most.
#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn of(&mut self, runtime: Id) -> &mut Line {
        let at = self.0.iter().position(|line| line.of == runtime).unwrap_or_else(|| {
            self.0.push(Line::new(runtime));
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// The one that has rested longest in any other runtime.
    fn of_others(&mut self, home: Id) -> Option<Taken> {
        self.0.iter_mut().filter(|line| line.of != home).find_map(|line| {
            let resting = line.rested().pop_front()?;
            Some(line.taken(resting))
        })
    }
}

/// All connections to one address.
pub(super) struct Pool<C> {
    lines: Mutex<Lines>,
    home: Home,
    connect: C,
}

impl<C: Connect> Pool<C> {
    pub(super) fn new(connect: C, home: Home) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), home, connect })
    }

    /// How its connections are made.
    pub(super) const fn connect(&self) -> &C {
        &self.connect
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        lock::lock(&self.lines)
    }

    /// One that rests, or the first that comes free or is made from now on.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Taken, ProviderError> {
        let here = Handle::current();
        let (answer, missing) = {
            let lines = &mut *self.lines();
            if self.home.is(&here)
                && let Some(taken) = lines.of_others(here.id())
            {
                return Ok(taken);
            }
            let line = lines.of(here.id());
            if let Some(resting) = line.rested().pop_back() {
                return Ok(line.taken(resting));
            }
            let (tell, answer) = oneshot::channel();
            line.waiting.push_back(tell);
            (answer, line.missing())
        };
        self.make(missing, &here);
        let lost = || ProviderError::new(ErrorKind::Away, "the connection was given up");
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// After its answer was read to the end.
    pub(super) fn give_back(&self, taken: Taken) {
        self.lines().of(taken.lives_in).hand_over(Taken { is_fresh: false, ..taken });
    }

    /// No request goes by a connection to this address that rests.
    pub(super) fn close(&self, to: IpAddr) {
        for line in &mut self.lines().0 {
            line.resting.retain(|resting| resting.made.to != to);
        }
    }

    /// The lock is not held here: a runtime that ends drops a task where it is spawned.
    fn make(self: &Arc<Self>, number: usize, there: &Handle) {
        for _ in 0..number {
            let making = Making { pool: Arc::clone(self), lives_in: there.id() };
            let there = there.clone();
            self.home.spawn(async move {
                let late = |_| {
                    let detail = format!("no connection in {MAKING_TIMEOUT:?}");
                    Err(ProviderError::new(ErrorKind::Away, detail))
                };
                let pool = Arc::clone(&making.pool);
                let made = timeout(MAKING_TIMEOUT, pool.connect.connect(&there)).await.unwrap_or_else(late);
                pool.made(made, there.id());
                drop(making);
                // Those for whom the limit left no room before.
                let missing = pool.lines().of(there.id()).missing();
                pool.make(missing, &there);
            });
        }
    }

    fn made(&self, made: Result<Made, ProviderError>, lives_in: Id) {
        let lines = &mut *self.lines();
        let line = lines.of(lives_in);
        match made {
            Ok(made) => line.hand_over(Taken { made, is_fresh: true, lives_in }),
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
    lives_in: Id,
}

impl<C: Connect> Drop for Making<C> {
    fn drop(&mut self) {
        self.pool.lines().of(self.lives_in).making -= 1;
    }
}
