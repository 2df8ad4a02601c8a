//! What was tried and what came of it, in lines that an operator can read and send on.

use std::fmt;
use std::time::Duration;

/// One thing that was tried.
#[derive(Debug)]
pub struct Line {
    /// As a sentence.
    pub tried: String,
    /// A remark, or what was seen instead.
    pub outcome: Result<String, String>,
}

/// Everything, in the order in which it was tried.
#[derive(Debug, Default)]
pub struct Report {
    /// What was tried.
    pub lines: Vec<Line>,
}

impl Report {
    /// Adds a line.
    pub fn add(&mut self, tried: &str, outcome: Result<String, String>) {
        self.lines.push(Line { tried: tried.to_owned(), outcome });
    }

    /// Lines that failed.
    pub fn failed(&self) -> usize {
        self.lines.iter().filter(|line| line.outcome.is_err()).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Line { tried, outcome }) in (1..).zip(&self.lines) {
            match outcome {
                Ok(remark) if remark.is_empty() => writeln!(f, "{number:>3}. {tried}: ok")?,
                Ok(remark) => writeln!(f, "{number:>3}. {tried}: ok ({remark})")?,
                Err(seen) => writeln!(f, "{number:>3}. {tried}: FAILED: {seen}")?,
            }
        }
        match self.failed() {
            0 => write!(f, "all {} passed", self.lines.len()),
            failed => write!(f, "{failed} of {} FAILED", self.lines.len()),
        }
    }
}

/// Shortest, middle and longest.
pub fn figures(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |index: usize| times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    format!(
        "{} times: {:.1} ms, {:.1} ms, {:.1} ms (least, median, most)",
        times.len(),
        at(0),
        at(times.len() / 2),
        at(times.len().saturating_sub(1))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_numbers_its_lines_and_says_what_failed() {
        let mut report = Report::default();
        report.add("one", Ok(String::new()));
        report.add("two", Ok("3 bytes".to_owned()));
        assert_eq!(report.to_string(), "  1. one: ok\n  2. two: ok (3 bytes)\nall 2 passed");
        report.add("three", Err("E-FMT".to_owned()));
        assert!(report.to_string().ends_with("  3. three: FAILED: E-FMT\n1 of 3 FAILED"));
    }

    #[test]
    fn figures_are_in_order() {
        let times = [3, 1, 2].map(Duration::from_millis).to_vec();
        assert_eq!(figures(times), "3 times: 1.0 ms, 2.0 ms, 3.0 ms (least, median, most)");
        assert!(figures(Vec::new()).starts_with("0 times"));
    }
}
