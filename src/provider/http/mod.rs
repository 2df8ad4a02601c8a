//! One HTTPS request and its answer, for providers: the only place that names TLS and an HTTP client.
//!
//! What it does not do is on purpose. Redirects are not followed: the next host would get the login. Compression is not asked
//! for: lengths would tell of secrets. Nothing is sent twice unless the library says that not a byte of it was sent.
//!
//! Bodies live in buffers that are wiped; hyper and rustls keep copies of their own for a moment in buffers that are not.

mod address;
mod body;
mod moved;
mod names;
mod order;
mod pool;
mod race;
mod shown;
#[cfg(test)]
mod tests;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use ::http::{HeaderMap, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use zeroize::Zeroizing;

#[cfg(feature = "azure")]
pub(super) use address::instance_metadata;
pub use address::{Address, AddressError};
pub(super) use body::Body;
pub(super) use shown::Shown;
#[cfg(any(feature = "azure", feature = "vault"))]
pub(super) use tls::Identity;
pub use tls::{SYSTEM_ROOTS, TrustAnchors};
pub(super) use tls::{Tls, config};

use self::moved::Moved;
use self::names::Names;
use self::pool::{Connect, Made, Pool};
use super::home::Home;
use super::{ErrorKind, ProviderError};

/// Of one TLS handshake, while the name has other addresses.
const SHAKING_TIMEOUT: Duration = Duration::from_secs(2);
/// A request that was not answered by then makes its address doubtful: the next connection goes to another one, if there is one that has not
/// failed. The request itself goes on. A fraction of an attempt (800 ms), so that the second attempt of a call already goes elsewhere.
const DOUBTFUL_AFTER: Duration = Duration::from_millis(250);

/// What was answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// Scheme and host of the `Location` of a redirect, for the operator, if that is an absolute URL.
    #[cfg_attr(
        not(any(feature = "azure", feature = "vault")),
        expect(dead_code, reason = "the SDK of AWS reads the head")
    )]
    pub(super) location: Option<String>,
    /// How it wants to be asked instead: `WWW-Authenticate` of a 401.
    #[cfg_attr(not(feature = "azure"), expect(dead_code, reason = "Vault does not ask back"))]
    pub(super) challenge: Option<String>,
    /// Says that it is JSON.
    #[cfg_attr(not(feature = "vault"), expect(dead_code, reason = "Azure's errors are told by their form"))]
    pub(super) json: bool,
    /// All of the head.
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

#[cfg(any(feature = "azure", feature = "vault"))]
impl Reply {
    /// What is said of a redirect, and nothing of another answer.
    pub(super) fn redirect(&self) -> Option<String> {
        let to = self.location.as_ref().map(|host| format!(" to {host}")).unwrap_or_default();
        self.status.is_redirection().then(|| format!("a redirect{to}, which is not followed"))
    }

    /// How long the peer wants to be left alone: `Retry-After` in seconds (RFC 9110 §10.2.3). A date is not read: clocks differ.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.headers.get(::http::header::RETRY_AFTER)?.to_str().ok()?)
    }
}

/// The same of a header's text.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

/// What is asked. A header of it comes in the place of one of ours. Header values and body are wiped when the last user of them drops.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    pub(super) body: Option<Body>,
}

/// Speaks to one address.
pub(super) struct Client {
    pool: Arc<Pool<Way>>,
    /// Of one request, from looking up the name to the last byte of the answer.
    timeout: Duration,
    sent: Sent,
}

/// Requests that may have reached the peer.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<AtomicUsize>);

#[cfg_attr(not(feature = "vault"), expect(dead_code, reason = "only Vault has logins that serve once"))]
impl Sent {
    pub(super) fn number(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// The peer has said that it did not look at the last one.
    pub(super) fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a connection is made.
struct Way {
    address: Address,
    tls: Tls,
    names: Names,
}

impl Client {
    /// Its connections are made in `home`.
    pub(super) fn new(address: Address, tls: Tls, timeout: Duration, home: Home) -> Self {
        let way = Way { address, tls, names: Names::of_process() };
        Self { pool: Pool::new(way, home), timeout, sent: Sent::default() }
    }

    /// Counts on.
    #[cfg_attr(not(feature = "vault"), expect(dead_code, reason = "only Vault has logins that serve once"))]
    pub(super) fn sent(&self) -> Sent {
        self.sent.clone()
    }

    /// One request. A status of any kind is an answer; an error is what kept us from one.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Reply, ProviderError> {
        match timeout(self.timeout, self.ask_in_time(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(ProviderError::new(ErrorKind::Away, format!("no answer in {:?}", self.timeout))),
        }
    }

    async fn ask_in_time(&self, ask: Ask<'_>) -> Result<Reply, ProviderError> {
        let mut request = self.request(ask)?;
        loop {
            let mut taken = self.pool.take().await?;
            let mut doubt = Doubt { pool: &self.pool, to: taken.made.to, is_open: false };
            self.sent.0.fetch_add(1, Ordering::SeqCst);
            let answer = doubt.while_waiting(taken.made.sender.try_send_request(request)).await;
            match answer {
                Ok(answer) => {
                    let reply = doubt.while_waiting(read(answer)).await.inspect_err(|_| doubt.failed())?;
                    if doubt.answered(reply.status) {
                        self.pool.give_back(taken);
                    }
                    return Ok(reply);
                }
                Err(mut refused) => {
                    let unsent = refused.take_message();
                    self.sent.0.fetch_sub(usize::from(unsent.is_some()), Ordering::SeqCst);
                    match unsent {
                        // One that the peer closed meanwhile gives the request back.
                        Some(unsent) if !taken.is_fresh => {
                            doubt.is_open = false;
                            request = unsent;
                        }
                        _ => {
                            doubt.failed();
                            return Err(broken(refused.into_error()));
                        }
                    }
                }
            }
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, ProviderError> {
        let unfit = |error| ProviderError::new(ErrorKind::Unfit, "path").because(error);
        let (kind, body) = ask.body.map(Body::into_parts).unzip();
        let request = Request::builder().method(ask.method).uri(ask.path);
        let mut request = request.body(Full::new(body.unwrap_or_default())).map_err(unfit)?;
        let host = HeaderValue::try_from(self.pool.connect().address.host_header());
        let host = host.map_err(|error| ProviderError::new(ErrorKind::Unfit, "host").because(error))?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("nodeseal/", env!("CARGO_PKG_VERSION"))));
        headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        for (name, value) in ask.headers {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }
}

/// All of an answer.
async fn read(answer: ::http::Response<Incoming>) -> Result<Reply, ProviderError> {
    let (head, body) = answer.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let location = text(::http::header::LOCATION).and_then(host_of);
    let challenge = text(::http::header::WWW_AUTHENTICATE).map(str::to_owned);
    let json = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    let body = body::read(body).await?;
    Ok(Reply { status: head.status, location, challenge, json, headers: head.headers, body })
}

/// What a status says of the server that gave it.
#[derive(Debug, PartialEq, Eq)]
enum Serves {
    Yes,
    /// Another one may do better with this request.
    Perhaps,
    /// It is sealed, a standby, or a proxy without its server.
    No,
}

impl Serves {
    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            // A standby that is behind (412), and a failure that may be the text's own.
            412 | 500 | 501 => Self::Perhaps,
            // Standbys of Vault that redirect or do not (472, 473); sealed (503); 502 and 504 of a proxy.
            300..=399 | 472 | 473 | 502..=599 => Self::No,
            _ => Self::Yes,
        }
    }
}

/// Whether the address of a request can be relied on.
struct Doubt<'a> {
    pool: &'a Pool<Way>,
    to: IpAddr,
    /// The request takes long, and has no answer yet.
    is_open: bool,
}

impl Doubt<'_> {
    async fn while_waiting<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        if let Ok(answer) = timeout(DOUBTFUL_AFTER, &mut answer).await {
            return answer;
        }
        self.is_open = true;
        // A server that is slow is better than one that hangs.
        if self.pool.connect().doubted(self.to) {
            self.pool.close(self.to);
        }
        answer.await
    }

    /// Whether its connection can be used again.
    fn answered(&mut self, status: StatusCode) -> bool {
        self.is_open = false;
        let serves = Serves::of(status);
        match serves {
            Serves::Yes => self.pool.connect().answered(self.to),
            Serves::Perhaps => self.pool.connect().failed(self.to),
            Serves::No => self.failed(),
        }
        serves == Serves::Yes
    }

    /// Also where the name has no other address: behind one there may be a balancer, for which a new connection is a new choice.
    fn failed(&mut self) {
        self.is_open = false;
        self.pool.connect().failed(self.to);
        self.pool.close(self.to);
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        // Whoever asked has given up.
        if self.is_open {
            self.failed();
        }
    }
}

impl Connect for Way {
    async fn connect(&self, there: &Handle) -> Result<Made, ProviderError> {
        let mut left = self.names.addresses(self.address.host(), self.address.port()).await?;
        left.truncate(race::ADDRESSES_MAX);
        let mut first_error = None;
        while !left.is_empty() {
            match self.connect_to_one(&mut left, there).await {
                Ok(made) => return Ok(made),
                Err(error) => first_error.get_or_insert(error),
            };
        }
        Err(first_error.unwrap_or_else(|| ProviderError::new(ErrorKind::Away, "no address")))
    }
}

impl Way {
    /// To the first of them that answers. It and those that failed before it are left out the next time here.
    async fn connect_to_one(&self, left: &mut Vec<IpAddr>, there: &Handle) -> Result<Made, ProviderError> {
        let (stream, to) = race::connect(left, self.address.port()).await.map_err(away)?;
        let ready = if left.is_empty() {
            self.shake_hands(stream, there).await
        } else {
            // A kernel takes connections for a program that hangs, and a balancer for a server that is gone.
            let late =
                |_| Err(ProviderError::new(ErrorKind::Away, format!("{to}: no handshake in {SHAKING_TIMEOUT:?}")));
            timeout(SHAKING_TIMEOUT, self.shake_hands(stream, there)).await.unwrap_or_else(late)
        };
        match ready {
            Ok(sender) => Ok(Made { sender, to }),
            Err(error) => {
                self.failed(to);
                Err(error)
            }
        }
    }

    fn answered(&self, address: IpAddr) {
        self.names.answered(self.address.host(), self.address.port(), address);
    }

    fn failed(&self, address: IpAddr) {
        self.names.failed(self.address.host(), self.address.port(), address);
    }

    /// Whether the name has another address that is tried before it now.
    fn doubted(&self, address: IpAddr) -> bool {
        self.names.doubted(self.address.host(), self.address.port(), address)
    }

    async fn shake_hands(&self, stream: TcpStream, there: &Handle) -> Result<pool::Sender, ProviderError> {
        stream.set_nodelay(true).map_err(away)?;
        let mut stream = Moved::new(stream);
        if self.address.is_tls() {
            let connector = tokio_rustls::TlsConnector::from(self.tls.config.clone());
            let mut stream = connector.connect(self.address.server_name(), stream).await.map_err(tls::failure)?;
            if let Some(chain) = stream.get_ref().1.peer_certificates() {
                self.tls.shown.note(self.address.host(), chain);
            }
            stream.get_mut().0.move_to(there).map_err(away)?;
            begin(TokioIo::new(stream), there).await
        } else {
            stream.move_to(there).map_err(away)?;
            begin(TokioIo::new(stream), there).await
        }
    }
}

/// HTTP on a connection, which is read and written in that runtime from here on.
async fn begin<S>(stream: S, there: &Handle) -> Result<pool::Sender, ProviderError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
    // Ends when its sender drops or the peer closes; its error is the request's.
    there.spawn(connection);
    Ok(sender)
}

/// Scheme and host of a URL, and nothing of a text that is none or that names a user: the rest may repeat what was sent.
pub(super) fn host_of(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let scheme = url.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host();
    rustls::pki_types::ServerName::try_from(host.trim_matches(['[', ']'])).ok()?;
    let port = authority.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{host}{port}"))
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
