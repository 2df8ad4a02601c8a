//! The tables of providers as they are written, one struct a kind. What all kinds have in common is read before and taken out.

use schemars::JsonSchema;
use serde::Deserialize;

/// `[write]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Write {
    pub(super) min_wraps: Option<i64>,
    pub(super) epoch: Option<i64>,
    pub(super) on_outage: Option<String>,
    pub(super) activation_delay: Option<String>,
    pub(super) probe_every: Option<String>,
}

/// `[decrypt]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Decrypt {
    pub(super) strategy: Option<String>,
}

#[cfg(feature = "vault")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Vault {
    pub(super) address: String,
    pub(super) ca_file: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) mount: String,
    pub(super) key: String,
    pub(super) created: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) auth: VaultAuth,
}

#[cfg(feature = "vault")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultAuth {
    pub(super) method: String,
    pub(super) mount: Option<String>,
    pub(super) role: Option<String>,
    pub(super) credential: Option<String>,
    pub(super) file: Option<String>,
}

#[cfg(feature = "aws")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Aws {
    pub(super) key_arn: String,
    pub(super) region: String,
    pub(super) endpoint: Option<String>,
    pub(super) sts_endpoint: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) auth: AwsAuth,
}

#[cfg(feature = "aws")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AwsAuth {
    pub(super) method: String,
    pub(super) credential: Option<String>,
    pub(super) role_arn: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) token_file: Option<String>,
}

#[cfg(feature = "azure")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Azure {
    pub(super) vault_url: String,
    pub(super) key: String,
    pub(super) algorithm: String,
    pub(super) authority: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) auth: AzureAuth,
}

#[cfg(feature = "azure")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureAuth {
    pub(super) method: String,
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) credential: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) endpoint: Option<String>,
}

#[cfg(feature = "pkcs11")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Pkcs11 {
    pub(super) key_label: String,
    pub(super) key_id: Option<String>,
    pub(super) make_key: Option<bool>,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct KmsPlugin {
    pub(super) socket: String,
    pub(super) api: Option<String>,
    pub(super) key: String,
    #[schemars(with = "Option<Vec<crate::config::schema::User>>")]
    pub(super) allow_users: Option<Vec<toml::Value>>,
    pub(super) opens_foreign: Option<bool>,
    pub(super) timeout: Option<String>,
}
