//! The journal's catalogue is made of the page of events and of the ids in the code: each event once, and no other.

use std::collections::BTreeMap;
use std::fmt::Write;

use nodeseal::audit::catalog::MESSAGE_IDS;

use super::read;

const CATALOG: &str = "systemd/nodeseal.catalog";

/// Cells of the rows of events, by name: level, fields, meaning, what to do.
fn rows(page: &str) -> BTreeMap<&str, Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows = rows.filter(|(name, _)| name.contains('.') && !name.contains('`'));
    rows.map(|(name, rest)| (name, rest.trim_end_matches('|').split(" | ").map(str::trim).collect())).collect()
}

/// Without the signs of Markdown: a terminal shows it.
fn plain(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell;
    while let Some((before, link)) = rest.split_once('[') {
        let (words, after) = link.split_once("](").expect(cell);
        let (_, after) = after.split_once(')').expect(cell);
        text.push_str(before);
        text.push_str(words);
        rest = after;
    }
    text.push_str(rest);
    text.replace(['`', '*'], "")
}

fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let end = if text.ends_with(['.', ':']) { "" } else { "." };
    format!("{}{rest}{end}", first.to_uppercase())
}

/// As wide as a terminal.
fn filled(text: &str) -> String {
    const COLUMNS: usize = 80;
    let (mut out, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.chars().count() > COLUMNS {
            out.push('\n');
            width = 0;
        }
        if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += word.chars().count();
    }
    out
}

fn expected() -> String {
    let page = read("docs/audit-events.md");
    let rows = rows(&page);
    let mut text =
        "# What `journalctl -x` says of each event. Made of docs/audit-events.md by tests/house/catalog.rs:\n\
                    # NODESEAL_WRITE=1 cargo test --test house catalog\n"
            .to_owned();
    for (event, id) in MESSAGE_IDS {
        let cells = rows.get(event).unwrap_or_else(|| panic!("docs/audit-events.md has no row for {event}"));
        let [_, fields, meaning, todo] = cells[..] else { panic!("{event}: {cells:?}") };
        let _ = write!(text, "\n-- {id}\nSubject: Nodeseal: {event}\nDefined-By: Nodeseal\n");
        let _ = write!(text, "Documentation: file:///usr/share/doc/nodeseal/audit-events.md\n\n");
        let _ = writeln!(text, "{}\n", filled(&sentence(&plain(meaning))));
        let _ = writeln!(text, "{}", filled(&format!("What to do: {}", plain(todo))));
        // Where the event says itself what is best in this case.
        if fields.contains("`hint`") && *event != "sandbox.applied" {
            let _ = writeln!(text, "\nHint: @NODESEAL_HINT@");
        }
    }
    text
}

#[test]
fn the_catalogue_of_the_journal_is_made_of_the_page_of_events_and_has_each_of_them() {
    let page = read("docs/audit-events.md");
    let documented: Vec<_> = rows(&page).into_keys().collect();
    let known: Vec<_> = MESSAGE_IDS.iter().map(|(event, _)| *event).collect();
    assert_eq!(known, documented, "src/audit/catalog.rs and docs/audit-events.md");
    let expected = expected();
    if std::env::var_os("NODESEAL_WRITE").is_some() {
        std::fs::write(super::root().join(CATALOG), &expected).unwrap();
    }
    assert_eq!(read(CATALOG), expected, "write it anew: NODESEAL_WRITE=1 cargo test --test house catalog");
}

#[test]
fn signs_of_markdown_are_left_out_and_what_is_told_begins_and_ends_as_a_sentence() {
    assert_eq!(plain("run `x`, see [the page](a.md#b) **now**"), "run x, see the page now");
    assert_eq!(sentence("a key"), "A key.");
    assert!(filled(&"word ".repeat(40)).lines().all(|line| line.len() <= 80));
}
