//! The values, asked for on a terminal. Each answer is checked when it is given, and asked for again if it is wrong. No secret is asked for.

use std::fmt::Display;
use std::io::{self, BufRead, Read};
use std::str::FromStr;

use super::values::{Kubernetes, Raw, RawAws, RawAzure, RawVault};
use super::words::{AzureKey, AzureVault, Guid, KeyArn, LoginArn, VaultAddress, VaultName, VaultPath};
use crate::ctl::encryption_config::resource;
use crate::types::ClusterId;

/// Bytes of one answer. No value is longer.
const LINE_MAX_BYTES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("the answers ended before the last question")]
    Ended,
    #[error("cannot read an answer")]
    Read(#[source] io::Error),
}

/// Questions go to `tell`, answers come from `from`.
pub(super) struct Asker<'a, R> {
    pub(super) from: R,
    pub(super) tell: &'a mut dyn FnMut(&str),
}

impl<R: BufRead> Asker<'_, R> {
    pub(super) fn all(&mut self) -> Result<Raw, AskError> {
        let cluster =
            self.word::<ClusterId>("name of the cluster, the same on all its nodes and never changed later", None)?;
        let kubernetes = self.word::<Kubernetes>("how kube-apiserver is run: kubeadm, k3s or rke2", Some("kubeadm"))?;
        let is_list = |text: &str| text.split(',').try_for_each(|one| resource(one.trim()).map(|_| ()));
        let resources = self.answer("resources to encrypt, with commas between them", Some("secrets"), is_list)?;
        let resources = resources.split(',').map(|one| one.trim().to_owned()).collect();
        (self.tell)(
            "The keys of each node are rooted in its TPM. Keys elsewhere can wrap them besides, so that nodes read what others write.",
        );
        let vault = self.yes("a key in HashiCorp Vault or OpenBao")?.then(|| self.vault()).transpose()?;
        let aws = self.yes("a key in AWS KMS")?.then(|| self.aws()).transpose()?;
        let azure = self.yes("a key in Azure Key Vault or Managed HSM")?.then(|| self.azure()).transpose()?;
        Ok(Raw { cluster, kubernetes, resources, vault, aws, azure })
    }

    fn vault(&mut self) -> Result<RawVault, AskError> {
        Ok(RawVault {
            address: self.word::<VaultAddress>("address of Vault, https://HOST:PORT", None)?,
            ca_file: None,
            namespace: None,
            mount: self.word::<VaultPath>("mount of transit", Some("transit"))?,
            key: self.word::<VaultName>("name of the key", Some("kubernetes"))?,
            role: self.word::<VaultName>("name of the role and of its policy", Some("nodeseal"))?,
        })
    }

    fn aws(&mut self) -> Result<RawAws, AskError> {
        Ok(RawAws {
            key_arn: self.word::<KeyArn>("ARN of the key", None)?,
            login_arn: self
                .word::<LoginArn>("ARN of the user, or of the role of the machines, that may use it", None)?,
        })
    }

    fn azure(&mut self) -> Result<RawAzure, AskError> {
        let vault_url = self.word::<AzureVault>("address of the vault, https://NAME.vault.azure.net", None)?;
        let key = self.word::<AzureKey>("name of the key", None)?;
        let principal_id = self.word::<Guid>("object id of the login", None)?;
        let application = self.yes("a login by certificate, instead of the identity of the machine")?;
        let mut of = |what| application.then(|| self.word::<Guid>(what, None)).transpose();
        Ok(RawAzure { vault_url, key, principal_id, tenant_id: of("tenant id")?, client_id: of("client id")? })
    }

    fn yes(&mut self, what: &str) -> Result<bool, AskError> {
        let known = |text: &str| matches!(text, "y" | "yes" | "n" | "no").then_some(()).ok_or("answer y or n");
        Ok(self.answer(&format!("{what}? y or n"), Some("n"), known)?.starts_with('y'))
    }

    fn word<T: FromStr<Err: Display>>(&mut self, what: &str, usual: Option<&str>) -> Result<String, AskError> {
        self.answer(what, usual, |text| text.parse::<T>().map(|_| ()))
    }

    /// An answer that is good; an empty one is the usual one.
    fn answer<E: Display>(
        &mut self,
        what: &str,
        usual: Option<&str>,
        check: impl Fn(&str) -> Result<(), E>,
    ) -> Result<String, AskError> {
        loop {
            (self.tell)(&usual.map_or_else(|| format!("{what}:"), |usual| format!("{what} [{usual}]:")));
            let mut line = String::new();
            let read = self.from.by_ref().take(LINE_MAX_BYTES).read_line(&mut line).map_err(AskError::Read)?;
            if read == 0 {
                return Err(AskError::Ended);
            }
            let given = line.trim();
            let text = if given.is_empty() { usual.unwrap_or_default() } else { given };
            match check(text) {
                Ok(()) => return Ok(text.to_owned()),
                Err(error) => (self.tell)(&format!("not that: {error}")),
            }
        }
    }
}
