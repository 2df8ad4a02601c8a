//! The methods of logging in. What they need is read anew each time: a file may have been replaced, a credential sealed again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::credentials;
use super::super::files;
use super::super::home::Home;
use super::super::http::{self, Body, Client, Identity, Sent, Shown};
use super::super::lease::Grant;
use super::super::once::Once;
use super::super::reads::Reads;
use super::super::session::{self, LOGIN_TIMEOUT, OF_TOKEN_FILE};
use super::super::{Credentials, ErrorKind, Mark, ProviderError};
use super::VaultSettings;
use super::answer::{self, Api, Failed, Token};
use super::fetched::{self, Fetched};
use super::names::{MountPath, Name};
use crate::types::{CredentialName, Secret};

/// How to log in. Credentials are named, never held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAuth {
    /// A token that somebody else made. It cannot be replaced from here when its maximum lifetime ends.
    Token {
        /// The token.
        credential: CredentialName,
    },
    /// `{"role_id": …, "secret_id": …}`, or `{"role_id": …, "wrapping_token": …}` to fetch the secret id once.
    AppRole {
        /// Usually `approle`.
        mount: MountPath,
        /// Needed with a wrapping token: it must have been made for this role's secret id.
        role: Option<Name>,
        /// The JSON above.
        credential: CredentialName,
    },
    /// A JSON web token in a file that somebody keeps fresh: methods `jwt` and `kubernetes`.
    Jwt {
        /// Usually `jwt` or `kubernetes`.
        mount: MountPath,
        /// The mount's default role without one.
        role: Option<Name>,
        /// Read at each login, so that a replaced file or a swapped link is taken up.
        file: PathBuf,
    },
    /// A TLS client certificate.
    Certificate {
        /// Usually `cert`.
        mount: MountPath,
        /// Vault tries all roles without one.
        role: Option<Name>,
        /// Certificate, those that signed it, and its key, in one PEM text.
        credential: CredentialName,
    },
}

/// A connection with a token.
pub(super) struct Login {
    api: Api,
    token: Token,
}

impl Login {
    /// As [`Api::call`], with the token.
    pub(super) async fn call(&self, path: &str, fields: Option<&[(&str, &str)]>) -> Result<Zeroizing<Vec<u8>>, Failed> {
        self.api.call(path, Some(&self.token), fields).await
    }
}

/// Logs in, again and again.
pub(super) struct Logins {
    pub(super) settings: VaultSettings,
    /// Milliseconds: the longest limit of a request that was asked for.
    limit: AtomicU64,
    credentials: Arc<dyn Credentials>,
    reads: Reads,
    /// Of all logins.
    pub(super) shown: Shown,
    /// Fetched with a wrapping token that is used up, and not yet sealed.
    unsealed: tokio::sync::Mutex<Option<Fetched>>,
}

/// The credential of an AppRole. Borrowed, so that the only copy is the one that is wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppRole<'a> {
    role_id: &'a str,
    secret_id: Option<&'a str>,
    wrapping_token: Option<&'a str>,
}

/// The part of an answer that grants a token.
#[derive(Deserialize)]
struct Auth<'a> {
    client_token: &'a str,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Granted<'a> {
    #[serde(borrow)]
    auth: Auth<'a>,
}

impl Auth<'_> {
    fn grant(&self) -> Grant {
        grant(self.lease_duration, self.renewable)
    }
}

fn grant(seconds: u64, renewable: bool) -> Grant {
    // Zero never expires; nothing lives for more than a century.
    let lifetime = (seconds != 0).then(|| Duration::from_secs(seconds.min(100 * 366 * 24 * 3600)));
    Grant { lifetime, renewable }
}

fn refused(failed: Failed, what: &str) -> ProviderError {
    match failed {
        Failed::Unanswered(error) => error,
        Failed::Refused(said) => said.in_login(what),
    }
}

/// The same of a question that may use something up.
fn refused_once(failed: Failed, what: &str, sent: &Sent) -> ProviderError {
    if matches!(&failed, Failed::Refused(said) if said.looked_at_nothing()) {
        sent.take_back();
    }
    refused(failed, what)
}

impl Logins {
    pub(super) fn new(settings: VaultSettings, credentials: Arc<dyn Credentials>) -> Self {
        let logins = Self {
            settings,
            limit: AtomicU64::default(),
            credentials,
            reads: Reads::new(),
            shown: Shown::default(),
            unsealed: tokio::sync::Mutex::new(None),
        };
        logins.allow(logins.settings.timeout.max(LOGIN_TIMEOUT));
        logins
    }

    /// A request may take so long, from the next login on.
    pub(super) fn allow(&self, limit: Duration) {
        self.limit.fetch_max(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    async fn open(&self, name: &CredentialName) -> Result<(Secret, Mark), ProviderError> {
        credentials::opened(&*self.credentials, name).await
    }

    /// Who we are in TLS, where the method is that.
    async fn certificate(&self, auth: &VaultAuth) -> Result<Option<Identity>, ProviderError> {
        match auth {
            VaultAuth::Certificate { credential, .. } => Identity::from_pem(&self.open(credential).await?.0).map(Some),
            _ => Ok(None),
        }
    }

    async fn login(&self, auth: &VaultAuth, api: &Api, sent: &Sent) -> Result<(Token, Grant), ProviderError> {
        match auth {
            VaultAuth::Token { credential } => given(api, &self.open(credential).await?.0).await,
            VaultAuth::AppRole { mount, role, credential } => {
                self.app_role(api, mount, role.as_ref(), credential, sent).await
            }
            VaultAuth::Jwt { mount, role, file } => {
                let jwt = files::token(file, &self.reads).await?;
                let mut fields = vec![("jwt", jwt.as_str())];
                fields.extend(role.as_ref().map(|role| ("role", role.as_str())));
                post(api, mount, &fields, sent).await
            }
            VaultAuth::Certificate { mount, role, .. } => {
                let fields: Vec<_> = role.iter().map(|role| ("name", role.as_str())).collect();
                post(api, mount, &fields, sent).await
            }
        }
    }

    async fn app_role(
        &self,
        api: &Api,
        mount: &MountPath,
        role: Option<&Name>,
        name: &CredentialName,
        sent: &Sent,
    ) -> Result<(Token, Grant), ProviderError> {
        let mut unsealed = self.unsealed.lock().await;
        loop {
            let (secret, mark) = match fetched::sealed(&mut unsealed, &*self.credentials, name).await {
                Some(fetched) => fetched,
                None => self.open(name).await?,
            };
            let credential = parse(&secret, name)?;
            let once = Once { tries: self.credentials.tries(), mark, name, sent };
            let Some(wrapping) = credential.wrapping_token else {
                let login = app_role_login(api, mount, &credential, name, sent);
                return if credential.secret_id.is_some() { once.ask(login).await } else { login.await };
            };
            let secret_id = once.ask(unwrap(api, mount, role, wrapping, sent)).await?;
            // The wrapping token is used up from here on: what it gave must not be lost, whatever the seal says.
            let fields = [("role_id", credential.role_id), ("secret_id", text(&secret_id)?)];
            *unsealed = Some(Fetched::new(Secret::copy_of(Body::json(&fields).expose()), mark));
        }
    }
}

impl session::Logins for Logins {
    type Login = Login;

    /// The connection is made anew with each login, so that a changed ca_file or certificate is taken up. A call has its own limit.
    async fn log_in(&self) -> Result<(Login, Grant), ProviderError> {
        let VaultSettings { address, namespace, roots, auth, .. } = &self.settings;
        let identity = self.certificate(auth).await?;
        let limit = Duration::from_millis(self.limit.load(Ordering::Relaxed));
        let roots = roots.clone();
        let tls = self.reads.run(move || http::config(&roots, identity)).await?;
        let client = Client::new(address.clone(), tls.shown_in(&self.shown), limit, Home::here());
        let sent = client.sent();
        let api = Api::new(client, namespace.as_ref())?;
        let (token, grant) = self.login(auth, &api, &sent).await.map_err(|error| match auth {
            VaultAuth::Jwt { .. } => error.with_login_hint(OF_TOKEN_FILE),
            VaultAuth::Token { .. } | VaultAuth::AppRole { .. } | VaultAuth::Certificate { .. } => error,
        })?;
        Ok((Login { api, token }, grant))
    }

    async fn renew(&self, login: &Login) -> Result<Grant, ProviderError> {
        let what = "auth/token/renew-self";
        let body = login.call(what, Some(&[])).await.map_err(|failed| refused(failed, what))?;
        let Granted { auth } = answer::read(&body, what)?;
        Ok(auth.grant())
    }
}

impl VaultAuth {
    /// Whether this could be the credential of the method, without asking the server. The reason shows nothing of it.
    pub fn check_form(&self, name: &CredentialName, content: &Secret) -> Result<(), ProviderError> {
        match self {
            Self::Token { .. } => Token::new(content.expose().trim_ascii()).map(drop),
            Self::AppRole { .. } => parse(content, name).map(drop),
            Self::Certificate { .. } => Identity::from_pem(content).map(drop),
            Self::Jwt { .. } => Ok(()),
        }
    }
}

fn text(secret: &Secret) -> Result<&str, ProviderError> {
    std::str::from_utf8(secret.expose()).map_err(|_| ProviderError::new(ErrorKind::Login, "a credential is not text"))
}

fn parse<'a>(sealed: &'a Secret, name: &CredentialName) -> Result<AppRole<'a>, ProviderError> {
    // Without the reader's own words, which may show a value.
    let wrong = || {
        ProviderError::new(
            ErrorKind::Login,
            format!("credential {name} is not {{\"role_id\": …, and \"secret_id\": … or \"wrapping_token\": …}}"),
        )
    };
    let credential: AppRole<'a> = serde_json::from_slice(sealed.expose()).map_err(|_| wrong())?;
    if credential.secret_id.is_some() && credential.wrapping_token.is_some() { Err(wrong()) } else { Ok(credential) }
}

async fn app_role_login(
    api: &Api,
    mount: &MountPath,
    credential: &AppRole<'_>,
    name: &CredentialName,
    sent: &Sent,
) -> Result<(Token, Grant), ProviderError> {
    let mut fields = vec![("role_id", credential.role_id)];
    // A role may be bound by its network alone (bind_secret_id=false).
    fields.extend(credential.secret_id.map(|secret_id| ("secret_id", secret_id)));
    post(api, mount, &fields, sent).await.map_err(|error| match error.kind() {
        ErrorKind::Login => ProviderError::new(ErrorKind::Login, format!("credential {name}")).because(error),
        _ => error,
    })
}

async fn post(
    api: &Api,
    mount: &MountPath,
    fields: &[(&str, &str)],
    sent: &Sent,
) -> Result<(Token, Grant), ProviderError> {
    let path = format!("auth/{mount}/login");
    let body = api.call(&path, None, Some(fields)).await.map_err(|failed| refused_once(failed, &path, sent))?;
    let Granted { auth } = answer::read(&body, &path)?;
    Ok((Token::new(auth.client_token.as_bytes())?, auth.grant()))
}

/// A token that was made elsewhere: it is asked how long it lives.
async fn given(api: &Api, sealed: &Secret) -> Result<(Token, Grant), ProviderError> {
    #[derive(Deserialize)]
    struct Looked {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
        /// `None` for one that never ends.
        expire_time: Option<serde::de::IgnoredAny>,
    }
    let what = "auth/token/lookup-self";
    let token = Token::new(sealed.expose().trim_ascii())?;
    let body = api.call(what, Some(&token), None).await.map_err(|failed| refused(failed, what))?;
    let Looked { ttl, renewable, expire_time } = answer::read_data(&body, what)?;
    // In its last second it has 0 left, which otherwise stands for no end.
    let ttl = if expire_time.is_some() { ttl.max(1) } else { ttl };
    Ok((token, grant(ttl, renewable)))
}

/// A fetched secret id. A wrapping token that was made anywhere else is not used: somebody may have put his own in its place.
async fn unwrap(
    api: &Api,
    mount: &MountPath,
    role: Option<&Name>,
    wrapping: &str,
    sent: &Sent,
) -> Result<Secret, ProviderError> {
    #[derive(Deserialize)]
    struct Looked<'a> {
        creation_path: &'a str,
    }
    #[derive(Deserialize)]
    struct Unwrapped<'a> {
        secret_id: &'a str,
    }
    let Some(role) = role else {
        return Err(ProviderError::new(
            ErrorKind::Unfit,
            "a wrapping token needs `role`, to check what it was made for",
        ));
    };
    let what = "sys/wrapping/lookup (an unknown wrapping token has expired or was opened before: if it cannot have expired and this node has not opened it, somebody else has)";
    let fields = [("token", wrapping)];
    let body = api
        .call("sys/wrapping/lookup", None, Some(&fields))
        .await
        .map_err(|failed| refused_once(failed, what, sent))?;
    let looked: Looked<'_> = answer::read_data(&body, "sys/wrapping/lookup")?;
    let expected = format!("auth/{mount}/role/{role}/secret-id");
    if looked.creation_path != expected {
        // A path of Vault's, which is not the token itself by any chance.
        let path = if looked.creation_path.contains(wrapping) { "" } else { looked.creation_path };
        let detail = format!("the wrapping token was made at {path} and not at {expected}");
        return Err(ProviderError::new(ErrorKind::Login, detail));
    }
    let token = Token::new(wrapping.as_bytes())?;
    let what = "sys/wrapping/unwrap";
    let body = api.call(what, Some(&token), Some(&[])).await.map_err(|failed| refused_once(failed, what, sent))?;
    let unwrapped: Unwrapped<'_> = answer::read_data(&body, what)?;
    Ok(Secret::copy_of(unwrapped.secret_id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approle_credential_is_exactly_one_of_two_forms() {
        let parse = |text: &str| {
            let sealed = Secret::copy_of(text.as_bytes());
            let parsed = super::parse(&sealed, &"vault-approle".parse().unwrap());
            parsed.map(|credential| credential.secret_id.is_some()).map_err(|error| error.to_string())
        };
        assert_eq!(parse(r#"{"role_id":"r","secret_id":"s"}"#), Ok(true));
        assert_eq!(parse(r#"{"role_id":"r","wrapping_token":"w"}"#), Ok(false));
        assert_eq!(parse(r#"{"role_id":"r"}"#), Ok(false));
        for bad in [
            r#"{"role_id":"CANARY","secret_id":7}"#,
            r#"{"CANARY":1}"#,
            "CANARY",
            r#"{"role_id":"CANARY","secret_id":"s","wrapping_token":"w"}"#,
        ] {
            let shown = parse(bad).unwrap_err();
            assert!(shown.contains("vault-approle") && !shown.contains("CANARY"), "{shown}");
        }
    }
}
