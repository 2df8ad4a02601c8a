//! What was found, for people and as JSON.

use std::io::{self, IsTerminal};

use serde::Serialize;

use super::check::Check;
use super::finding::{Finding, Impact, Outcome};
use crate::ctl::output::counted;
use crate::types::is_shown;

#[derive(Serialize)]
pub(super) struct Report {
    /// No check failed.
    ok: bool,
    counts: Counts,
    checks: Vec<Row>,
}

#[derive(Serialize)]
struct Counts {
    pass: usize,
    warn: usize,
    fail: usize,
    skip: usize,
}

#[derive(Serialize)]
struct Row {
    id: &'static str,
    title: &'static str,
    status: Outcome,
    impact: Impact,
    why: String,
    #[serde(rename = "do")]
    todo: Option<String>,
    page: String,
}

/// Colours are for a terminal, and for who has not asked for none (no-color.org: the variable is there, and not empty).
pub(super) fn is_coloured() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_refused
}

impl Report {
    pub(super) fn new(found: Vec<(&'static Check, Finding)>) -> Self {
        let row = |(check, finding): (&'static Check, Finding)| Row {
            id: check.id,
            title: check.title,
            status: finding.outcome,
            impact: check.impact,
            why: one_line(&finding.why),
            todo: finding.todo.as_deref().map(one_line),
            page: format!("docs/{}", check.page),
        };
        let checks: Vec<Row> = found.into_iter().map(row).collect();
        let count = |outcome| checks.iter().filter(|row| row.status == outcome).count();
        let counts = Counts {
            pass: count(Outcome::Pass),
            warn: count(Outcome::Warn),
            fail: count(Outcome::Fail),
            skip: count(Outcome::Skip),
        };
        Self { ok: counts.fail == 0, counts, checks }
    }

    pub(super) const fn count(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Pass => self.counts.pass,
            Outcome::Warn => self.counts.warn,
            Outcome::Fail => self.counts.fail,
            Outcome::Skip => self.counts.skip,
        }
    }

    pub(super) fn render(&self, is_coloured: bool) -> String {
        let mut text = String::new();
        for row in &self.checks {
            // ECMA-48, SGR: red, yellow, green, faint.
            let (word, colour) = match row.status {
                Outcome::Pass => ("pass", 32),
                Outcome::Warn => ("WARN", 33),
                Outcome::Fail => ("FAIL", 31),
                Outcome::Skip => ("skip", 2),
            };
            let word = if is_coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
            text += &format!("{word}  {}  {}: {}\n", row.id, row.title, row.why);
            if let Some(todo) = &row.todo {
                text += &format!("              do: {todo}\n              {}; see {}\n", row.impact.label(), row.page);
            }
        }
        let Counts { pass, warn, fail, skip } = self.counts;
        text + &format!(
            "{}: {pass} passed, {warn} warned, {fail} failed, {skip} skipped\n",
            counted(self.checks.len(), "check")
        )
    }
}

/// Names of files and words of others may hold anything: no line, colour or direction of theirs is shown.
fn one_line(text: &str) -> String {
    text.trim().chars().map(|sign| if is_shown(sign) { sign } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::doctor::table;

    fn report(finding: Finding) -> Report {
        Report::new(vec![(table::all()[0], finding)])
    }

    #[test]
    fn colours_are_only_where_they_are_wanted_and_what_others_say_brings_none() {
        let report = report(Finding::fail("a\x1b[31m\nb", "do\tit"));
        let plain = report.render(false);
        assert!(!plain.contains('\x1b') && plain.contains("a [31m b") && plain.contains("do: do it"), "{plain}");
        assert!(report.render(true).contains("\x1b[31mFAIL\x1b[0m"));
        assert!(!report.ok && report.count(Outcome::Fail) == 1);
    }

    #[test]
    fn a_warning_is_no_failure() {
        assert!(report(Finding::warn("a", "b")).ok);
    }

    #[test]
    fn no_name_of_others_turns_the_direction_of_a_line() {
        let report = report(Finding::fail("a\u{202e}b\u{2066}", "do\u{200b}"));
        assert!(report.render(false).chars().all(|sign| sign == '\n' || crate::types::is_shown(sign)));
    }
}
