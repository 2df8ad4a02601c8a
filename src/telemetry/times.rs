//! How long things took: counts in buckets with fixed bounds, and the sum. Any number of threads add without waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Durations of one kind. The bounds are the caller's, the same for each call.
#[derive(Debug)]
pub struct Times<const N: usize> {
    within: [AtomicU64; N],
    above: AtomicU64,
    /// 584 years fit.
    nanos: AtomicU64,
}

/// What was read of [`Times`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Upper bound in nanoseconds, and how many took no longer, and longer than the bound before.
    pub within: Vec<(u64, u64)>,
    /// How many took longer than any bound.
    pub above: u64,
    /// All of them together, in nanoseconds.
    pub nanos: u64,
}

impl<const N: usize> Times<N> {
    /// None yet.
    pub const fn new() -> Self {
        Self { within: [const { AtomicU64::new(0) }; N], above: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    /// One more. `bounds` are nanoseconds, and rise.
    pub fn note(&self, bounds: &[u64; N], took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = bounds.iter().position(|bound| nanos <= *bound);
        let bucket = place.and_then(|place| self.within.get(place)).unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What there is by now. Sum and counts may be one call apart.
    pub fn read(&self, bounds: &[u64; N]) -> Spread {
        let counts = self.within.iter().map(|count| count.load(Ordering::Relaxed));
        Spread {
            within: bounds.iter().copied().zip(counts).collect(),
            above: self.above.load(Ordering::Relaxed),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

impl<const N: usize> Default for Times<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl Spread {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.within.iter().map(|(_, count)| count).sum::<u64>() + self.above
    }

    /// Both together, with the same bounds.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        if self.within.is_empty() {
            return other.clone();
        }
        for ((_, count), (_, more)) in self.within.iter_mut().zip(&other.within) {
            *count += more;
        }
        self.above += other.above;
        self.nanos = self.nanos.saturating_add(other.nanos);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 2] = [1_000_000, 2_000_000];

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_is_not_longer_than() {
        let times = Times::new();
        for micros in [0, 1000, 1001, 2000, 2001, 5_000_000] {
            times.note(&BOUNDS, Duration::from_micros(micros));
        }
        let spread = times.read(&BOUNDS);
        assert_eq!(spread, Spread { within: vec![(BOUNDS[0], 2), (BOUNDS[1], 2)], above: 2, nanos: 5_006_002_000 });
        assert_eq!(spread.clone().and(&spread).count(), 12);
        assert_eq!(Spread::default().and(&spread), spread);
    }
}
