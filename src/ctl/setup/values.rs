//! What the files are made of: read from TOML or asked for, checked once, and from then on types ([`super::words`]). All mistakes are told
//! at once, each with its key. No value is a secret, and there is no key that could hold one.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::words::{AzureKey, AzureVault, FilePath, Guid, KeyArn, LoginArn, VaultAddress, VaultName, VaultPath};
use crate::config::Problem;
use crate::ctl::encryption_config::resource;
use crate::types::ClusterId;

/// As it is written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) cluster: String,
    pub(super) kubernetes: String,
    #[serde(default = "secrets")]
    pub(super) resources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vault: Option<RawVault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aws: Option<RawAws>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) azure: Option<RawAzure>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVault {
    pub(super) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) mount: String,
    pub(super) key: String,
    pub(super) role: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    pub(super) key_arn: String,
    pub(super) login_arn: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAzure {
    pub(super) vault_url: String,
    pub(super) key: String,
    pub(super) principal_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
}

fn secrets() -> Vec<String> {
    vec!["secrets".to_owned()]
}

/// How kube-apiserver is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kubernetes {
    Kubeadm,
    K3s,
    Rke2,
}

impl FromStr for Kubernetes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "kubeadm" => Ok(Self::Kubeadm),
            "k3s" => Ok(Self::K3s),
            "rke2" => Ok(Self::Rke2),
            _ => Err("write \"kubeadm\", \"k3s\" or \"rke2\""),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pub(super) cluster: ClusterId,
    pub(super) kubernetes: Kubernetes,
    pub(super) resources: Vec<String>,
    pub(super) vault: Option<Vault>,
    pub(super) aws: Option<Aws>,
    pub(super) azure: Option<Azure>,
    /// As they are written into the folder, so that `--check` has them.
    pub(super) written: String,
}

#[derive(Clone, Debug)]
pub(super) struct Vault {
    pub(super) address: VaultAddress,
    pub(super) ca_file: Option<FilePath>,
    pub(super) namespace: Option<VaultPath>,
    pub(super) mount: VaultPath,
    pub(super) key: VaultName,
    /// Of the login and of the policy.
    pub(super) role: VaultName,
}

#[derive(Clone, Debug)]
pub(super) struct Aws {
    pub(super) key: KeyArn,
    pub(super) login: LoginArn,
}

#[derive(Clone, Debug)]
pub(super) struct Azure {
    pub(super) vault: AzureVault,
    pub(super) key: AzureKey,
    pub(super) principal: Guid,
    /// Tenant and client of a login by certificate; none: the identity of the machine.
    pub(super) application: Option<(Guid, Guid)>,
}

/// Collects the mistakes; every check continues after one.
#[derive(Default)]
struct Check(Vec<Problem>);

impl Check {
    fn word<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.0.push(Problem::new(key, error.to_string()))).ok()
    }

    /// `None` is a mistake, `Some(None)` a value that is not there.
    fn maybe<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, text: Option<&String>) -> Option<Option<T>> {
        match text {
            None => Some(None),
            Some(text) => self.word(key, text).map(Some),
        }
    }

    fn vault(&mut self, raw: &RawVault) -> Option<Vault> {
        let address = self.word("vault.address", &raw.address);
        let ca_file = self.maybe("vault.ca_file", raw.ca_file.as_ref());
        let namespace = self.maybe("vault.namespace", raw.namespace.as_ref());
        let mount = self.word("vault.mount", &raw.mount);
        let key = self.word("vault.key", &raw.key);
        let role = self.word("vault.role", &raw.role);
        Some(Vault {
            address: address?,
            ca_file: ca_file?,
            namespace: namespace?,
            mount: mount?,
            key: key?,
            role: role?,
        })
    }

    fn aws(&mut self, raw: &RawAws) -> Option<Aws> {
        let key: Option<KeyArn> = self.word("aws.key_arn", &raw.key_arn);
        let login: Option<LoginArn> = self.word("aws.login_arn", &raw.login_arn);
        let (key, login) = (key?, login?);
        if key.account() != login.account() {
            // IAM then asks both accounts: AWS KMS developer guide, "Allowing users in other accounts to use a KMS key".
            let text = "name a login of the key's own account; one of another account also needs a policy there";
            self.0.push(Problem::new("aws.login_arn", text));
            return None;
        }
        Some(Aws { key, login })
    }

    fn azure(&mut self, raw: &RawAzure) -> Option<Azure> {
        let vault = self.word("azure.vault_url", &raw.vault_url);
        let key = self.word("azure.key", &raw.key);
        let principal = self.word("azure.principal_id", &raw.principal_id);
        let tenant = self.maybe("azure.tenant_id", raw.tenant_id.as_ref());
        let client = self.maybe("azure.client_id", raw.client_id.as_ref());
        let application = match (tenant?, client?) {
            (Some(tenant), Some(client)) => Some((tenant, client)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let text = "name tenant_id and client_id for a login by certificate, or neither for the machine's own";
                self.0.push(Problem::new("azure", text));
                return None;
            }
        };
        Some(Azure { vault: vault?, key: key?, principal: principal?, application })
    }
}

impl Values {
    /// Or every mistake.
    pub(super) fn check(raw: &Raw) -> Result<Self, Vec<Problem>> {
        let mut check = Check::default();
        let cluster = check.word("cluster", &raw.cluster);
        let kubernetes = check.word("kubernetes", &raw.kubernetes);
        let bad = |text: &&String| resource(text).is_err();
        if let Some(error) = raw.resources.iter().find(bad).and_then(|text| resource(text).err()) {
            check.0.push(Problem::new("resources", error));
        }
        if raw.resources.is_empty() {
            check.0.push(Problem::new("resources", "name at least one, such as \"secrets\""));
        }
        let vault = raw.vault.as_ref().map(|raw| check.vault(raw));
        let aws = raw.aws.as_ref().map(|raw| check.aws(raw));
        let azure = raw.azure.as_ref().map(|raw| check.azure(raw));
        let written =
            toml::to_string(raw).map_err(|error| check.0.push(Problem::new("values", error.to_string()))).ok();
        let found = || {
            Some(Self {
                cluster: cluster?,
                kubernetes: kubernetes?,
                resources: raw.resources.clone(),
                vault: vault.map_or(Some(None), |vault| vault.map(Some))?,
                aws: aws.map_or(Some(None), |aws| aws.map(Some))?,
                azure: azure.map_or(Some(None), |azure| azure.map(Some))?,
                written: written?,
            })
        };
        let found = found();
        match found {
            Some(values) if check.0.is_empty() => Ok(values),
            Some(_) | None => Err(check.0),
        }
    }

    pub(super) fn has_provider(&self) -> bool {
        self.vault.is_some() || self.aws.is_some() || self.azure.is_some()
    }
}
