//! Reads a range of keys of a running etcd, or of kine, in the state of one revision.
//!
//! Page by page, since etcd builds an answer in its own memory; each page about [`PAGE_BYTES`] long. A connection that breaks is
//! replaced, by one to the next endpoint of the same etcd if there is one, and the range continues behind the last object. It only
//! ever reads. What it refuses: fewer keys than etcd has counted at that revision ([`State`]).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Version};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::client_error::ClientError;
use super::endpoint::Endpoint;
use super::range::{Answer, RangeError, RangeRequest, Summary};
use super::tls::{self, TlsFiles};
use super::{ReadError, Stored};
use crate::http2::Connection;
use crate::kms::{self, CallError};

/// Bytes of a page that are aimed at: what etcd holds for us at once.
const PAGE_BYTES: usize = 2 << 20;
/// Objects of a page: kube-apiserver asks for 500 by itself (`watchCache` and chunked lists).
const PAGE_OBJECTS: i64 = 500;
const PAGE_OBJECTS_MIN: i64 = 16;
const PAGE_OBJECTS_MAX: i64 = 2000;
/// Connecting, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte of an answer. etcd's own clients wait for as long as they are told; a disk that is busy takes seconds.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// For one page, one after the other on all endpoints.
const TRIES: usize = 3;
/// Bytes in flight (RFC 9113 §6.9): a page.
const WINDOW_BYTES: u32 = 2 << 20;
const RANGE: &str = "/etcdserverpb.KV/Range";

/// Why a page ended before its end.
enum Stop<E> {
    Client(ClientError),
    Malformed(String),
    Taker(E),
}

impl<E> From<RangeError> for Stop<E> {
    fn from(error: RangeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Which keys are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All that there are.
    All,
    /// Those that begin so.
    Below(Vec<u8>),
}

/// What an etcd has of these keys at one revision. Only [`Client::state`] makes one, so that nothing is read whose number is not known, and
/// nothing at the revision 0, which is another one for each page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    first: Vec<u8>,
    end: Vec<u8>,
    revision: i64,
    objects: u64,
    cluster_id: u64,
}

impl State {
    fn of(summary: &Summary, first: Vec<u8>, end: Vec<u8>) -> Result<Self, &'static str> {
        if summary.revision <= 0 {
            return Err("it names no revision");
        }
        let objects = u64::try_from(summary.count).map_err(|_| "it has counted fewer than no keys")?;
        Ok(Self { first, end, revision: summary.revision, objects, cluster_id: summary.cluster_id })
    }

    /// The revision.
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// How many keys.
    pub const fn objects(&self) -> u64 {
        self.objects
    }

    /// Of the etcd as a whole, the same at each of its members. 0: kine has none.
    pub const fn cluster_id(&self) -> u64 {
        self.cluster_id
    }
}

/// An etcd by its endpoints.
pub struct Client {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<ClientConfig>>,
    /// The endpoint that is used, and the connection to it.
    current: usize,
    connection: Option<Connection>,
}

impl Client {
    /// Connects at the first question.
    pub fn new(endpoints: Vec<Endpoint>, files: Option<&TlsFiles>) -> Result<Self, ClientError> {
        if endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        let tls = files.map(tls::config).transpose()?;
        Ok(Self { endpoints, tls, current: 0, connection: None })
    }

    /// What there is to read now.
    ///
    /// All keys are those from `\0` to the end. kine does not know that range: it takes any for a folder, and all that it keeps begins with
    /// a slash (kine, `server/list.go`). So whoever has fewer keys in the open range than below `/` is asked for these.
    pub async fn state(&mut self, keys: &Keys) -> Result<State, ClientError> {
        match keys {
            Keys::Below(prefix) => self.state_of(prefix.clone(), end_of(prefix), None).await,
            Keys::All => {
                let slash = self.state_of(b"/".to_vec(), end_of(b"/"), None).await?;
                match self.state_of(vec![0], vec![0], Some(&slash)).await {
                    Ok(all) if all.objects >= slash.objects => Ok(all),
                    Ok(_) => Ok(slash),
                    Err(error) if error.is_of_question() => Ok(slash),
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn state_of(&mut self, first: Vec<u8>, end: Vec<u8>, at: Option<&State>) -> Result<State, ClientError> {
        let revision = at.map_or(0, |at| at.revision);
        let request = RangeRequest {
            key: first.clone(),
            range_end: end.clone(),
            count_only: true,
            revision,
            ..Default::default()
        };
        let mut refuse = |_: Stored<'_>| {
            Err(Stop::<Infallible>::Malformed("it gave objects where their number was asked for".into()))
        };
        let summary = match self.page_with_tries(&request, &mut refuse).await {
            Ok(summary) => summary,
            Err(ReadError::Source(error)) => return Err(error),
            Err(ReadError::Taker(never)) => match never {},
        };
        let endpoint = || self.endpoint().to_string();
        if at.is_some_and(|at| at.cluster_id != summary.cluster_id) {
            return Err(ClientError::OtherCluster { endpoint: endpoint() });
        }
        let state = State::of(&summary, first, end);
        let state = state.map_err(|what| ClientError::Answer { endpoint: endpoint(), what: what.into() })?;
        Ok(State { revision: at.map_or(state.revision, |at| at.revision), ..state })
    }

    /// Every key of a state, in order, and all that it has counted.
    pub async fn each<E>(
        &mut self,
        state: &State,
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        let (mut limit, mut given) = (PAGE_OBJECTS, 0);
        let State { revision, ref end, ref first, .. } = *state;
        let mut request = RangeRequest { key: first.clone(), range_end: end.clone(), revision, ..Default::default() };
        loop {
            request.limit = limit;
            // Behind it the next question begins, also when this page breaks off.
            let mut last: Option<Vec<u8>> = None;
            let mut take = |stored: Stored<'_>| {
                let next = last.get_or_insert_default();
                if stored.key < request.key.as_slice() || (!next.is_empty() && stored.key <= next.as_slice()) {
                    return Err(Stop::Malformed("its keys are not in order".into()));
                }
                next.clear();
                next.extend_from_slice(stored.key);
                given += 1;
                each(stored).map_err(Stop::Taker)
            };
            let page = self.page_with_tries(&request, &mut take).await;
            let begun = last.is_some();
            if let Some(last) = last {
                request.key = last;
                // The smallest key behind it.
                request.key.push(0);
            }
            let endpoint = || self.endpoint().to_string();
            match page {
                Ok(summary) if summary.cluster_id != state.cluster_id => {
                    return Err(ReadError::Source(ClientError::OtherCluster { endpoint: endpoint() }));
                }
                Ok(summary) if !summary.more && given < state.objects => {
                    let counted = state.objects;
                    return Err(ReadError::Source(ClientError::Short { endpoint: endpoint(), given, counted }));
                }
                Ok(summary) if !summary.more => return Ok(()),
                Ok(summary) if summary.objects == 0 => {
                    let (endpoint, what) = (endpoint(), "an empty page that is not the last one".into());
                    return Err(ReadError::Source(ClientError::Answer { endpoint, what }));
                }
                Ok(summary) => limit = next_limit(&summary),
                // Broken within a page: continue behind the last object.
                Err(ReadError::Source(error)) if begun && error.is_passing() => self.leave(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Tries a page again for as long as it has given nothing.
    async fn page_with_tries<E>(
        &mut self,
        request: &RangeRequest,
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), Stop<E>>,
    ) -> Result<Summary, ReadError<E>> {
        let mut given = false;
        let tries = TRIES.max(self.endpoints.len());
        for _ in 1..tries {
            let mut take = |stored: Stored<'_>| {
                given = true;
                each(stored)
            };
            match self.page(request, &mut take).await {
                Err(ReadError::Source(error)) if !given && error.is_passing() => self.leave(),
                other => return other,
            }
        }
        self.page(request, each).await
    }

    /// The next question goes to the next endpoint.
    fn leave(&mut self) {
        self.connection = None;
        self.current = (self.current + 1) % self.endpoints.len();
    }

    fn endpoint(&self) -> &Endpoint {
        // `current` is always below their number, which is not zero.
        &self.endpoints[self.current]
    }

    async fn page<E>(
        &mut self,
        request: &RangeRequest,
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), Stop<E>>,
    ) -> Result<Summary, ReadError<E>> {
        let endpoint = self.endpoint().to_string();
        let result = self.ask(request, each).await;
        result.map_err(|stop| {
            // What is left of an answer would be read for the next one's.
            self.connection = None;
            match stop {
                Stop::Client(error) => ReadError::Source(error),
                Stop::Malformed(what) => ReadError::Source(ClientError::Answer { endpoint, what }),
                Stop::Taker(error) => ReadError::Taker(error),
            }
        })
    }

    async fn ask<E>(
        &mut self,
        request: &RangeRequest,
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), Stop<E>>,
    ) -> Result<Summary, Stop<E>> {
        let endpoint = self.endpoint().to_string();
        let transport = |source| Stop::Client(ClientError::Transport { endpoint: endpoint.clone(), source });
        let silent = || Stop::Client(ClientError::Silent { endpoint: endpoint.clone(), limit: SILENCE_TIMEOUT });
        let answer =
            |what: &str| Stop::Client(ClientError::Answer { endpoint: endpoint.clone(), what: what.to_owned() });
        let sender = self.connected().await.map_err(Stop::Client)?;
        let question = Request::post(format!("http://localhost{RANGE}"))
            .version(Version::HTTP_2)
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|_| answer("the question cannot be built"))?;
        let mut sender = timeout(SILENCE_TIMEOUT, sender.ready()).await.map_err(|_| silent())?.map_err(transport)?;
        let (response, mut body) = sender.send_request(question, false).map_err(transport)?;
        body.send_data(kms::frame(request), true).map_err(transport)?;
        let response = timeout(SILENCE_TIMEOUT, response).await.map_err(|_| silent())?.map_err(transport)?;
        let (head, mut body) = response.into_parts();
        let is_grpc = |kind: &http::HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        if !head.status.is_success() || !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            return Err(answer("not gRPC"));
        }
        let refused = |headers: &HeaderMap| refusal(headers, &endpoint).map(Stop::Client);
        if let Some(error) = refused(&head.headers) {
            return Err(error);
        }
        let mut reading = Answer::default();
        while let Some(chunk) = timeout(SILENCE_TIMEOUT, body.data()).await.map_err(|_| silent())? {
            let chunk = chunk.map_err(transport)?;
            // Fails only when more is released than was received.
            let _ = body.flow_control().release_capacity(chunk.len());
            reading.feed(&chunk, each)?;
        }
        let trailers = timeout(SILENCE_TIMEOUT, body.trailers()).await.map_err(|_| silent())?.map_err(transport)?;
        if let Some(error) = trailers.as_ref().and_then(refused) {
            return Err(error);
        }
        Ok(reading.end()?)
    }

    async fn connected(&mut self) -> Result<SendRequest<Bytes>, ClientError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.sender());
        }
        let endpoint = self.endpoint().clone();
        let shown = endpoint.to_string();
        let connecting = connect(&endpoint, self.tls.as_ref());
        let connection = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connection) => connection?,
            Err(_) => return Err(ClientError::Silent { endpoint: shown, limit: CONNECT_TIMEOUT }),
        };
        Ok(self.connection.insert(connection).sender())
    }
}

async fn connect(endpoint: &Endpoint, tls: Option<&Arc<ClientConfig>>) -> Result<Connection, ClientError> {
    let failed = |source| ClientError::Connect { endpoint: endpoint.to_string(), source };
    match endpoint {
        Endpoint::Unix(path) => begin(UnixStream::connect(path).await.map_err(failed)?, endpoint).await,
        Endpoint::Clear { host, port } => {
            begin(TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?, endpoint).await
        }
        Endpoint::Tls { host, port, name } => {
            let Some(config) = tls else {
                return Err(failed(io::Error::other("an https:// endpoint needs --cacert")));
            };
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
            begin(connector.connect(name.clone(), stream).await.map_err(failed)?, endpoint).await
        }
    }
}

async fn begin<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    endpoint: &Endpoint,
) -> Result<Connection, ClientError> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let begun = Connection::begin(stream, &mut builder).await;
    begun.map_err(|source| ClientError::Transport { endpoint: endpoint.to_string(), source })
}

/// The status in these headers, unless it is OK or not there.
fn refusal(headers: &HeaderMap, endpoint: &str) -> Option<ClientError> {
    let endpoint = endpoint.to_owned();
    match kms::is_success(headers).err()? {
        CallError::Refused { code, message } => {
            let message = message.chars().filter(|sign| matches!(sign, ' '..='~')).take(300).collect();
            Some(ClientError::Refused { endpoint, code, message })
        }
        CallError::Answer(what) => Some(ClientError::Answer { endpoint, what: what.to_owned() }),
        CallError::Transport(source) => Some(ClientError::Transport { endpoint, source }),
    }
}

/// The end of the range of all keys that begin so (etcd, `clientv3.GetPrefixRangeEnd`).
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

/// So many objects that the next page is about [`PAGE_BYTES`] long, if they go on as they were.
fn next_limit(page: &Summary) -> i64 {
    let average = page.bytes / page.objects.max(1);
    let fitting = i64::try_from(PAGE_BYTES / average.max(1)).unwrap_or(PAGE_OBJECTS_MAX);
    fitting.clamp(PAGE_OBJECTS_MIN, PAGE_OBJECTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_behind_all_keys_of_its_prefix() {
        assert_eq!(end_of(b"/registry/"), b"/registry0");
        assert_eq!(end_of(b"a\xFF"), b"b");
        assert_eq!(end_of(b"\xFF\xFF"), [0]);
    }

    #[test]
    fn a_state_has_a_revision_and_a_number_of_keys() {
        let of = |revision, count| State::of(&Summary { revision, count, ..Summary::default() }, vec![0], vec![0]);
        assert!(of(1, 0).is_ok());
        // 0 would be the newest one, and for each page another.
        assert!(of(0, 1).is_err() && of(-1, 1).is_err() && of(1, -1).is_err());
    }

    #[test]
    fn a_page_of_large_objects_is_followed_by_a_short_one() {
        let page = |objects, bytes| next_limit(&Summary { objects, bytes, ..Summary::default() });
        assert_eq!(page(500, 500 * 1000), PAGE_OBJECTS_MAX);
        assert_eq!(page(500, 500 * 20_000), 104);
        assert_eq!(page(10, 10 << 20), PAGE_OBJECTS_MIN);
        assert_eq!(page(0, 0), PAGE_OBJECTS_MAX);
    }

    #[test]
    fn a_sentence_of_etcd_cannot_break_the_log() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "7".parse().unwrap());
        headers.insert("grpc-message", "no%0Arights%1B[2J".parse().unwrap());
        let Some(ClientError::Refused { code, message, .. }) = refusal(&headers, "etcd") else { panic!() };
        assert_eq!((code, message.as_str()), (7, "norights[2J"));
    }
}
