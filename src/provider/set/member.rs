//! One provider of a set: its name and role, its circuit breaker, its cap on calls, how long it usually takes, and how it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::ATTEMPT;
use crate::audit::{Event, emit};
use crate::provider::breaker::{Breaker, Pass};
use crate::provider::{Context, ErrorKind, Kek, KeyIdentity, KeyState, ProviderError, ProviderKind, Wrapped};
use crate::types::{Chain, Class, ClusterId, KekId, Key};

/// Calls to one provider at once. A cold start of ten thousand objects has as many KEKs as nodes and epochs, not as objects.
const CALLS_MAX: usize = 16;
/// Answers that are looked back on for the usual time.
const LATENCIES: usize = 64;
/// What is usual before there are enough answers.
const USUAL_AT_FIRST: Duration = Duration::from_millis(200);
/// Answers that make a usual time.
const ENOUGH: usize = 8;
/// Probes that are left out at most while other calls succeed.
const PROBES_LEFT_OUT: u32 = 5;

/// What a provider does for new local KEKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Without its wrap no new KEK becomes active.
    Required,
    /// Its wrap may come later.
    Optional,
    /// It opens what it has wrapped, and wraps nothing any more: the way to leave it.
    DecryptOnly,
}

/// How a provider answered last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since the last answer that did what was asked.
    pub answered: Option<Duration>,
    /// What it has said since; `None` when its last answer was good, or was a refusal that says nothing of its health.
    pub failure: Option<(Class, String)>,
    /// Since the first of the failures that have followed each other until now.
    pub failing_for: Option<Duration>,
    /// Calls are held back.
    pub is_open: bool,
}

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
    role: Role,
    kek: Arc<dyn Kek>,
    calls: Semaphore,
    since: Instant,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    breaker: Breaker,
    identity: Option<KeyIdentity>,
    /// As it told it last.
    state: Option<KeyState>,
    latencies: Vec<Duration>,
    at: usize,
    /// When it last did what was asked, and when it last told its key's version.
    answered: Option<Instant>,
    told: Option<Instant>,
    failure: Option<(Class, String)>,
    failing_since: Option<Instant>,
}

impl Member {
    /// A provider by its name in the configuration.
    pub fn new(name: impl Into<String>, role: Role, kek: Arc<dyn Kek>) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            role,
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

    /// What it does for new KEKs.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Whether new KEKs are wrapped by it.
    pub fn writes(&self) -> bool {
        self.0.role != Role::DecryptOnly
    }

    /// Which kind.
    pub fn kind(&self) -> ProviderKind {
        self.0.kek.kind()
    }

    /// Its key, if it has ever been seen.
    pub fn identity(&self) -> Option<KeyIdentity> {
        self.known().identity.clone()
    }

    /// What an earlier run saw, so that wraps find their provider before it has answered.
    pub fn remember(&self, identity: KeyIdentity) {
        self.known().identity.get_or_insert(identity);
    }

    /// How it answered last.
    pub fn health(&self) -> Health {
        let known = self.known();
        let answered = known.answered.map(|at| at.elapsed());
        let failing_for = known.failing_since.map(|at| at.elapsed());
        Health { answered, failure: known.failure.clone(), failing_for, is_open: known.breaker.is_open() }
    }

    /// Whether it is time to ask for its version: not while it has told it within `every`, and while other calls succeed only at
    /// every fifth time, since those tell its health as well.
    pub fn is_probe_due(&self, every: Duration) -> bool {
        let known = self.known();
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| at.elapsed());
        let (told, answered) = (since(known.told), since(known.answered));
        told >= every && (answered >= every || told >= every * PROBES_LEFT_OUT)
    }

    /// The key as it is now.
    pub async fn probe(&self, end: Instant) -> Result<KeyState, ProviderError> {
        let state = self.call(end, end, self.0.kek.probe()).await?;
        self.tell(&state);
        Ok(state)
    }

    /// Its key as it told it last, if it has told it since it was opened.
    pub fn told(&self) -> Option<KeyState> {
        self.known().state.clone()
    }

    fn tell(&self, state: &KeyState) {
        let mut known = self.known();
        known.identity = Some(state.identity.clone());
        known.state = Some(state.clone());
        known.told = Some(Instant::now());
    }

    /// Same kind, and not known to be of another key.
    pub(super) fn may_open(&self, wrap: &Wrapped) -> bool {
        self.0.kek.kind() == wrap.kind && self.known().identity.as_ref().is_none_or(|own| *own == wrap.identity)
    }

    /// Wraps, opens what came, and compares. Each of both takes `attempt` at most.
    pub async fn wrap_and_prove(
        &self,
        key: &Key,
        of: &Owned,
        attempt: Duration,
        end: Instant,
    ) -> Result<Wrapped, ProviderError> {
        let wrapped = self.call(end, Instant::now() + attempt, self.0.kek.wrap_key(key, context(of))).await?;
        if wrapped.kind != self.0.kek.kind() {
            return Err(self.lied("the wrap is of another kind"));
        }
        let opened = self.call(end, Instant::now() + attempt, self.0.kek.unwrap_key(&wrapped, context(of))).await;
        let back = opened.map_err(|error| match error.class().is_retried() {
            true => error,
            false => self.lied("its own wrap does not open").because(error),
        })?;
        if !bool::from(back.expose().ct_eq(key.expose())) {
            return Err(self.lied("its own wrap opens to something else"));
        }
        self.tell(&wrapped.key_state());
        Ok(wrapped)
    }

    /// Opens that one of these wraps that its key has made; which one, it has to be asked first if it was never seen.
    pub(super) async fn unwrap_its_own(
        &self,
        wraps: &[Wrapped],
        of: &Owned,
        end: Instant,
    ) -> Result<Key, ProviderError> {
        let wrap = match wraps {
            [only] => only,
            several => {
                if self.identity().is_none() {
                    self.probe(end.min(Instant::now() + ATTEMPT)).await?;
                }
                let own = several.iter().find(|wrap| self.may_open(wrap));
                own.ok_or_else(|| ProviderError::new(ErrorKind::Text, "none of the wraps is of its key"))?
            }
        };
        self.unwrap(wrap, of, end).await
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, of: &Owned, end: Instant) -> Result<Key, ProviderError> {
        self.call(end, Instant::now() + ATTEMPT, self.0.kek.unwrap_key(wrapped, context(of))).await
    }

    /// The 95th percentile of its last answers.
    pub(super) fn usual(&self) -> Duration {
        self.percentile(95).min(ATTEMPT)
    }

    /// The middle of its last answers: single late ones do not make a provider a slow one.
    pub(super) fn pace(&self) -> Duration {
        self.percentile(50)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut latencies = self.known().latencies.clone();
        if latencies.len() < ENOUGH {
            return USUAL_AT_FIRST;
        }
        latencies.sort();
        latencies[latencies.len() * percent / 100]
    }

    /// One attempt: past breaker and cap, within its own limit and the end of the budget.
    async fn call<T>(
        &self,
        end: Instant,
        limit: Instant,
        attempt: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let held_back = |why| ProviderError::new(ErrorKind::Away, why);
        if let Pass::Wait(_) = self.known().breaker.ask(self.0.since.elapsed()) {
            return Err(held_back("it has failed before, and is tried again in a moment"));
        }
        let limit = limit.min(end);
        let Ok(Ok(_permit)) = timeout_at(limit, self.0.calls.acquire()).await else {
            return Err(held_back("too many calls of ours are under way"));
        };
        let started = Instant::now();
        let mut watched = Watched { member: self, started, ended: false };
        let answer = match timeout_at(limit, attempt).await {
            Ok(answer) => answer,
            Err(_) => Err(ProviderError::new(ErrorKind::Away, "no answer in time")),
        };
        watched.ended = true;
        match &answer {
            Ok(_) => {
                let mut known = self.known();
                known.breaker.succeeded();
                known.remember(started.elapsed());
                known.answered = Some(Instant::now());
                known.failing_since = None;
                if known.failure.take().is_some() {
                    emit(&Event::ProviderRecovered { provider: &self.0.name });
                }
            }
            Err(error) => self.failed(error),
        }
        answer
    }

    pub(super) fn lied(&self, what: &str) -> ProviderError {
        let error = ProviderError::new(ErrorKind::Lied, what);
        self.failed(&error);
        error
    }

    fn failed(&self, error: &ProviderError) {
        let mut known = self.known();
        known.breaker.failed(error.class(), self.0.since.elapsed());
        // Limits are no outage, and what is wrong with one text is no fault of who refuses it.
        if !matches!(error.class(), Class::Throttled | Class::Corrupt) {
            let text = Chain(error).to_string();
            if known.failure.is_none() || error.kind() == ErrorKind::Lied {
                let (class, hint) = (error.class(), error.hint());
                emit(&Event::ProviderFailed { provider: &self.0.name, class, error: &text, hint });
            }
            known.failing_since.get_or_insert_with(Instant::now);
            known.failure = Some((error.class(), text));
        }
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

/// An attempt under way. One that is dropped because another provider was faster has told that it takes at least this long: if
/// that counted for nothing, a provider that became slow would be asked first for ever.
struct Watched<'a> {
    member: &'a Member,
    started: Instant,
    ended: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        // A shorter time says nothing: it might have been the fastest answer ever.
        if !self.ended && took > self.member.usual() {
            self.member.known().remember(took);
        }
    }
}

fn context(of: &Owned) -> Context<'_> {
    Context { cluster: &of.cluster, kek: &of.kek }
}
