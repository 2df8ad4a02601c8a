//! How long a provider usually takes, by its last answers.

use std::time::Duration;

use super::{ATTEMPT, Member};

/// Answers that are looked back on.
const LATENCIES: usize = 64;
/// What is usual before there are enough answers.
const USUAL_AT_FIRST: Duration = Duration::from_millis(200);
/// Answers that make a usual time.
const ENOUGH: usize = 8;

/// The last answers.
#[derive(Default)]
pub(super) struct Pace {
    latencies: Vec<Duration>,
    at: usize,
}

impl Pace {
    pub(super) fn remember(&mut self, latency: Duration) {
        if self.latencies.len() < LATENCIES {
            self.latencies.push(latency);
        } else {
            self.latencies[self.at % LATENCIES] = latency;
            self.at = (self.at + 1) % LATENCIES;
        }
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        if self.latencies.len() < ENOUGH {
            return USUAL_AT_FIRST;
        }
        let mut latencies = self.latencies.clone();
        latencies.sort();
        latencies[latencies.len() * percent / 100]
    }
}

impl Member {
    /// The 95th percentile of its last answers.
    pub(super) fn usual(&self) -> Duration {
        self.known().pace.percentile(95).min(ATTEMPT)
    }

    /// The middle of its last answers: single late ones do not make a provider a slow one.
    pub(super) fn pace(&self) -> Duration {
        self.known().pace.percentile(50)
    }
}
