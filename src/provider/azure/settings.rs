//! What the Azure provider is told: parsed once, and without a secret. Performs no IO.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::super::http::{Address, TrustAnchors};
use crate::sandbox::Needs;
use crate::types::{CredentialName, checked_text};

/// Why a text is not what its place needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {form}")]
pub struct FormError {
    what: &'static str,
    form: &'static str,
}

/// One key, and how to get to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureSettings {
    /// Of the vault or the managed HSM, as `https://NAME.vault.azure.net` or `https://NAME.managedhsm.azure.net`.
    pub vault: Address,
    /// The key's name, without a version.
    pub key: KeyName,
    /// How it wraps.
    pub algorithm: Algorithm,
    /// How to log in.
    pub auth: AzureAuth,
    /// Where Entra ID gives logins. None: that of the vault's cloud.
    pub authority: Option<Address>,
    /// What a login is good for. None: the vault's host without its first label, as `https://vault.azure.net`.
    pub resource: Option<Resource>,
    /// Who may have signed the certificates of vault and authority.
    pub roots: TrustAnchors,
    /// For one call in all: login, connection and every request that it takes.
    pub timeout: Duration,
}

impl AzureSettings {
    /// One attempt within the budget of a request of kube-apiserver.
    pub const TIMEOUT: Duration = Duration::from_millis(800);

    /// Ports of vault and login, and names of machines.
    pub fn needs(&self) -> Needs {
        let login = match &self.auth {
            // 169.254.169.254, which has no name and no TLS.
            AzureAuth::ManagedIdentity { endpoint, .. } => {
                endpoint.as_ref().map_or(Needs::default().port(80), |endpoint| endpoint.needs(&self.roots))
            }
            AzureAuth::ClientSecret { .. }
            | AzureAuth::ClientCertificate { .. }
            | AzureAuth::WorkloadIdentity { .. } => {
                self.authority().map_or_else(|_| Needs::default(), |authority| authority.needs(&self.roots))
            }
        };
        self.vault.needs(&self.roots).and(login)
    }

    /// As it was set, or as the vault's host says.
    pub(super) fn resource(&self) -> Option<Resource> {
        let host = self.vault.host();
        let derived = || {
            let (_, parent) = host.split_once('.').filter(|_| host.parse::<IpAddr>().is_err())?;
            format!("https://{parent}").parse().ok()
        };
        self.resource.clone().or_else(derived)
    }

    /// As it was set, or that of the cloud which the vault's host is in.
    pub(super) fn authority(&self) -> Result<Address, super::super::http::AddressError> {
        let host = self.vault.host();
        let known = AUTHORITIES.iter().find(|(suffix, _)| host.ends_with(suffix)).map_or(PUBLIC, |(_, known)| known);
        self.authority.clone().map_or_else(|| known.parse(), Ok)
    }
}

const PUBLIC: &str = "https://login.microsoftonline.com";

/// Clouds of their own: <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>.
const AUTHORITIES: [(&str, &str); 2] = [
    (".usgovcloudapi.net", "https://login.microsoftonline.us"),
    (".azure.cn", "https://login.partner.microsoftonline.cn"),
];

/// How to log in. A credential is the name of a sealed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureAuth {
    /// An application with a password.
    ClientSecret {
        /// Which directory.
        tenant: EntraId,
        /// Which application.
        client: EntraId,
        /// Name of the sealed password.
        credential: CredentialName,
    },
    /// An application with a certificate of an RSA key.
    ClientCertificate {
        /// Which directory.
        tenant: EntraId,
        /// Which application.
        client: EntraId,
        /// Name of the sealed certificate with its key, in one PEM text.
        credential: CredentialName,
    },
    /// What the machine is, as its metadata service says. Nothing is sealed.
    ManagedIdentity {
        /// Which of the identities that were assigned to the machine. None: its own.
        client: Option<EntraId>,
        /// Instead of 169.254.169.254.
        endpoint: Option<Address>,
    },
    /// An application that trusts the issuer of a token, such as a Kubernetes API server.
    WorkloadIdentity {
        /// Which directory.
        tenant: EntraId,
        /// Which application.
        client: EntraId,
        /// Read at each login.
        token_file: PathBuf,
    },
}

/// How a key wraps. Neither has associated data. What is older (RSA-OAEP with SHA-1, RSA1_5) is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Keys `RSA` and `RSA-HSM`.
    RsaOaep256,
    /// AES-KW (RFC 3394): keys `oct-HSM` of 256 bits, in a managed HSM.
    A256Kw,
}

impl Algorithm {
    /// As it is written in the configuration and in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::A256Kw => "A256KW",
        }
    }

    /// Key types of the REST reference, "JsonWebKeyType".
    pub(super) fn fits(self, kty: &str) -> bool {
        match self {
            Self::RsaOaep256 => matches!(kty, "RSA" | "RSA-HSM"),
            Self::A256Kw => matches!(kty, "oct" | "oct-HSM"),
        }
    }

    /// Whether a wrap of 32 bytes can have so many: the modulus of RSA, or 8 more than AES-KW was given.
    pub(super) fn gives(self, len: usize) -> bool {
        match self {
            Self::RsaOaep256 => matches!(len, 256 | 384 | 512),
            Self::A256Kw => len == 40,
        }
    }
}

impl FromStr for Algorithm {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let all = [Self::RsaOaep256, Self::A256Kw];
        let form = FormError { what: "an algorithm", form: "\"RSA-OAEP-256\" or \"A256KW\"" };
        all.into_iter().find(|algorithm| algorithm.name() == text).ok_or(form)
    }
}

checked_text! {
    /// Name of a key: <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#object-identifiers>.
    KeyName, FormError, |text| {
        let fits = all(text, 127, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
        form(fits, "a key", "its name alone, of letters, digits and '-', up to 127")
    }
}

checked_text! {
    /// Of a tenant or an application: a GUID, or a tenant's domain.
    EntraId, FormError, |text| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let fits = all(text, 253, is_fine) && !text.starts_with('.');
        form(fits, "a tenant or client id", "a GUID as 00000000-0000-0000-0000-000000000000, or a tenant's domain")
    }
}

checked_text! {
    /// What a login is good for; with `/.default` behind it, its scope.
    Resource, FormError, |text| {
        let host = text.strip_prefix("https://").unwrap_or_default();
        let fits = all(host, 253, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':'));
        form(fits, "a resource", "https://HOST without a path")
    }
}

fn form(fits: bool, what: &'static str, form: &'static str) -> Result<(), FormError> {
    if fits { Ok(()) } else { Err(FormError { what, form }) }
}

fn all(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vault: &str) -> AzureSettings {
        AzureSettings {
            vault: vault.parse().unwrap(),
            key: "nodeseal".parse().unwrap(),
            algorithm: Algorithm::RsaOaep256,
            auth: AzureAuth::ManagedIdentity { client: None, endpoint: None },
            authority: None,
            resource: None,
            roots: TrustAnchors::System,
            timeout: AzureSettings::TIMEOUT,
        }
    }

    #[test]
    fn the_cloud_of_a_vault_says_who_logs_in_and_for_what() {
        for (vault, resource, authority) in [
            ("https://mine.vault.azure.net", "https://vault.azure.net", "https://login.microsoftonline.com:443"),
            (
                "https://a.managedhsm.azure.net/",
                "https://managedhsm.azure.net",
                "https://login.microsoftonline.com:443",
            ),
            ("https://b.vault.azure.cn", "https://vault.azure.cn", "https://login.partner.microsoftonline.cn:443"),
            (
                "https://c.vault.usgovcloudapi.net",
                "https://vault.usgovcloudapi.net",
                "https://login.microsoftonline.us:443",
            ),
        ] {
            let settings = settings(vault);
            assert_eq!(settings.resource().unwrap().as_str(), resource);
            assert_eq!(settings.authority().unwrap().to_string(), authority);
        }
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_path_or_a_form() {
        for bad in ["", "a/b", "a?b", "a_b", "..", "a%2f", "ü", &"a".repeat(128)] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad}");
        }
        assert!("nodeseal-Prod-1".parse::<KeyName>().is_ok());
        for bad in ["", "a/b", "a b", "a&b=c", ".."] {
            assert!(bad.parse::<EntraId>().is_err(), "{bad}");
        }
        for bad in ["", "https://", "http://vault.azure.net", "https://vault.azure.net/", "vault.azure.net"] {
            assert!(bad.parse::<Resource>().is_err(), "{bad}");
        }
        assert_eq!(
            "RSA-OAEP".parse::<Algorithm>().map_err(|error| error.to_string()),
            Err("an algorithm is \"RSA-OAEP-256\" or \"A256KW\"".to_owned())
        );
    }
}
