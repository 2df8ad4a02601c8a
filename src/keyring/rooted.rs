//! The providers of the configuration that runs, and the operator's rules for them. Replaced as a whole by a reload.

use std::collections::HashSet;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::calendar::EpochRule;
use crate::provider::set::{Member, NotOpened, Providers, Role};
use crate::provider::{KeyIdentity, ProviderKind};
use crate::types::{Class, Explained};

/// What Status says while providers are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// That all is well: kube-apiserver goes on writing with what it has.
    Coast,
    /// That all is not well, after this time: kube-apiserver stops writing three minutes later.
    StopWritesAfter(Duration),
}

/// Rules of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Texts are encrypted under a local KEK (mode "rooted"); without, each under a KEK of its own (mode "direct").
    pub local_kek: bool,
    /// Keys that must have wrapped a new KEK before it becomes active.
    pub min_wraps: usize,
    /// The operator's own part of the key_id.
    pub epoch: EpochRule,
    /// See [`OnOutage`].
    pub on_outage: OnOutage,
    /// How long a new version of a key must have been seen before it counts.
    pub activation_delay: Duration,
    /// Between two probes of one provider.
    pub probe_every: Duration,
}

/// Providers that run, and their rules.
pub struct Rooted {
    /// Where they make their connections and logins, and where the calls of several, and of those that may block, are made.
    pub runtime: Handle,
    /// In the order of the configuration.
    pub providers: Providers,
    /// What the configuration says for all of them.
    pub rules: Rules,
}

impl Rooted {
    /// Runs nothing yet.
    pub const fn new(runtime: Handle, providers: Providers, rules: Rules) -> Self {
        Self { runtime, providers, rules }
    }

    /// Whether any of them wraps new KEKs. If none does, new texts are under the local KEK alone, as on a node without providers, and these
    /// only open what is there.
    pub fn writes(&self) -> bool {
        self.providers.writers().next().is_some()
    }

    /// Begins calls in a task of its own, which goes on when its caller gives up. The task is the caller's runtime's where that may be: the
    /// answer of one provider then wakes no second thread.
    pub(super) fn spawn<T: Send + 'static>(&self, calls: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        if self.providers.never_block() { tokio::spawn(calls) } else { self.runtime.spawn(calls) }
    }

    /// Whether wraps by these keys are enough for a KEK to become active. Keys count, and not providers: two ways to one key are one
    /// wrap, and what one of them is required for the other one does as well.
    pub(super) fn suffices(
        &self,
        key_of: impl Fn(&Member) -> Option<KeyIdentity>,
        has: impl Fn(ProviderKind, &KeyIdentity) -> bool,
    ) -> bool {
        let made =
            |member: &Member| key_of(member).filter(|key| has(member.kind(), key)).map(|key| (member.kind(), key));
        let keys: HashSet<_> = self.providers.writers().filter_map(made).collect();
        keys.len() >= self.rules.min_wraps
            && self.providers.writers().all(|member| member.role() != Role::Required || made(member).is_some())
    }

    /// For how long too few healthy providers have been there to wrap a new KEK.
    pub fn outage(&self) -> Duration {
        let failing = |member: &&Member| member.health().wraps_fail_for;
        // A key is lost with the last way to it.
        let lost = |ways: &Vec<&Member>| ways.iter().map(failing).min().flatten();
        let is_required = |ways: &&Vec<&Member>| ways.iter().any(|member| member.role() == Role::Required);
        let keys = self.providers.keys(|_| true);
        let required = keys.iter().filter(is_required).filter_map(lost).max();
        // Too few are left since the one failed that could not be spared any more.
        let mut all: Vec<Duration> = keys.iter().filter_map(lost).collect();
        all.sort_by(|a, b| b.cmp(a));
        let to_spare = keys.len().saturating_sub(self.rules.min_wraps);
        required.max(all.get(to_spare).copied()).unwrap_or_default()
    }

    /// Whether Status has to say so.
    pub(super) fn stops_writes(&self) -> bool {
        match self.rules.on_outage {
            OnOutage::Coast => false,
            OnOutage::StopWritesAfter(limit) => self.outage() > limit,
        }
    }
}

/// No provider did what was needed for one text or KEK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct ProvidersError {
    class: Class,
    /// Each provider's name and its words.
    said: String,
    /// What the operator does next: the first one's hint.
    hint: String,
}

impl Explained for ProvidersError {
    fn class(&self) -> Class {
        self.class
    }

    fn hint(&self) -> &str {
        &self.hint
    }
}

impl ProvidersError {
    /// One failure of several: what may pass counts first, and what is wrong with the text itself last.
    pub(super) fn of(NotOpened { refusals }: &NotOpened) -> Self {
        const ORDER: [Class; 7] = [
            Class::Unavailable,
            Class::Throttled,
            Class::Denied,
            Class::Misconfigured,
            Class::NotFound,
            Class::Internal,
            Class::Corrupt,
        ];
        let first = ORDER.into_iter().find_map(|class| refusals.iter().find(|refusal| refusal.error.class() == class));
        let said: Vec<String> =
            refusals.iter().map(|refusal| format!("{}: {}", refusal.provider, refusal.error.again())).collect();
        match first {
            Some(first) => {
                Self { class: first.error.class(), said: said.join("; "), hint: first.error.hint().to_owned() }
            }
            None => Self::none(),
        }
    }

    /// This machine's own trouble.
    pub(super) fn ours(said: &str, hint: &str) -> Self {
        Self { class: Class::Unavailable, said: said.to_owned(), hint: hint.to_owned() }
    }

    /// All that were asked have wrapped, and between them they have not the keys that the rules ask for.
    pub(super) fn too_few() -> Self {
        Self {
            class: Class::Misconfigured,
            said: "write.min_wraps asks for more keys than the providers have between them".to_owned(),
            hint: "providers that are ways to one key count once: lower write.min_wraps, or add a provider with another key".to_owned(),
        }
    }

    /// Nobody to ask.
    pub(super) fn none() -> Self {
        Self {
            class: Class::NotFound,
            said: "no configured provider has the key that made these wraps".to_owned(),
            hint: "configure a provider that wrapped this KEK, or let a node that has it make a bundle".to_owned(),
        }
    }
}
