//! The file as it is written: serde's mirror, with every key that we know of and nothing else.
//!
//! Keys that this build does not serve stay here, so that `check` can say so instead of "unknown field".

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: Option<i64>,
    pub(super) cluster: Option<String>,
    pub(super) state_dir: Option<String>,
    #[serde(default)]
    pub(super) listen: Listen,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) seal: Seal,
    #[serde(default)]
    pub(super) local_kek: LocalKek,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
    pub(super) watch: Option<bool>,
    // Read by kind, in `providers`.
    #[schemars(with = "Option<Vec<super::schema::Provider>>")]
    pub(super) provider: Option<Vec<toml::Table>>,
    pub(super) write: Option<super::providers::raw::Write>,
    pub(super) decrypt: Option<super::providers::raw::Decrypt>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) socket: Option<String>,
    pub(super) mode: Option<String>,
    #[schemars(with = "Option<Vec<super::schema::User>>")]
    pub(super) allow_users: Option<Vec<toml::Value>>,
    pub(super) apis: Option<Vec<String>>,
    pub(super) v2_version: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: Option<String>,
    pub(super) status_socket: Option<String>,
    pub(super) status_group: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Seal {
    pub(super) backend: Option<String>,
    pub(super) socket: Option<String>,
    #[serde(default)]
    pub(super) tpm2: Tpm2,
    #[serde(default)]
    pub(super) pkcs11: Pkcs11,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tpm2 {
    pub(super) device: Option<String>,
    pub(super) parent_handle: Option<i64>,
    pub(super) allow_software_tpm: Option<bool>,
    pub(super) policy: Option<String>,
    pub(super) pcr_bank: Option<String>,
    pub(super) pcrs: Option<Vec<i64>>,
    pub(super) rollback: Option<String>,
    pub(super) counter_index: Option<i64>,
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pkcs11 {
    pub(super) module: Option<String>,
    pub(super) token_label: Option<String>,
    pub(super) token_serial: Option<String>,
    pub(super) pin_file: Option<String>,
    pub(super) key_label: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) make_key: Option<bool>,
    pub(super) trust_key: Option<bool>,
    pub(super) mechanism: Option<String>,
    pub(super) allow_paths: Option<Vec<String>>,
    pub(super) allow_ports: Option<Vec<i64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalKek {
    pub(super) enabled: Option<bool>,
    pub(super) max_age: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<crate::audit::log::Format>,
    pub(super) level: Option<crate::audit::log::Level>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sandbox {
    pub(super) mode: Option<String>,
    pub(super) user: Option<String>,
    pub(super) providers: Option<String>,
    pub(super) allow_paths: Option<Vec<String>>,
    pub(super) allow_ports: Option<Vec<i64>>,
}
