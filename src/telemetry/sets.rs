//! Durations by sets of labels that are known only as they occur, up to a bound: names of providers, operations, classes of failures.
//!
//! For what takes a network or a device anyway: a lock is held for a look through a short list, and only a set that is new allocates.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::OTHER;
use super::times::{Spread, Times};

/// Bounds of buckets.
const BUCKETS: usize = 6;
/// Nanoseconds in a millisecond.
const MILLI: u64 = 1_000_000;

/// See the module.
pub struct Sets {
    held: Mutex<Held>,
    bounds: [u64; BUCKETS],
    max: usize,
}

struct Held {
    sets: Vec<Set>,
    /// Of those that found no place.
    others: Times<BUCKETS>,
}

struct Set {
    name: Box<str>,
    operation: &'static str,
    class: &'static str,
    times: Times<BUCKETS>,
}

/// What was read of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Whose it is; empty where there is only one.
    pub name: String,
    /// What was asked.
    pub operation: &'static str,
    /// How it ended.
    pub class: &'static str,
    /// How long it took.
    pub spread: Spread,
}

impl Sets {
    /// None yet; at most `max`, and one for the others.
    pub const fn new(millis: &[u64; BUCKETS], max: usize) -> Self {
        let (mut bounds, mut at) = (*millis, 0);
        while at < BUCKETS {
            bounds[at] *= MILLI;
            at += 1;
        }
        Self { held: Mutex::new(Held { sets: Vec::new(), others: Times::new() }), bounds, max }
    }

    /// One more. `class`: [`super::WELL`], or that of the failure.
    pub fn note(&self, name: &str, operation: &'static str, class: &'static str, took: Duration) {
        let held = &mut *self.held();
        let is_it = |set: &Set| set.operation == operation && set.class == class && *set.name == *name;
        let set = match held.sets.iter().position(is_it) {
            Some(at) => held.sets.get(at),
            None if held.sets.len() < self.max => {
                held.sets.push(Set { name: name.into(), operation, class, times: Times::new() });
                held.sets.last()
            }
            None => None,
        };
        set.map_or(&held.others, |set| &set.times).note(&self.bounds, took);
    }

    /// What there is by now, in the order in which it occurred first.
    pub fn read(&self) -> Vec<Named> {
        let held = self.held();
        let read = |name: &str, operation, class, times: &Times<BUCKETS>| Named {
            name: name.to_owned(),
            operation,
            class,
            spread: times.read(&self.bounds),
        };
        let mut all: Vec<_> =
            held.sets.iter().map(|set| read(&set.name, set.operation, set.class, &set.times)).collect();
        let others = read(OTHER, OTHER, OTHER, &held.others);
        all.extend((others.spread.count() > 0).then_some(others));
        all
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Whole after every step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_has_its_own_times_up_to_the_bound_and_the_rest_is_counted_together() {
        let sets = Sets::new(&[1, 2, 3, 4, 5, 6], 2);
        assert_eq!(sets.read(), []);
        let took = Duration::from_micros(1500);
        for (name, operation, class) in [
            ("a", "wrap", "ok"),
            ("a", "wrap", "denied"),
            ("a", "wrap", "ok"),
            ("b", "wrap", "ok"),
            ("c", "wrap", "ok"),
        ] {
            sets.note(name, operation, class, took);
        }
        let read: Vec<_> =
            sets.read().into_iter().map(|named| (named.name, named.class, named.spread.count())).collect();
        assert_eq!(read, [("a".into(), "ok", 2), ("a".into(), "denied", 1), (OTHER.into(), OTHER, 2)]);
        assert_eq!(sets.read()[0].spread.within[1], (2 * MILLI, 2));
    }
}
