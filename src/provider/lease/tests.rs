//! Weeks of a lease in a moment: what is renewed, what is logged in, and for how long there is no token.

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
            step @ (Step::Login | Step::Renew) if away(now) => {
                match step {
                    Step::Renew => lease.not_renewed(now, false, None, dice.chance()),
                    _ => lease.failed(now, false, None, dice.chance()),
                }
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
                    Some(granted) => _ = lease.renewed(now, granted, dice.chance()),
                    None => lease.not_renewed(now, true, None, dice.chance()),
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
    lease.not_renewed(due, true, None, Chance::new([0, 0]));
    assert_eq!(lease.step(due), Step::Login);
    lease.failed(due, true, None, Chance::new([0, 0]));
    assert!(lease.usable(due) && matches!(lease.step(due), Step::Rest(_)));
}

/// Half a day of a token of an hour, renewed whenever that is due, and of logins that fail. The logins.
fn half_a_day_without_a_login(lease: &mut Lease, from: Duration, denied: bool) -> u32 {
    let (mut dice, mut now, mut logins) = (Dice(1), from, 0);
    while now < 12 * HOUR {
        match lease.step(now) {
            Step::Login => {
                logins += 1;
                lease.failed(now, denied, None, dice.chance());
            }
            Step::Renew => _ = lease.renewed(now, grant(HOUR), dice.chance()),
            Step::Rest(until) => now = until,
        }
        assert!(lease.usable(now), "a token that could be renewed has ended after {now:?}");
    }
    logins
}

#[test]
fn a_token_is_renewed_while_the_login_that_a_refused_right_has_asked_for_is_refused() {
    // A secret id that has served its only use, and a policy that was wrong for a minute.
    let mut lease = Lease::new();
    lease.logged_in(Duration::ZERO, grant(HOUR), Dice(1).chance());
    assert!(lease.refused(31 * SECOND));
    let logins = half_a_day_without_a_login(&mut lease, 31 * SECOND, true);
    assert!(logins < 60, "{logins}: once the token is renewed in full, nothing asks for a login any more");
}

#[test]
fn a_token_is_renewed_while_only_logins_are_not_answered() {
    // What tells who logs in is away: an OIDC issuer, or the API that reviews tokens.
    let mut lease = Lease::new();
    lease.logged_in(Duration::ZERO, grant(HOUR), Dice(1).chance());
    assert!(lease.refused(31 * SECOND));
    half_a_day_without_a_login(&mut lease, 31 * SECOND, false);
}

#[test]
fn one_renewal_that_was_refused_ends_no_token_that_is_renewed_the_next_time() {
    // A standby that had not heard of the token, and a login that serves once.
    let mut lease = Lease::new();
    lease.logged_in(Duration::ZERO, grant(HOUR), Chance::new([0, 0]));
    let due = HOUR.mul_f64(0.35);
    lease.not_renewed(due, true, None, Chance::new([0, 0]));
    half_a_day_without_a_login(&mut lease, due, true);
}

#[test]
fn uses_that_are_refused_while_logins_fail_ask_for_none_beyond_those_that_are_due() {
    let (mut lease, mut dice) = (Lease::new(), Dice(1));
    lease.logged_in(Duration::ZERO, grant(WEEK), dice.chance());
    let mut logins = 0;
    for second in 30..3600 {
        lease.refused(SECOND * second);
        if lease.step(SECOND * second) == Step::Login {
            logins += 1;
            lease.failed(SECOND * second, true, None, dice.chance());
        }
    }
    assert!((60..=130).contains(&logins), "{logins} logins in an hour of refused uses");
}

#[test]
fn what_had_an_end_and_is_renewed_without_one_has_ended_and_does_not_live_for_ever() {
    let mut lease = Lease::new();
    lease.logged_in(Duration::ZERO, grant(HOUR), Chance::new([0, 0]));
    // Whole seconds are told, and none is left.
    let is_full = lease.renewed(HOUR, Grant { lifetime: None, renewable: true }, Chance::new([0, 0]));
    assert!(!is_full && !lease.usable(HOUR));
    assert_eq!(lease.step(HOUR + SECOND), Step::Login);
}
