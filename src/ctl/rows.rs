//! KEKs and members as they look under `--json`: times as text, and `null` for what is not known or does not apply.

use serde::Serialize;

use super::output::time;
use crate::keyring::keeper::{KekRow, KeyTable};

/// One KEK.
#[derive(Serialize)]
pub(super) struct Kek<'a> {
    id: &'a str,
    state: &'a str,
    key_id: Option<&'a str>,
    created: String,
    since: String,
    uses: u64,
    shared: bool,
    wraps: usize,
    check: Option<&'a str>,
    must_be_shared: bool,
    opened: Option<String>,
    may_return: bool,
    under_key_id: bool,
    objects: Option<u64>,
    scanned: Option<String>,
    unneeded_since: Option<String>,
}

impl<'a> Kek<'a> {
    pub(super) fn new(row: &'a KekRow) -> Self {
        Self {
            id: &row.id,
            state: &row.state,
            key_id: known(&row.key_id),
            created: time(row.created),
            since: time(row.since),
            uses: row.uses,
            shared: row.shared,
            wraps: row.wraps,
            check: known(&row.check),
            must_be_shared: row.must_be_shared,
            opened: row.opened.map(time),
            may_return: row.may_return,
            under_key_id: row.under_key_id,
            objects: row.objects,
            scanned: row.scanned.map(time),
            unneeded_since: row.unneeded_since.map(time),
        }
    }
}

/// All KEKs.
#[derive(Serialize)]
pub(super) struct Keks<'a> {
    key_id: Option<&'a str>,
    keys: Vec<Kek<'a>>,
}

impl<'a> Keks<'a> {
    pub(super) fn new(table: &'a KeyTable) -> Self {
        Self { key_id: known(&table.key_id), keys: table.keys.iter().map(Kek::new).collect() }
    }
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
