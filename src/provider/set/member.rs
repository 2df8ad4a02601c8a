//! One provider of a set: its name and role, its circuit breaker, its cap on calls, how long it usually takes, and how it is.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::ATTEMPT;
use super::health::{Health, Operation};
use super::known::Known;
use super::question::chance;
use super::watched::{Watched, late};
use crate::audit::{Event, emit};
use crate::provider::breaker::{Failure, Pass};
use crate::provider::{Context, Ends, ErrorKind, Kek, KeyIdentity, KeyState, ProviderError, ProviderKind, Wrapped};
use crate::types::{Class, ClusterId, Explained, KekId, Key, lock};

/// Calls to one provider at once. A cold start of ten thousand objects has as many KEKs as nodes and epochs, not as objects.
const CALLS_MAX: usize = 16;
/// Texts that the provider has to fail on, in a row, before that is about the provider and not about a text.
pub(super) const FAILING_TEXTS: usize = 2;

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

/// What a wrap is bound to, for calls that outlive their asker.
#[derive(Clone, Debug)]
pub struct WrapContext {
    /// Of this configuration.
    pub cluster: ClusterId,
    /// The local KEK.
    pub kek: KekId,
}

/// A provider and what we know of it. Cheap to clone; all clones share what is known, under whatever name and in whatever role.
#[derive(Clone)]
pub struct Member {
    name: Arc<str>,
    role: Role,
    own: Arc<Inner>,
}

struct Inner {
    kek: Arc<dyn Kek>,
    calls: Semaphore,
    since: Instant,
    known: Mutex<Known>,
}

impl Member {
    /// A provider by its name in the configuration.
    pub fn new(name: impl Into<String>, role: Role, kek: Arc<dyn Kek>) -> Self {
        let (calls, since, known) = (Semaphore::new(CALLS_MAX), Instant::now(), Mutex::default());
        Self { name: name.into().into(), role, own: Arc::new(Inner { kek, calls, since, known }) }
    }

    /// The same provider with its login and all that is known of it, under this name and in this role.
    #[must_use]
    pub fn under(&self, name: &str, role: Role) -> Self {
        Self { name: name.into(), role, own: Arc::clone(&self.own) }
    }

    /// As the operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does for new KEKs.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether new KEKs are wrapped by it.
    pub fn writes(&self) -> bool {
        self.role != Role::DecryptOnly
    }

    /// Whether it is the same provider, by whatever name.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.own, &other.own)
    }

    /// Which kind.
    pub fn kind(&self) -> ProviderKind {
        self.own.kek.kind()
    }

    pub(super) fn kek(&self) -> &dyn Kek {
        &*self.own.kek
    }

    pub(super) fn never_blocks(&self) -> bool {
        self.own.kek.never_blocks()
    }

    /// Its key, if it has ever been seen.
    pub fn identity(&self) -> Option<KeyIdentity> {
        self.known().identity.clone()
    }

    /// Its key, where it has told it itself since it was opened, or the configuration says it: not by what its name stood for.
    pub fn own_identity(&self) -> Option<KeyIdentity> {
        self.own.kek.identity().or_else(|| Some(self.told()?.identity))
    }

    /// What an earlier run saw, so that wraps find their provider before it has answered.
    pub fn remember(&self, identity: KeyIdentity) {
        self.known().identity.get_or_insert(identity);
    }

    /// How it is.
    pub fn health(&self) -> Health {
        let known = self.known();
        let answered = known.answered.map(|at| at.elapsed());
        known.way.health(self.kind(), Health { answered, is_open: known.breaker.is_open(), ..known.troubles.health() })
    }

    /// How long login and certificate last.
    pub fn ends(&self) -> Ends {
        self.own.kek.ends()
    }

    /// Whether it is time to ask for its version: not while it has told it within `every`, and while other calls succeed only at
    /// every fifth time, since those tell its health as well. What fails is tried again each time.
    pub fn is_probe_due(&self, every: Duration) -> bool {
        self.known().is_probe_due(every)
    }

    /// The key as it is now; and what has failed is tried again. Not held back by an open circuit: nobody waits for it, so it may take
    /// longer than a call for a text, and finds out whether the provider is back.
    pub async fn probe(&self, end: Instant) -> Result<KeyState, ProviderError> {
        let state = self.look(end).await?;
        self.try_again().await;
        self.try_specimen().await;
        Ok(state)
    }

    pub(super) async fn look(&self, end: Instant) -> Result<KeyState, ProviderError> {
        let state = self.attempt(Operation::Probe, None, end, self.own.kek.probe()).await;
        match &state {
            Ok(told) => self.went_well(Operation::Probe, |known| known.told_to_be(told.clone())),
            Err(error) => self.note_failure(Operation::Probe, None, error),
        }
        state
    }

    /// Its key as it told it last, if it has told it since it was opened.
    pub fn told(&self) -> Option<KeyState> {
        self.known().state.clone()
    }

    /// Same kind, and it is not known to have another key. What an earlier run knew under its name is no reason not to ask it.
    pub(super) fn may_open(&self, wrap: &Wrapped) -> bool {
        self.own.kek.kind() == wrap.kind && self.own_identity().is_none_or(|own| own == wrap.identity)
    }

    /// As far as is known, be it from an earlier run.
    pub(super) fn seems_to_open(&self, wrap: &Wrapped) -> bool {
        let known = self.own_identity().or_else(|| self.identity());
        self.own.kek.kind() == wrap.kind && known.is_none_or(|own| own == wrap.identity)
    }

    /// Wraps, opens what came, and compares. Each of both takes `call` at most.
    pub async fn wrap_and_prove(
        &self,
        key: &Key,
        of: &WrapContext,
        call: Duration,
        end: Instant,
    ) -> Result<Wrapped, ProviderError> {
        // Before the call, which may be dropped.
        self.known().wrapped = Some((of.clone(), call));
        let proved = self.wrapped_and_proved(key, of, call, end).await;
        match &proved {
            Ok(wrapped) => self.went_well(Operation::Wrap, |known| {
                known.tell(wrapped);
                known.open(wrapped, of, key);
            }),
            Err(error) => self.note_failure(Operation::Wrap, None, error),
        }
        proved
    }

    async fn wrapped_and_proved(
        &self,
        key: &Key,
        of: &WrapContext,
        call: Duration,
        end: Instant,
    ) -> Result<Wrapped, ProviderError> {
        let lied = |what| ProviderError::new(ErrorKind::Lied, what);
        let limit = || end.min(Instant::now() + call);
        let kek = &self.own.kek;
        let draft = self.call(Operation::Wrap, None, limit(), kek.draft(key, context(of))).await?;
        if draft.kind != kek.kind() {
            return Err(lied("the wrap is of another kind"));
        }
        let proved = self.call(Operation::Wrap, None, limit(), kek.prove(draft, context(of))).await;
        // A right that is missing is said to be that. Only who does not know his own text is not to be relied on.
        let (wrapped, back) = proved.map_err(|error| match error.kind() {
            ErrorKind::Text => lied("its own wrap does not open").because(error),
            _ => error,
        })?;
        if !bool::from(back.expose().ct_eq(key.expose())) {
            return Err(lied("its own wrap opens to something else"));
        }
        Ok(wrapped)
    }

    /// Opens that one of these wraps that its key has made. Which key it has it is asked first, where that is not known and where it would
    /// not be that of any of them by what an earlier run knew; and afterwards, where that was believed and the wrap did not open. Each wrap is
    /// tried once. Whether what came is right is for the asker to see.
    pub(super) async fn unwrap_its_own<'w>(
        &self,
        wraps: &[&'w Wrapped],
        of: &WrapContext,
        end: Instant,
    ) -> Result<(&'w Wrapped, Key), ProviderError> {
        let has_another = || ProviderError::new(ErrorKind::NoKey, "none of the wraps is of its key");
        let look = || self.look(end.min(Instant::now() + ATTEMPT));
        let is_guessed = self.own_identity().is_none() && wraps.len() > 1 && self.identity().is_none();
        if is_guessed {
            look().await?;
        }
        let mut left: Vec<&'w Wrapped> = wraps.to_vec();
        let mut refused = None;
        loop {
            let is_sure = self.own_identity().is_some();
            let Some(place) = left.iter().position(|wrap| self.seems_to_open(wrap)) else {
                match refused {
                    Some(error) if is_sure => return Err(error),
                    _ if is_sure => return Err(has_another()),
                    _ => look().await?,
                };
                continue;
            };
            let wrap = left.remove(place);
            match self.unwrap(wrap, of, end).await {
                // Its fault, or that of whoever has given it a name that stood for another one.
                Err(error) if error.kind() == ErrorKind::Text && !is_sure => {
                    let is_another = look().await.is_ok() && !self.may_open(wrap);
                    if !is_another {
                        return Err(error);
                    }
                    refused = Some(has_another().because(error));
                }
                // Two keys that tell one identity.
                Err(error) if error.kind() == ErrorKind::Text && left.iter().any(|wrap| self.may_open(wrap)) => {
                    refused = Some(error);
                }
                other => return other.map(|key| (wrap, key)),
            }
        }
    }

    /// The call alone, of which the caller takes note. `text`: tells it from others, and `None` for one that is known to be in order, which
    /// is asked past an open circuit.
    pub(super) async fn opens(
        &self,
        wrapped: &Wrapped,
        of: &WrapContext,
        text: Option<u64>,
        end: Instant,
    ) -> Result<Key, ProviderError> {
        let opening = self.own.kek.unwrap_key(wrapped, context(of));
        match text {
            Some(_) => self.call(Operation::Unwrap, text, end, opening).await,
            None => self.attempt(Operation::Unwrap, None, end, opening).await,
        }
    }

    pub(super) async fn unwrap(&self, wrapped: &Wrapped, of: &WrapContext, end: Instant) -> Result<Key, ProviderError> {
        let text = Some(wrapped.digest());
        self.known().asks_to_open(wrapped, of);
        let unwrapped = self.opens(wrapped, of, text, end).await;
        match &unwrapped {
            Ok(key) => self.went_well(Operation::Unwrap, |known| known.opens_again(wrapped, key)),
            Err(error) => {
                self.known().does_not_open(wrapped, of, error.class());
                self.settle_doubt(Some(of), end.min(Instant::now() + ATTEMPT)).await;
                self.note_failure(Operation::Unwrap, text, error);
                self.doubt_its_key(wrapped, error, end.min(Instant::now() + ATTEMPT)).await;
            }
        }
        unwrapped.map_err(|error| self.once_in_doubt(error))
    }

    /// What it has opened was what was wrapped.
    pub(super) fn has_opened(&self, wrapped: &Wrapped, of: &WrapContext, key: &Key) {
        self.known().open(wrapped, of, key);
    }

    /// One attempt, past breaker and cap.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        text: Option<u64>,
        limit: Instant,
        attempt: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let held_back = {
            let mut known = self.known();
            match known.breaker.ask(self.age()) {
                Pass::Wait(until) => Some((known.held_back_by.unwrap_or(ErrorKind::Away), self.own.since + until)),
                Pass::Go | Pass::Trial => None,
            }
        };
        match held_back {
            Some((kind, until)) => {
                let rest = until.saturating_duration_since(Instant::now());
                let detail = format!("it has failed before, and is used again in {:.1} s", rest.as_secs_f64());
                Err(ProviderError::held_back(kind, detail, until))
            }
            None => self.attempt(operation, text, limit, attempt).await,
        }
    }

    /// Past the cap on calls alone.
    async fn attempt<T>(
        &self,
        operation: Operation,
        text: Option<u64>,
        limit: Instant,
        attempt: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let Ok(Ok(_permit)) = timeout_at(limit, self.own.calls.acquire()).await else {
            let detail = "too many calls to it are running";
            return Err(ProviderError::held_back(ErrorKind::Away, detail, Instant::now()));
        };
        let (started, begun) = (Instant::now(), self.age());
        let mut watched = Watched::new(self, operation, text);
        let answer = match timeout_at(limit, attempt).await {
            Ok(answer) => answer,
            Err(_) => Err(late()),
        };
        watched.ended(&answer);
        match &answer {
            Ok(_) => {
                let mut known = self.known();
                known.under_way.succeeded(operation, text);
                match operation {
                    Operation::Wrap | Operation::Unwrap | Operation::Foreign => known.breaker.served(begun),
                    Operation::Login | Operation::Probe => known.breaker.succeeded(),
                }
                known.pace.remember(started.elapsed());
                known.answered = Some(Instant::now());
            }
            // Nobody was asked, in a pause after a login that failed, whoever met that failure: it may have been made beside all calls.
            Err(error) if error.not_before().is_some() => self.note(Operation::Login, None, error),
            Err(error) if error.kind() == ErrorKind::Credential => {}
            Err(error) => self.failed(text, error),
        }
        answer
    }

    /// By whoever has found out that what it gave is something else.
    pub(super) fn lied(&self, what: &str) -> ProviderError {
        let error = ProviderError::new(ErrorKind::Lied, what);
        self.failed(None, &error);
        self.note_failure(Operation::Unwrap, None, &error);
        error
    }

    pub(super) fn failed(&self, text: Option<u64>, error: &ProviderError) {
        let mut known = self.known();
        if !known.breaker.is_limited(self.age()) {
            known.held_back_by = Some(error.kind());
        }
        // What is not answered says nothing of the text.
        let text = text.filter(|_| error.kind() != ErrorKind::Away);
        let failure = Failure { class: error.class(), text, pause: error.pause(), chance: chance() };
        known.breaker.failed(failure, self.age());
    }

    pub(super) fn went_well(&self, operation: Operation, and: impl FnOnce(&mut Known)) {
        self.tell_if_well(|known| {
            and(known);
            known.troubles.went_well(operation)
        });
    }

    pub(super) fn tell_if_well(&self, change: impl FnOnce(&mut Known) -> bool) {
        let is_news = change(&mut self.known());
        if is_news {
            emit(&Event::ProviderRecovered { provider: &self.name });
        }
    }

    pub(super) fn note_failure(&self, operation: Operation, text: Option<u64>, error: &ProviderError) {
        // Nobody was asked: by us, or in a pause of the login, of which note was taken where it was met.
        if error.not_before().is_none() {
            self.note(operation, text, error);
        }
    }

    fn note(&self, operation: Operation, text: Option<u64>, error: &ProviderError) {
        let (kind, class) = (error.kind(), error.class());
        let told = {
            let mut known = self.known();
            // What is wrong with one text, or with the version that it was made under, is no fault of who refuses it.
            let is_of_text =
                class == Class::Corrupt || (operation.opens() && class == Class::NotFound && text.is_some());
            // Nor is it yet when only that text has failed; and no text of another plugin tells whose fault it is.
            let is_one_text = text.is_some()
                && matches!(class, Class::Unavailable | Class::Internal)
                && kind != ErrorKind::Away
                && (operation == Operation::Foreign || known.breaker.failures() < FAILING_TEXTS);
            known.troubles.went_wrong(operation, error, is_of_text || is_one_text)
        };
        if let Some(text) = told {
            emit(&Event::ProviderFailed { provider: &self.name, class, error: &text, hint: error.hint() });
        }
    }

    /// The breaker's time.
    pub(super) fn age(&self) -> Duration {
        self.own.since.elapsed()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        lock::lock(&self.own.known)
    }
}

fn context(of: &WrapContext) -> Context<'_> {
    Context { cluster: &of.cluster, kek: &of.kek }
}
