//! How many calls of kube-apiserver are under way, so that others let them go first.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls that have begun and not ended.
#[derive(Default)]
pub(super) struct Serving(AtomicUsize);

/// One of them, until it drops.
pub(super) struct Call<'a>(&'a AtomicUsize);

impl Serving {
    pub(super) fn begin(&self) -> Call<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Call(&self.0)
    }

    pub(super) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_until_it_ends() {
        let serving = Serving::default();
        let (one, other) = (serving.begin(), serving.begin());
        drop(one);
        assert!(serving.is_any());
        drop(other);
        assert!(!serving.is_any());
    }
}
