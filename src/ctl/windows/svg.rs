//! Windows as a drawing: SVG 1.1 with text and rectangles alone, no script and nothing from elsewhere. Pure.

use std::fmt::Write;

use super::chart::place;
use super::compute::Window;
use crate::ctl::output::time;
use crate::types::clock::UnixSeconds;

/// Pixels.
const WIDTH: usize = 960;
const LABELS: usize = 420;
const LINE: usize = 24;
const BAR: usize = WIDTH - LABELS - 20;

pub(super) fn drawing(windows: &[Window], now: UnixSeconds) -> String {
    let height = (windows.len() + 2) * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"monospace\" font-size=\"11\">\n<title>Keys that objects in etcd have needed</title>\n"
    );
    for (line, window) in windows.iter().enumerate() {
        let top = (line + 1) * LINE;
        let (from, to) = place(window, windows, now, BAR);
        let colour = if window.until.is_some() { "#9aa5b1" } else { "#2f6f4e" };
        let until = window.until.map_or_else(|| "now".to_owned(), time);
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{}\">{}</text>\n<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{colour}\">\
             <title>{} to {until}, {} objects</title></rect>",
            top + 15,
            escaped(&window.subject.label()),
            LABELS + from,
            top + 5,
            to - from,
            LINE - 10,
            time(window.from),
            window.objects
        );
    }
    let begin = windows.iter().map(|window| window.from).min().unwrap_or(now);
    let _ = writeln!(
        svg,
        "<text x=\"{LABELS}\" y=\"15\">{}</text>\n<text x=\"{}\" y=\"15\" text-anchor=\"end\">{}</text>\n</svg>",
        time(begin),
        LABELS + BAR,
        time(now)
    );
    svg
}

/// As text of XML 1.0 (§2.4). Characters that XML cannot have are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::compute::Subject;
    use super::*;

    #[test]
    fn a_drawing_has_a_bar_for_each_window_and_no_name_breaks_out_of_its_text() {
        let subject = Subject::Key { kind: "vault".into(), identity: "<script>&\u{7}".into(), version: "1".into() };
        let open = Window { subject, from: 0, until: None, objects: 2 };
        let ended = Window { subject: Subject::Kek("ab".into()), from: 10, until: Some(20), objects: 0 };
        let svg = drawing(&[open, ended], 40);
        assert_eq!((svg.matches("<rect").count(), svg.matches("</svg>").count()), (2, 1));
        assert!(svg.contains("&lt;script&gt;&amp; 1") && !svg.contains("<script"), "{svg}");
        assert!(svg.contains("1970-01-01T00:00:10Z to 1970-01-01T00:00:20Z, 0 objects"));
    }
}
