//! Which version of a key counts, and which key a provider has: what probes see becomes part of the key_id only after it has stayed for
//! a while, and a version that was left never comes back. Pure; the time comes in.
//!
//! The same rules on all nodes let their key_ids move within one activation delay of each other; that nodes disagree for that long
//! is harmless, since each decrypts what the other wrote.
//!
//! ```
//! use std::time::Duration;
//!
//! use nodeseal::provider::observed::{Observation, Observed};
//! use nodeseal::provider::{KeyIdentity, KeyState, KeyVersion, TextError};
//!
//! let state = |version: &str| {
//!     Ok::<_, TextError>(KeyState { identity: KeyIdentity::new("key")?, version: KeyVersion::new(version)? })
//! };
//! let mut observed = Observed::new(state("1")?);
//! let mut see = |version: &str, second| {
//!     Ok::<_, TextError>(observed.observe(state(version)?, Duration::from_secs(120), Duration::from_secs(second)))
//! };
//! // Somebody has rotated the key. Three probes that agree, and two minutes, make it count.
//! assert_eq!([see("2", 0)?, see("2", 60)?, see("2", 120)?], [Observation::Waiting, Observation::Waiting, Observation::Moved]);
//! // An old replica answers. What was left does not come back.
//! assert_eq!(see("1", 180)?, Observation::WentBack(KeyVersion::new("1")?));
//! # Ok::<(), TextError>(())
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::{KeyIdentity, KeyState, KeyVersion};

/// Probes in a row that must agree.
const AGREEING_PROBES: u32 = 3;

/// What a probe has brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The version that counts was seen.
    Same,
    /// Another one was seen, and has to stay for longer.
    Waiting,
    /// Another one counts from now on.
    Moved,
    /// A version that was left is reported again: a restored backup, an old replica, or somebody's mistake. It does not count.
    WentBack(KeyVersion),
}

/// The versions of one key over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    current: KeyState,
    left: BTreeSet<(String, String)>,
    candidate: Option<Candidate>,
}

/// Another key or version than the one that counts, which has to stay for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    state: KeyState,
    since: Duration,
    probes: u32,
}

impl Candidate {
    /// Seen now; `before` is what was seen last, if that was not what counts.
    pub fn seen(before: Option<Self>, state: KeyState, now: Duration) -> Self {
        match before.filter(|before| before.state == state) {
            Some(before) => Self { probes: before.probes + 1, ..before },
            None => Self { state, since: now, probes: 1 },
        }
    }

    /// Whether it counts from now on.
    pub fn has_stayed(&self, activation_delay: Duration, now: Duration) -> bool {
        self.probes >= AGREEING_PROBES && now.saturating_sub(self.since) >= activation_delay
    }
}

impl Observed {
    /// The first version that was ever seen counts at once.
    pub const fn new(current: KeyState) -> Self {
        Self { current, left: BTreeSet::new(), candidate: None }
    }

    /// From what was stored.
    pub fn from_parts(current: KeyState, left: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { current, left: left.into_iter().collect(), candidate: None }
    }

    /// What counts.
    pub const fn current(&self) -> &KeyState {
        &self.current
    }

    /// What was left, as identity and version; to be stored.
    pub fn left(&self) -> impl Iterator<Item = &(String, String)> {
        self.left.iter()
    }

    /// Whether this version was left.
    pub fn has_left(&self, identity: &KeyIdentity, version: &KeyVersion) -> bool {
        self.left.iter().any(|left| (left.0.as_str(), left.1.as_str()) == (identity.as_str(), version.as_str()))
    }

    /// It has a record of its own, and was not left for good.
    pub(crate) fn count_again(&mut self, state: &KeyState) {
        self.left.remove(&parts(state));
    }

    /// What somebody else has noted of the same key. Of two versions the one counts that the other has not left.
    pub(crate) fn merge(&mut self, other: Self) {
        if other.left.contains(&parts(&self.current)) {
            self.current = other.current;
        }
        self.left.extend(other.left);
        self.left.remove(&parts(&self.current));
    }

    /// Takes a probe of this key in. A failed probe is no observation, and breaks no row: an outage is not a change.
    pub fn observe(&mut self, seen: KeyState, activation_delay: Duration, now: Duration) -> Observation {
        if seen == self.current {
            self.candidate = None;
            return Observation::Same;
        }
        if self.left.contains(&parts(&seen)) {
            self.candidate = None;
            return Observation::WentBack(seen.version);
        }
        let candidate = Candidate::seen(self.candidate.take(), seen, now);
        if !candidate.has_stayed(activation_delay, now) {
            self.candidate = Some(candidate);
            return Observation::Waiting;
        }
        let former = std::mem::replace(&mut self.current, candidate.state);
        self.left.insert(parts(&former));
        Observation::Moved
    }
}

fn parts(state: &KeyState) -> (String, String) {
    (state.identity.as_str().to_owned(), state.version.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(120);

    fn state(identity: &str, version: &str) -> KeyState {
        KeyState { identity: KeyIdentity::new(identity).unwrap(), version: KeyVersion::new(version).unwrap() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_new_version_counts_after_the_delay_and_three_probes_that_agree() {
        let mut observed = Observed::new(state("k", "1"));
        let mut see = |version: &str, now| observed.observe(state("k", version), DELAY, at(now));
        assert_eq!(
            (see("1", 0), see("2", 60), see("2", 120)),
            (Observation::Same, Observation::Waiting, Observation::Waiting)
        );
        assert_eq!(see("2", 179), Observation::Waiting, "three probes, and not long enough");
        assert_eq!(see("2", 180), Observation::Moved);
        assert_eq!(see("2", 240), Observation::Same);
        // Long enough, and one probe only.
        assert_eq!((see("3", 300), see("3", 900)), (Observation::Waiting, Observation::Waiting));
        assert_eq!(see("3", 901), Observation::Moved);
    }

    #[test]
    fn a_version_that_flickers_never_counts() {
        let mut observed = Observed::new(state("k", "1"));
        for round in 0..100 {
            assert_eq!(observed.observe(state("k", "2"), DELAY, at(round * 120)), Observation::Waiting);
            assert_eq!(observed.observe(state("k", "1"), DELAY, at(round * 120 + 60)), Observation::Same);
        }
    }

    #[test]
    fn what_was_left_never_comes_back_not_even_after_a_restart() {
        let mut observed = Observed::new(state("k", "1"));
        (0..3).for_each(|probe| drop(observed.observe(state("k", "2"), DELAY, at(probe * 60))));
        assert_eq!(observed.current(), &state("k", "2"));
        let mut again = Observed::from_parts(observed.current().clone(), observed.left().cloned());
        for probe in 0..10 {
            let seen = again.observe(state("k", "1"), DELAY, at(1000 + probe * 60));
            assert_eq!(seen, Observation::WentBack(KeyVersion::new("1").unwrap()));
        }
        assert_eq!(again, observed);
    }

    #[test]
    fn another_key_counts_after_the_delay_and_three_probes_that_agree_as_well() {
        let mut candidate = None;
        let mut see = |identity: &str, now| {
            candidate = Some(Candidate::seen(candidate.take(), state(identity, "1"), at(now)));
            candidate.as_ref().unwrap().has_stayed(DELAY, at(now))
        };
        assert_eq!([see("k", 0), see("k", 60), see("l", 120), see("l", 180), see("l", 239)], [false; 5]);
        assert!(see("l", 240));
    }
}
