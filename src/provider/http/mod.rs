//! One HTTPS request and its answer, for providers: the only place that names TLS and an HTTP client.
//!
//! What it does not do is on purpose. Redirects are not followed: the next host would get the login. Compression is not asked
//! for: lengths would tell of secrets. Nothing is sent twice unless the library says that not a byte of it was sent.
//!
//! Bodies live in buffers that are wiped; hyper and rustls keep copies of their own for a moment in buffers that are not.

mod address;
mod body;
mod tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

#[cfg(feature = "azure")]
pub(super) use address::instance_metadata;
pub use address::{Address, AddressError};
pub(super) use body::Body;
pub(super) use tls::{Identity, config};
pub use tls::{Roots, SYSTEM_ROOTS};

use super::{ErrorKind, ProviderError};

/// Connections that wait for the next request. More than these are closed after their answer.
const IDLE_MAX: usize = 8;
/// Vault closes an idle connection after 5 minutes (`http_idle_timeout`), proxies and firewalls often after one.
const IDLE_MAX_AGE: Duration = Duration::from_secs(30);

/// What was answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// Scheme and host of the `Location` of a redirect, for the operator.
    pub(super) location: Option<String>,
    /// How it wants to be asked instead: `WWW-Authenticate` of a 401.
    #[cfg_attr(not(feature = "azure"), expect(dead_code, reason = "Vault does not ask back"))]
    pub(super) challenge: Option<String>,
    /// Says that it is JSON.
    #[cfg_attr(not(feature = "vault"), expect(dead_code, reason = "Azure's errors are told by their form"))]
    pub(super) json: bool,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// What is asked. Header values and body are wiped when the last user of them drops.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    pub(super) body: Option<Body>,
}

struct Idle {
    since: Instant,
    sender: SendRequest<Full<Bytes>>,
}

/// Speaks to one address.
pub(super) struct Client {
    address: Address,
    tls: Arc<ClientConfig>,
    /// Of one request, from looking up the name to the last byte of the answer.
    timeout: Duration,
    idle: Mutex<Vec<Idle>>,
}

impl Client {
    pub(super) fn new(address: Address, tls: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self { address, tls, timeout, idle: Mutex::new(Vec::new()) }
    }

    /// One request. A status of any kind is an answer; an error is what kept us from one.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Reply, ProviderError> {
        match tokio::time::timeout(self.timeout, self.ask_in_time(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(ProviderError::new(ErrorKind::Away, format!("no answer in {:?}", self.timeout))),
        }
    }

    async fn ask_in_time(&self, ask: Ask<'_>) -> Result<Reply, ProviderError> {
        let mut request = self.request(ask)?;
        // One that the peer closed meanwhile gives the request back.
        while let Some(mut sender) = self.waiting() {
            match sender.try_send_request(request).await {
                Ok(answer) => return self.reply(answer, sender).await,
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(refused.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        self.reply(answer, sender).await
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, ProviderError> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(HOST, self.address.host_header())
            .header(USER_AGENT, concat!("nodeseal/", env!("CARGO_PKG_VERSION")));
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let body = match ask.body {
            Some(body) => {
                let (kind, bytes) = body.into_parts();
                request = request.header(CONTENT_TYPE, kind);
                bytes
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|error| ProviderError::new(ErrorKind::Unfit, "path").because(error))
    }

    fn waiting(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX_AGE && !idle.sender.is_closed());
        idle.pop().map(|idle| idle.sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(Idle { since: Instant::now(), sender });
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ProviderError> {
        let stream = TcpStream::connect((self.address.host(), self.address.port())).await.map_err(away)?;
        stream.set_nodelay(true).map_err(away)?;
        if self.address.is_tls() {
            let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
            let stream = connector.connect(self.address.server_name(), stream).await.map_err(tls::failure)?;
            Self::handshake(TokioIo::new(stream)).await
        } else {
            Self::handshake(TokioIo::new(stream)).await
        }
    }

    async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, ProviderError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        // Ends when its sender drops or the peer closes; its error is the request's.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn reply(
        &self,
        answer: ::http::Response<Incoming>,
        sender: SendRequest<Full<Bytes>>,
    ) -> Result<Reply, ProviderError> {
        let (head, body) = answer.into_parts();
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let location = text(::http::header::LOCATION).map(host_of);
        let challenge = text(::http::header::WWW_AUTHENTICATE).map(str::to_owned);
        let json = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        let body = body::read(body).await?;
        self.keep(sender);
        Ok(Reply { status: head.status, location, challenge, json, body })
    }
}

/// Scheme and host of a URL: the rest may repeat what was sent.
fn host_of(url: &str) -> String {
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

fn away(error: std::io::Error) -> ProviderError {
    ProviderError::new(ErrorKind::Away, "no connection").because(error)
}

/// The connection ended or spoke another protocol.
fn broken(error: hyper::Error) -> ProviderError {
    if error.is_parse() {
        return ProviderError::new(ErrorKind::Protocol, "not HTTP").because(error);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        let failure = current.downcast_ref::<std::io::Error>();
        if let Some(refused) = failure.and_then(tls::refused_us) {
            return refused;
        }
        cause = current.source();
    }
    ProviderError::new(ErrorKind::Away, "the connection ended before the answer").because(error)
}
