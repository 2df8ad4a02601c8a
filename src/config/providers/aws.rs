//! `kind = "aws"` (docs/providers/aws.md).

use super::raw::{self, AwsAuth as Raw};
use super::table::Table;
use super::{Found, Settings};
use crate::provider::aws::{AwsAuth, AwsBase, AwsSettings};
use crate::types::CredentialName;

pub(super) fn check(table: &mut Table<'_>) -> Option<Found> {
    let raw::Aws { key_arn, region, endpoint, sts_endpoint, ca_file, timeout, auth } = table.rest()?;
    let key = table.parsed::<crate::provider::aws::KeyArn>("key_arn", &key_arn);
    if key.as_ref().is_some_and(|key| key.region() != region) {
        table.problem("region", format!("{region:?} is not that of key_arn"));
    }
    let endpoint = table.maybe("endpoint", endpoint);
    let sts_endpoint = table.maybe("sts_endpoint", sts_endpoint);
    let ca_file = table.maybe_file("ca_file", ca_file);
    let timeout = table.timeout(timeout);
    let (auth, credential) = check_auth(table, auth)?;
    let token = match &auth {
        AwsAuth::WebIdentity { token_file, .. } => Some(token_file.clone()),
        AwsAuth::Static { .. } | AwsAuth::DefaultChain | AwsAuth::AssumeRole { .. } => None,
    };
    let ca_file = ca_file?;
    let (files, tokens) = (ca_file.iter().cloned().collect(), token.into_iter().collect());
    let credentials = credential.into_iter().collect();
    let settings = AwsSettings {
        key: key.filter(|key| key.region() == region)?,
        region,
        endpoint: endpoint?,
        sts_endpoint: sts_endpoint?,
        auth,
        ca_file,
        timeout: timeout?,
    };
    Some(Found { settings: Settings::Aws(Box::new(settings)), credentials, files, tokens })
}

fn check_auth(table: &mut Table<'_>, raw: Raw) -> Option<(AwsAuth, Option<CredentialName>)> {
    let Raw { method, credential, role_arn, external_id, token_file } = raw;
    let of_role = [("role_arn", role_arn.is_some()), ("external_id", external_id.is_some())];
    let of_file = ("token_file", token_file.is_some());
    let found = match method.as_str() {
        "static" => {
            table.unused("static", &[of_role[0], of_role[1], of_file])?;
            let name = table.credential("static", credential)?;
            (AwsAuth::Static { credential: name.clone() }, Some(name))
        }
        "default-chain" => {
            table.unused("default-chain", &[of_role[0], of_role[1], of_file, ("credential", credential.is_some())])?;
            (AwsAuth::DefaultChain, None)
        }
        "assume-role" => {
            table.unused("assume-role", &[of_file])?;
            let role = table.needed("auth.role_arn", "assume-role", role_arn)?;
            let role = table.parsed("auth.role_arn", &role)?;
            let name: Option<CredentialName> = table.maybe("auth.credential", credential)?;
            let base = name.as_ref().map_or(AwsBase::DefaultChain, |name| AwsBase::Static { credential: name.clone() });
            (AwsAuth::AssumeRole { role, external_id, base }, name)
        }
        "web-identity" => {
            table.unused("web-identity", &[of_role[1], ("credential", credential.is_some())])?;
            let role = table.needed("auth.role_arn", "web-identity", role_arn)?;
            let role = table.parsed("auth.role_arn", &role)?;
            let file = table.needed("auth.token_file", "web-identity", token_file)?;
            (AwsAuth::WebIdentity { role, token_file: table.file("auth.token_file", file)? }, None)
        }
        other => {
            let known = "\"static\", \"assume-role\", \"web-identity\" or \"default-chain\"";
            table.problem("auth.method", format!("{other:?} is none of {known}"));
            return None;
        }
    };
    Some(found)
}
