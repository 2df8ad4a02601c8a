//! `kind = "aws"` (docs/providers/aws.md).

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{Found, OfKind, Settings};
use super::table::Table;
use crate::config::problems::Checked;
use crate::provider::ProviderError;
use crate::provider::aws::{self, AwsBase, AwsSettings, KeyArn};
use crate::sandbox::Needs;
use crate::types::{CredentialName, Secret};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Aws {
    key_arn: String,
    region: String,
    endpoint: Option<String>,
    sts_endpoint: Option<String>,
    ca_file: Option<String>,
    timeout: Option<String>,
    auth: AwsAuth,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AwsAuth {
    method: String,
    credential: Option<String>,
    role_arn: Option<String>,
    external_id: Option<String>,
    token_file: Option<String>,
}

pub(super) fn check(table: &mut Table<'_>) -> Checked<Found> {
    let Aws { key_arn, region, endpoint, sts_endpoint, ca_file, timeout, auth } = table.rest()?;
    let key = match table.parsed::<KeyArn>("key_arn", &key_arn) {
        Ok(key) if key.region() != region => table.refuse("region", format!("{region:?} is not that of key_arn")),
        key => key,
    };
    let endpoint = table.maybe("endpoint", endpoint);
    let sts_endpoint = table.maybe("sts_endpoint", sts_endpoint);
    let ca_file = table.maybe_file("ca_file", ca_file);
    let timeout = table.timeout(timeout);
    let (auth, credential) = check_auth(table, auth)?;
    let token = match &auth {
        aws::AwsAuth::WebIdentity { token_file, .. } => Some(token_file.clone()),
        aws::AwsAuth::Static { .. } | aws::AwsAuth::DefaultChain | aws::AwsAuth::AssumeRole { .. } => None,
    };
    let ca_file = ca_file?;
    let (files, tokens) = (ca_file.iter().cloned().collect(), token.into_iter().collect());
    let credentials = credential.into_iter().collect();
    let settings = AwsSettings {
        key: key?,
        region,
        endpoint: endpoint?,
        sts_endpoint: sts_endpoint?,
        auth,
        ca_file,
        timeout: timeout?,
    };
    Ok(Found { settings: Settings::Aws(Box::new(settings)), credentials, files, tokens })
}

fn check_auth(table: &mut Table<'_>, raw: AwsAuth) -> Checked<(aws::AwsAuth, Option<CredentialName>)> {
    let AwsAuth { method, credential, role_arn, external_id, token_file } = raw;
    let of_role = [("role_arn", role_arn.is_some()), ("external_id", external_id.is_some())];
    let of_file = ("token_file", token_file.is_some());
    let found = match method.as_str() {
        "static" => {
            table.unused("static", &[of_role[0], of_role[1], of_file])?;
            let name = table.credential("static", credential)?;
            (aws::AwsAuth::Static { credential: name.clone() }, Some(name))
        }
        "default-chain" => {
            table.unused("default-chain", &[of_role[0], of_role[1], of_file, ("credential", credential.is_some())])?;
            (aws::AwsAuth::DefaultChain, None)
        }
        "assume-role" => {
            table.unused("assume-role", &[of_file])?;
            let role = table.needed("auth.role_arn", "assume-role", role_arn)?;
            let role = table.parsed("auth.role_arn", &role)?;
            let name: Option<CredentialName> = table.maybe("auth.credential", credential)?;
            let base = name.as_ref().map_or(AwsBase::DefaultChain, |name| AwsBase::Static { credential: name.clone() });
            (aws::AwsAuth::AssumeRole { role, external_id, base }, name)
        }
        "web-identity" => {
            table.unused("web-identity", &[of_role[1], ("credential", credential.is_some())])?;
            let role = table.needed("auth.role_arn", "web-identity", role_arn)?;
            let role = table.parsed("auth.role_arn", &role)?;
            let file = table.needed("auth.token_file", "web-identity", token_file)?;
            (aws::AwsAuth::WebIdentity { role, token_file: table.file("auth.token_file", file)? }, None)
        }
        other => {
            let known = "\"static\", \"assume-role\", \"web-identity\" or \"default-chain\"";
            return table.refuse("auth.method", format!("{other:?} is none of {known}"));
        }
    };
    Ok(found)
}

impl OfKind for AwsSettings {
    fn is_same_key(&self, other: &Settings) -> bool {
        matches!(other, Settings::Aws(other) if self.key.is_same_as(&other.key))
    }

    fn needs(&self) -> Needs {
        self.needs()
    }

    fn has_system_roots(&self) -> bool {
        self.ca_file.is_none()
    }

    fn check_credential(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        self.auth.check_form(name, content)
    }
}
