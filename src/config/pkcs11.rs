//! `[seal.pkcs11]`. Knows the file alone: whether module, token and key are there, the sealer finds out.

use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{needed_path, paths, ports, text};
use super::problems::{Checked, Problems};
use crate::sealer::settings::{Pkcs11Mechanism, Pkcs11Settings};
use crate::types::hex;

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pkcs11 {
    module: Option<String>,
    token_label: Option<String>,
    token_serial: Option<String>,
    pin_file: Option<String>,
    key_label: Option<String>,
    key_id: Option<String>,
    make_key: Option<bool>,
    trust_key: Option<bool>,
    mechanism: Option<String>,
    allow_paths: Option<Vec<String>>,
    allow_ports: Option<Vec<i64>>,
}

/// Nothing if there is no such table and none is needed.
pub(super) fn check(
    problems: &mut Problems,
    warnings: &mut Problems,
    table: Pkcs11,
    is_backend: bool,
    has_socket: bool,
) -> Checked<Option<Pkcs11Settings>> {
    if table == Pkcs11::default() {
        return match is_backend {
            true => {
                problems.refuse("seal.pkcs11", "backend = \"pkcs11\" needs this table: module, token_label, pin_file")
            }
            false => Ok(None),
        };
    }
    if is_backend && !has_socket {
        warnings.add(
            "seal.socket",
            "without it every request loads the module and logs in again; only the token's flags remember a refused PIN",
        );
    }
    let Pkcs11 { module, token_label, token_serial, pin_file, key_label, key_id, make_key, mechanism, .. } = table;
    let module = needed_path(problems, "seal.pkcs11.module", module, "the absolute path of the PKCS#11 library");
    let token_label = match token_label {
        Some(label) => text(problems, "seal.pkcs11.token_label", label, Pkcs11Settings::TOKEN_LABEL_MAX),
        None => problems.refuse("seal.pkcs11.token_label", "write the token's label"),
    };
    let serial = |serial| text(problems, "seal.pkcs11.token_serial", serial, Pkcs11Settings::TOKEN_SERIAL_MAX);
    let token_serial = token_serial.map(serial).transpose();
    let pin_file =
        needed_path(problems, "seal.pkcs11.pin_file", pin_file, "the absolute path of the file with the user's PIN");
    let key_label = key_label.unwrap_or_else(|| Pkcs11Settings::DEFAULT_KEY_LABEL.to_owned());
    let key_label = text(problems, "seal.pkcs11.key_label", key_label, Pkcs11Settings::KEY_NAME_MAX);
    let key_id = key_id.map(|digits| id(problems, &digits)).transpose();
    let mechanism = match mechanism.as_deref() {
        None | Some("auto") => Ok(None),
        Some(name) => match Pkcs11Mechanism::ALL.into_iter().find(|known| known.label() == name) {
            Some(known) => Ok(Some(known)),
            None => {
                let known = Pkcs11Mechanism::ALL.map(|known| format!("{:?}", known.label())).join(", ");
                problems.refuse("seal.pkcs11.mechanism", format!("{name:?} is neither \"auto\" nor one of {known}"))
            }
        },
    };
    let allow_paths = paths(problems, "seal.pkcs11.allow_paths", table.allow_paths);
    let allow_ports = ports(problems, "seal.pkcs11.allow_ports", table.allow_ports);
    Ok(Some(Pkcs11Settings {
        module: module?,
        token_label: token_label?,
        token_serial: token_serial?,
        pin_file: pin_file?,
        key_label: key_label?,
        key_id: key_id?,
        make_key: make_key.unwrap_or(true),
        trust_key: table.trust_key.unwrap_or(false),
        mechanism: mechanism?,
        allow_paths: allow_paths?,
        allow_ports: allow_ports?,
    }))
}

fn id(problems: &mut Problems, digits: &str) -> Checked<Vec<u8>> {
    let is_fine = |id: &Vec<u8>| (1..=Pkcs11Settings::KEY_NAME_MAX).contains(&id.len());
    hex::decode(digits).ok().filter(is_fine).map_or_else(
        || {
            let max = Pkcs11Settings::KEY_NAME_MAX;
            problems
                .refuse("seal.pkcs11.key_id", format!("is the key's CKA_ID, 1 to {max} bytes in hexadecimal digits"))
        },
        Ok,
    )
}
