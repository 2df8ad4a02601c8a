//! A key in Azure Key Vault or Managed HSM: RSA with OAEP and SHA-256, or AES key wrap in a managed HSM, by the vendor's own SDK.
//!
//! **Identity** is `HOST/NAME@TIME`: the vault, the key, and when the oldest of its versions was made, in seconds since 1970. Azure has no id for a key over its
//! versions. A version cannot be deleted without its key, so this time stays; a key that was purged and made again under the same name has another
//! one, and one that was deleted and recovered has the same.
//!
//! **Version** is Azure's own, 32 hexadecimal digits. A wrap names the newest version that is enabled and within its time, looked up before each wrap:
//! asked for no version, Azure wraps RSA with a disabled one too, which would not open. The recorded version opens. An answer's `kid` must
//! be that of the key and version that were asked for.
//!
//! Neither algorithm has associated data: a text is not bound to its cluster and its KEK by Azure. The envelope around it is.
//!
//! Refuses to read the environment, to retry, to follow a redirect or a link of a list to another host, and to get a login for anything but its own
//! resource, whatever a challenge asks for.
//!
//! **Secrets.** Nothing of the SDK is logged, also at the finest level, and no error keeps a body. Wiped are KEKs in requests and answers, tokens, and
//! what was sealed. What the SDK does not wipe: the token that it was last given, which it holds until the next call, and the header of a request with it; the form of a
//! login with its secret or assertion, and the answer to that. All but the first are freed when the call ends. Core dumps and swap are closed to the process for this reason.

mod assertion;
mod fault;
mod key;
mod login;
mod settings;
mod wire;

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::Bytes;
use azure_core::http::{RequestContent, Response};
use azure_security_keyvault_keys::models::{KeyClientWrapKeyOptions, KeyOperationParameters, KeyOperationResult};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use zeroize::{Zeroize, Zeroizing};

use super::home::Home;
use super::http::{self, Body, Client, Shown};
use super::reads::Reads;
use super::session::{LOGIN_TIMEOUT, Refusal, Session};
use super::{
    Answer, Context, Credentials, Ends, ErrorKind, Kek, KeyState, ProviderError, ProviderKind, Wrapped, base64,
};
use crate::types::{Key, lock};
use fault::{Failed, UNWRAP};
use key::{Known, Wanted};
use login::{Bearer, Logins};
use wire::Wire;

pub use super::http::{Address, AddressError, SYSTEM_ROOTS, TrustAnchors};
pub use settings::{Algorithm, AzureAuth, AzureSettings, EntraId, FormError, KeyName, Resource};

const WRAP: &str = "wrapKey";
/// Characters of base64url for 32 bytes.
const KEY_CHARACTERS: usize = 43;

/// One key in Azure, with a login to it.
pub struct AzureKek {
    wanted: Wanted,
    client: KeyClient,
    session: Arc<Session<Logins>>,
    limit: Duration,
    shown: Shown,
    /// The SDK's first request goes out without a login, to be told what for. One call does that for all.
    challenged: OnceCell<()>,
    known: Mutex<Option<Known>>,
}

impl AzureKek {
    /// Reads the file of roots; asks nobody yet.
    pub fn open(settings: AzureSettings, credentials: Arc<dyn Credentials>) -> Result<Self, ProviderError> {
        let unfit = |what: &str| ProviderError::new(ErrorKind::Unfit, what);
        let resource =
            settings.resource().ok_or_else(|| unfit("the vault's host name gives no resource: set `resource`"))?;
        let authority = settings.authority().map_err(|error| unfit("authority").because(error))?;
        let AzureSettings { vault, key, algorithm, auth, roots, timeout: limit, .. } = settings;
        let tls = http::config(&roots, None)?;
        let home = Home::here();
        // A call has its own limit.
        let timeout = LOGIN_TIMEOUT.max(limit);
        let to = |address: &Address| Client::new(address.clone(), tls.clone(), timeout, home.clone());
        let places = vec![(vault.clone(), to(&vault)), (authority.clone(), to(&authority))];
        let wire = Wire::new(places, resource.clone());
        let metadata = match &auth {
            AzureAuth::ManagedIdentity { endpoint, .. } => {
                Some(to(&endpoint.clone().unwrap_or_else(http::instance_metadata)))
            }
            _ => None,
        };
        let options = wire.options();
        let authority = authority.https_url();
        let session =
            Session::new(Logins { auth, credentials, resource, authority, wire, metadata, reads: Reads::new() });
        let bearer = Arc::new(Bearer(session.clone()));
        let options = KeyClientOptions {
            client_options: options,
            // `Wire` lets one resource pass only, which is stricter than the SDK's check by suffix.
            verify_challenge_resource: Some(false),
            ..KeyClientOptions::default()
        };
        let client = KeyClient::new(&vault.https_url(), bearer, Some(options));
        let client = client.map_err(|_| unfit("the SDK does not take the vault's address"))?;
        let wanted = Wanted { vault, name: key, algorithm };
        Ok(Self {
            wanted,
            client,
            session,
            limit,
            shown: tls.shown.clone(),
            challenged: OnceCell::new(),
            known: Mutex::new(None),
        })
    }

    /// Bounds the whole of a call, and does it once more with another login if the vault refused this one.
    fn call<'a, T, F>(&'a self, work: impl Fn() -> F + Send + Sync + 'a) -> Answer<'a, T>
    where
        T: Send + 'a,
        F: Future<Output = Result<T, Failed>> + Send + 'a,
    {
        let whole = async move {
            let held = self.session.login().await?;
            let answer = self.after_challenge(&work).await;
            let refusal = match &answer {
                Ok(_) => {
                    held.has_served();
                    return answer.map_err(Failed::into_error);
                }
                Err(Failed::Login(_)) => Refusal::Unknown,
                Err(Failed::Finally(error)) if error.kind() == ErrorKind::Forbidden => Refusal::Denied,
                Err(Failed::Finally(_)) => return answer.map_err(Failed::into_error),
            };
            let again = match self.session.another(&held, refusal).await {
                Some(_) => self.after_challenge(&work).await,
                None => answer,
            };
            again.map_err(Failed::into_error)
        };
        Box::pin(async move {
            let late = |_| Err(ProviderError::new(ErrorKind::Away, format!("no answer within {:?}", self.limit)));
            unlogged(tokio::time::timeout(self.limit, whole)).await.unwrap_or_else(late)
        })
    }

    async fn after_challenge<T, F>(&self, work: impl Fn() -> F + Send + Sync) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>> + Send,
    {
        self.challenged.get_or_try_init(|| async { self.ask().await.map(drop) }).await?;
        work().await
    }

    fn last_seen(&self) -> Option<Known> {
        lock::lock(&self.known).clone()
    }

    async fn ask(&self) -> Result<Known, Failed> {
        let known = self.wanted.ask(&self.client, self.last_seen().as_ref()).await?;
        *lock::lock(&self.known) = Some(known.clone());
        Ok(known)
    }

    async fn wrap(&self, key: &Key) -> Result<Wrapped, Failed> {
        let known = self.ask().await?;
        let KeyState { identity, version } = self.wanted.state(&known)?;
        let mut text = Zeroizing::new([0; KEY_CHARACTERS]);
        let value = base64::encoded::<Base64UrlUnpadded>(key.expose(), &mut *text)?;
        let under = KeyClientWrapKeyOptions { key_version: Some(version.to_string()), ..Default::default() };
        let answer = self.client.wrap_key(self.wanted.name.as_str(), self.request(value), Some(under));
        let answer = answer.await.map_err(|error| fault::in_use(WRAP, &error))?;
        let text = self.read(WRAP, version.as_str(), answer, |value| Base64UrlUnpadded::decode_vec(value).ok())?;
        if !self.wanted.algorithm.gives(text.len()) {
            let detail = format!("a text of {} bytes is none of {}", text.len(), self.wanted.algorithm.name());
            return Err(lied(WRAP, &detail).into());
        }
        Wrapped::new(ProviderKind::Azure, identity, version, text)
            .map_err(|error| lied(WRAP, "a text of no proper length").because(error).into())
    }

    /// One request, so that a KEK opens with the right to unwrap alone. The version makes sure of the key: its id is never given again.
    async fn unwrap(&self, wrapped: &Wrapped) -> Result<Key, Failed> {
        let foreign = |why: String| Failed::from(ProviderError::new(ErrorKind::Text, why));
        let scope = self.wanted.scope();
        let of_this_name = wrapped.identity.as_str().rsplit_once('@').is_some_and(|(of, _)| of == scope);
        if wrapped.kind != ProviderKind::Azure || !of_this_name {
            let detail = format!("made by {} {}, asked of {scope}", wrapped.kind.label(), wrapped.identity);
            return Err(foreign(detail));
        }
        let version = wrapped.version.as_str();
        if version.len() != 32 || !version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(foreign("its version is none of Azure's".into()));
        }
        let value = Base64UrlUnpadded::encode_string(wrapped.text());
        let answer = self.client.unwrap_key(self.wanted.name.as_str(), version, self.request(&value), None);
        let answer = answer.await.map_err(|error| fault::in_use(UNWRAP, &error))?;
        Ok(self.read(UNWRAP, version, answer, base64::key::<Base64UrlUnpadded>)?)
    }

    fn request(&self, value: &str) -> RequestContent<KeyOperationParameters> {
        Body::json(&[("alg", self.wanted.algorithm.name()), ("value", value)]).into_bytes().into()
    }

    /// The value of an answer, which must be of this version. The answer is wiped.
    fn read<T>(
        &self,
        asked: &str,
        version: &str,
        answer: Response<KeyOperationResult>,
        value: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ProviderError> {
        #[derive(Deserialize)]
        struct Answered<'a> {
            #[serde(borrow)]
            kid: Cow<'a, str>,
            value: &'a str,
        }
        let body = Bytes::from(answer.into_body());
        let read = match serde_json::from_slice::<Answered<'_>>(&body) {
            Ok(Answered { kid, .. }) if self.wanted.version_of(&kid).ok().as_deref() != Some(version) => {
                Err(lied(asked, "an answer of another key or version"))
            }
            Ok(Answered { value: text, .. }) => value(text).ok_or_else(|| lied(asked, "a value that cannot be right")),
            Err(_) => Err(ProviderError::new(ErrorKind::Protocol, format!("{asked}: not the expected JSON"))),
        };
        // The SDK has copied it into a buffer that nobody else holds by now.
        if let Ok(mut body) = body.try_into_mut() {
            body.zeroize();
        }
        read
    }
}

impl Kek for AzureKek {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Azure
    }

    fn ends(&self) -> Ends {
        Ends { login: self.session.lasts(), certificate: self.shown.lasts() }
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        self.call(move || async move { Ok(self.wanted.state(&self.ask().await?)?) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        self.call(move || self.wrap(key))
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        self.call(move || self.unwrap(wrapped))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Keeps the SDK out of every log while this is polled.
async fn unlogged<T>(work: impl Future<Output = T>) -> T {
    work.with_subscriber(Dispatch::none()).await
}

fn lied(asked: &str, what: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Lied, format!("{asked}: {what}"))
}
