//! On which line of the file a key stands.

use toml::de::{DeTable, DeValue};

use super::problems::Problem;

/// Each problem whose key stands there gets its line.
pub(super) fn find(text: &str, problems: &mut [Problem]) {
    // A text that is no TOML has no problems.
    let Ok(table) = DeTable::parse(text) else { return };
    for problem in problems {
        problem.line = start(table.get_ref(), &problem.key).map(|at| text[..at].lines().count().max(1));
    }
}

/// The byte behind the first letter of the last key of a path such as `provider[0].auth.method`.
fn start(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let (name, index) = match first.split_once('[') {
        Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse::<usize>().ok()?)),
        None => (first, None),
    };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref().as_ref() == name)?;
    let here = key.span().start + 1;
    let (value, here) = match (index, value.get_ref()) {
        (Some(index), DeValue::Array(array)) => {
            let one = array.get(index)?;
            (one.get_ref(), one.span().start + 1)
        }
        (Some(_), _) => return None,
        (None, value) => (value, here),
    };
    match (rest, value) {
        (None, _) => Some(here),
        (Some(rest), DeValue::Table(table)) => start(table, rest),
        (Some(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_line_and_what_is_missing_has_none() {
        let text = "version = 1\n[listen]\nsocket = \"/a\"\n[[provider]]\nname = \"a\"\n[[provider]]\nname = \"b\"\n\
                    auth = { method = \"x\" }\n";
        let keys =
            ["version", "listen.socket", "provider[1].name", "provider[1].auth.method", "provider[2].name", "seal.x"];
        let mut problems: Vec<Problem> = keys.iter().map(|key| Problem::new(key, "")).collect();
        find(text, &mut problems);
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(1), Some(3), Some(7), Some(8), None, None]);
    }
}
