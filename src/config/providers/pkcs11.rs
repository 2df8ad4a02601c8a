//! `kind = "pkcs11"` (docs/providers/pkcs11.md). Module, token and PIN are those of `[seal.pkcs11]`.

use super::raw;
use super::table::Table;
use super::{Found, Settings};
use crate::provider::pkcs11::Pkcs11KekSettings;
use crate::seal::token_key::TokenKey;
use crate::types::hex;

pub(super) fn check(table: &mut Table<'_>) -> Option<Found> {
    let raw::Pkcs11 { key_label, key_id, make_key, timeout } = table.rest()?;
    let timeout = table.timeout(timeout);
    let make_key = make_key.unwrap_or(false);
    if make_key && key_id.is_some() {
        table.problem("make_key", "a key that is named by its id is never made");
    }
    let id = match key_id.map(hex::decode) {
        None => Some(None),
        Some(Ok(id)) if (1..=TokenKey::NAME_MAX_BYTES).contains(&id.len()) => Some(Some(id)),
        Some(_) => {
            table.problem("key_id", format!("is 1 to {} bytes in hexadecimal digits", TokenKey::NAME_MAX_BYTES));
            None
        }
    };
    let label = TokenKey::new(&key_label, None);
    if label.is_none() {
        table.problem("key_label", format!("is 1 to {} characters of printable ASCII", TokenKey::NAME_MAX_BYTES));
    }
    let key = TokenKey::new(label?.label(), id?)?;
    let settings = Pkcs11KekSettings { key, make_key, timeout: timeout? };
    Some(Found {
        settings: Settings::Pkcs11(Box::new(settings)),
        credentials: Vec::new(),
        files: Vec::new(),
        tokens: Vec::new(),
    })
}
