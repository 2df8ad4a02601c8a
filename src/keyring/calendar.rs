//! The operator's part of the key_id: a number, or one that the calendar makes, the same on all nodes without a word between them.
//!
//! An epoch of the calendar is named by the day on which it began, counted from 1970-01-01, and not by how many there were: two
//! periods then have one order, and after a change of the period the later beginning wins. It is kept as it is while the clock is
//! not known to be right: a node that turned by a wrong clock would leave the others for years.
//!
//! A node that has none yet, and no such clock, does not wait for one: it takes [`FIRST`], which no calendar gives and no operator
//! counts up to, and leaves it at the first look at a clock that is right.
//!
//! An epoch does not go back, except when it lies so far ahead that only a wrong clock can have made it: by more than a period. Whether
//! what it would go back to was in use before, the keeper knows, and then it stays.

use std::fmt;

use super::cryptoperiod::near;
use crate::types::clock::UnixSeconds;

const DAY_SECONDS: u64 = 24 * 3600;
/// Set in the number of an epoch of the calendar, so that it is none that an operator counts up to.
const CALENDAR: u32 = 1 << 31;
/// Of the day 0: older than whatever a clock gives, so that the first one that is right turns it.
const FIRST: u32 = CALENDAR;

/// How many days an epoch of the calendar lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(u16);

impl Period {
    /// Ten years, the most that a seed of kube-apiserver may be planned to live.
    pub const MAX_DAYS: u16 = 3650;

    /// 1 to [`Period::MAX_DAYS`] days.
    pub fn of_days(days: u16) -> Option<Self> {
        (1..=Self::MAX_DAYS).contains(&days).then_some(Self(days))
    }

    /// `every 90d`.
    pub fn parse(text: &str) -> Option<Self> {
        let days = text.strip_prefix("every ")?.strip_suffix('d')?;
        // One form of each: no sign, no leading zero.
        let is_plain = days.bytes().all(|digit| digit.is_ascii_digit()) && !days.starts_with('0');
        is_plain.then(|| days.parse().ok()).flatten().and_then(Self::of_days)
    }

    /// What the key_id names at this time.
    fn number_at(self, now: UnixSeconds) -> u32 {
        let days = now / DAY_SECONDS;
        let began = days - days % u64::from(self.0);
        CALENDAR | u32::try_from(began).map_or(CALENDAR - 1, |began| began.min(CALENDAR - 1))
    }

    /// A true epoch began at most today, so less than a period after the one that this period gives; a clock that runs a little ahead
    /// turns to the next one, which is a period after it.
    fn is_out_of_reach(self, last: u32, now: UnixSeconds) -> bool {
        last > self.number_at(now).saturating_add(u32::from(self.0))
    }
}

/// `write.epoch`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochRule {
    /// Counted up by the operator.
    Number(u32),
    /// Turned by the calendar.
    Every(Period),
}

impl Default for EpochRule {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl fmt::Display for EpochRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Every(Period(days)) => write!(f, "every {days}d"),
        }
    }
}

impl EpochRule {
    /// Whether this number is also that of an epoch of the calendar.
    pub const fn may_be_of_calendar(number: u32) -> bool {
        number >= CALENDAR
    }

    /// The number that the key_id should have, after the one that it has. `now` is `None` while the clock is not known to be right.
    pub fn number(self, last: Option<u32>, now: Option<UnixSeconds>) -> u32 {
        match (self, last, now) {
            (Self::Number(number), _, _) => number,
            (Self::Every(_), last, None) => last.unwrap_or(FIRST),
            (Self::Every(period), last, Some(now)) => {
                let last = last.filter(|last| Self::may_be_of_calendar(*last) && !period.is_out_of_reach(*last, now));
                period.number_at(now).max(last.unwrap_or(FIRST))
            }
        }
    }

    /// When the calendar ends this number; `None` for one that a clock which is right ends at once, or that only the operator ends.
    pub fn turns(self, last: u32) -> Option<UnixSeconds> {
        match self {
            Self::Every(Period(days)) if last > FIRST => {
                let (began, days) = (u64::from(last - CALENDAR), u64::from(days));
                Some((began / days + 1) * days * DAY_SECONDS)
            }
            Self::Number(_) | Self::Every(_) => None,
        }
    }

    /// How near that is, if it is to be told: at most so many days.
    pub fn is_near(self, last: u32, now: UnixSeconds) -> Option<u64> {
        let Self::Every(Period(days)) = self else { return None };
        near(self.turns(last)?.saturating_sub(now), u64::from(days) * DAY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = DAY_SECONDS;

    fn every(days: u16) -> EpochRule {
        EpochRule::Every(Period::of_days(days).unwrap())
    }

    proptest! {
        #[test]
        fn nodes_that_turn_by_the_calendar_agree_whatever_they_saw_before(
            days in 1..=Period::MAX_DAYS, now in 0..100_000 * DAY, earlier in 0..100_000 * DAY,
        ) {
            let rule = every(days);
            let fresh = rule.number(None, Some(now));
            let ran_for_long = rule.number(Some(rule.number(None, Some(earlier.min(now)))), Some(now));
            let without_clock = rule.number(Some(rule.number(None, None)), Some(now));
            prop_assert_eq!(fresh, ran_for_long);
            prop_assert_eq!(fresh, without_clock);
            prop_assert_eq!(fresh, rule.number(Some(7), Some(now)), "a number of the operator's is none of the calendar's");
        }

        #[test]
        fn an_epoch_goes_back_only_from_where_no_clock_that_is_right_has_led(
            steps in prop::collection::vec((1..=Period::MAX_DAYS, prop::option::of(0..100_000 * DAY)), 1..20),
        ) {
            let mut last = every(1).number(None, Some(0));
            for (days, now) in steps {
                let next = every(days).number(Some(last), now);
                match now {
                    None => prop_assert_eq!(next, last, "it turns by a clock that is not known to be right"),
                    Some(now) => {
                        let fresh = every(days).number(None, Some(now));
                        prop_assert!(next >= fresh && next - fresh <= u32::from(days), "it is never left");
                        prop_assert!(next >= last || last - fresh > u32::from(days), "it goes back");
                    }
                }
                last = next;
            }
        }

        #[test]
        fn an_epoch_lasts_until_it_turns_and_no_longer(
            days in 1..=Period::MAX_DAYS, now in DAY * u64::from(Period::MAX_DAYS)..100_000 * DAY,
        ) {
            let rule = every(days);
            let number = rule.number(None, Some(now));
            let turns = rule.turns(number).unwrap();
            prop_assert!(turns > now);
            prop_assert_eq!(rule.number(Some(number), Some(turns - 1)), number);
            prop_assert!(rule.number(Some(number), Some(turns)) > number);
        }
    }

    #[test]
    fn an_epoch_turns_at_midnight_and_lasts_for_its_period() {
        let at = |now| every(90).number(None, Some(now));
        assert_eq!(at(20_430 * DAY), CALENDAR + 20_430);
        assert_eq!(at(20_520 * DAY - 1), CALENDAR + 20_430);
        assert_eq!(at(20_520 * DAY), CALENDAR + 20_520);
        assert_eq!(every(1).number(None, Some(u64::MAX)), u32::MAX);
    }

    #[test]
    fn without_a_clock_the_last_number_stays_of_whichever_form_and_the_first_one_is_the_same_on_all_nodes() {
        assert_eq!(every(90).number(Some(3), None), 3);
        assert_eq!(every(90).number(Some(CALENDAR + 5), None), CALENDAR + 5);
        assert_eq!(every(90).number(None, None), every(30).number(None, None));
        assert_eq!(EpochRule::Number(4).number(Some(CALENDAR + 5), None), 4);
        assert_eq!(
            (every(90).turns(FIRST), every(90).turns(3), EpochRule::Number(4).turns(u32::MAX)),
            (None, None, None)
        );
    }

    #[test]
    fn a_turn_is_told_thirty_seven_and_one_day_before() {
        let number = every(90).number(None, Some(20_430 * DAY));
        let told = [20_489, 20_490, 20_513, 20_519].map(|day| every(90).is_near(number, day * DAY));
        assert_eq!(told, [None, Some(30), Some(7), Some(1)]);
        assert_eq!(every(1).is_near(number, 20_430 * DAY), None, "it turns each day");
    }

    #[test]
    fn a_period_is_written_in_one_way() {
        for fine in ["every 1d", "every 90d", "every 3650d"] {
            assert_eq!(EpochRule::Every(Period::parse(fine).unwrap()).to_string(), fine);
        }
        for wrong in [
            "every 0d",
            "every 5s",
            "every 20y",
            "every 3651d",
            "every -1d",
            "every +1d",
            "every 090d",
            "90d",
            "every d",
        ] {
            assert_eq!(Period::parse(wrong), None, "{wrong}");
        }
    }
}
