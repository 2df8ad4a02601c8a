//! A login to AWS: who signs, for how long, and where a fresh one comes from.
//!
//! A login is made when it is first needed, when the last one nears its end, and when AWS refused it. Callers that need one at the same time wait for
//! one. A renewal that fails leaves the old login in use for as long as it lasts.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::fault::from_login;
use super::settings::{AwsAuth, AwsBase, RoleArn};
use super::wire::Wire;
use crate::provider::{Credentials, ErrorKind, ProviderError};

/// Before its end a login is renewed. STS gives an hour.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Between two tries of a renewal while the old login lasts.
const RENEW_PAUSE: Duration = Duration::from_secs(30);
/// A login with an end is not used closer to it than this: clocks differ.
const END_MARGIN: Duration = Duration::from_secs(10);
/// A login without an end is made anew after this, so that a replaced credential comes into use before the old one is revoked.
const ENDLESS: Duration = Duration::from_secs(60);

/// What AWS's log of the account shows beside the role.
const SESSION_NAME: &str = "nodeseal";

/// Bytes of a web identity's token (STS API, AssumeRoleWithWebIdentity).
const TOKEN_MAX_BYTES: usize = 20_000;

/// A client that signs with one login.
pub(super) struct Session {
    pub(super) kms: aws_sdk_kms::Client,
    made: Instant,
    ends: Option<SystemTime>,
}

impl Session {
    fn is_fresh(&self, now: Instant, clock: SystemTime) -> bool {
        match self.ends {
            Some(ends) => clock + RENEW_BEFORE < ends,
            None => now.duration_since(self.made) < ENDLESS,
        }
    }

    /// Good for this call, although a new one is due.
    fn still_lasts(&self, clock: SystemTime) -> bool {
        self.ends.is_some_and(|ends| clock + END_MARGIN < ends)
    }
}

/// The way to a login, and the present one.
pub(super) struct Login {
    wire: Wire,
    auth: AwsAuth,
    source: Arc<dyn Credentials>,
    chain: OnceCell<DefaultCredentialsChain>,
    now: Mutex<Present>,
    renewal_limit: Duration,
}

#[derive(Default)]
struct Present {
    session: Option<Arc<Session>>,
    /// A renewal is not tried before.
    not_before: Option<Instant>,
}

impl Login {
    /// Asks nobody yet. `limit` is that of a whole call.
    pub(super) fn new(wire: Wire, auth: AwsAuth, source: Arc<dyn Credentials>, limit: Duration) -> Self {
        let now = Mutex::new(Present::default());
        Self { wire, auth, source, chain: OnceCell::new(), now, renewal_limit: limit / 2 }
    }

    /// The present login, or a new one.
    pub(super) async fn session(&self) -> Result<Arc<Session>, ProviderError> {
        let mut present = self.now.lock().await;
        let (now, clock) = (Instant::now(), SystemTime::now());
        if let Some(session) = &present.session {
            let paused = present.not_before.is_some_and(|instant| now < instant);
            if session.is_fresh(now, clock) || (session.still_lasts(clock) && paused) {
                return Ok(Arc::clone(session));
            }
        }
        let old = present.session.clone().filter(|session| session.still_lasts(clock));
        let made = match &old {
            None => self.log_in().await,
            // The call goes on with the old login if this takes too long.
            Some(_) => timeout(self.renewal_limit, self.log_in()).await.unwrap_or_else(|_| {
                Err(ProviderError::new(ErrorKind::Away, "renewal of the login: no answer in time"))
            }),
        };
        match (made, old) {
            (Ok(credentials), _) => {
                let ends = credentials.expiry();
                let session = Arc::new(Session { kms: self.wire.kms(credentials), made: now, ends });
                *present = Present { session: Some(Arc::clone(&session)), not_before: None };
                Ok(session)
            }
            (Err(_), Some(old)) => {
                present.not_before = Some(now + RENEW_PAUSE);
                Ok(old)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// AWS refused this login: the next call makes another. Another call may have done so already.
    pub(super) async fn forget(&self, refused: &Arc<Session>) {
        let mut present = self.now.lock().await;
        if present.session.as_ref().is_some_and(|session| Arc::ptr_eq(session, refused)) {
            *present = Present::default();
        }
    }

    async fn log_in(&self) -> Result<Keys, ProviderError> {
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
                let token = Zeroizing::new(read_token(token_file)?);
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

    async fn sealed(&self, name: &str) -> Result<Keys, ProviderError> {
        let of = |kind, what: &str| ProviderError::new(kind, format!("credential {name}: {what}"));
        let secret =
            self.source.open(name).await.map_err(|error| of(ErrorKind::Login, "cannot be had").because(error))?;
        static_keys(secret.expose()).map_err(|what| of(ErrorKind::Login, what))
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

/// A few kilobytes that the kubelet or an agent keeps in memory: read where it is needed.
fn read_token(path: &std::path::Path) -> Result<String, ProviderError> {
    let wrong = |why: &str| ProviderError::new(ErrorKind::Login, format!("token_file {}: {why}", path.display()));
    let mut token = fs::read_to_string(path).map_err(|error| wrong("cannot be read").because(error))?;
    token.truncate(token.trim_end().len());
    if (4..=TOKEN_MAX_BYTES).contains(&token.len()) { Ok(token) } else { Err(wrong("is empty or too long")) }
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

    #[test]
    fn a_login_is_renewed_before_its_end_and_used_until_shortly_before_it() {
        let wire_free = |ends| {
            let config =
                aws_sdk_kms::Config::builder().behavior_version(aws_sdk_kms::config::BehaviorVersion::latest());
            Session { kms: aws_sdk_kms::Client::from_conf(config.build()), made: Instant::now(), ends }
        };
        let (now, clock) = (Instant::now(), SystemTime::now());
        let states = |session: &Session, clock| (session.is_fresh(now, clock), session.still_lasts(clock));
        let hour = wire_free(Some(clock + Duration::from_secs(3600)));
        assert_eq!(states(&hour, clock), (true, true));
        assert_eq!(states(&hour, clock + Duration::from_secs(3400)), (false, true));
        assert_eq!(states(&hour, clock + Duration::from_secs(3595)), (false, false));
        let endless = wire_free(None);
        assert_eq!(states(&endless, clock), (true, false));
        assert!(!endless.is_fresh(endless.made + ENDLESS, clock));
    }
}
