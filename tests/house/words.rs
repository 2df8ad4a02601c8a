//! How the pages and messages are written: their width, the terms of docs/glossary.md, and the words that it bans.

use std::collections::BTreeSet;

use nodeseal::seal::fault::FaultCode;

use super::literals::literals;
use super::{files_below, read, sources};

/// Columns of prose. Tables, code, and what has no blank to break at may be wider.
const WIDTH_MAX: usize = 120;

/// What a page does not say, and what it says instead. The last table of docs/glossary.md is the same.
const BANNED: [(&str, &[&str]); 11] = [
    ("unreachable", &["is away", "are away"]),
    ("missing", &["owed", "debts"]),
    ("fix, repair", &["mend"]),
    ("again", &["anew"]),
    ("ciphertexts", &["texts"]),
    ("keeps", &["goes on"]),
    ("continue", &["go on with"]),
    ("activate", &["turn to", "turns to"]),
    ("inside, outside", &["inside of", "outside of"]),
    ("less often", &["seldom"]),
    ("Nodeseal", &["we", "us", "our", "ours"]),
];

/// What the programs print and pages show outside of code, in tables of errors.
const QUOTED: [&str; 1] = ["the provider limits our requests"];

/// A page may use this word all the same: it means something else there.
const EXCEPTED: [(&str, &str); 2] = [("SECURITY.md", "us"), ("docs/architecture.md", "texts")];

/// What messages and `--help` do not say. Fewer words than for pages: a literal may also be a name or a format.
const BANNED_IN_MESSAGES: [&str; 15] = [
    "are away",
    "debts",
    "outside of",
    "seldom",
    "is away",
    "mend",
    "anew",
    "goes on",
    "go on with",
    "turn to",
    "turns to",
    "inside of",
    "our",
    "ours",
    "texts",
];

fn pages() -> Vec<(String, String)> {
    let pages = files_below(".").into_iter().filter(|path| path.ends_with(".md"));
    pages.map(|path| (path.clone(), read(&path))).collect()
}

/// Numbers and texts of the lines outside of code blocks.
fn lines_of_prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((index + 1, line))
    })
}

fn width_breaches(path: &str, page: &str) -> Vec<String> {
    let is_too_wide = |line: &str| {
        let breakable = line.trim_start().trim_start_matches(['*', '-', ' ', '>']).contains(' ');
        line.chars().count() > WIDTH_MAX && breakable && !line.trim_start().starts_with('|')
    };
    let wide = lines_of_prose(page).filter(|(_, line)| is_too_wide(line));
    wide.map(|(number, line)| format!("{path}:{number}: {} columns", line.chars().count())).collect()
}

/// Paragraphs and rows of tables on one line each, without code, quotations of messages, and targets of links.
fn paragraphs(page: &str) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut last = 0;
    for (number, line) in lines_of_prose(page) {
        let continues = number == last + 1 && !line.trim().is_empty() && !line.starts_with('|');
        match paragraphs.last_mut() {
            Some((_, text)) if continues => {
                text.push(' ');
                text.push_str(line.trim());
            }
            _ => paragraphs.push((number, line.to_owned())),
        }
        last = if line.trim().is_empty() { 0 } else { number };
    }
    let without_code = |text: String| text.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let quoted = |text: String| {
        let messages = FaultCode::ALL.iter().map(|fault| fault.message()).chain(QUOTED);
        messages.fold(text, |text, message| text.replace(message, "…"))
    };
    let without_links = |text: String| {
        let mut parts = text.split("](");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + "]" + part.split_once(')').map_or("", |(_, rest)| rest))
    };
    paragraphs.into_iter().map(|(number, text)| (number, without_links(quoted(without_code(text))))).collect()
}

/// Whether a text has these words, as words, in small letters or at the beginning of a sentence.
fn has_words(text: &str, words: &str) -> bool {
    let mut capital = words.to_owned();
    capital[..1].make_ascii_uppercase();
    [words, &capital].iter().any(|words| {
        text.match_indices(*words).any(|(at, _)| {
            let is_letter = |c: char| c.is_alphanumeric() || c == '_';
            let before = text[..at].chars().next_back();
            // A point without a blank behind it is inside a name, such as that of an event.
            !before.is_some_and(|c| is_letter(c) || c == '.')
                && !text[at + words.len()..].chars().next().is_some_and(is_letter)
        })
    })
}

fn banned_in(path: &str, paragraphs: &[(usize, String)]) -> Vec<String> {
    let words = BANNED.iter().flat_map(|(say, not)| not.iter().map(move |word| (say, *word)));
    let allowed = words.filter(|(_, word)| !EXCEPTED.contains(&(path, *word)));
    allowed
        .flat_map(|(say, word)| {
            let found = paragraphs.iter().filter(move |(_, text)| has_words(text, word));
            found.map(move |(number, _)| format!("{path}:{number}: \"{word}\": say {say}"))
        })
        .collect()
}

#[test]
fn prose_is_no_wider_than_120_columns() {
    let breaches: Vec<_> = pages().iter().flat_map(|(path, page)| width_breaches(path, page)).collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn no_page_uses_a_word_that_the_glossary_bans() {
    let pages = pages();
    assert!(pages.len() > 30, "{}", pages.len());
    let checked = pages.iter().filter(|(path, _)| path != "docs/glossary.md");
    let breaches: Vec<_> = checked.flat_map(|(path, page)| banned_in(path, &paragraphs(page))).collect();
    assert!(breaches.is_empty(), "docs/glossary.md says what to say instead: {breaches:#?}");
}

#[test]
fn no_message_and_no_help_uses_a_word_that_is_banned_there() {
    let mut breaches = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        for (number, literal) in literals(&path, &text) {
            seen += 1;
            let words = BANNED_IN_MESSAGES.iter().filter(|word| has_words(&literal, word));
            breaches.extend(words.map(|word| format!("{path}:{number}: \"{word}\" in {literal:?}")));
        }
    }
    assert!(seen > 1000, "{seen}");
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn the_glossary_bans_the_words_that_are_tested() {
    let page = read("docs/glossary.md");
    let (_, table) = page.split_once("| say | not |\n|---|---|\n").unwrap();
    let rows: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let tested = BANNED.map(|(say, not)| format!("| {say} | `{}` |", not.join("`, `")));
    assert_eq!(rows, tested);
}

#[test]
fn every_term_of_the_glossary_is_used() {
    let glossary = read("docs/glossary.md");
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| **")?.split_once("** |"));
    let terms: Vec<_> = rows.flat_map(|(terms, _)| terms.split(", ")).collect();
    assert!(terms.len() > 50, "{terms:?}");
    let twice = terms.iter().copied().collect::<BTreeSet<_>>().len() < terms.len();
    assert!(!twice, "a term stands twice: {terms:?}");
    let others = pages().into_iter().filter(|(path, _)| path != "docs/glossary.md").chain(sources());
    let texts: Vec<_> = others.map(|(_, text)| text.to_lowercase()).collect();
    let unused = |term: &&&str| !texts.iter().any(|text| has_words(text, &term.to_lowercase()));
    let unused: Vec<_> = terms.iter().filter(unused).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn a_planted_wide_line_or_banned_word_is_found() {
    let wide = format!("* {}", "word ".repeat(30));
    let fine = [
        format!("| {} |", "cell ".repeat(40)),
        format!("```\n{wide}\n```"),
        format!("* <https://example.org/{}>", "x".repeat(200)),
        "word ".repeat(23),
    ];
    assert_eq!(width_breaches("a.md", &format!("\n{wide}\n")), ["a.md:2: 152 columns"]);
    for page in fine {
        assert_eq!(width_breaches("a.md", &page), [""; 0], "{page}");
    }
    let planted = [
        ("The key is\nmade anew.", "a.md:1: \"anew\": say again"),
        ("text\n\n| cell |\n| We do |", "a.md:4: \"we\": say Nodeseal"),
        ("It goes\non.", "a.md:1: \"goes on\": say keeps"),
        ("`code` of ours", "a.md:1: \"ours\": say Nodeseal"),
    ];
    for (page, expected) in planted {
        assert_eq!(banned_in("a.md", &paragraphs(page)), [expected], "{page}");
    }
    let fine = "`anew` is `made\nanew` by a [link](anew.md), renews, wefts, in the US\n```\nwe\n```\n\
                | `E-X` | the TPM answered with a code that we have no remedy for |";
    let message = FaultCode::Internal.message();
    let fine = fine.replace("the TPM answered with a code that we have no remedy for", message);
    assert_eq!(banned_in("a.md", &paragraphs(&fine)), [""; 0]);
}
