//! Several providers at once: a local KEK is wrapped by all of them, and opened by whichever answers.
//!
//! One budget for all of a question, inside of kube-apiserver's 3 s; in it attempts that are made again ([`question`]), a circuit
//! breaker and a cap on calls in flight for each provider. Every wrap is opened again before it counts: a provider
//! that answers with something else is found out here, named, and left out, and the others serve.
//!
//! A wrap goes to the provider whose last probe or wrap showed the same key, and where none did to all of its kind. The order in
//! the configuration decides [`Strategy::Ordered`] and who is asked first; names decide nothing.

mod again;
mod beside;
mod foreign;
mod health;
mod known;
mod member;
mod pace;
mod question;
mod specimen;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod twin;
mod watched;
mod way;
mod ways;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::beside::Beside;
pub use self::health::{Health, Operation};
pub use self::member::{Member, Role, WrapContext};
use self::question::Limits;
pub use self::specimen::{Fingerprint, Specimen};
use super::{ErrorKind, KeyIdentity, ProviderError, ProviderKind, Wrapped};
use crate::types::Key;

/// For all attempts of one question.
pub const BUDGET: Duration = Duration::from_millis(2500);
/// After this an attempt has failed, unless it is the one that answers after all.
pub const ATTEMPT: Duration = Duration::from_millis(800);
/// For a copy of a local KEK, which no call waits for, and for each of both calls: a provider that takes seconds is slow, and not away.
const COPY_BUDGET: Duration = Duration::from_secs(10);
const COPY_CALL: Duration = Duration::from_secs(5);

/// Said of a provider that opened to something else, when another one's answer has told that it was its fault.
const ANOTHER_KEY: &str = "another key came back";
/// Said until then: it may be the text. Bytes from elsewhere never blame a provider.
const NOT_OF_THE_TEXT: &str = "the key that came back is not the one that the text names";

/// Who is asked to open a wrap when several could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In the order of the configuration; the next one when the one before has failed.
    Ordered,
    /// Another one begins each time.
    RoundRobin,
    /// Whoever is usually fastest, and the next one already when the one before takes longer than it usually does.
    Fastest,
}

/// A provider's name in the configuration, and what it said.
#[derive(Debug)]
pub struct Refusal {
    /// As the operator calls it.
    pub provider: String,
    /// Why not.
    pub error: ProviderError,
}

impl Refusal {
    fn of(member: &Member, error: ProviderError) -> Self {
        Self { provider: member.name().to_owned(), error }
    }
}

/// What wrapping gave.
pub struct WrapOutcome {
    /// One for each key, with the name of the provider that made and proved it, in the order of the configuration.
    pub wraps: Vec<(String, Wrapped)>,
    /// Why the others have none: debts.
    pub owed: Vec<Refusal>,
}

impl WrapOutcome {
    fn has(&self, wrap: &Wrapped) -> bool {
        self.wraps.iter().any(|(_, made)| made.is_by(wrap.kind, &wrap.identity))
    }
}

/// Nobody opened any of the wraps.
#[derive(Debug, thiserror::Error)]
#[error("no provider opened the local KEK")]
pub struct NotOpened {
    /// What each one that was asked said last; empty if no wrap belongs to any provider here.
    pub refusals: Vec<Refusal>,
}

/// All providers of a configuration. Cheap to clone; all clones are one set.
#[derive(Clone)]
pub struct Providers {
    members: Arc<[Member]>,
    strategy: Strategy,
    next: Arc<AtomicUsize>,
}

impl Providers {
    /// In the order of the configuration.
    pub fn new(members: Vec<Member>, strategy: Strategy) -> Self {
        Self { members: members.into(), strategy, next: Arc::default() }
    }

    /// The providers.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether the API's thread may poll their calls: there is one alone, which never blocks it. Of several the work would add up.
    pub fn never_block(&self) -> bool {
        matches!(&*self.members, [only] if only.never_blocks())
    }

    /// Those that wrap new KEKs.
    pub fn writers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.writes())
    }

    /// Those that write and are `wanted`, by their keys: two that are known to have one key are two ways to it.
    pub fn keys(&self, wanted: impl Fn(&Member) -> bool) -> Vec<Vec<&Member>> {
        let mut keys: Vec<(ProviderKind, Option<KeyIdentity>, Vec<&Member>)> = Vec::new();
        for member in self.writers().filter(|member| wanted(member)) {
            let (kind, key) = (member.kind(), member.identity().filter(|_| !member.is_twin()));
            let is_same =
                |of: &&mut (ProviderKind, Option<KeyIdentity>, _)| key.is_some() && (of.0, &of.1) == (kind, &key);
            match keys.iter_mut().find(is_same) {
                Some((_, _, ways)) => ways.push(member),
                None => keys.push((kind, key, vec![member])),
            }
        }
        keys.into_iter().map(|(_, _, ways)| ways).collect()
    }

    /// Asks all keys that write at once, each with the whole budget, and lets each prove what it gave: for a text that is waited for. The
    /// next way to a key is asked where the one before fails or is slow.
    pub async fn wrap(&self, key: &Key, of: &WrapContext) -> WrapOutcome {
        let limits = Limits { attempt: ATTEMPT, is_hedged: false, asks_again: true, end: Instant::now() + BUDGET };
        self.wrap_within(key, of, |_| true, BUDGET, limits).await
    }

    /// The same by those that write and are `wanted`: for copies of a local KEK, which nobody waits for.
    pub async fn wrap_by(&self, key: &Key, of: &WrapContext, wanted: impl Fn(&Member) -> bool) -> WrapOutcome {
        let end = Instant::now() + COPY_BUDGET;
        let limits = Limits { attempt: COPY_BUDGET, is_hedged: false, asks_again: false, end };
        self.wrap_within(key, of, wanted, COPY_CALL, limits).await
    }

    async fn wrap_within(
        &self,
        key: &Key,
        of: &WrapContext,
        wanted: impl Fn(&Member) -> bool,
        call: Duration,
        limits: Limits,
    ) -> WrapOutcome {
        let keys = self.keys(wanted);
        // A way that does not open what its key has made keeps no other way from it.
        let able: Vec<Vec<&Member>> =
            keys.iter().map(|ways| ways.iter().copied().filter(|way| way.as_twin().is_none()).collect()).collect();
        let mut asked = Beside::new();
        for (index, (ways, able)) in keys.iter().zip(&able).enumerate() {
            let start = move |place: usize| {
                let member: &Member = able[place];
                async move {
                    let wrapped = member.wrap_and_prove(key, of, call, limits.end).await?;
                    Ok((member.name().to_owned(), wrapped))
                }
            };
            asked.push(async move {
                let said = match able.is_empty() {
                    true => ways.iter().filter_map(|way| Some(Refusal::of(way, way.as_twin()?))).collect(),
                    false => match question::ask(able, limits, start, |_, wrapped| Ok(wrapped)).await {
                        Ok(wrapped) => return (index, Ok(wrapped)),
                        Err(said) => said.into_iter().map(|(place, error)| Refusal::of(able[place], error)).collect(),
                    },
                };
                (index, Err(said))
            });
        }
        let mut answers: Vec<Option<Result<_, Vec<Refusal>>>> = keys.iter().map(|_| None).collect();
        while let Some((index, answer)) = asked.next().await {
            answers[index] = Some(answer);
        }
        let mut outcome = WrapOutcome { wraps: Vec::new(), owed: Vec::new() };
        for (ways, answer) in keys.iter().zip(answers) {
            match answer {
                // It tells another key than it was known for, of which there is a wrap already.
                Some(Ok((_, wrap))) if outcome.has(&wrap) => {}
                Some(Ok(wrapped)) => outcome.wraps.push(wrapped),
                Some(Err(said)) if !said.is_empty() => outcome.owed.extend(said),
                Some(Err(_)) | None => {
                    let error = ProviderError::new(ErrorKind::Away, "the attempt was lost");
                    outcome.owed.extend(ways.first().map(|way| Refusal::of(way, error)));
                }
            }
        }
        self.prove_ways(&mut outcome, key, of, &keys, call.min(ATTEMPT)).await;
        outcome
    }

    /// Whoever tells a key of which somebody else has made a wrap opens that one, or counts for nothing.
    async fn prove_ways(
        &self,
        outcome: &mut WrapOutcome,
        key: &Key,
        of: &WrapContext,
        keys: &[Vec<&Member>],
        call: Duration,
    ) {
        let mut proofs = Beside::new();
        for way in keys.iter().flatten().copied() {
            let own = way.own_identity();
            let made =
                outcome.wraps.iter().find(|(_, wrap)| own.as_ref().is_some_and(|own| wrap.is_by(way.kind(), own)));
            let Some((_, wrap)) = made.filter(|(maker, _)| maker != way.name()) else { continue };
            let specimen = Specimen::opened(wrap.clone(), of.clone(), Fingerprint::of(key));
            if way.health().failure.is_some() {
                // Who fails is asked by its probes.
                way.show(specimen);
                continue;
            }
            proofs.push(async move { (way, way.open_specimen(&specimen, Instant::now() + call).await) });
        }
        while let Some((way, proof)) = proofs.next().await {
            if let Err(error) = proof
                && error.kind() == ErrorKind::Unfit
            {
                outcome.owed.push(Refusal::of(way, error));
            }
        }
    }

    /// The KEK of any of these wraps that `is_right`: whoever asks has a text of it to try. Gives up early only when nobody is left who
    /// could answer in time.
    pub async fn unwrap<'w>(
        &self,
        wraps: &'w [Wrapped],
        of: &WrapContext,
        is_right: impl Fn(&Key) -> bool,
    ) -> Result<Key, NotOpened> {
        let end = Instant::now() + BUDGET;
        let is_hedged = self.strategy == Strategy::Fastest;
        let limits = Limits { attempt: ATTEMPT, is_hedged, asks_again: true, end };
        let plan = self.plan(wraps);
        let members: Vec<&Member> = plan.iter().map(|(member, _)| *member).collect();
        let start = |place: usize| {
            let (member, wraps) = &plan[place];
            member.unwrap_its_own(wraps, of, end)
        };
        let mut suspects = Vec::new();
        let accepted = |place: usize, (wrap, key): (&'w Wrapped, Key)| {
            if is_right(&key) {
                members[place].has_opened(wrap, of, &key);
                return Ok((wrap, key));
            }
            suspects.push(place);
            Err(ProviderError::new(ErrorKind::Text, NOT_OF_THE_TEXT))
        };
        match question::ask(&members, limits, start, accepted).await {
            Ok((_, key)) => {
                // Now it is known that the wraps were in order, and whose fault the other keys are.
                suspects.iter().for_each(|place| drop(members[*place].lied(ANOTHER_KEY)));
                Ok(key)
            }
            Err(said) => {
                let refusal = |(place, error): (usize, _)| Refusal::of(members[place], error);
                Err(NotOpened { refusals: said.into_iter().map(refusal).collect() })
            }
        }
    }

    /// Who is asked for what, in which order.
    fn plan<'a, 'w>(&'a self, wraps: &'w [Wrapped]) -> Vec<(&'a Member, Vec<&'w Wrapped>)> {
        let mut plan: Vec<(&'a Member, Vec<&'w Wrapped>)> = Vec::new();
        for member in &*self.members {
            let wraps: Vec<_> = wraps.iter().filter(|wrap| member.may_open(wrap)).collect();
            if !wraps.is_empty() {
                plan.push((member, wraps));
            }
        }
        match self.strategy {
            Strategy::Ordered => {}
            Strategy::RoundRobin if plan.is_empty() => {}
            Strategy::RoundRobin => {
                let first = self.next.fetch_add(1, Ordering::Relaxed) % plan.len();
                plan.rotate_left(first);
            }
            Strategy::Fastest if plan.len() < 2 => {}
            // Equal ones stay in the order of the configuration.
            Strategy::Fastest => plan.sort_by_cached_key(|(member, _)| member.pace()),
        }
        // What an earlier run knew tells whom to ask last.
        plan.sort_by_key(|(member, wraps)| !wraps.iter().any(|wrap| member.seems_to_open(wrap)));
        plan
    }
}
