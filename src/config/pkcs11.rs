//! `[seal.pkcs11]`, checked. Knows the file alone: whether module, token and key are there, the sealer finds out.

use super::check::{Problems, absolute};
use super::{raw, sandbox};
use crate::sealer::settings::{Pkcs11Mechanism, Pkcs11Settings};
use crate::types::{Backend, hex};

/// `None` if there is a mistake; `Some(None)` if there is no such table and none is needed.
#[expect(clippy::option_option, reason = "a mistake, no table, a table")]
pub(super) fn check(
    problems: &mut Problems,
    warnings: &mut Problems,
    table: raw::Pkcs11,
    backend: Option<Backend>,
    has_socket: bool,
) -> Option<Option<Pkcs11Settings>> {
    let is_backend = backend == Some(Backend::Pkcs11);
    if table == raw::Pkcs11::default() {
        return match is_backend {
            true => {
                problems.add("seal.pkcs11", "backend = \"pkcs11\" needs this table: module, token_label, pin_file");
                None
            }
            false => Some(None),
        };
    }
    if is_backend && !has_socket {
        warnings.add(
            "seal.socket",
            "without it every request loads the module and logs in again; only the token's flags remember a refused PIN",
        );
    }
    let raw::Pkcs11 { module, token_label, token_serial, pin_file, key_label, key_id, make_key, mechanism, .. } = table;
    let module = path(problems, "seal.pkcs11.module", module, "the absolute path of the PKCS#11 library");
    let token_label = match token_label {
        Some(label) => text(problems, "seal.pkcs11.token_label", label, Pkcs11Settings::TOKEN_LABEL_MAX),
        None => {
            problems.add("seal.pkcs11.token_label", "write the token's label");
            None
        }
    };
    let token_serial = match token_serial {
        Some(serial) => text(problems, "seal.pkcs11.token_serial", serial, Pkcs11Settings::TOKEN_SERIAL_MAX).map(Some),
        None => Some(None),
    };
    let pin_file =
        path(problems, "seal.pkcs11.pin_file", pin_file, "the absolute path of the file with the user's PIN");
    let key_label = key_label.unwrap_or_else(|| Pkcs11Settings::DEFAULT_KEY_LABEL.to_owned());
    let key_label = text(problems, "seal.pkcs11.key_label", key_label, Pkcs11Settings::KEY_NAME_MAX);
    let key_id = match key_id {
        Some(digits) => id(problems, &digits).map(Some),
        None => Some(None),
    };
    let mechanism = match mechanism.as_deref() {
        None | Some("auto") => Some(None),
        Some(name) => match Pkcs11Mechanism::ALL.into_iter().find(|known| known.label() == name) {
            Some(known) => Some(Some(known)),
            None => {
                let known = Pkcs11Mechanism::ALL.map(|known| format!("{:?}", known.label())).join(", ");
                problems.add("seal.pkcs11.mechanism", format!("{name:?} is neither \"auto\" nor one of {known}"));
                None
            }
        },
    };
    let allow_paths = sandbox::paths(problems, "seal.pkcs11.allow_paths", table.allow_paths);
    let allow_ports = sandbox::ports(problems, "seal.pkcs11.allow_ports", table.allow_ports);
    Some(Some(Pkcs11Settings {
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

fn path(problems: &mut Problems, key: &str, path: Option<String>, what: &str) -> Option<std::path::PathBuf> {
    match path {
        Some(path) => absolute(problems, key, Some(path), ""),
        None => {
            problems.add(key, format!("write {what}"));
            None
        }
    }
}

fn text(problems: &mut Problems, key: &str, text: String, max: usize) -> Option<String> {
    let is_fine = (1..=max).contains(&text.len())
        && text.trim() == text
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_fine {
        return Some(text);
    }
    problems.add(key, format!("is 1 to {max} printable ASCII characters without spaces at its ends"));
    None
}

fn id(problems: &mut Problems, digits: &str) -> Option<Vec<u8>> {
    let is_fine = |id: &Vec<u8>| (1..=Pkcs11Settings::KEY_NAME_MAX).contains(&id.len());
    let id = hex::decode(digits).ok().filter(is_fine);
    if id.is_none() {
        problems.add(
            "seal.pkcs11.key_id",
            format!("is the key's CKA_ID, 1 to {} bytes in hexadecimal digits", Pkcs11Settings::KEY_NAME_MAX),
        );
    }
    id
}
