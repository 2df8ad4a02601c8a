//! Several providers at once: a local KEK is wrapped by all of them, and opened by whichever answers.
//!
//! One budget for all of a question, inside of kube-apiserver's 3 s; in it attempts with a limit of their own, full jitter between two
//! rounds, a circuit breaker and a cap on calls in flight for each provider. Every wrap is opened again before it counts: a provider
//! that answers with something else is found out here, named, and left out, and the others serve.
//!
//! A wrap goes to the provider whose last probe or wrap showed the same key, and where none did to all of its kind. The order in
//! the configuration decides [`Strategy::Ordered`] and who is asked first; names decide nothing.

mod member;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::member::{Health, Member, Owned, Role};
use super::{ErrorKind, ProviderError, Wrapped};
use crate::types::{Key, random};

/// For all attempts of one question.
pub const BUDGET: Duration = Duration::from_millis(2500);
/// For one attempt.
pub const ATTEMPT: Duration = Duration::from_millis(800);
/// For a copy of a local KEK, which no call waits for, and for one attempt at it: a provider that takes seconds is slow, and not away.
const COPY_BUDGET: Duration = Duration::from_secs(10);
const COPY_ATTEMPT: Duration = Duration::from_secs(5);
/// First pause between two rounds; full jitter, doubled from there on.
const PAUSE: Duration = Duration::from_millis(50);

/// By whoever wrapped something else, or opened to something else: which of both, another provider's answer tells.
const ANOTHER_KEY: &str = "another key came back";

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

/// What wrapping gave.
pub struct WrapOutcome {
    /// One for each provider that proved its wrap, with its name, in the order of the configuration.
    pub wraps: Vec<(String, Wrapped)>,
    /// The others: debts.
    pub owed: Vec<Refusal>,
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

    /// Those that wrap new KEKs.
    pub fn writers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.writes())
    }

    /// Asks all that write at once, each with the whole budget, and lets each prove what it gave: for a text that is waited for.
    pub async fn wrap(&self, key: &Key, of: &Owned) -> WrapOutcome {
        self.wrap_within(key, of, |_| true, ATTEMPT, BUDGET).await
    }

    /// The same by those that write and are `wanted`: for copies of a local KEK, which nobody waits for.
    pub async fn wrap_by(&self, key: &Key, of: &Owned, wanted: impl Fn(&Member) -> bool) -> WrapOutcome {
        self.wrap_within(key, of, wanted, COPY_ATTEMPT, COPY_BUDGET).await
    }

    async fn wrap_within(
        &self,
        key: &Key,
        of: &Owned,
        wanted: impl Fn(&Member) -> bool,
        attempt: Duration,
        budget: Duration,
    ) -> WrapOutcome {
        let end = Instant::now() + budget;
        let writers: Vec<&Member> = self.writers().filter(|member| wanted(member)).collect();
        let mut asked = JoinSet::new();
        for (index, member) in writers.iter().enumerate() {
            let member = Member::clone(member);
            let of = of.clone();
            let Some(key) = Key::copy_of(key.expose()) else { continue };
            asked.spawn(async move { (index, member.wrap_and_prove(&key, &of, attempt, end).await) });
        }
        let mut answers = Vec::new();
        while let Some(answer) = asked.join_next().await {
            // A task that panicked has answered nothing, and is a debt below.
            answers.extend(answer.ok());
        }
        answers.sort_by_key(|(index, _)| *index);
        let mut outcome = WrapOutcome { wraps: Vec::new(), owed: Vec::new() };
        let mut answers = answers.into_iter().peekable();
        for (index, member) in writers.iter().enumerate() {
            let lost = || ProviderError::new(ErrorKind::Away, "the attempt was lost");
            match answers.next_if(|(answered, _)| *answered == index).map(|(_, answer)| answer) {
                Some(Ok(wrapped)) => outcome.wraps.push((member.name().to_owned(), wrapped)),
                Some(Err(error)) => outcome.owed.push(Refusal { provider: member.name().to_owned(), error }),
                None => outcome.owed.push(Refusal { provider: member.name().to_owned(), error: lost() }),
            }
        }
        outcome
    }

    /// The KEK of any of these wraps that `is_right`: whoever asks has a text of it to try. Gives up early only when everybody has
    /// said that asking again is of no use.
    pub async fn unwrap(
        &self,
        wraps: &[Wrapped],
        of: &Owned,
        is_right: impl Fn(&Key) -> bool,
    ) -> Result<Key, NotOpened> {
        let end = Instant::now() + BUDGET;
        let mut pause = PAUSE;
        loop {
            let plan = self.plan(wraps);
            let refusals = match self.round(&plan, of, &is_right, end).await {
                Ok(key) => return Ok(key),
                Err(refusals) => refusals,
            };
            let rest = jittered(pause);
            let hopeless = !refusals.iter().any(|refusal| refusal.error.class().is_retried());
            if hopeless || Instant::now() + rest >= end {
                return Err(NotOpened { refusals });
            }
            sleep(rest).await;
            pause *= 2;
        }
    }

    /// Who is asked for what, in which order.
    fn plan(&self, wraps: &[Wrapped]) -> Vec<(Member, Vec<Wrapped>)> {
        let mut plan: Vec<(Member, Vec<Wrapped>)> = Vec::new();
        for member in &*self.members {
            let wraps: Vec<_> = wraps.iter().filter(|wrap| member.may_open(wrap)).cloned().collect();
            if !wraps.is_empty() {
                plan.push((member.clone(), wraps));
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
        plan
    }

    /// Each one once. The next is asked when the one before has failed or, if they are hedged, is slower than usual.
    async fn round(
        &self,
        plan: &[(Member, Vec<Wrapped>)],
        of: &Owned,
        is_right: &impl Fn(&Key) -> bool,
        end: Instant,
    ) -> Result<Key, Vec<Refusal>> {
        let mut waiting = plan.iter();
        let mut under_way = JoinSet::new();
        let mut refusals = Vec::new();
        let mut suspects = Vec::new();
        loop {
            let mut patience = None;
            if let Some((member, wraps)) = waiting.next() {
                let (asked, wraps, of) = (member.clone(), wraps.clone(), of.clone());
                under_way.spawn(async move {
                    let answer = asked.unwrap_its_own(&wraps, &of, end).await;
                    (asked, answer)
                });
                if self.strategy == Strategy::Fastest && waiting.len() > 0 {
                    patience = Some(Instant::now() + member.usual());
                }
            }
            loop {
                let answer = match patience {
                    Some(until) => timeout_at(until, under_way.join_next()).await,
                    None => Ok(under_way.join_next().await),
                };
                match answer {
                    Err(_slower_than_usual) => break,
                    Ok(None) => return Err(refusals),
                    Ok(Some(Ok((_, Ok(key))))) if is_right(&key) => {
                        // Now it is known that the wraps were in order, and whose fault the other keys are.
                        suspects.iter().for_each(|member: &Member| drop(member.lied(ANOTHER_KEY)));
                        return Ok(key);
                    }
                    Ok(Some(Ok((member, answer)))) => {
                        let error = answer.err().unwrap_or_else(|| {
                            suspects.push(member.clone());
                            ProviderError::new(ErrorKind::Lied, ANOTHER_KEY)
                        });
                        refusals.push(Refusal { provider: member.name().to_owned(), error });
                        if waiting.len() > 0 {
                            break;
                        }
                    }
                    // A task that panicked has said nothing.
                    Ok(Some(Err(_))) => {}
                }
            }
        }
    }
}

/// Somewhere between nothing and `pause`: many nodes that lost the same provider must not come back in step.
fn jittered(pause: Duration) -> Duration {
    let part = random::array::<2>().map_or(u16::MAX / 2, u16::from_be_bytes);
    pause.mul_f64(f64::from(part) / f64::from(u16::MAX))
}
