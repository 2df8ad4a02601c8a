//! The JSON Schema (draft 2020-12) of the file, out of the very types that read it: an editor completes and checks with
//! it.
//!
//! It says which keys there are and of which type. What a value must be beyond that, and what fits beside what,
//! `config check` says.

use serde_json::Value;

use super::check::File;

/// Of the whole file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".to_owned(), "nodeseal.toml".into());
    schema.to_value()
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
