//! `kind = "vault"` (docs/providers/vault.md).

use super::raw::{self, VaultAuth as Raw};
use super::table::Table;
use super::{Found, Settings};
use crate::provider::vault::{Roots, VaultAuth, VaultSettings};
use crate::types::CredentialName;

pub(super) fn check(table: &mut Table<'_>) -> Option<Found> {
    let raw::Vault { address, ca_file, namespace, mount, key, created, timeout, auth } = table.rest()?;
    let address = table.parsed("address", &address);
    let ca_file = table.maybe_file("ca_file", ca_file);
    let namespace = table.maybe("namespace", namespace);
    let mount = table.parsed("mount", &mount);
    let key = table.parsed("key", &key);
    let timeout = table.timeout(timeout);
    let (auth, credential) = check_auth(table, auth)?;
    let ca_file = ca_file?;
    let token = match &auth {
        VaultAuth::Jwt { file, .. } => Some(file.clone()),
        VaultAuth::Token { .. } | VaultAuth::AppRole { .. } | VaultAuth::Certificate { .. } => None,
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
        roots: ca_file.map_or(Roots::System, Roots::File),
        timeout: timeout?,
    };
    Some(Found { settings: Settings::Vault(Box::new(settings)), credentials, files, tokens })
}

fn check_auth(table: &mut Table<'_>, raw: Raw) -> Option<(VaultAuth, Option<CredentialName>)> {
    let Raw { method, mount, role, credential, file } = raw;
    let usual = |name: &str| mount.clone().unwrap_or_else(|| name.to_owned());
    let found = match method.as_str() {
        "token" => {
            table.unused("token", &[("mount", mount.is_some()), ("role", role.is_some()), ("file", file.is_some())])?;
            let name = table.credential("token", credential)?;
            (VaultAuth::Token { credential: name.clone() }, Some(name))
        }
        "approle" => {
            table.unused("approle", &[("file", file.is_some())])?;
            let name = table.credential("approle", credential)?;
            let mount = table.parsed("auth.mount", &usual("approle"))?;
            let role = table.maybe("auth.role", role)?;
            (VaultAuth::AppRole { mount, role, credential: name.clone() }, Some(name))
        }
        "jwt" | "kubernetes" => {
            table.unused(&method, &[("credential", credential.is_some())])?;
            let file = table.needed("auth.file", &method, file)?;
            let file = table.file("auth.file", file)?;
            let mount = table.parsed("auth.mount", &usual(&method))?;
            let role = table.maybe("auth.role", role)?;
            (VaultAuth::Jwt { mount, role, file }, None)
        }
        "certificate" => {
            table.unused("certificate", &[("file", file.is_some())])?;
            let name = table.credential("certificate", credential)?;
            let mount = table.parsed("auth.mount", &usual("cert"))?;
            let role = table.maybe("auth.role", role)?;
            (VaultAuth::Certificate { mount, role, credential: name.clone() }, Some(name))
        }
        other => {
            let known = "\"approle\", \"jwt\", \"kubernetes\", \"certificate\" or \"token\"";
            table.problem("auth.method", format!("{other:?} is none of {known}"));
            return None;
        }
    };
    Some(found)
}
