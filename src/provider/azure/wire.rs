//! The SDK's way to the network: our own client of HTTP. It goes to the vault and to the authority and nowhere else, and every refusal leaves it as an
//! error of ours, so that none has to be read out of the SDK's.
//!
//! The one refusal that the SDK sees is the 401 to its first request, which it sends without a login to be told what for. A login that is refused
//! later is not its business: it would ask for another one in a way in which calls at the same time lose theirs.

use std::sync::Arc;

use ::http::header::{ACCEPT, AUTHORIZATION};
use ::http::{HeaderName, HeaderValue, Method};
use async_trait::async_trait;
use azure_core::Bytes;
use azure_core::error::ErrorKind as SdkKind;
use azure_core::http::headers::{Headers, WWW_AUTHENTICATE};
use azure_core::http::{
    AsyncRawResponse, Body as SdkBody, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use serde::Deserialize;

use super::super::http::{Address, Ask, Body, Client, Reply};
use super::super::{ErrorKind, ProviderError};
use super::fault::{Said, Stopped};
use super::settings::Resource;

/// Of a login: Entra ID gives an hour or a day.
const LIFETIME_MAX_SECONDS: i64 = 366 * 24 * 3600;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// Addresses, each with its connections.
#[derive(Clone)]
pub(super) struct Wire {
    places: Arc<Vec<(Address, Client)>>,
    /// What a login may be used for. A vault that asks for another one in its challenge wants to use it elsewhere.
    resource: Resource,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    pub(super) fn new(places: Vec<(Address, Client)>, resource: Resource) -> Self {
        Self { places: Arc::new(places), resource }
    }

    /// For a client of the SDK: one attempt, and this way to the network.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(self.clone()))),
            ..ClientOptions::default()
        }
    }

    async fn ask(&self, request: &Request) -> Result<Reply, Stopped> {
        let url = request.url();
        let failed = |kind, detail: String| Stopped::Failed(ProviderError::new(kind, detail));
        // The SDK speaks only `https://`. Whether that is so is the configuration's: in clear to this machine itself.
        let place =
            format!("https://{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
        let asked: Option<Address> = place.parse().ok();
        let found = asked.and_then(|asked| self.places.iter().find(|(address, _)| address.is_at(&asked)));
        let Some((_, client)) = found else {
            return Err(failed(ErrorKind::Peer, format!("told to go on at {place}, which is not configured")));
        };
        let mut headers = Vec::new();
        for name in [AUTHORIZATION, ACCEPT, REQUEST_ID] {
            if let Some(text) = header(request, &name) {
                let mut value = HeaderValue::from_str(text)
                    .map_err(|_| failed(ErrorKind::Protocol, format!("{name} is not printable")))?;
                value.set_sensitive(name == AUTHORIZATION);
                headers.push((name, value));
            }
        }
        let method = match request.method() {
            azure_core::http::Method::Get => Method::GET,
            azure_core::http::Method::Post => Method::POST,
            other => return Err(failed(ErrorKind::Protocol, format!("the SDK asks by {other}"))),
        };
        let body = match request.body() {
            SdkBody::Bytes(bytes) if bytes.is_empty() => None,
            SdkBody::Bytes(bytes) => {
                let kind = header(request, &::http::header::CONTENT_TYPE).unwrap_or("application/json");
                let kind = HeaderValue::from_str(kind)
                    .map_err(|_| failed(ErrorKind::Protocol, "the content type is not printable".into()))?;
                Some(Body::of(kind, bytes.clone()))
            }
            SdkBody::SeekableStream(_) => return Err(failed(ErrorKind::Protocol, "the SDK sends a stream".into())),
        };
        let path = request.path_and_query();
        let answer = client.ask(Ask { method, path: &path, headers: &headers, body }).await;
        let which =
            |error: ProviderError| ProviderError::new(error.kind(), url.host_str().unwrap_or_default()).because(error);
        answer.map_err(|error| Stopped::Failed(which(error)))
    }

    /// The challenge as the SDK is to see it: what it asks for is what a login is for, or nothing.
    fn checked(&self, challenge: &str) -> Result<String, Stopped> {
        if asked_for(challenge) == Some(self.resource.as_str()) {
            return Ok(format!("Bearer resource=\"{}\"", self.resource));
        }
        let detail = format!("the vault wants a login for a resource other than {}; see `resource`", self.resource);
        Err(Stopped::Failed(ProviderError::new(ErrorKind::Peer, detail)))
    }
}

/// `Bearer authorization="https://…", resource="https://vault.azure.net"`, or `scope="https://vault.azure.net/.default"`:
/// <https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses#authentication>.
fn asked_for(challenge: &str) -> Option<&str> {
    let parameters = challenge.strip_prefix("Bearer ")?.split(',').map(str::trim);
    let mut found = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim_matches('"');
        match name {
            "resource" => Some(value),
            "scope" => value.strip_suffix("/.default"),
            _ => None,
        }
    });
    found.next().map(|resource| resource.trim_end_matches('/'))
}

/// The SDK adds the number in an answer to the time that it is, and panics where there is no such time.
fn lives_too_long(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Lives {
        expires_in: i64,
    }
    let lives: Option<Lives> = serde_json::from_slice(body).ok();
    lives.is_some_and(|lives| !(0..=LIFETIME_MAX_SECONDS).contains(&lives.expires_in))
}

fn header<'a>(request: &'a Request, name: &HeaderName) -> Option<&'a str> {
    let name = azure_core::http::headers::HeaderName::from(name.as_str().to_owned());
    request.headers().get_optional_str(&name)
}

#[async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let stopped = |stopped: Stopped| azure_core::Error::new(SdkKind::Other, stopped);
        let reply = self.ask(request).await.map_err(stopped)?;
        let mut headers = Headers::new();
        let status = reply.status.as_u16();
        let sent_login = header(request, &AUTHORIZATION).is_some();
        let said = || Said::read(&reply);
        match (status, &reply.challenge) {
            (200..300, _) if !lives_too_long(&reply.body) => {}
            (200..300, _) => {
                let detail = "login: a token that lives for more than a year, or ended long ago";
                return Err(stopped(Stopped::Failed(ProviderError::new(ErrorKind::Lied, detail))));
            }
            (401, _) if sent_login => return Err(stopped(Stopped::LoginRefused(said()))),
            (401, Some(challenge)) if request.url().path().starts_with("/keys/") => {
                headers.insert(WWW_AUTHENTICATE, self.checked(challenge).map_err(stopped)?);
            }
            _ => return Err(stopped(Stopped::Refused(said()))),
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), headers, Bytes::from_owner(reply.body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_asks_for_one_resource() {
        const VAULT: Option<&str> = Some("https://vault.azure.net");
        for (challenge, asked) in [
            ("Bearer authorization=\"https://login.windows.net/x\", resource=\"https://vault.azure.net\"", VAULT),
            ("Bearer resource=\"https://vault.azure.net/\"", VAULT),
            ("Bearer authorization=\"x\",scope=\"https://vault.azure.net/.default\"", VAULT),
            ("Bearer scope=\"https://vault.azure.net/User.Read\"", None),
            ("Bearer authorization=\"resource=https://vault.azure.net\"", None),
            ("Basic realm=\"x\"", None),
            ("", None),
        ] {
            assert_eq!(asked_for(challenge), asked, "{challenge}");
        }
    }
}
