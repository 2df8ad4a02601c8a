//! `kind = "azure"` (docs/providers/azure.md).

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{Found, OfKind, Settings};
use super::table::Table;
use crate::config::problems::Checked;
use crate::provider::ProviderError;
use crate::provider::azure::{self, AzureSettings, EntraId, TrustAnchors};
use crate::sandbox::Needs;
use crate::types::{CredentialName, Secret};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Azure {
    vault_url: String,
    key: String,
    algorithm: String,
    authority: Option<String>,
    resource: Option<String>,
    ca_file: Option<String>,
    timeout: Option<String>,
    auth: AzureAuth,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AzureAuth {
    method: String,
    tenant_id: Option<String>,
    client_id: Option<String>,
    credential: Option<String>,
    token_file: Option<String>,
    endpoint: Option<String>,
}

pub(super) fn check(table: &mut Table<'_>) -> Checked<Found> {
    let Azure { vault_url, key, algorithm, authority, resource, ca_file, timeout, auth } = table.rest()?;
    let vault = table.parsed("vault_url", &vault_url);
    let key = table.parsed("key", &key);
    let algorithm = table.parsed("algorithm", &algorithm);
    let authority = table.maybe("authority", authority);
    let resource = table.maybe("resource", resource);
    let ca_file = table.maybe_file("ca_file", ca_file);
    let timeout = table.timeout(timeout);
    let (auth, credential) = check_auth(table, auth)?;
    let token = match &auth {
        azure::AzureAuth::WorkloadIdentity { token_file, .. } => Some(token_file.clone()),
        azure::AzureAuth::ClientSecret { .. }
        | azure::AzureAuth::ClientCertificate { .. }
        | azure::AzureAuth::ManagedIdentity { .. } => None,
    };
    let ca_file = ca_file?;
    let (files, tokens) = (ca_file.iter().cloned().collect(), token.into_iter().collect());
    let credentials = credential.into_iter().collect();
    let settings = AzureSettings {
        vault: vault?,
        key: key?,
        algorithm: algorithm?,
        auth,
        authority: authority?,
        resource: resource?,
        roots: ca_file.map_or(TrustAnchors::System, TrustAnchors::File),
        timeout: timeout?,
    };
    Ok(Found { settings: Settings::Azure(Box::new(settings)), credentials, files, tokens })
}

fn check_auth(table: &mut Table<'_>, raw: AzureAuth) -> Checked<(azure::AzureAuth, Option<CredentialName>)> {
    let AzureAuth { method, tenant_id, client_id, credential, token_file, endpoint } = raw;
    let of_secret = ("credential", credential.is_some());
    let of_file = ("token_file", token_file.is_some());
    let of_machine = ("endpoint", endpoint.is_some());
    if method == "managed-identity" {
        table.unused(&method, &[("tenant_id", tenant_id.is_some()), of_secret, of_file])?;
        let client = table.maybe("auth.client_id", client_id)?;
        let endpoint = table.maybe("auth.endpoint", endpoint)?;
        return Ok((azure::AzureAuth::ManagedIdentity { client, endpoint }, None));
    }
    let application = |table: &mut Table<'_>| -> Checked<(EntraId, EntraId)> {
        let tenant = table.needed("auth.tenant_id", &method, tenant_id);
        let client = table.needed("auth.client_id", &method, client_id);
        let tenant = table.parsed("auth.tenant_id", &tenant?);
        let client = table.parsed("auth.client_id", &client?);
        Ok((tenant?, client?))
    };
    match method.as_str() {
        "client-secret" => {
            table.unused(&method, &[of_file, of_machine])?;
            let (tenant, client) = application(table)?;
            let name = table.credential(&method, credential)?;
            Ok((azure::AzureAuth::ClientSecret { tenant, client, credential: name.clone() }, Some(name)))
        }
        "client-certificate" => {
            table.unused(&method, &[of_file, of_machine])?;
            let (tenant, client) = application(table)?;
            let name = table.credential(&method, credential)?;
            Ok((azure::AzureAuth::ClientCertificate { tenant, client, credential: name.clone() }, Some(name)))
        }
        "workload-identity" => {
            table.unused(&method, &[of_secret, of_machine])?;
            let (tenant, client) = application(table)?;
            let file = table.needed("auth.token_file", &method, token_file)?;
            let token_file = table.file("auth.token_file", file)?;
            Ok((azure::AzureAuth::WorkloadIdentity { tenant, client, token_file }, None))
        }
        other => {
            let known = "\"managed-identity\", \"client-certificate\", \"client-secret\" or \"workload-identity\"";
            table.refuse("auth.method", format!("{other:?} is none of {known}"))
        }
    }
}

impl OfKind for AzureSettings {
    fn is_same_key(&self, other: &Settings) -> bool {
        matches!(other, Settings::Azure(other) if (&self.vault, &self.key) == (&other.vault, &other.key))
    }

    fn needs(&self) -> Needs {
        self.needs()
    }

    fn has_system_roots(&self) -> bool {
        self.roots == TrustAnchors::System
    }

    fn check_credential(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        self.auth.check_form(name, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn check(table: &str) -> Result<(AzureSettings, usize, usize), Vec<String>> {
        let text =
            format!("version = 1\ncluster = \"c1\"\n[[provider]]\nname = \"azure\"\nkind = \"azure\"\n{table}\n");
        let config = parse(std::path::Path::new("/etc/nodeseal/nodeseal.toml"), &text);
        let config = config.map_err(|error| error.problems().iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let one = config.providers.unwrap().list.remove(0);
        match one.settings {
            Settings::Azure(settings) => Ok((*settings, one.credentials.len(), one.files.len() + one.tokens.len())),
            _ => panic!("another kind"),
        }
    }

    const KEY: &str = "vault_url = \"https://mine.vault.azure.net\"\nkey = \"k\"\nalgorithm = \"RSA-OAEP-256\"\n";

    #[test]
    fn every_method_is_read_with_what_it_needs() {
        let of = "tenant_id = \"11111111-2222-3333-4444-555555555555\", client_id = \"contoso\"";
        for (auth, credentials, files) in [
            (format!("method = \"client-secret\", {of}, credential = \"azure-secret\""), 1, 0),
            (format!("method = \"client-certificate\", {of}, credential = \"azure-certificate\""), 1, 0),
            (format!("method = \"workload-identity\", {of}, token_file = \"/run/token\""), 0, 1),
            ("method = \"managed-identity\"".to_owned(), 0, 0),
            ("method = \"managed-identity\", client_id = \"x\", endpoint = \"http://127.0.0.1:1\"".to_owned(), 0, 0),
        ] {
            let (settings, has, reads) = check(&format!("{KEY}auth = {{ {auth} }}")).unwrap();
            assert_eq!((has, reads, settings.key.as_str()), (credentials, files, "k"), "{auth}");
            assert_eq!((settings.authority, settings.resource, settings.roots), (None, None, TrustAnchors::System));
        }
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let found = check(
            "vault_url = \"http://mine.vault.azure.net\"\nkey = \"k/1\"\nalgorithm = \"RSA-OAEP\"\nauthority = \"x\"\n\
             resource = \"vault.azure.net\"\nca_file = \"relative\"\ntimeout = \"1h\"\n\
             auth = { method = \"client-secret\", token_file = \"/x\", endpoint = \"https://a\" }",
        );
        let found = found.err().unwrap();
        for key in ["vault_url", "key", "algorithm", "authority", "resource", "ca_file", "timeout", "auth.token_file"] {
            let start = format!("provider[0].{key}: ");
            assert!(found.iter().any(|problem| problem.starts_with(&start)), "{start} in {found:#?}");
        }
        let found = check(&format!("{KEY}auth = {{ method = \"client-secret\", credential = \"a\" }}")).err().unwrap();
        assert!(found.iter().any(|one| one.starts_with("provider[0].auth.tenant_id: ")), "{found:#?}");
        assert!(found.iter().any(|one| one.starts_with("provider[0].auth.client_id: ")), "{found:#?}");
        let found = check(&format!("{KEY}auth = {{ method = \"password\" }}")).err().unwrap();
        assert!(found[0].starts_with("provider[0].auth.method: "), "{found:#?}");
    }
}
