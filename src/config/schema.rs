//! The JSON Schema (draft 2020-12) of the file, out of the very types that read it: an editor completes and checks with it.
//!
//! It says which keys there are and of which type. What a value must be beyond that, and what fits beside what, `config check` says.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::providers::raw;

/// Of the whole file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(super::raw::File);
    schema.insert("title".to_owned(), "nodeseal.toml".into());
    schema.to_value()
}

/// A user, by name or number.
pub(super) enum User {}

impl JsonSchema for User {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "User".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] })
    }
}

/// One table of a provider: what all kinds have in common, and what its kind has besides.
pub(super) enum Provider {}

impl JsonSchema for Provider {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Provider".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds: Vec<Value> = [
            #[cfg(feature = "vault")]
            of_kind::<raw::Vault>(generator, "vault"),
            #[cfg(feature = "aws")]
            of_kind::<raw::Aws>(generator, "aws"),
            #[cfg(feature = "azure")]
            of_kind::<raw::Azure>(generator, "azure"),
            #[cfg(feature = "pkcs11")]
            of_kind::<raw::Pkcs11>(generator, "pkcs11"),
            of_kind::<raw::KmsPlugin>(generator, "kms-plugin"),
        ]
        .into();
        json_schema!({ "oneOf": kinds })
    }
}

/// The table of a kind with the keys that are taken out before it is read.
fn of_kind<T: JsonSchema>(generator: &mut SchemaGenerator, kind: &str) -> Value {
    let mut schema = T::json_schema(generator).to_value();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_the_newest_draft_and_knows_no_key_that_the_file_does_not() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!((&schema["title"], &schema["additionalProperties"]), (&"nodeseal.toml".into(), &false.into()));
        assert!(
            schema["properties"]["cluster"].is_object() && schema["$defs"]["Tpm2"]["properties"]["pcrs"].is_object()
        );
        let kinds = schema["$defs"]["Provider"]["oneOf"].as_array().unwrap();
        for kind in kinds {
            assert_eq!(kind["additionalProperties"], false, "{kind}");
            assert!(kind["required"].as_array().unwrap().contains(&"kind".into()), "{kind}");
        }
        assert_eq!(kinds.last().unwrap()["properties"]["kind"]["const"], "kms-plugin");
    }
}
