//! One question to one or more members: the only place that asks again.
//!
//! In a round each is asked once. The next one is asked when the one before has failed, or beside it when it takes longer than an
//! attempt should: what is slow may still be the first to answer, and what is lost is not waited for. After a round in which nobody has
//! answered there is a pause, with full jitter, doubled from round to round. Whoever said that asking again is of no use is left out, and whoever
//! is not to be asked before a certain moment until then. When nobody is left who could answer in time, that is said at once.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Member;
use super::beside::Beside;
use crate::provider::{ErrorKind, ProviderError};
use crate::types::{Explained, random};

/// First pause between two rounds.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a question may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// After this the next one is asked beside.
    pub(super) attempt: Duration,
    /// The next one is asked already when the one before takes longer than it usually does.
    pub(super) is_hedged: bool,
    /// Rounds after the first.
    pub(super) asks_again: bool,
    /// Of all.
    pub(super) end: Instant,
}

/// The first answer that is `accepted`, or what each one said last, by its place in `members`.
pub(super) async fn ask<T, F>(
    members: &[&Member],
    limits: Limits,
    start: impl Fn(usize) -> F,
    mut accepted: impl FnMut(usize, T) -> Result<T, ProviderError>,
) -> Result<T, Vec<(usize, ProviderError)>>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let Limits { attempt, is_hedged, asks_again, end } = limits;
    let number = members.len();
    let mut said: Vec<Said> = members.iter().map(|_| Said::Unasked).collect();
    let mut under_way = Beside::new();
    // Questions so far, those that were left out included: `turn % number` is the next one's place.
    let mut turn = 0;
    let mut pause = PAUSE;
    let mut next_at = Instant::now();
    loop {
        let ended = if under_way.is_empty() {
            // The timer's unit is a millisecond: a sleep that is over before it begins would take one.
            if next_at > Instant::now() {
                sleep_until(next_at.min(end)).await;
            }
            None
        } else {
            timeout_at(next_at.min(end), under_way.next()).await.ok().flatten()
        };
        let now = Instant::now();
        match ended {
            Some((place, answer)) => {
                let answer: Result<T, ProviderError> = answer;
                match answer.and_then(|answer| accepted(place, answer)) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => said[place] = Said::Refused(error),
                }
                if turn % number != 0 {
                    next_at = now;
                } else if under_way.is_empty() {
                    let again = said.iter().filter_map(|said| said.again_at(now)).min();
                    let Some(again) = again.filter(|_| asks_again) else { return Err(refusals(said)) };
                    next_at = again.max(now + jittered(pause));
                    pause *= 2;
                    // Who has no time to answer would be said to be away, in place of what it has said.
                    let usual = members.iter().map(|member| member.usual()).min().unwrap_or_default();
                    if next_at + usual >= end {
                        return Err(refusals(said));
                    }
                }
            }
            None if now >= end || number == 0 => return Err(refusals(said)),
            None => {
                let may_be_asked =
                    |skipped: &usize| said[(turn + skipped) % number].again_at(now).is_some_and(|at| at <= now);
                let round_is_over = turn >= number && !asks_again;
                match (0..number).find(may_be_asked).filter(|_| !round_is_over) {
                    Some(skipped) => {
                        let place = (turn + skipped) % number;
                        turn += skipped + 1;
                        let asked = start(place);
                        under_way.push(async move { (place, asked.await) });
                        if matches!(said[place], Said::Unasked) {
                            said[place] = Said::Nothing;
                        }
                        let others_wait = turn % number != 0;
                        next_at = now + if is_hedged && others_wait { members[place].usual() } else { attempt };
                    }
                    None if under_way.is_empty() => return Err(refusals(said)),
                    None => next_at = end,
                }
            }
        }
    }
}

enum Said {
    Unasked,
    Nothing,
    Refused(ProviderError),
}

impl Said {
    /// When asking may be of use.
    fn again_at(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Unasked | Self::Nothing => Some(now),
            Self::Refused(error) if error.class().is_retried() && !error.is_final() => {
                Some(error.not_before().unwrap_or(now))
            }
            Self::Refused(_) => None,
        }
    }
}

fn refusals(said: Vec<Said>) -> Vec<(usize, ProviderError)> {
    let said = said.into_iter().enumerate().filter_map(|(place, said)| match said {
        Said::Unasked => None,
        Said::Nothing => Some((place, ProviderError::new(ErrorKind::Away, "no answer in time"))),
        Said::Refused(error) => Some((place, error)),
    });
    said.collect()
}

/// Somewhere between nothing and `pause`: many nodes that lost the same provider must not come back in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(chance())
}

/// From 0 to 1.
pub(super) fn chance() -> f64 {
    let part = random::array::<2>().map_or(u16::MAX / 2, u16::from_be_bytes);
    f64::from(part) / f64::from(u16::MAX)
}
