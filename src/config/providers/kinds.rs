//! One row for each kind that is compiled in: what the file calls it, and what reads its table.

use std::borrow::Cow;
#[cfg(feature = "http-client")]
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

#[cfg(feature = "aws")]
use super::aws;
#[cfg(feature = "azure")]
use super::azure;
use super::kms_plugin;
#[cfg(feature = "pkcs11")]
use super::pkcs11;
use super::settings::Found;
use super::table::Table;
#[cfg(feature = "vault")]
use super::vault;
use crate::config::problems::Checked;
use crate::provider::ProviderKind;
#[cfg(feature = "http-client")]
use crate::sandbox::Access;
use crate::sandbox::Needs;

struct Row {
    kind: ProviderKind,
    check: fn(&mut Table<'_>) -> Checked<Found>,
    /// Of its own keys.
    schema: fn(&mut SchemaGenerator) -> Schema,
}

const ROWS: &[Row] = &[
    #[cfg(feature = "vault")]
    Row { kind: ProviderKind::Vault, check: vault::check, schema: vault::Vault::json_schema },
    #[cfg(feature = "aws")]
    Row { kind: ProviderKind::Aws, check: aws::check, schema: aws::Aws::json_schema },
    #[cfg(feature = "azure")]
    Row { kind: ProviderKind::Azure, check: azure::check, schema: azure::Azure::json_schema },
    #[cfg(feature = "pkcs11")]
    Row { kind: ProviderKind::Pkcs11, check: pkcs11::check, schema: pkcs11::Pkcs11::json_schema },
    Row { kind: ProviderKind::KmsPlugin, check: kms_plugin::check, schema: kms_plugin::KmsPlugin::json_schema },
];

/// Those of a build with everything, as a sentence names them.
pub(super) fn named() -> String {
    let mut all: Vec<String> = ProviderKind::ALL.iter().map(|kind| format!("{:?}", kind.label())).collect();
    let last = all.pop().unwrap_or_default();
    format!("{} or {last}", all.join(", "))
}

/// What is left of a table, read by its kind.
pub(super) fn check(table: &mut Table<'_>, kind: &str) -> Checked<Found> {
    if let Some(row) = ROWS.iter().find(|row| row.kind.label() == kind) {
        return (row.check)(table);
    }
    match ProviderKind::ALL.iter().any(|known| known.label() == kind) {
        true => table.refuse("kind", format!("{kind:?} is not compiled into this build")),
        false => table.refuse("kind", format!("unknown kind {kind:?}: write {}", named())),
    }
}

/// What a provider of any kind that is compiled in may need. Ports are the operator's to choose at his servers, so it is
/// all of them; authorities and tokens are where others keep them fresh. What lies elsewhere is `sandbox.allow_paths`.
pub(in crate::config) fn any_provider() -> Needs {
    // Sockets of other plugins; the sealer reaches the token.
    let needs = Needs::default().any_socket();
    #[cfg(feature = "http-client")]
    let needs = ["/etc", "/run"].iter().fold(needs.name_service().system_roots().any_port(), |needs, folder| {
        needs.path(Path::new(folder), Access::Read, "files of providers")
    });
    #[cfg(feature = "aws")]
    let needs = crate::provider::aws::default_chain(needs);
    needs
}

/// One table of a provider, for the schema: what all kinds have in common, and what its kind has besides.
pub(in crate::config) enum AnyKind {}

impl JsonSchema for AnyKind {
    fn schema_name() -> Cow<'static, str> {
        "Provider".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds: Vec<Value> = ROWS.iter().map(|row| of_row(generator, row)).collect();
        json_schema!({ "oneOf": kinds })
    }
}

/// The table of a kind with the keys that are taken out before it is read.
fn of_row(generator: &mut SchemaGenerator, row: &Row) -> Value {
    let kind = row.kind.label();
    let mut schema = (row.schema)(generator).to_value();
    schema["title"] = kind.into();
    let common = [
        ("name", serde_json::json!({ "type": "string" })),
        ("kind", serde_json::json!({ "const": kind })),
        ("required", serde_json::json!({ "type": "boolean", "default": true })),
        ("write", serde_json::json!({ "type": "boolean", "default": true })),
    ];
    for (key, of) in common {
        schema["properties"][key] = of;
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.splice(0..0, ["name".into(), "kind".into()]);
    }
    schema
}
