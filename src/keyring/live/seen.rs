//! Which keys the providers have used in mode "direct", as far as the keeper is to hear of it: the same ones again within moments are no news,
//! and each text would wake it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::provider::KeyState;
use crate::types::lock;

/// Three sights of a new version in a row make it count (`provider::observed`): they take moments, whatever the rate.
const AGAIN: Duration = Duration::from_millis(100);

/// Keys by their providers' names.
type Keys = Vec<(String, KeyState)>;

/// What the keeper was told last, and when.
#[derive(Default)]
pub(super) struct Seen(Mutex<Option<(Instant, Keys)>>);

impl Seen {
    /// What the keeper is to be told of these.
    pub(super) fn news(&self, keys: Keys) -> Option<Keys> {
        let now = Instant::now();
        let mut last = lock::lock(&self.0);
        if last.as_ref().is_some_and(|(at, told)| now - *at < AGAIN && *told == keys) {
            return None;
        }
        *last = Some((now, keys.clone()));
        Some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{KeyIdentity, KeyVersion};

    #[test]
    fn a_new_version_is_news_at_once_and_the_same_one_after_a_while() {
        let seen = Seen::default();
        let keys = |version: &str| {
            let (identity, version) = (KeyIdentity::new("k").unwrap(), KeyVersion::new(version).unwrap());
            vec![("v".to_owned(), KeyState { identity, version })]
        };
        assert!(seen.news(keys("1")).is_some());
        let again = (0..1000).filter(|_| seen.news(keys("1")).is_some()).count();
        assert!(again < 10, "{again}");
        assert_eq!(seen.news(keys("2")), Some(keys("2")));
        *seen.0.lock().unwrap() = Some((Instant::now() - AGAIN, keys("2")));
        assert!(seen.news(keys("2")).is_some());
    }
}
