//! What the programs can say: string literals of the code, and the comments that clap turns into `--help`.

use std::iter::Peekable;
use std::str::Chars;

/// Code that no test module follows. `#[cfg(test)] mod tests;` is a file of its own.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

fn is_of_tests(path: &str) -> bool {
    let names = ["tests.rs", "sim.rs"];
    let folders = ["/tests/", "/crash/", "/sim/"];
    names.iter().any(|name| path.ends_with(name)) || folders.iter().any(|folder| path.contains(folder))
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// To the end of the line, which is not taken.
    fn rest_of_line(&mut self) -> String {
        let mut rest = String::new();
        while self.chars.peek().is_some_and(|c| *c != '\n') {
            rest.extend(self.next());
        }
        rest
    }

    /// What stands between quotation marks, of which the first was taken. A line that ends in `\` goes on in the next.
    fn string(&mut self) -> String {
        let mut string = String::new();
        while let Some(c) = self.next() {
            match c {
                '"' => break,
                '\\' => match self.next() {
                    Some('n' | 't' | 'r') => string.push(' '),
                    Some('\n') => {
                        while self.chars.peek().is_some_and(|c| c.is_whitespace()) {
                            self.next();
                        }
                    }
                    Some(escaped) => string.push(escaped),
                    None => break,
                },
                _ => string.push(c),
            }
        }
        string
    }

    /// A raw string, from its `#`s on. Nothing if it is a raw identifier.
    fn raw(&mut self) -> Option<String> {
        let mut end = String::from("\"");
        while self.chars.peek() == Some(&'#') {
            end.extend(self.next());
        }
        self.chars.next_if_eq(&'"')?;
        let mut string = String::new();
        while !string.ends_with(&end) {
            string.push(self.next()?);
        }
        string.truncate(string.len() - end.len());
        Some(string)
    }

    /// A character like `'"'`, or a lifetime.
    fn character(&mut self) {
        if self.chars.next_if_eq(&'\\').is_some() {
            self.next();
            return;
        }
        let mut ahead = self.chars.clone();
        ahead.next();
        if ahead.next() == Some('\'') {
            self.next();
            self.next();
        }
    }
}

/// Lines and contents of the string literals of a source file, and of the comments of the command line.
pub(super) fn literals(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if is_of_tests(path) {
        return found;
    }
    let mut reader = Reader { chars: without_tests(text).chars().peekable(), line: 1 };
    let mut before = ' ';
    while let Some(c) = reader.next() {
        let line = reader.line;
        match c {
            '/' if reader.chars.peek() == Some(&'/') => {
                let comment = reader.rest_of_line();
                let help = comment.strip_prefix("// ").filter(|_| path.starts_with("src/ctl/args"));
                found.extend(help.map(|help| (line, help.to_owned())));
            }
            '"' => found.push((line, reader.string())),
            'r' if !before.is_alphanumeric() && before != '_' && matches!(reader.chars.peek(), Some('"' | '#')) => {
                found.extend(reader.raw().map(|string| (line, string)));
            }
            '\'' => reader.character(),
            _ => {}
        }
        before = c;
    }
    found
}

#[test]
fn literals_are_read_as_the_compiler_reads_them() {
    let text = "//! \"no\"\n/// \"no\"\nfn f<'a>(c: char) { // \"no\"\n    let q = '\"'; let e = '\\''; let b = b\"one\";\n\
                let s = \"two \\\"2\\\" \\\n        words\"; let r = r#\"three \"3\"\"#; let l: &'static str = \"four\";\n}\n\
                #[cfg(test)]\nmod tests {\n    \"no\"\n}\n";
    let expected = [(4, "one"), (5, "two \"2\" words"), (6, "three \"3\""), (6, "four")];
    assert_eq!(literals("src/a.rs", text), expected.map(|(line, string)| (line, string.to_owned())));
    assert_eq!(literals("src/a/tests.rs", text), []);
    let help = literals("src/ctl/args.rs", "/// Of the KEK\n//! no\n// no\nid: &'a str");
    assert_eq!(help, [(1, "Of the KEK".to_owned())]);
}
