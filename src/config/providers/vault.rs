//! `kind = "vault"` (docs/providers/vault.md).

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{Found, OfKind, Settings};
use super::table::Table;
use crate::config::problems::Checked;
use crate::provider::ProviderError;
use crate::provider::vault::{self, TrustAnchors, VaultSettings};
use crate::sandbox::Needs;
use crate::types::{CredentialName, Secret};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    address: String,
    ca_file: Option<String>,
    namespace: Option<String>,
    mount: String,
    key: String,
    created: Option<String>,
    timeout: Option<String>,
    auth: VaultAuth,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VaultAuth {
    method: String,
    mount: Option<String>,
    role: Option<String>,
    credential: Option<String>,
    file: Option<String>,
}

pub(super) fn check(table: &mut Table<'_>) -> Checked<Found> {
    let Vault { address, ca_file, namespace, mount, key, created, timeout, auth } = table.rest()?;
    let address = table.parsed("address", &address);
    let ca_file = table.maybe_file("ca_file", ca_file);
    let namespace = table.maybe("namespace", namespace);
    let mount = table.parsed("mount", &mount);
    let key = table.parsed("key", &key);
    let timeout = table.timeout(timeout);
    let (auth, credential) = check_auth(table, auth)?;
    let ca_file = ca_file?;
    let token = match &auth {
        vault::VaultAuth::Jwt { file, .. } => Some(file.clone()),
        vault::VaultAuth::Token { .. } | vault::VaultAuth::AppRole { .. } | vault::VaultAuth::Certificate { .. } => {
            None
        }
    };
    let (files, tokens) = (ca_file.iter().cloned().collect(), token.into_iter().collect());
    let credentials = credential.into_iter().collect();
    let settings = VaultSettings {
        address: address?,
        namespace: namespace?,
        mount: mount?,
        key: key?,
        created,
        auth,
        roots: ca_file.map_or(TrustAnchors::System, TrustAnchors::File),
        timeout: timeout?,
    };
    Ok(Found { settings: Settings::Vault(Box::new(settings)), credentials, files, tokens })
}

fn check_auth(table: &mut Table<'_>, raw: VaultAuth) -> Checked<(vault::VaultAuth, Option<CredentialName>)> {
    let VaultAuth { method, mount, role, credential, file } = raw;
    let usual = |name: &str| mount.clone().unwrap_or_else(|| name.to_owned());
    let found = match method.as_str() {
        "token" => {
            table.unused("token", &[("mount", mount.is_some()), ("role", role.is_some()), ("file", file.is_some())])?;
            let name = table.credential("token", credential)?;
            (vault::VaultAuth::Token { credential: name.clone() }, Some(name))
        }
        "approle" => {
            table.unused("approle", &[("file", file.is_some())])?;
            let name = table.credential("approle", credential)?;
            let mount = table.parsed("auth.mount", &usual("approle"))?;
            let role = table.maybe("auth.role", role)?;
            (vault::VaultAuth::AppRole { mount, role, credential: name.clone() }, Some(name))
        }
        "jwt" | "kubernetes" => {
            table.unused(&method, &[("credential", credential.is_some())])?;
            let file = table.needed("auth.file", &method, file)?;
            let file = table.file("auth.file", file)?;
            let mount = table.parsed("auth.mount", &usual(&method))?;
            let role = table.maybe("auth.role", role)?;
            (vault::VaultAuth::Jwt { mount, role, file }, None)
        }
        "certificate" => {
            table.unused("certificate", &[("file", file.is_some())])?;
            let name = table.credential("certificate", credential)?;
            let mount = table.parsed("auth.mount", &usual("cert"))?;
            let role = table.maybe("auth.role", role)?;
            (vault::VaultAuth::Certificate { mount, role, credential: name.clone() }, Some(name))
        }
        other => {
            let known = "\"approle\", \"jwt\", \"kubernetes\", \"certificate\" or \"token\"";
            return table.refuse("auth.method", format!("{other:?} is none of {known}"));
        }
    };
    Ok(found)
}

impl OfKind for VaultSettings {
    fn is_same_key(&self, other: &Settings) -> bool {
        let of = |of: &Self| (of.address.clone(), of.namespace.clone(), of.mount.clone(), of.key.clone());
        matches!(other, Settings::Vault(other) if of(self) == of(other))
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
