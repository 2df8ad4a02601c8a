//! When a provider logs in and when it renews. Pure: time comes in as time since the start on a monotonic clock, chance as a parameter.
//!
//! A token is renewed, or replaced where it cannot be renewed, before half of its lifetime has passed, so that a provider that
//! is away for the other half costs nothing. When a renewal gives less than it used to (the maximum lifetime is near) or is
//! refused, the next step is a login. What fails is tried again with growing pauses, a refused login with longer ones: some
//! methods lock a user after a few.

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

/// The state of one login.
#[derive(Debug, Default)]
pub(super) struct Lease {
    held: Option<Held>,
    /// When the next step is due, and which.
    due: Duration,
    login_next: bool,
    failures: u32,
    denied: Option<Denied>,
    /// Logins that were called none before they served.
    unheard: Option<Denied>,
}

/// Refused uses that follow each other.
#[derive(Clone, Copy, Debug)]
struct Denied {
    last: Duration,
    /// From a login to the next on account of them.
    gap: Duration,
}

impl Lease {
    /// Due at once.
    pub(super) fn new() -> Self {
        Self { login_next: true, ..Self::default() }
    }

    /// What to do now.
    pub(super) fn step(&self, now: Duration) -> Step {
        if now < self.due {
            Step::Rest(self.due)
        } else if self.login_next || !self.usable(now) {
            Step::Login
        } else {
            Step::Renew
        }
    }

    /// Whether there is a token that has not ended.
    pub(super) fn usable(&self, now: Duration) -> bool {
        self.held.is_some_and(|held| held.ends.is_none_or(|ends| now < ends))
    }

    /// A login was granted.
    pub(super) fn logged_in(&mut self, now: Duration, grant: Grant, chance: Chance) {
        self.held = Some(Held {
            since: now,
            ends: grant.lifetime.map(|lifetime| now + lifetime),
            full: grant.lifetime.unwrap_or(FOREVER),
        });
        self.plan(now, grant, chance);
    }

    /// A renewal was granted.
    pub(super) fn renewed(&mut self, now: Duration, grant: Grant, chance: Chance) {
        if let Some(held) = &mut self.held {
            held.ends = grant.lifetime.map(|lifetime| now + lifetime);
        }
        self.plan(now, grant, chance);
    }

    fn plan(&mut self, now: Duration, grant: Grant, chance: Chance) {
        self.failures = 0;
        let full = self.held.map_or(FOREVER, |held| held.full);
        let lifetime = grant.lifetime.unwrap_or(FOREVER);
        self.login_next = !grant.renewable || lifetime < full.mul_f64(0.9);
        self.due = now + chance.of(lifetime, 350, 490).max(GAP_MIN);
    }

    /// A login or a renewal failed. `denied`: there was an answer, and it was no. `asked_for`: how long the provider wants to be left alone.
    pub(super) fn failed(&mut self, now: Duration, denied: bool, asked_for: Option<Duration>, chance: Chance) {
        // A renewal that is refused will be refused again: the login is next, and at once.
        if denied && !self.login_next && self.usable(now) {
            self.login_next = true;
            self.due = now;
            return;
        }
        let most = if denied { DENIED_PAUSE_MAX } else { AWAY_PAUSE_MAX };
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(most);
        self.failures += 1;
        self.due = now + chance.of(pause, 500, 1000).max(asked_for.unwrap_or_default().min(ASKED_FOR_MAX));
    }

    /// The token was refused in use. Whether a login may follow now.
    pub(super) fn refused(&mut self, now: Duration) -> bool {
        let row = self.denied.filter(|denied| now.saturating_sub(denied.last) <= SECOND_LOGIN_GAP_MAX);
        let gap = row.map_or(SECOND_LOGIN_GAP, |denied| denied.gap);
        let again = self.held.is_some_and(|held| now >= held.since + gap);
        if again {
            self.login_next = true;
            self.due = now;
        }
        let gap = if again { (gap * 2).min(SECOND_LOGIN_GAP_MAX) } else { gap };
        self.denied = Some(Denied { last: now, gap });
        again
    }

    /// The token is called none. Whether another login may follow now: after one that has served at once, and after one that never has the
    /// first time, and then ever more seldom: a standby may not have heard of it yet, and something on the way never will.
    pub(super) fn ended(&mut self, now: Duration, has_served: bool) -> bool {
        let row = self.unheard.filter(|last| !has_served && now.saturating_sub(last.last) <= SECOND_LOGIN_GAP_MAX);
        let gap = row.map_or(Duration::ZERO, |row| row.gap);
        let again = self.held.is_none_or(|held| now >= held.since + gap);
        if again {
            self.held = None;
            self.login_next = true;
            self.due = now;
        }
        let gap = if again { (gap * 2).clamp(GAP_MIN, SECOND_LOGIN_GAP_MAX) } else { gap };
        self.unheard = (!has_served).then_some(Denied { last: now, gap });
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn grant(lifetime: Duration) -> Grant {
        Grant { lifetime: Some(lifetime), renewable: true }
    }

    /// Numbers that look like chance (Knuth's MMIX generator).
    struct Dice(u64);

    impl Dice {
        fn chance(&mut self) -> Chance {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [a, b, ..] = self.0.to_be_bytes();
            Chance::new([a, b])
        }
    }

    /// What Vault does with a token: lifetime, maximum lifetime, and whether it answers.
    struct Provider {
        ttl: Duration,
        max_ttl: Duration,
        renewable: bool,
        born: Duration,
        ends: Duration,
    }

    impl Provider {
        fn new(ttl: Duration, max_ttl: Duration, renewable: bool) -> Self {
            Self { ttl, max_ttl, renewable, born: Duration::ZERO, ends: Duration::ZERO }
        }

        /// For how much of this time there is no token.
        fn without(&self, from: Duration, to: Duration) -> Duration {
            to - from.max(self.ends).min(to)
        }

        fn login(&mut self, now: Duration) -> Grant {
            (self.born, self.ends) = (now, now + self.ttl);
            Grant { lifetime: Some(self.ttl), renewable: self.renewable }
        }

        fn renew(&mut self, now: Duration) -> Option<Grant> {
            if !self.renewable || now >= self.ends {
                return None;
            }
            self.ends = (now + self.ttl).min(self.born + self.max_ttl);
            Some(grant(self.ends.saturating_sub(now)))
        }
    }

    struct Weeks {
        logins: u32,
        renewals: u32,
        without_token: Duration,
        /// Thousandths of the lifetime that were left at the worst step.
        least_left: u128,
    }

    /// Runs a lease for some weeks, second by second where something is due. `away` says when the provider does not answer.
    fn simulate(mut provider: Provider, seed: u64, weeks: u32, away: impl Fn(Duration) -> bool) -> Weeks {
        let (mut lease, mut dice, mut now) = (Lease::new(), Dice(seed), Duration::ZERO);
        let mut seen = Weeks { logins: 0, renewals: 0, without_token: Duration::ZERO, least_left: 1000 };
        while now < WEEK * weeks {
            match lease.step(now) {
                Step::Rest(until) => {
                    assert!(until > now, "a rest that ends in the past");
                    seen.without_token += provider.without(now, until);
                    now = until;
                }
                Step::Login | Step::Renew if away(now) => {
                    lease.failed(now, false, None, dice.chance());
                    let until = now + Duration::from_millis(800);
                    seen.without_token += provider.without(now, until);
                    now = until;
                }
                Step::Login => {
                    if seen.logins > 0 && provider.ends > now {
                        seen.least_left =
                            seen.least_left.min((provider.ends - now).as_millis() * 1000 / provider.ttl.as_millis());
                    }
                    seen.logins += 1;
                    let granted = provider.login(now);
                    lease.logged_in(now, granted, dice.chance());
                }
                Step::Renew => {
                    seen.renewals += 1;
                    let left = provider.ends.saturating_sub(now).as_millis() * 1000 / provider.ttl.as_millis();
                    seen.least_left = seen.least_left.min(left);
                    match provider.renew(now) {
                        Some(granted) => lease.renewed(now, granted, dice.chance()),
                        None => lease.failed(now, true, None, dice.chance()),
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn over_four_weeks_a_token_is_renewed_before_half_and_replaced_before_its_end() {
        for seed in 0..20 {
            let seen = simulate(Provider::new(HOUR, 24 * HOUR, true), seed, 4, |_| false);
            assert_eq!(seen.without_token, Duration::ZERO);
            // 28 days: one login a day, and a renewal for each 0.35 to 0.49 hours.
            assert!((28..=32).contains(&seen.logins), "{}", seen.logins);
            assert!((1300..=2000).contains(&seen.renewals), "{}", seen.renewals);
        }
        let unlimited = simulate(Provider::new(HOUR, WEEK * 52, true), 7, 4, |_| false);
        assert_eq!((unlimited.logins, unlimited.without_token), (1, Duration::ZERO));
        assert!(unlimited.least_left > 500, "renewed with {} of 1000 left", unlimited.least_left);
    }

    #[test]
    fn what_cannot_be_renewed_is_replaced_before_half() {
        let seen = simulate(Provider::new(20 * 60 * SECOND, 20 * 60 * SECOND, false), 3, 2, |_| false);
        assert_eq!((seen.renewals, seen.without_token), (0, Duration::ZERO));
        assert!(seen.least_left > 500 && seen.logins > 2000, "{} {}", seen.least_left, seen.logins);
    }

    #[test]
    fn a_provider_that_is_away_for_less_than_half_of_the_lifetime_costs_nothing() {
        // Away for 25 minutes of every 2 hours.
        let away = |now: Duration| now.as_secs() % 7200 > 7200 - 25 * 60;
        for seed in 0..20 {
            let seen = simulate(Provider::new(HOUR, WEEK * 52, true), seed, 3, away);
            assert_eq!((seen.logins, seen.without_token), (1, Duration::ZERO), "seed {seed}");
        }
    }

    #[test]
    fn after_a_long_outage_there_is_a_login_within_seconds() {
        // Two days away in the second week.
        let back = WEEK + 48 * HOUR;
        let seen = simulate(Provider::new(HOUR, 24 * HOUR, true), 11, 3, |now| now > WEEK && now < back);
        let without = seen.without_token;
        assert!(without < 48 * HOUR + 6 * SECOND && without > 46 * HOUR, "{without:?}");
    }

    #[test]
    fn refused_logins_are_tried_ever_more_slowly_and_never_in_step() {
        let (mut lease, mut dice, mut now) = (Lease::new(), Dice(1), Duration::ZERO);
        let mut times = Vec::new();
        while now < HOUR {
            match lease.step(now) {
                Step::Login => {
                    times.push(now);
                    lease.failed(now, true, None, dice.chance());
                }
                Step::Renew => panic!("renewal without a token"),
                Step::Rest(until) => now = until,
            }
        }
        assert!((60..=130).contains(&times.len()), "{} logins in an hour", times.len());
        let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses[0] < SECOND && pauses[20..].iter().all(|pause| *pause >= 29 * SECOND && *pause <= 60 * SECOND));
        assert!(pauses[20..].windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_refused_use_makes_one_login_and_not_a_storm() {
        let mut lease = Lease::new();
        lease.logged_in(Duration::ZERO, grant(HOUR), Chance::new([0, 0]));
        assert!(!lease.refused(29 * SECOND), "the login is young: it lacks the right");
        assert!(lease.refused(31 * SECOND));
        assert_eq!(lease.step(31 * SECOND), Step::Login);
        lease.logged_in(31 * SECOND, grant(HOUR), Chance::new([0, 0]));
        assert!(!lease.refused(32 * SECOND));
        lease.ended(33 * SECOND, true);
        assert!(!lease.usable(33 * SECOND) && lease.step(33 * SECOND) == Step::Login);
    }

    #[test]
    fn uses_that_stay_refused_make_a_login_ever_more_seldom() {
        let mut lease = Lease::new();
        lease.logged_in(Duration::ZERO, grant(WEEK), Chance::new([0, 0]));
        let mut logins = Vec::new();
        for second in 1..2 * 3600 {
            if lease.refused(SECOND * second) {
                lease.logged_in(SECOND * second, grant(WEEK), Chance::new([0, 0]));
                logins.push(second);
            }
        }
        let gaps: Vec<_> = logins.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((logins[0], &gaps[..6]), (30, &[60, 120, 240, 480, 600, 600][..]));
        // The right was there for a while, and is gone again.
        let later = 4 * HOUR;
        assert!(lease.refused(later));
    }

    #[test]
    fn a_token_without_end_is_looked_at_once_a_day() {
        let mut lease = Lease::new();
        lease.logged_in(Duration::ZERO, Grant { lifetime: None, renewable: false }, Chance::new([255, 255]));
        assert!(lease.usable(WEEK * 500));
        assert!(matches!(lease.step(SECOND), Step::Rest(until) if until > 8 * HOUR && until < 12 * HOUR));
        assert_eq!(lease.step(12 * HOUR), Step::Login);
    }

    #[test]
    fn a_refused_renewal_makes_a_login_while_the_token_still_serves() {
        let mut lease = Lease::new();
        lease.logged_in(Duration::ZERO, grant(HOUR), Chance::new([0, 0]));
        let due = HOUR.mul_f64(0.35);
        assert_eq!(lease.step(due), Step::Renew);
        lease.failed(due, true, None, Chance::new([0, 0]));
        assert_eq!(lease.step(due), Step::Login);
        lease.failed(due, true, None, Chance::new([0, 0]));
        assert!(lease.usable(due) && matches!(lease.step(due), Step::Rest(_)));
    }
}
