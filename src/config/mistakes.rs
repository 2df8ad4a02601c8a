//! What serde says of a table, mistake by mistake. serde stops at the first one: it is told, it is taken out of the way, and the next one is
//! looked for. So a file with six mistakes is answered once.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

/// What takes the place of a value that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    /// Something of the right type, where the key must be there.
    Harmless,
    /// Nothing, where each key may be absent.
    Nothing,
}

/// The struct, if it could be read in the end, and the mistakes by the paths of their keys. `also`: keys at the top that are known and are
/// not of the struct.
pub(super) fn read<T: DeserializeOwned>(
    mut table: toml::Table,
    instead_of_it: Instead,
    also: &[&str],
) -> (Option<T>, BTreeMap<String, String>) {
    let mut told = BTreeMap::new();
    for _ in 0..TURNS_MAX {
        let error: toml::de::Error = match table.clone().try_into() {
            Ok(found) => return (Some(found), told),
            Err(error) => error,
        };
        let Mistake { path, text, instead } = Mistake::of(&error, also);
        told.entry(path.join(".")).or_insert(text);
        let instead = instead.filter(|_| instead_of_it == Instead::Harmless);
        if put(&mut table, &path, instead).is_none() {
            break;
        }
    }
    (None, told)
}

/// With the key that was meant most likely.
fn not_known(key: &str, known: &str, also: &[&str]) -> String {
    let all: Vec<&str> = also.iter().copied().chain(known.split('`').skip(1).step_by(2)).collect();
    let distance = |known: &&&str| strsim::damerau_levenshtein(key, known);
    match all.iter().min_by_key(distance).filter(|known| distance(known) <= LETTERS_MAX) {
        Some(nearest) => format!("is not a key here: did you mean `{nearest}`?"),
        None if all.is_empty() => "is not a key here".to_owned(),
        None => format!("is not a key here; these are: {}", all.join(", ")),
    }
}

/// More mistakes than a file has keys, each of which may have to be put right twice.
const TURNS_MAX: usize = 256;
/// Letters that may differ between a key and the one that was meant.
const LETTERS_MAX: usize = 2;

/// What serde says of a table, taken apart. The words are those of serde and toml; where they change, the key is told and the text is
/// theirs.
struct Mistake {
    path: Vec<String>,
    text: String,
    /// Nothing: the key is not known.
    instead: Option<toml::Value>,
}

impl Mistake {
    fn of(error: &toml::de::Error, also: &[&str]) -> Self {
        let message = error.message().lines().next().unwrap_or_default();
        let shown = error.to_string();
        let within = shown.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`')).unwrap_or_default();
        let mut path: Vec<String> = within.split('.').filter(|key| !key.is_empty()).map(ToOwned::to_owned).collect();
        let field = |start: &str| Some(message.strip_prefix(start)?.split_once('`')?.0.to_owned());
        if let Some(field) = field("missing field `") {
            path.push(field);
            let instead = Some(toml::Value::String(String::new()));
            return Self { path, text: "is missing".to_owned(), instead };
        }
        if let Some(field) = field("unknown field `") {
            let known = message.split_once(", ").map_or("", |(_, known)| known);
            let also = if path.is_empty() { also } else { &[] };
            let text = not_known(&field, known, also);
            path.push(field);
            return Self { path, text, instead: None };
        }
        let expected = message.rsplit_once("expected ").map_or("", |(_, expected)| expected);
        let instead = match expected {
            expected if expected.contains("string") => toml::Value::String(String::new()),
            expected if expected.contains("sequence") => toml::Value::Array(Vec::new()),
            expected if expected.contains("boolean") => toml::Value::Boolean(false),
            expected if expected.contains("struct") || expected.contains("map") => {
                toml::Value::Table(toml::Table::new())
            }
            _ => toml::Value::Integer(0),
        };
        Self { path, text: message.to_owned(), instead: Some(instead) }
    }
}

/// `None` where there is no such place.
fn put(table: &mut toml::Table, path: &[String], value: Option<toml::Value>) -> Option<()> {
    let (key, rest) = path.split_first()?;
    if rest.is_empty() {
        match value {
            Some(value) => table.insert(key.clone(), value),
            None => Some(table.remove(key)?),
        };
        return Some(());
    }
    put(table.get_mut(key)?.as_table_mut()?, rest, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_meant_is_named_if_there_is_one_and_else_all() {
        let known = "expected one of `socket`, `mode`, `apis`";
        assert_eq!(not_known("sokcet", known, &[]), "is not a key here: did you mean `socket`?");
        assert_eq!(not_known("timeout", known, &[]), "is not a key here; these are: socket, mode, apis");
        assert_eq!(not_known("name_", known, &["name"]), "is not a key here: did you mean `name`?");
        assert_eq!(not_known("x", "there are no fields", &[]), "is not a key here");
    }
}
