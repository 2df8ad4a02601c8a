//! A line that is written again and again, on a terminal alone.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines.
const EVERY: Duration = Duration::from_millis(200);

pub(super) struct Shown {
    is_on: bool,
    last: Option<Instant>,
}

impl Shown {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_on: is_wanted && io::stderr().is_terminal(), last: None }
    }

    pub(super) fn line(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.is_on && self.last.is_none_or(|last| now - last >= EVERY) {
            self.last = Some(now);
            // A terminal that is gone needs nothing.
            let _ = write!(io::stderr(), "\r\x1b[K{}", text()).and_then(|()| io::stderr().flush());
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
