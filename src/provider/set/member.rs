//! One provider of a set: its name, its circuit breaker, its cap on calls, and how long it usually takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::ATTEMPT;
use crate::provider::breaker::{Breaker, Pass};
use crate::provider::{Context, ErrorKind, Kek, KeyIdentity, KeyState, ProviderError, Wrapped};
use crate::types::{ClusterId, KekId, Key};

/// Calls to one provider at once. A cold start of ten thousand objects has as many KEKs as nodes and epochs, not as objects.
const CALLS_MAX: usize = 16;
/// Answers that are looked back on for the usual time.
const LATENCIES: usize = 64;
/// What is usual before there are enough answers.
const USUAL_AT_FIRST: Duration = Duration::from_millis(200);
/// Answers that make a usual time.
const ENOUGH: usize = 8;

/// What a wrap is bound to, for calls that outlive their asker.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Of this configuration.
    pub cluster: ClusterId,
    /// The local KEK.
    pub kek: KekId,
}

/// A provider and what we know of it. Cheap to clone; all clones share what is known.
#[derive(Clone)]
pub struct Member(Arc<Inner>);

struct Inner {
    name: String,
    required: bool,
    kek: Arc<dyn Kek>,
    calls: Semaphore,
    since: Instant,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    breaker: Breaker,
    identity: Option<KeyIdentity>,
    latencies: Vec<Duration>,
    at: usize,
}

impl Member {
    /// A provider by its name in the configuration.
    pub fn new(name: impl Into<String>, required: bool, kek: Arc<dyn Kek>) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            required,
            kek,
            calls: Semaphore::new(CALLS_MAX),
            since: Instant::now(),
            known: Mutex::default(),
        }))
    }

    /// As the operator calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Without its wrap no new KEK becomes active.
    pub fn is_required(&self) -> bool {
        self.0.required
    }

    /// Whether calls are held back now.
    pub fn is_open(&self) -> bool {
        self.known().breaker.is_open()
    }

    /// The key as it is now.
    pub async fn probe(&self, end: Instant) -> Result<KeyState, ProviderError> {
        let state = self.call(end, self.0.kek.probe()).await?;
        self.known().identity = Some(state.identity.clone());
        Ok(state)
    }

    /// Same kind, and not known to be of another key.
    pub(super) fn may_open(&self, wrap: &Wrapped) -> bool {
        self.0.kek.kind() == wrap.kind && self.known().identity.as_ref().is_none_or(|own| *own == wrap.identity)
    }

    /// Wraps, opens what came, and compares.
    pub(super) async fn wrap_and_prove(&self, key: &Key, of: &Owned, end: Instant) -> Result<Wrapped, ProviderError> {
        let wrapped = self.call(end, self.0.kek.wrap_key(key, context(of))).await?;
        if wrapped.kind != self.0.kek.kind() {
            return Err(self.lied("the wrap is of another kind"));
        }
        let back = self.unwrap(&wrapped, of, end).await.map_err(|error| match error.class().is_retried() {
            true => error,
            false => self.lied("its own wrap does not open").because(error),
        })?;
        if !bool::from(back.expose().ct_eq(key.expose())) {
            return Err(self.lied("its own wrap opens to something else"));
        }
        self.known().identity = Some(wrapped.identity.clone());
        Ok(wrapped)
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, of: &Owned, end: Instant) -> Result<Key, ProviderError> {
        self.call(end, self.0.kek.unwrap_key(wrapped, context(of))).await
    }

    /// The 95th percentile of its last answers.
    pub(super) fn usual(&self) -> Duration {
        let mut latencies = self.known().latencies.clone();
        if latencies.len() < ENOUGH {
            return USUAL_AT_FIRST;
        }
        latencies.sort();
        latencies[latencies.len() * 95 / 100].min(ATTEMPT)
    }

    /// One attempt: past breaker and cap, within its own limit and the end of the budget.
    async fn call<T>(
        &self,
        end: Instant,
        attempt: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let held_back = |why| ProviderError::new(ErrorKind::Away, why);
        if let Pass::Wait(_) = self.known().breaker.ask(self.0.since.elapsed()) {
            return Err(held_back("it has failed before, and is tried again in a moment"));
        }
        let limit = end.min(Instant::now() + ATTEMPT);
        let Ok(Ok(_permit)) = timeout_at(limit, self.0.calls.acquire()).await else {
            return Err(held_back("too many calls of ours are under way"));
        };
        let started = Instant::now();
        let answer = match timeout_at(limit, attempt).await {
            Ok(answer) => answer,
            Err(_) => Err(ProviderError::new(ErrorKind::Away, "no answer in time")),
        };
        let mut known = self.known();
        match &answer {
            Ok(_) => {
                known.breaker.succeeded();
                known.remember(started.elapsed());
            }
            Err(error) => known.breaker.failed(error.class(), self.0.since.elapsed()),
        }
        answer
    }

    pub(super) fn lied(&self, what: &str) -> ProviderError {
        let error = ProviderError::new(ErrorKind::Lied, what);
        self.known().breaker.failed(error.class(), self.0.since.elapsed());
        error
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, latency: Duration) {
        if self.latencies.len() < LATENCIES {
            self.latencies.push(latency);
        } else {
            self.latencies[self.at % LATENCIES] = latency;
            self.at = (self.at + 1) % LATENCIES;
        }
    }
}

fn context(of: &Owned) -> Context<'_> {
    Context { cluster: &of.cluster, kek: &of.kek }
}
