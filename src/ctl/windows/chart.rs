//! Windows as text: a table with a bar for each. Pure.

use std::fmt::Write;

use super::compute::Window;
use crate::ctl::output::time;
use crate::types::clock::UnixSeconds;

/// Characters of a bar.
const BAR: usize = 40;
/// Characters of a label; a longer one keeps its beginning and its end.
const LABEL: usize = 44;

/// Where a bar begins and ends, in parts of `parts`, with one part at least.
pub(super) fn place(window: &Window, all: &[Window], now: UnixSeconds, parts: usize) -> (usize, usize) {
    let begin = all.iter().map(|window| window.from).min().unwrap_or(now);
    let whole = now.saturating_sub(begin).max(1);
    let at = |moment: UnixSeconds| {
        let part = u128::from(moment.saturating_sub(begin)) * parts as u128 / u128::from(whole);
        usize::try_from(part).unwrap_or(parts).min(parts)
    };
    let from = at(window.from).min(parts.saturating_sub(1));
    (from, at(window.until.unwrap_or(now)).max(from + 1))
}

pub(super) fn text(windows: &[Window], now: UnixSeconds) -> String {
    let mut text = format!("{:<LABEL$}  {:<20}  {:<20}  {:>9}\n", "KEY", "NEEDED FROM", "UNTIL", "OBJECTS");
    for window in windows {
        let until = window.until.map_or_else(|| "now".to_owned(), time);
        let (from, to) = place(window, windows, now, BAR);
        let bar = format!("{}{}{}", " ".repeat(from), "#".repeat(to - from), " ".repeat(BAR - to));
        let label = short(&window.subject.label());
        let _ =
            writeln!(text, "{label:<LABEL$}  {:<20}  {until:<20}  {:>9}  |{bar}|", time(window.from), window.objects);
    }
    text.truncate(text.trim_end().len());
    text
}

fn short(label: &str) -> String {
    let count = label.chars().count();
    if count <= LABEL {
        return label.to_owned();
    }
    let head: String = label.chars().take(LABEL / 2 - 1).collect();
    let tail: String = label.chars().skip(count - LABEL / 2).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::super::compute::Subject;
    use super::*;

    fn window(from: u64, until: Option<u64>) -> Window {
        Window { subject: Subject::Kek("ab".repeat(16)), from, until, objects: 1 }
    }

    #[test]
    fn a_bar_lies_where_its_window_does_and_is_never_empty() {
        let all = [window(0, Some(50)), window(50, None), window(100, None)];
        let places: Vec<_> = all.iter().map(|one| place(one, &all, 100, 40)).collect();
        assert_eq!(places, [(0, 20), (20, 40), (39, 40)]);
        // A clock that was set back since.
        assert_eq!(place(&window(500, Some(600)), &all, 100, 40), (39, 40));
        assert_eq!(place(&all[0], &[], 0, 40), (0, 40));
    }

    #[test]
    fn a_line_has_its_label_cut_in_the_middle_its_times_and_its_bar() {
        let long = Window {
            subject: Subject::Key {
                kind: "aws".into(),
                identity: "arn:".to_owned() + &"x".repeat(90),
                version: "v7".into(),
            },
            ..window(0, None)
        };
        let text = text(&[window(0, Some(86_400)), long], 172_800);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with(&format!("KEK {}", "ab".repeat(16))) && lines[1].contains("1970-01-02T00:00:00Z"));
        assert!(lines[1].ends_with(&format!("|{}{}|", "#".repeat(20), " ".repeat(20))), "{}", lines[1]);
        assert!(lines[2].contains('…') && lines[2].contains("v7") && lines[2].contains("now"), "{}", lines[2]);
    }
}
