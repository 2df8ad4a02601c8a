//! The methods of logging in to AWS. What they need is read anew each time. When that is, and which login serves meanwhile, says
//! [`super::super::session`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use serde::Deserialize;
use tokio::sync::OnceCell;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::credentials;
use super::super::files;
use super::super::lease::Grant;
use super::super::reads::Reads;
use super::super::session::{self, OF_TOKEN_FILE};
use super::fault::from_login;
use super::settings::{AwsAuth, AwsBase, RoleArn};
use super::wire::{Wire, unlogged};
use crate::provider::{Credentials, ErrorKind, ProviderError};
use crate::types::{CredentialName, Secret};

/// A login with an end is not used closer to it than this: clocks differ.
const END_MARGIN: Duration = Duration::from_secs(10);

const OF_CHAIN: &str = "see this machine's own login to AWS: its instance role, container role, variables or ~/.aws; nothing of it is sealed here";

/// What AWS's log of the account shows beside the role.
const SESSION_NAME: &str = "nodeseal";

/// A client that signs with one login.
pub(super) struct Signer {
    pub(super) kms: aws_sdk_kms::Client,
}

/// Logs in, again and again.
pub(super) struct Logins {
    wire: Wire,
    auth: AwsAuth,
    source: Arc<dyn Credentials>,
    chain: OnceCell<DefaultCredentialsChain>,
    reads: Reads,
}

impl session::Logins for Logins {
    type Login = Signer;

    async fn log_in(&self) -> Result<(Signer, Grant), ProviderError> {
        let keys = unlogged(self.keys()).await.map_err(|error| self.hinted(error))?;
        let lives = |ends: SystemTime| ends.duration_since(SystemTime::now()).unwrap_or_default();
        let lifetime = keys.expiry().map(|ends| lives(ends).saturating_sub(END_MARGIN));
        if lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            let detail = "a login that has ended before it began; see the clock of this machine";
            return Err(ProviderError::new(ErrorKind::Login, detail));
        }
        Ok((Signer { kms: self.wire.kms(keys) }, Grant { lifetime, renewable: false }))
    }
}

impl Logins {
    /// Asks nobody yet.
    pub(super) fn new(wire: Wire, auth: AwsAuth, source: Arc<dyn Credentials>) -> Self {
        Self { wire, auth, source, chain: OnceCell::new(), reads: Reads::new() }
    }

    /// A login is a look at what was sealed, and asks nobody.
    pub(super) const fn are_here(&self) -> bool {
        matches!(self.auth, AwsAuth::Static { .. })
    }

    /// With what to do about a refused login, where nothing is sealed for it.
    pub(super) fn hinted(&self, error: ProviderError) -> ProviderError {
        match &self.auth {
            AwsAuth::DefaultChain | AwsAuth::AssumeRole { base: AwsBase::DefaultChain, .. } => {
                error.with_login_hint(OF_CHAIN)
            }
            AwsAuth::WebIdentity { .. } => error.with_login_hint(OF_TOKEN_FILE),
            AwsAuth::Static { .. } | AwsAuth::AssumeRole { .. } => error,
        }
    }

    async fn keys(&self) -> Result<Keys, ProviderError> {
        match &self.auth {
            AwsAuth::Static { credential } => self.sealed(credential).await,
            AwsAuth::DefaultChain => self.chained().await,
            AwsAuth::AssumeRole { role, external_id, base } => {
                let base = match base {
                    AwsBase::Static { credential } => self.sealed(credential).await?,
                    AwsBase::DefaultChain => self.chained().await?,
                };
                let asked = self.wire.sts(Some(base)).assume_role().role_arn(role.as_str());
                let asked = asked.role_session_name(SESSION_NAME).set_external_id(external_id.clone());
                let answer = asked.send().await.map_err(|error| from_login("sts:AssumeRole", error))?;
                temporary("sts:AssumeRole", answer.credentials)
            }
            AwsAuth::WebIdentity { role, token_file } => {
                let token = files::token(token_file, &self.reads).await?;
                self.with_token(role, &token).await
            }
        }
    }

    async fn with_token(&self, role: &RoleArn, token: &str) -> Result<Keys, ProviderError> {
        const ASKED: &str = "sts:AssumeRoleWithWebIdentity";
        let asked = self.wire.sts(None).assume_role_with_web_identity().role_arn(role.as_str());
        let asked = asked.role_session_name(SESSION_NAME).web_identity_token(token);
        let answer = asked.send().await.map_err(|error| from_login(ASKED, error))?;
        temporary(ASKED, answer.credentials)
    }

    async fn sealed(&self, name: &CredentialName) -> Result<Keys, ProviderError> {
        let (secret, _) = credentials::opened(&*self.source, name).await?;
        static_keys_of(name, &secret)
    }

    async fn chained(&self) -> Result<Keys, ProviderError> {
        let chain = self.chain.get_or_init(|| async {
            let (region, config) = self.wire.chain();
            DefaultCredentialsChain::builder().configure(config).region(region).build().await
        });
        chain.await.provide_credentials().await.map_err(|error| {
            // The SDK's error is not kept: it can quote a file with keys.
            let (kind, what) = match error {
                CredentialsError::CredentialsNotLoaded(_) => (ErrorKind::Login, "finds no credentials on this machine"),
                CredentialsError::ProviderTimedOut(_) => (ErrorKind::Away, "no answer in time"),
                CredentialsError::InvalidConfiguration(_) => (ErrorKind::Unfit, "a profile or variable is wrong"),
                _ => (ErrorKind::Login, "found a way to log in that was refused"),
            };
            ProviderError::new(kind, format!("the default chain: {what}"))
        })
    }
}

impl AwsAuth {
    /// Whether this could be the credential of the method, without asking the server. The reason shows nothing of it.
    pub fn check_form(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        match self {
            Self::Static { .. } | Self::AssumeRole { base: AwsBase::Static { .. }, .. } => {
                static_keys_of(name, content).map(drop)
            }
            Self::DefaultChain | Self::AssumeRole { base: AwsBase::DefaultChain, .. } | Self::WebIdentity { .. } => {
                Ok(())
            }
        }
    }
}

fn static_keys_of(name: &CredentialName, content: &Secret) -> Result<Keys, ProviderError> {
    let refused = |what| ProviderError::new(ErrorKind::Login, format!("credential {name}: {what}"));
    static_keys(content.expose()).map_err(refused)
}

fn temporary(asked: &str, of: Option<aws_sdk_sts::types::Credentials>) -> Result<Keys, ProviderError> {
    let empty = || ProviderError::new(ErrorKind::Lied, format!("{asked}: an answer without credentials"));
    let of = of.ok_or_else(empty)?;
    let ends = SystemTime::try_from(of.expiration).map_err(|_| empty())?;
    if of.access_key_id.is_empty() || of.secret_access_key.is_empty() || of.session_token.is_empty() {
        return Err(empty());
    }
    Ok(Keys::new(of.access_key_id, of.secret_access_key, Some(of.session_token), Some(ends), "sts"))
}

/// As `nodeseal credentials seal` keeps them.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct StaticKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// The parser's own error is not kept: it quotes.
fn static_keys(json: &[u8]) -> Result<Keys, &'static str> {
    let mut keys: StaticKeys = serde_json::from_slice(json)
        .map_err(|_| r#"is not JSON of the form {"access_key_id": "…", "secret_access_key": "…"}"#)?;
    if keys.access_key_id.is_empty() || keys.secret_access_key.is_empty() {
        return Err("has an empty key");
    }
    let mut take = |text: &mut String| std::mem::take(text);
    let token = keys.session_token.as_mut().map(&mut take);
    let (id, key) = (take(&mut keys.access_key_id), take(&mut keys.secret_access_key));
    Ok(Keys::new(id, key, token, None, "sealed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_keys_are_taken_in_their_one_form() {
        let keys = static_keys(br#"{"access_key_id": "AKIA", "secret_access_key": "a\/b"}"#).unwrap();
        assert_eq!((keys.access_key_id(), keys.secret_access_key(), keys.session_token()), ("AKIA", "a/b", None));
        let with = br#"{"access_key_id": "ASIA", "secret_access_key": "s", "session_token": "t"}"#;
        assert_eq!(static_keys(with).unwrap().session_token(), Some("t"));
        for json in [
            "",
            "CANARY",
            r#"{"access_key_id": "CANARY"}"#,
            r#"{"access_key_id": "a", "secret_access_key": ["CANARY"]}"#,
            r#"{"access_key_id": "", "secret_access_key": "CANARY"}"#,
            r#"{"access_key_id": "a", "secret_access_key": "b", "CANARY": "c"}"#,
        ] {
            let why = static_keys(json.as_bytes()).unwrap_err();
            assert!(!why.contains("CANARY"), "{why}");
        }
    }

    #[test]
    fn an_answer_without_credentials_is_no_login() {
        assert_eq!(temporary("sts:AssumeRole", None).unwrap_err().kind(), ErrorKind::Lied);
    }
}
