//! A line that moves, on a terminal alone: objects, objects a second, time left.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines.
const EVERY: Duration = Duration::from_millis(200);
/// Objects between two looks at the clock.
const LOOK_EVERY: u64 = 256;
const BAR: usize = 24;

pub(super) struct Progress {
    total: u64,
    done: u64,
    begun: Instant,
    shown: Option<Instant>,
    is_on: bool,
}

impl Progress {
    /// Of so many objects, as far as is known.
    pub(super) fn new(total: u64, is_on: bool) -> Self {
        let is_on = is_on && io::stderr().is_terminal();
        Self { total, done: 0, begun: Instant::now(), shown: None, is_on }
    }

    pub(super) fn step(&mut self) {
        self.done += 1;
        if !self.is_on || !self.done.is_multiple_of(LOOK_EVERY) {
            return;
        }
        let now = Instant::now();
        if self.shown.is_none_or(|shown| now - shown >= EVERY) {
            self.shown = Some(now);
            let line = line(self.done, self.total, now - self.begun);
            // A terminal that is gone needs nothing.
            let _ = write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, took: Duration) -> String {
    let rate = done * 1000 / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    // Written to meanwhile, an etcd has more than it had.
    let total = total.max(done);
    let filled = usize::try_from(done * BAR as u64 / total.max(1)).unwrap_or(BAR);
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled));
    let left = (total - done) / rate.max(1);
    format!("[{bar}] {done} of {total} objects, {rate}/s, {left} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_how_fast_and_how_long_yet() {
        let expected = "[######..................] 2500 of 10000 objects, 1250/s, 6 s left";
        assert_eq!(line(2500, 10_000, Duration::from_secs(2)), expected);
        assert!(line(12, 10, Duration::ZERO).ends_with("12 of 12 objects, 12000/s, 0 s left"));
    }
}
