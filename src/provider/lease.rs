//! When a provider logs in and when it renews. Pure: time comes in as time since the start on a monotonic clock, chance as a parameter.
//!
//! A token is renewed, or replaced where it cannot be renewed, before half of its lifetime has passed, so that a provider that
//! is away for the other half costs nothing. When a renewal gives less than it used to (the maximum lifetime is near) or is
//! refused, a login is wanted, and so it is when the token may not do something. What fails is tried again with growing pauses,
//! a refused login with longer ones: some methods lock a user after a few.
//!
//! Renewals and logins have a time of their own each. A login that is wanted may never be granted (a secret id that has served its
//! only use) or for long not be answered (whoever tells who we are is away), and meanwhile the token is kept alive for as long as it
//! can be.

#[cfg(test)]
mod tests;

use std::time::Duration;

/// The longest pause after an answer that said no.
const DENIED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause when there was no answer: the provider should be in use again soon after it is back.
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause that a provider may ask for.
const ASKED_FOR_MAX: Duration = Duration::from_secs(300);
/// Even a token that lives for seconds does not make us ask more often.
const GAP_MIN: Duration = Duration::from_secs(1);
/// A login on account of a refused use, at most this often, and ever more seldom up to the second time: the login may simply lack
/// the right.
const SECOND_LOGIN_GAP: Duration = Duration::from_secs(30);
const SECOND_LOGIN_GAP_MAX: Duration = Duration::from_secs(600);
/// A token that never expires is looked at again this often: somebody may have revoked it.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// What the provider granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// From now on; `None` never expires.
    pub(super) lifetime: Option<Duration>,
    pub(super) renewable: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Login,
    Renew,
    /// Nothing before this time.
    Rest(Duration),
}

/// A number from 0 to 1 that two nodes do not share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(u16);

impl Chance {
    pub(super) const fn new(random: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(random))
    }

    /// From `low` to `high` thousandths of a time.
    fn of(self, time: Duration, low: u32, high: u32) -> Duration {
        let thousandths = low + (high - low) * u32::from(self.0) / u32::from(u16::MAX);
        time.mul_f64(f64::from(thousandths) / 1000.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    since: Duration,
    /// `None`: never.
    ends: Option<Duration>,
    /// What the login itself granted: a renewal that gives less is the beginning of the end.
    full: Duration,
}

/// Something that is due once, and is tried until it goes well.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    at: Duration,
    failures: u32,
}

impl Task {
    const fn at(at: Duration) -> Self {
        Self { at, failures: 0 }
    }

    fn failed(&mut self, now: Duration, denied: bool, asked_for: Option<Duration>, chance: Chance) {
        let most = if denied { DENIED_PAUSE_MAX } else { AWAY_PAUSE_MAX };
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(most);
        self.failures += 1;
        self.at = now + chance.of(pause, 500, 1000).max(asked_for.unwrap_or_default().min(ASKED_FOR_MAX));
    }
}

/// The state of one login.
#[derive(Debug, Default)]
pub(super) struct Lease {
    held: Option<Held>,
    /// Another login, if one is wanted before the token has ended.
    login: Option<Task>,
    /// `None` for what cannot be renewed.
    renewal: Option<Task>,
    denied: Option<Denied>,
    /// Logins that were called none before they served.
    unheard: Option<Denied>,
}

/// Refused uses that follow each other.
#[derive(Clone, Copy, Debug)]
struct Denied {
    last: Duration,
    /// When they have last asked for a login.
    asked: Duration,
    /// From one login to the next on account of them.
    gap: Duration,
}

impl Lease {
    /// How long the token lasts, if there is one and if it has an end.
    #[cfg(any(test, feature = "aws", feature = "azure", feature = "vault"))]
    pub(super) fn lasts(&self, now: Duration) -> Option<Duration> {
        Some(self.held?.ends?.saturating_sub(now))
    }

    /// Due at once.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// What to do now.
    pub(super) fn step(&self, now: Duration) -> Step {
        // At its end at the latest, which is now for a token that is not there.
        let ends = self.held.map_or(Some(Duration::ZERO), |held| held.ends);
        let login = self.login.map(|task| task.at).or(ends);
        let renewal = self.renewal.filter(|_| self.usable(now)).map(|task| task.at);
        if login.is_some_and(|at| at <= now) {
            Step::Login
        } else if renewal.is_some_and(|at| at <= now) {
            Step::Renew
        } else {
            Step::Rest(login.into_iter().chain(renewal).min().unwrap_or(now + FOREVER))
        }
    }

    /// Whether there is a token that has not ended.
    pub(super) fn usable(&self, now: Duration) -> bool {
        self.held.is_some_and(|held| held.ends.is_none_or(|ends| now < ends))
    }

    /// A login was granted.
    pub(super) fn logged_in(&mut self, now: Duration, grant: Grant, chance: Chance) {
        let full = grant.lifetime.unwrap_or(FOREVER);
        self.held = Some(Held { since: now, ends: grant.lifetime.map(|lifetime| now + lifetime), full });
        let due = Task::at(due(now, grant, chance));
        (self.login, self.renewal) = if grant.renewable { (None, Some(due)) } else { (Some(due), None) };
    }

    /// A renewal was granted. Whether it gave all that the login had given: then no other one is wanted.
    pub(super) fn renewed(&mut self, now: Duration, grant: Grant, chance: Chance) -> bool {
        let Some(held) = &mut self.held else { return false };
        // What had an end and is told to have none has less than the second that servers count in.
        let is_over = grant.lifetime.is_none() && held.ends.is_some();
        let lifetime = grant.lifetime.or_else(|| held.ends.map(|_| Duration::ZERO));
        let grant = Grant { lifetime, ..grant };
        held.ends = lifetime.map(|lifetime| now + lifetime);
        let is_full = grant.renewable && grant.lifetime.unwrap_or(FOREVER) >= held.full.mul_f64(0.9);
        let due = Task::at(due(now, grant, chance));
        self.renewal = grant.renewable.then_some(due);
        // One that is wanted already and fails has a pause of its own.
        let login = if is_over { Task::at(now) } else { due };
        self.login = if is_full { None } else { self.login.or(Some(login)) };
        is_full
    }

    /// A login failed. `denied`: there was an answer, and it was no. `asked_for`: how long the provider wants to be left alone.
    pub(super) fn failed(&mut self, now: Duration, denied: bool, asked_for: Option<Duration>, chance: Chance) {
        self.login.get_or_insert_default().failed(now, denied, asked_for, chance);
    }

    /// The same of a renewal. One that is refused may be refused again: a login is wanted, and at once.
    pub(super) fn not_renewed(&mut self, now: Duration, denied: bool, asked_for: Option<Duration>, chance: Chance) {
        self.renewal.get_or_insert_default().failed(now, denied, asked_for, chance);
        if denied {
            self.login.get_or_insert(Task::at(now));
        }
    }

    /// The token was refused in use. Whether a login may follow now. One that fails is tried again in its own time, however often the
    /// token is refused meanwhile.
    pub(super) fn refused(&mut self, now: Duration) -> bool {
        let row = self.denied.filter(|denied| now.saturating_sub(denied.last) <= SECOND_LOGIN_GAP_MAX);
        let (gap, asked) = row.map_or((SECOND_LOGIN_GAP, Duration::ZERO), |denied| (denied.gap, denied.asked));
        let again = self.held.is_some_and(|held| now >= held.since.max(asked) + gap);
        if again && self.login.is_none_or(|login| login.failures == 0) {
            self.login = Some(Task::at(now));
        }
        let (gap, asked) = if again { ((gap * 2).min(SECOND_LOGIN_GAP_MAX), now) } else { (gap, asked) };
        self.denied = Some(Denied { last: now, asked, gap });
        again
    }

    /// The token is called none. Whether another login may follow now: after one that has served at once, and after one that never has the
    /// first time, and then ever more seldom: a standby may not have heard of it yet, and something on the way never will.
    pub(super) fn ended(&mut self, now: Duration, has_served: bool) -> bool {
        let row = self.unheard.filter(|last| !has_served && now.saturating_sub(last.last) <= SECOND_LOGIN_GAP_MAX);
        let gap = row.map_or(Duration::ZERO, |row| row.gap);
        let again = self.held.is_none_or(|held| now >= held.since + gap);
        if again {
            (self.held, self.renewal) = (None, None);
            self.login = Some(Task::at(now));
        }
        let gap = if again { (gap * 2).clamp(GAP_MIN, SECOND_LOGIN_GAP_MAX) } else { gap };
        self.unheard = (!has_served).then_some(Denied { last: now, asked: now, gap });
        again
    }
}

/// Before half of the lifetime has passed.
fn due(now: Duration, grant: Grant, chance: Chance) -> Duration {
    now + chance.of(grant.lifetime.unwrap_or(FOREVER), 350, 490).max(GAP_MIN)
}
