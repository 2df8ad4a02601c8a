//! A page of docs/ as a page of man(7).
//!
//! It knows what those pages are written in: headings, paragraphs, lists, code, tables. A table of keys becomes a list of terms, since a
//! terminal is too narrow for it: the first cell is the term, each other one a sentence under its column's name. The target of a link
//! is left out: the pages lie side by side in the package's documentation.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::roff;
use crate::sections;

/// nodeseal.toml(5) from docs/configuration.md.
pub(crate) fn manual(markdown: &str, version: &str) -> String {
    let mut out = format!(
        ".TH nodeseal.toml 5 \"\" {} Nodeseal\n.SH NAME\nnodeseal.toml \\- configuration of nodeseald, nodeseal\\-sealer and nodeseal\n",
        roff::quoted(&format!("Nodeseal {version}"))
    );
    let mut writer = Writer::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        writer.take(event);
    }
    out.push_str(&writer.out);
    let mut more = Vec::new();
    // Into memory: cannot fail.
    if sections::append("nodeseal.toml", &mut more).is_ok() {
        out.push_str(&String::from_utf8_lossy(&more));
    }
    out
}

#[derive(Default)]
struct Writer {
    out: String,
    /// Of the paragraph, cell or heading that is open.
    text: String,
    /// Next number of an ordered list; `None` for one with bullets. The innermost last.
    lists: Vec<Option<u64>>,
    columns: Vec<String>,
    cells: Vec<String>,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text.push_str(&roff::escape(&text)),
            Event::Code(code) => self.text.push_str(&format!("\\fB{}\\fR", roff::escape(&code))),
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Strong => self.text.push_str("\\fB"),
            Tag::Emphasis => self.text.push_str("\\fI"),
            Tag::List(first) => self.lists.push(*first),
            Tag::Item => self.item(),
            Tag::Table(_) => self.columns.clear(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Strong | TagEnd::Emphasis => self.text.push_str("\\fR"),
            TagEnd::Heading(level) => self.heading(level),
            TagEnd::Paragraph if self.lists.is_empty() => self.flush(".PP"),
            TagEnd::Paragraph | TagEnd::Item => self.flush(""),
            TagEnd::CodeBlock => self.code(),
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.text)),
            TagEnd::TableHead => self.columns = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    /// The open text after this request, unless there is none.
    fn flush(&mut self, request: &str) {
        let text = std::mem::take(&mut self.text);
        if text.trim().is_empty() {
            return;
        }
        if !request.is_empty() {
            self.line(request);
        }
        self.line(text.trim());
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn heading(&mut self, level: HeadingLevel) {
        let text = std::mem::take(&mut self.text).replace("\\fB", "").replace("\\fR", "").replace('"', "\\(dq");
        match level {
            HeadingLevel::H1 => self.line(".SH DESCRIPTION"),
            HeadingLevel::H2 => self.line(&format!(".SH \"{}\"", text.to_uppercase())),
            _ => self.line(&format!(".SS \"{text}\"")),
        }
    }

    fn item(&mut self) {
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!(".IP {}. 4", *number - 1)
            }
            _ => ".IP \\(bu 2".to_owned(),
        };
        self.line(&mark);
    }

    fn code(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.line(".PP\n.in +4n\n.EX");
        self.line(text.trim_end());
        self.line(".EE\n.in");
    }

    /// A term and, below it, what the columns say of it. A row without a first cell goes on with the term before.
    fn row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        let Some((term, rest)) = cells.split_first() else { return };
        if !term.is_empty() {
            self.line(&format!(".TP\n{term}"));
        } else {
            self.line(".sp 0");
        }
        let columns = self.columns.get(1..).unwrap_or_default().to_owned();
        for (column, cell) in columns.iter().zip(rest).filter(|(_, cell)| !cell.is_empty() && cell.as_str() != "–") {
            self.line(&format!("\\fI{column}:\\fR {cell}"));
            self.line(".br");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(markdown: &str) -> String {
        let mut writer = Writer::default();
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            writer.take(event);
        }
        writer.out
    }

    #[test]
    fn a_row_of_a_table_is_a_term_with_its_columns_by_name() {
        let text = body("| key | type | default |\n|---|---|---|\n| `a-b` | text | – |\n");
        assert_eq!(text, ".TP\n\\fBa\\-b\\fR\n\\fItype:\\fR text\n.br\n");
    }

    #[test]
    fn code_is_shown_as_it_is() {
        assert_eq!(body("```toml\n.a = 1\n```\n"), ".PP\n.in +4n\n.EX\n\\&.a = 1\n.EE\n.in\n");
    }

    #[test]
    fn lists_are_bulleted_or_numbered() {
        assert_eq!(body("1. one\n2. two\n"), ".IP 1. 4\none\n.IP 2. 4\ntwo\n");
        assert_eq!(body("* one\n"), ".IP \\(bu 2\none\n");
    }

    #[test]
    fn every_key_of_the_page_is_in_the_manual() {
        let page = std::fs::read_to_string(crate::CONFIGURATION).unwrap();
        let manual = manual(&page, "0.0.0");
        let keys: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).collect();
        assert!(keys.len() > 20, "the page has tables of keys");
        for (key, _) in keys {
            let term = format!(".TP\n\\fB{}\\fR", roff::escape(key));
            assert!(manual.contains(&term), "{key}");
        }
    }
}
