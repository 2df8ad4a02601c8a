//! Text for man(7). Everything that roff could take for a request or an escape is written so that it is shown instead.

/// As it is to be read. A full stop or an apostrophe at the begin of a line would be a request.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '^' => out.push_str("\\(ha"),
            '`' => out.push_str("\\(ga"),
            '~' => out.push_str("\\(ti"),
            '.' if out.is_empty() || out.ends_with('\n') => out.push_str("\\&."),
            c => out.push(c),
        }
    }
    out
}

/// A request's argument.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text).replace('"', "\\(dq"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_roff_would_obey_is_shown_instead() {
        assert_eq!(escape(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(escape("'br\n.br"), "\\(aqbr\n\\&.br");
        assert_eq!(escape(r"\fB--json"), r"\efB\-\-json");
        assert_eq!(quoted(r#"a "b""#), r#""a \(dqb\(dq""#);
    }
}
