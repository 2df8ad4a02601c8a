//! The methods of logging in. What they need is read anew each time: a file may have been replaced, a credential sealed again.
//!
//! The SDK makes the requests to Entra ID. It has no part in a machine's own identity: there it goes by the environment, which nothing here does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::{HeaderName, HeaderValue, Method};
use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::{ClientMethodOptions, ClientOptions};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::credentials;
use super::super::files;
use super::super::http::{Ask, Client, Identity};
use super::super::lease::Grant;
use super::super::reads::Reads;
use super::super::session::{self, OF_TOKEN_FILE, Session};
use super::super::{Credentials, ErrorKind, ProviderError};
use super::fault::Stopped;
use super::settings::{AzureAuth, EntraId, Resource};
use super::wire::Wire;
use super::{assertion, fault, unlogged};
use crate::types::{CredentialName, Secret};

const OF_MACHINE: &str =
    "assign the managed identity to this machine, and compare its client id; nothing of it is sealed here";

/// <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#get-a-token-using-http>.
const METADATA_PATH: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";

/// Logs in, again and again.
pub(super) struct Logins {
    pub(super) auth: AzureAuth,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) resource: Resource,
    /// As in the assertions that it takes: `https://HOST`.
    pub(super) authority: String,
    pub(super) wire: Wire,
    /// To the metadata service, where that is the method.
    pub(super) metadata: Option<Client>,
    pub(super) reads: Reads,
}

impl session::Logins for Logins {
    type Login = Secret;

    async fn log_in(&self) -> Result<(Secret, Grant), ProviderError> {
        self.token_of_method().await.map_err(|error| match &self.auth {
            AzureAuth::ManagedIdentity { .. } => error.with_login_hint(OF_MACHINE),
            AzureAuth::WorkloadIdentity { .. } => error.with_login_hint(OF_TOKEN_FILE),
            AzureAuth::ClientSecret { .. } | AzureAuth::ClientCertificate { .. } => error,
        })
    }
}

impl Logins {
    async fn token_of_method(&self) -> Result<(Secret, Grant), ProviderError> {
        match &self.auth {
            AzureAuth::ClientSecret { tenant, client, credential } => {
                let sealed = self.open(credential).await?;
                let secret = text(&sealed, credential)?;
                let made = ClientSecretCredential::new(
                    tenant.as_str(),
                    client.to_string(),
                    secret.to_owned().into(),
                    Some(ClientSecretCredentialOptions { client_options: self.options() }),
                );
                self.token(made).await
            }
            AzureAuth::ClientCertificate { tenant, client, credential } => {
                let of = |error: ProviderError| {
                    ProviderError::new(error.kind(), format!("credential {credential}")).because(error)
                };
                let identity = Identity::from_pem(&self.open(credential).await?).map_err(of)?;
                let audience = format!("{}/{tenant}/oauth2/v2.0/token", self.authority);
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                let made = assertion::made(&identity, client.as_str(), &audience, now).map_err(of)?;
                self.assert(tenant, client, Zeroizing::new(made)).await
            }
            AzureAuth::WorkloadIdentity { tenant, client, token_file } => {
                self.assert(tenant, client, files::token(token_file, &self.reads).await?).await
            }
            AzureAuth::ManagedIdentity { client, .. } => self.of_machine(client.as_ref()).await,
        }
    }
}

/// The session as the SDK knows it. The SDK holds the last token that it was given, and uses none again without asking here: when one ends is not for
/// the clock of the wall to say.
pub(super) struct Bearer(pub(super) Arc<Session<Logins>>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer")
    }
}

#[async_trait]
impl TokenCredential for Bearer {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let stopped = |error| azure_core::Error::new(SdkKind::Credential, Stopped::Failed(error));
        let held = self.0.login().await.map_err(stopped)?;
        let token = String::from_utf8_lossy(held.login.expose()).into_owned();
        Ok(AccessToken::new(token, OffsetDateTime::now_utc()))
    }
}

impl Logins {
    async fn open(&self, name: &CredentialName) -> Result<Secret, ProviderError> {
        credentials::opened(&*self.credentials, name).await.map(|(secret, _)| secret)
    }

    fn options(&self) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&self.authority);
        ClientOptions { cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))), ..self.wire.options() }
    }

    async fn assert(
        &self,
        tenant: &EntraId,
        client: &EntraId,
        sent: Zeroizing<String>,
    ) -> Result<(Secret, Grant), ProviderError> {
        let made = ClientAssertionCredential::new(
            tenant.to_string(),
            client.to_string(),
            Assertion(sent),
            Some(ClientAssertionCredentialOptions { client_options: self.options() }),
        );
        self.token(made).await
    }

    /// Asks Entra ID once. The SDK's credential, with its cache, ends with the request.
    async fn token<C: TokenCredential>(
        &self,
        made: azure_core::Result<Arc<C>>,
    ) -> Result<(Secret, Grant), ProviderError> {
        const ASKED: &str = "login";
        let made = made.map_err(|_| ProviderError::new(ErrorKind::Unfit, "login: tenant, client or authority"))?;
        let scope = format!("{}/.default", self.resource);
        let answer = unlogged(made.get_token(&[&scope], None)).await;
        let answer = answer.map_err(|error| fault::in_login(ASKED, &error))?;
        let AccessToken { token, expires_on } = answer;
        let seconds = (expires_on - OffsetDateTime::now_utc()).whole_seconds();
        granted(token.secret(), u64::try_from(seconds).unwrap_or(0))
    }

    async fn of_machine(&self, client: Option<&EntraId>) -> Result<(Secret, Grant), ProviderError> {
        #[derive(Deserialize)]
        struct Granted<'a> {
            access_token: &'a str,
            /// A number in quotation marks.
            expires_in: &'a str,
        }
        const ASKED: &str = "metadata service";
        let unfit = || ProviderError::new(ErrorKind::Unfit, "no metadata service is configured");
        let resource = self.resource.as_str().replace(':', "%3A").replace('/', "%2F");
        let mut path = format!("{METADATA_PATH}&resource={resource}");
        if let Some(client) = client {
            path = format!("{path}&client_id={client}");
        }
        // It answers to no request that a browser or a forwarding proxy could be made to send.
        let headers = [(HeaderName::from_static("metadata"), HeaderValue::from_static("true"))];
        let ask = Ask { method: Method::GET, path: &path, headers: &headers, body: None };
        let reply = self.metadata.as_ref().ok_or_else(unfit)?.ask(ask).await;
        let reply = reply.map_err(|error| ProviderError::new(error.kind(), ASKED).because(error))?;
        match reply.status.as_u16() {
            200 => {}
            // Both are said while it is being updated: the page above, "Retry guidance".
            404 | 410 => {
                return Err(ProviderError::new(ErrorKind::Down, format!("{ASKED}: {}", reply.status.as_u16())));
            }
            _ => return Err(fault::login_refused(ASKED, &reply)),
        }
        let wrong = || ProviderError::new(ErrorKind::Protocol, format!("{ASKED}: not the expected JSON"));
        let answer: Granted<'_> = serde_json::from_slice(&reply.body).map_err(|_| wrong())?;
        granted(answer.access_token, answer.expires_in.parse().map_err(|_| wrong())?)
    }
}

/// A token that can stand in a header, for some time.
fn granted(token: &str, seconds: u64) -> Result<(Secret, Grant), ProviderError> {
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits || seconds == 0 {
        return Err(ProviderError::new(ErrorKind::Lied, "login: an answer without a token"));
    }
    // Entra ID gives an hour or a day; nothing lives for more than a year.
    let lifetime = Some(Duration::from_secs(seconds.min(366 * 24 * 3600)));
    Ok((Secret::copy_of(token.as_bytes()), Grant { lifetime, renewable: false }))
}

impl AzureAuth {
    /// Whether this could be the credential of the method, without asking the server. The reason shows nothing of it.
    pub fn check_form(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        match self {
            Self::ClientSecret { .. } => text(content, name).map(drop),
            Self::ClientCertificate { .. } => Identity::from_pem(content).map(drop),
            Self::ManagedIdentity { .. } | Self::WorkloadIdentity { .. } => Ok(()),
        }
    }
}

fn text<'a>(secret: &'a Secret, name: &CredentialName) -> Result<&'a str, ProviderError> {
    let text = std::str::from_utf8(secret.expose().trim_ascii()).ok().filter(|text| !text.is_empty());
    text.ok_or_else(|| ProviderError::new(ErrorKind::Login, format!("credential {name} is empty or not text")))
}

/// Already made: the SDK asks for it once.
struct Assertion(Zeroizing<String>);

impl std::fmt::Debug for Assertion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Assertion")
    }
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_has_a_token_and_a_time() {
        assert!(granted("abc", 3600).is_ok());
        for (token, seconds) in [("", 3600), ("a b", 3600), ("a\n", 3600), ("abc", 0)] {
            assert_eq!(granted(token, seconds).err().unwrap().kind(), ErrorKind::Lied, "{token:?} {seconds}");
        }
    }
}
