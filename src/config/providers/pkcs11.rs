//! `kind = "pkcs11"` (docs/providers/pkcs11.md). Module, token and PIN are those of `[seal.pkcs11]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{Beside, Found, OfKind, Settings};
use super::table::Table;
use crate::config::problems::{Checked, Noted};
use crate::provider::pkcs11::Pkcs11KekSettings;
use crate::seal::token_key::TokenKey;
use crate::types::hex;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pkcs11 {
    key_label: String,
    key_id: Option<String>,
    make_key: Option<bool>,
    timeout: Option<String>,
}

pub(super) fn check(table: &mut Table<'_>) -> Checked<Found> {
    let Pkcs11 { key_label, key_id, make_key, timeout } = table.rest()?;
    let timeout = table.timeout(timeout);
    let make_key = make_key.unwrap_or(false);
    if make_key && key_id.is_some() {
        table.problem("make_key", "a key that is named by its id is never made");
    }
    let max = TokenKey::NAME_MAX_BYTES;
    let id = match key_id.map(hex::decode) {
        None => Ok(None),
        Some(Ok(id)) if (1..=max).contains(&id.len()) => Ok(Some(id)),
        Some(_) => table.refuse("key_id", format!("is 1 to {max} bytes in hexadecimal digits")),
    };
    if TokenKey::new(&key_label, None).is_none() {
        return table.refuse("key_label", format!("is 1 to {max} characters of printable ASCII"));
    }
    let key = TokenKey::new(&key_label, id?).ok_or(Noted)?;
    let settings = Pkcs11KekSettings { key, make_key, timeout: timeout? };
    Ok(Found {
        settings: Settings::Pkcs11(Box::new(settings)),
        credentials: Vec::new(),
        files: Vec::new(),
        tokens: Vec::new(),
    })
}

impl OfKind for Pkcs11KekSettings {
    fn is_same_key(&self, other: &Settings) -> bool {
        matches!(other, Settings::Pkcs11(other) if self.key == other.key)
    }

    fn check_beside(&self, beside: &mut Beside<'_>) {
        let key = format!("{}.key_label", beside.path);
        match &beside.seal.pkcs11 {
            None => {
                beside.problems.add(&key, "kind \"pkcs11\" needs [seal.pkcs11], which says which module, token and PIN")
            }
            Some(token) if token.key_label == self.key.label() => {
                beside.problems.add(&key, "is the label of the key that seals the node root: give this key its own");
            }
            Some(_) if beside.seal.socket.is_none() => {
                beside.warnings.add("seal.socket", "without it every request to the token logs in again");
            }
            Some(_) => {}
        }
    }
}
