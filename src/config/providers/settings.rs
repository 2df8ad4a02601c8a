//! What a checked `[[provider]]` is, whatever its kind.

use std::path::{Path, PathBuf};

use crate::config::problems::Problems;
use crate::config::seal::Seal;
use crate::keyring::rooted::Rules;
use crate::provider::ProviderError;
use crate::provider::set::{Role, Strategy};
use crate::sandbox::Needs;
use crate::seal::credential;
use crate::types::{CredentialName, Secret};

/// Where the system keeps its certificate authorities, in a build that asks for them.
#[cfg(feature = "http-client")]
const ROOTS: &[&str] = &crate::provider::SYSTEM_ROOTS;
#[cfg(not(feature = "http-client"))]
const ROOTS: &[&str] = &[];

/// Everything about providers.
#[derive(Clone, Debug)]
pub struct Providers {
    /// In the order of the file.
    pub list: Vec<Provider>,
    /// Who is asked to open a wrap.
    pub strategy: Strategy,
    /// Of `[write]` and `[local_kek]`.
    pub rules: Rules,
}

/// One provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// As the operator calls it.
    pub name: String,
    /// What it does for new KEKs.
    pub role: Role,
    /// Its kind's own.
    pub settings: Settings,
    /// Sealed credentials that it logs in with.
    pub credentials: Vec<CredentialName>,
    /// Files that it is made of: certificate authorities.
    pub files: Vec<PathBuf>,
    /// Files that it reads at each login, so that one that is replaced needs nothing done: tokens.
    pub tokens: Vec<PathBuf>,
    /// The table as it was written, without name and role: equal text, equal provider.
    pub written: String,
    /// The same without limits, which need no proof.
    pub proved: String,
}

/// What a kind makes of its table.
pub(super) struct Found {
    pub(super) settings: Settings,
    pub(super) credentials: Vec<CredentialName>,
    pub(super) files: Vec<PathBuf>,
    pub(super) tokens: Vec<PathBuf>,
}

/// What a kind needs to be opened. Holds no secret.
#[derive(Clone, Debug)]
pub enum Settings {
    /// HashiCorp Vault or OpenBao.
    #[cfg(feature = "vault")]
    Vault(Box<crate::provider::vault::VaultSettings>),
    /// AWS KMS.
    #[cfg(feature = "aws")]
    Aws(Box<crate::provider::aws::AwsSettings>),
    /// Azure Key Vault or Managed HSM.
    #[cfg(feature = "azure")]
    Azure(Box<crate::provider::azure::AzureSettings>),
    /// A key in a token that nodes share.
    #[cfg(feature = "pkcs11")]
    Pkcs11(Box<crate::provider::pkcs11::Pkcs11KekSettings>),
    /// Another KMS plugin.
    KmsPlugin(Box<crate::provider::kms_plugin::KmsPluginSettings>),
}

/// What the rest of the file and the daemon ask of each kind. What has a default here, most kinds do not have.
pub(super) trait OfKind {
    /// As far as the tables tell. Whether two servers are one, only they can.
    fn is_same_key(&self, other: &Settings) -> bool;

    /// Of the machine, besides its files.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// What others make for it alone, and may make again, besides its files.
    fn own_needs(&self) -> Needs {
        Needs::default()
    }

    /// It trusts the certificate authorities of the system.
    fn has_system_roots(&self) -> bool {
        false
    }

    /// Whether this could be the credential that it logs in with.
    fn check_credential(&self, _name: &CredentialName, _content: &Secret) -> Result<(), ProviderError> {
        Ok(())
    }

    /// What it needs of the rest of the file.
    fn check_beside(&self, _beside: &mut Beside<'_>) {}
}

/// The rest of the file, for one provider.
pub(super) struct Beside<'a> {
    pub(super) problems: &'a mut Problems,
    #[cfg_attr(not(feature = "pkcs11"), expect(dead_code, reason = "only a key in a token warns"))]
    pub(super) warnings: &'a mut Problems,
    /// Of its table, such as `provider[0]`.
    pub(super) path: String,
    #[cfg_attr(not(feature = "pkcs11"), expect(dead_code, reason = "only a key in a token needs a token"))]
    pub(super) seal: &'a Seal,
    pub(super) own_sockets: &'a [&'a Path],
}

impl Settings {
    /// The one place that knows all kinds, beside the rows of `kinds`.
    pub(super) fn of_kind(&self) -> &dyn OfKind {
        match self {
            #[cfg(feature = "vault")]
            Self::Vault(settings) => &**settings,
            #[cfg(feature = "aws")]
            Self::Aws(settings) => &**settings,
            #[cfg(feature = "azure")]
            Self::Azure(settings) => &**settings,
            #[cfg(feature = "pkcs11")]
            Self::Pkcs11(settings) => &**settings,
            Self::KmsPlugin(settings) => &**settings,
        }
    }

    pub(super) fn is_same_key(&self, other: &Self) -> bool {
        self.of_kind().is_same_key(other)
    }
}

impl Provider {
    /// Whether this could be the credential that it logs in with, as far as can be said without asking it.
    pub fn check_credential(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        self.settings.of_kind().check_credential(name, content)
    }

    /// What others make for it alone, and may make again: its files and its socket.
    pub fn own_needs(&self) -> Needs {
        let own = self.settings.of_kind().own_needs();
        self.files.iter().chain(&self.tokens).fold(own, |needs, file| needs.replaced_file(file, "a file of a provider"))
    }

    /// Of the machine, for as long as it is used.
    pub fn needs(&self) -> Needs {
        self.settings.of_kind().needs().and(self.own_needs())
    }

    /// All that it is made of besides its table. The roots of the system may be installed or renewed while it runs.
    /// Credentials lie in the folder of the node root, and are left out where that is not known.
    pub fn made_of(&self, folder: Option<&Path>) -> Vec<PathBuf> {
        let names = self.credentials.iter().map(credential::file_name);
        let sealed = folder.into_iter().flat_map(|folder| names.clone().map(|name| folder.join(name)));
        let roots = if self.settings.of_kind().has_system_roots() { ROOTS } else { &[] };
        sealed.chain(self.files.iter().cloned()).chain(roots.iter().map(PathBuf::from)).collect()
    }
}
