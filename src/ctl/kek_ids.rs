//! Ids of KEKs as people write them: whole, or as much of the beginning as tells one from all others.

use super::failed::Failed;
use super::output::{ask, unfit};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::keyring::keeper::KekRow;
use crate::types::{Class, Explain, KekId};

/// Digits. Fewer are a slip of the finger.
const BEGINNING_MIN: usize = 4;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BeginningError {
    #[error("there is no KEK whose id begins with {0}")]
    None(String),
    #[error("{0:?} is neither an id of a KEK nor its beginning")]
    Unfit(String),
    #[error("the ids of several KEKs begin like that: {0}")]
    Several(String),
}

const HINT: &str = "list the KEKs: `nodeseal keys list`; write enough of the id to make it unique";

const FORM: &str = "write its 32 hexadecimal digits, or 4 or more from the beginning: `nodeseal keys list` shows them";

/// The whole id.
pub(super) fn whole(config: &Config, text: String) -> Result<String, Failed> {
    if is_whole(&text)? {
        return Ok(text);
    }
    let Answer::Keys(table) = ask(config, &Request::KeysList {})? else { return Err(unfit()) };
    whole_of(&table.keys, text)
}

/// The same among these.
pub(super) fn whole_of(rows: &[KekRow], text: String) -> Result<String, Failed> {
    if is_whole(&text)? {
        return Ok(text);
    }
    resolve(rows, &text).map_err(|error| Failed::new(&Explain::new(&error, Class::NotFound, HINT)))
}

fn is_whole(text: &str) -> Result<bool, Failed> {
    if is_beginning(text) {
        return Ok(false);
    }
    let unfit = |_| Failed::new(&Explain::new(&BeginningError::Unfit(text.to_owned()), Class::NotFound, FORM));
    text.parse::<KekId>().map(|_| true).map_err(unfit)
}

fn is_beginning(text: &str) -> bool {
    let lengths = BEGINNING_MIN..2 * KekId::LEN;
    lengths.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn resolve(rows: &[KekRow], beginning: &str) -> Result<String, BeginningError> {
    let fitting: Vec<&str> = rows.iter().map(|row| row.id.as_str()).filter(|id| id.starts_with(beginning)).collect();
    match fitting[..] {
        [] => Err(BeginningError::None(beginning.to_owned())),
        [id] => Ok(id.to_owned()),
        _ => Err(BeginningError::Several(fitting.join(", "))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ctl) fn row(id: &str) -> KekRow {
        KekRow {
            id: id.to_owned(),
            state: "deactivated".to_owned(),
            key_id: String::new(),
            created: 0,
            since: 0,
            uses: 0,
            shared: false,
            wraps: 0,
            check: String::new(),
            must_be_shared: false,
            opened: None,
            may_return: false,
            under_key_id: false,
            objects: None,
            scanned: None,
            unneeded_since: None,
            written_until: 0,
        }
    }

    #[test]
    fn a_beginning_stands_for_the_one_kek_that_it_fits() {
        let ids = ["ab01".repeat(8), "ab02".repeat(8), "ab01".repeat(7) + "ffff"];
        let rows: Vec<KekRow> = ids.iter().map(|id| row(id)).collect();
        assert_eq!(resolve(&rows, "ab02"), Ok(ids[1].clone()));
        assert_eq!(resolve(&rows, &ids[2][..30]), Ok(ids[2].clone()));
        assert_eq!(resolve(&rows, "ab01"), Err(BeginningError::Several(format!("{}, {}", ids[0], ids[2]))));
        assert_eq!(resolve(&rows, "ab03"), Err(BeginningError::None("ab03".to_owned())));
    }

    #[test]
    fn whole_ids_short_ones_and_words_are_no_beginnings() {
        let texts = ["ab0", "AB01", "abcz", "", &"ab01".repeat(8)];
        assert!(texts.iter().all(|text| !is_beginning(text)));
        assert!(is_beginning("ab01") && is_beginning(&"a".repeat(31)));
    }
}
