//! The connection to AWS: trust, time limits, and clients that do nothing on their own.
//!
//! The SDK's way to the network is our own client of HTTP, as for every other provider: [`super::super::http`] says what it does
//! not do. The SDK's retries, its cache of identities, its protection of slow streams and its proxy from the environment are off. Its
//! log is off too: at its finest level it writes answers with their bodies if a variable of the environment says so, and a body holds a key.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, Uri};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    BehaviorVersion, IdentityCache, Region, RuntimeComponents, SharedHttpClient,
    StalledStreamProtectionConfig as SlowStreams,
};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use bytes::Bytes;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use zeroize::Zeroizing;

use super::super::home::Home;
use super::super::http::{self, Address, Ask, Body, Client, Reply, Shown, Tls, TrustAnchors};
use super::super::session::LOGIN_TIMEOUT;
use super::settings::{AwsSettings, Endpoint};
use crate::provider::{ErrorKind, ProviderError};
use crate::types::lock;

/// Makes clients of one region that share their connections.
pub(super) struct Wire {
    net: Net,
    region: Region,
    kms: Option<Endpoint>,
    sts: Option<Endpoint>,
    timeout: Duration,
}

impl Wire {
    /// Reads the trusted authorities; connects to nothing.
    pub(super) fn open(settings: &AwsSettings) -> Result<Self, ProviderError> {
        let roots = settings.ca_file.clone().map_or(TrustAnchors::System, TrustAnchors::File);
        let net = Net {
            tls: http::config(&roots, None)?,
            timeout: settings.timeout.max(LOGIN_TIMEOUT),
            home: Home::here(),
            places: Arc::default(),
        };
        Ok(Self {
            net,
            region: Region::new(settings.region.clone()),
            kms: settings.endpoint.clone(),
            sts: settings.sts_endpoint.clone(),
            timeout: settings.timeout,
        })
    }

    /// Certificates of the services.
    pub(super) fn shown(&self) -> Shown {
        self.net.tls.shown.clone()
    }

    /// Signs with these.
    pub(super) fn kms(&self, login: Credentials) -> aws_sdk_kms::Client {
        let mut config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(SharedHttpClient::new(self.net.clone()))
            .region(self.region.clone())
            .timeout_config(limits(self.timeout))
            .retry_config(RetryConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(SlowStreams::disabled())
            .credentials_provider(login);
        config.set_endpoint_url(self.kms.as_ref().map(|endpoint| endpoint.as_str().to_owned()));
        aws_sdk_kms::Client::from_conf(config.build())
    }

    /// Signs with these, or asks without a signature, as a web identity does.
    pub(super) fn sts(&self, login: Option<Credentials>) -> aws_sdk_sts::Client {
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(SharedHttpClient::new(self.net.clone()))
            .region(self.region.clone())
            .timeout_config(limits(self.timeout.max(LOGIN_TIMEOUT)))
            .retry_config(RetryConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(SlowStreams::disabled());
        if let Some(login) = login {
            config = config.credentials_provider(login);
        }
        config.set_endpoint_url(self.sts.as_ref().map(|endpoint| endpoint.as_str().to_owned()));
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// For the SDK's own chain of logins, the only part that looks at environment, profiles and the instance.
    pub(super) fn chain(&self) -> (Region, ProviderConfig) {
        let config = ProviderConfig::default()
            .with_http_client(SharedHttpClient::new(self.net.clone()))
            .with_region(Some(self.region.clone()))
            .with_retry_config(RetryConfig::disabled())
            .with_timeout_config(limits(self.timeout.max(LOGIN_TIMEOUT)));
        (self.region.clone(), config)
    }
}

/// Keeps the SDK, and what it calls, out of every log while this is polled.
pub(super) async fn unlogged<T>(work: impl Future<Output = T>) -> T {
    work.with_subscriber(Dispatch::none()).await
}

fn limits(whole: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(whole).operation_timeout(whole).build()
}

/// Where a client goes, and the client.
type Place = (Address, Arc<Client>);

/// Clients by their place. The SDK goes to the two services, and for the default chain to those of the machine.
#[derive(Clone)]
struct Net {
    tls: Tls,
    timeout: Duration,
    home: Home,
    places: Arc<Mutex<Vec<Place>>>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    fn client(&self, address: Address) -> Arc<Client> {
        let mut places = lock::lock(&self.places);
        if let Some((_, client)) = places.iter().find(|(known, _)| *known == address) {
            return Arc::clone(client);
        }
        let client = Arc::new(Client::new(address.clone(), self.tls.clone(), self.timeout, self.home.clone()));
        places.push((address, Arc::clone(&client)));
        client
    }

    async fn ask(&self, request: &HttpRequest) -> Result<HttpResponse, ProviderError> {
        let unfit = |what: &str| ProviderError::new(ErrorKind::Unfit, format!("the SDK asks {what}"));
        let uri: Uri = request.uri().parse().map_err(|_| unfit("at no address"))?;
        let tls = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(|| unfit("no host"))?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let client = self.client(Address::of_parts(tls, host, port).map_err(|_| unfit("at no address"))?);
        let mut headers = Vec::new();
        for (name, value) in request.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit("with an odd header"))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| unfit("with an odd header"))?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        let body = request.body().bytes().ok_or_else(|| unfit("with a stream"))?;
        // The kind of it is among the headers.
        let body = (!body.is_empty()).then(|| {
            let bytes = Bytes::from_owner(Zeroizing::new(body.to_vec()));
            Body::of(HeaderValue::from_static("application/octet-stream"), bytes)
        });
        let method = Method::from_bytes(request.method().as_bytes()).map_err(|_| unfit("by no method"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        answer(client.ask(Ask { method, path, headers: &headers, body }).await?)
    }
}

fn answer(reply: Reply) -> Result<HttpResponse, ProviderError> {
    let odd = |_| ProviderError::new(ErrorKind::Protocol, "an answer with an odd head");
    let status = StatusCode::try_from(reply.status.as_u16()).map_err(|_| odd(()))?;
    let mut answer = HttpResponse::new(status, Bytes::from_owner(reply.body).into());
    for (name, value) in &reply.headers {
        // One that is no text is none that the SDK reads.
        if let Ok(value) = value.to_str() {
            answer.headers_mut().try_append(name.as_str().to_owned(), value.to_owned()).map_err(|_| odd(()))?;
        }
    }
    Ok(answer)
}

impl HttpClient for Net {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // The chain of logins gives up early on a service that the machine does not have.
        let limit = settings.connect_timeout().zip(settings.read_timeout()).map(|(connect, read)| connect + read);
        SharedHttpConnector::new(Way { net: self.clone(), limit })
    }
}

#[derive(Clone, Debug)]
struct Way {
    net: Net,
    limit: Option<Duration>,
}

impl HttpConnector for Way {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { net, limit } = self.clone();
        HttpConnectorFuture::new(async move {
            let asked = net.ask(&request);
            let answer = match limit {
                None => asked.await,
                Some(limit) => {
                    tokio::time::timeout(limit, asked).await.map_err(|late| ConnectorError::timeout(late.into()))?
                }
            };
            answer.map_err(|error| match error.kind() {
                ErrorKind::Away => ConnectorError::io(error.into()),
                _ => ConnectorError::other(error.into(), None),
            })
        })
    }
}
