//! Requests to one API server over one connection of HTTP/2, one after the other.
//!
//! All that is asked here may be asked twice: reads, patches without a precondition, objects that are made by name. So what fails for a
//! moment is tried again, on a new connection if need be. An answer is read into a buffer that is wiped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Version};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::date;
use super::error::{About, KubeError};
use super::kubeconfig::{Kubeconfig, KubeconfigError, Login, Server};
use super::tls;
use crate::http2::Connection;
use crate::types::Secret;

/// Connecting, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte of an answer. kube-apiserver gives a request up after 60 s (`--request-timeout`).
const SILENCE_TIMEOUT: Duration = Duration::from_secs(65);
/// A whole answer: one byte now and then keeps nobody waiting for ever. Room for [`ANSWER_MAX_BYTES`] at 0.5 MiB a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Of one request, with pauses of 1, 2, 4 and 8 s between them.
const TRIES: u32 = 5;
/// A `Retry-After` that is longer is cut: kube-apiserver says 1 s.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer: the metrics of a large cluster, or a page of 250 objects with 256 KiB of annotations each (apimachinery,
/// `TotalAnnotationSizeLimitB`), and their other metadata.
const ANSWER_MAX_BYTES: usize = 128 << 20;
/// Bytes in flight (RFC 9113 §6.9).
const WINDOW_BYTES: u32 = 2 << 20;

pub(super) const JSON: &str = "application/json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// What was answered, with a status of 200 to 299.
pub(super) struct Reply {
    pub(super) body: Zeroizing<Vec<u8>>,
    /// The server's clock, in seconds since 1970.
    pub(super) date: Option<u64>,
}

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// With what stands behind `?`.
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    /// Content type, and the content.
    pub(super) body: Option<(&'static str, String)>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, accept: JSON, body: None }
    }
}

/// One API server, by the login of a kubeconfig.
pub struct Client {
    server: Server,
    login: Arc<Login>,
    tls: Arc<ClientConfig>,
    connection: Option<Connection>,
    tries: u32,
}

/// Why one try has no answer.
struct Stopped {
    error: KubeError,
    /// How long the server wants to be left alone.
    pause: Option<Duration>,
}

impl From<KubeError> for Stopped {
    fn from(error: KubeError) -> Self {
        Self { error, pause: None }
    }
}

impl From<KubeconfigError> for Stopped {
    fn from(error: KubeconfigError) -> Self {
        KubeError::from(error).into()
    }
}

impl Client {
    /// Connects at the first question.
    pub fn new(kubeconfig: Kubeconfig) -> Result<Self, KubeError> {
        let tls = tls::config(&kubeconfig)?;
        let Kubeconfig { server, login, .. } = kubeconfig;
        Ok(Self { server, login: Arc::new(login), tls, connection: None, tries: TRIES })
    }

    /// Another API server of the same cluster, which is asked twice at most.
    #[must_use]
    pub fn to(&self, server: Server) -> Self {
        Self { server, login: Arc::clone(&self.login), tls: Arc::clone(&self.tls), connection: None, tries: 2 }
    }

    /// The same server by its address, if its certificate has no name that was asked for.
    pub fn by_address(&self, error: &KubeError) -> Option<Self> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let reason = error.tls_reason()?;
        let is_of_name =
            matches!(reason, rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }));
        let server = Server::at(&self.server.host, self.server.port, &self.server.host)?;
        (is_of_name && server.name != self.server.name).then(|| self.to(server))
    }

    /// Where it asks.
    pub fn server(&self) -> &Server {
        &self.server
    }

    pub(super) async fn ask(&mut self, ask: Ask<'_>) -> Result<Reply, KubeError> {
        for attempt in 1.. {
            let late = |server: &Server| KubeError::Silent { server: server.to_string(), limit: ANSWER_TIMEOUT }.into();
            let answer = timeout(ANSWER_TIMEOUT, self.once(&ask)).await;
            match answer.unwrap_or_else(|_| Err(late(&self.server))) {
                Ok(reply) => return Ok(reply),
                Err(Stopped { error, pause }) => {
                    if error.status().is_none() {
                        self.connection = None;
                    }
                    if !error.is_passing() || attempt >= self.tries {
                        return Err(error);
                    }
                    sleep(pause.unwrap_or(Duration::from_secs(1 << (attempt - 1))).min(PAUSE_MAX)).await;
                }
            }
        }
        Err(self.unfit("it was not asked"))
    }

    /// The same, read as JSON.
    pub(super) async fn json<T: for<'de> Deserialize<'de>>(&mut self, ask: Ask<'_>) -> Result<T, KubeError> {
        let reply = self.ask(ask).await?;
        serde_json::from_slice(&reply.body).map_err(|_| self.unfit("its JSON has another form"))
    }

    pub(super) fn unfit(&self, what: &'static str) -> KubeError {
        KubeError::Answer { server: self.server.to_string(), what }
    }

    async fn once(&mut self, ask: &Ask<'_>) -> Result<Reply, Stopped> {
        let shown = self.server.to_string();
        let request = self.request(ask)?;
        let sender = self.connected().await?;
        let transport = |source| Stopped::from(KubeError::Transport { server: shown.clone(), source });
        let silent = |_| Stopped::from(KubeError::Silent { server: shown.clone(), limit: SILENCE_TIMEOUT });
        let mut sender = timeout(SILENCE_TIMEOUT, sender.ready()).await.map_err(silent)?.map_err(transport)?;
        let (response, mut sending) = sender.send_request(request, ask.body.is_none()).map_err(transport)?;
        if let Some((_, body)) = &ask.body {
            sending.send_data(Bytes::from(body.clone()), true).map_err(transport)?;
        }
        let response = timeout(SILENCE_TIMEOUT, response).await.map_err(silent)?.map_err(transport)?;
        let (head, mut stream) = response.into_parts();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = timeout(SILENCE_TIMEOUT, stream.data()).await.map_err(silent)? {
            let chunk = chunk.map_err(transport)?;
            // Fails only when more is released than was received.
            let _ = stream.flow_control().release_capacity(chunk.len());
            if body.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(self.unfit("its answer is longer than 128 MiB").into());
            }
            append(&mut body, &chunk);
        }
        if head.status.is_success() {
            return Ok(Reply { body, date: text(&head.headers, DATE).and_then(date::parse) });
        }
        let pause = text(&head.headers, RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let path = ask.path.split('?').next().unwrap_or_default();
        let what = format!("{} {path}", ask.method);
        let (reason, about) = refusal(&body);
        let error = KubeError::Refused { server: shown, what, status: head.status.as_u16(), reason, about };
        Err(Stopped { error, pause })
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<()>, Stopped> {
        let unfit = |_| self.unfit("the question cannot be built");
        let Server { host, port, base, .. } = &self.server;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let request = Request::builder()
            .method(&ask.method)
            .uri(format!("https://{host}:{port}{base}{}", ask.path))
            .version(Version::HTTP_2)
            .header(ACCEPT, ask.accept)
            .header(USER_AGENT, concat!("nodeseal/", env!("CARGO_PKG_VERSION")));
        let mut request = request.body(()).map_err(unfit)?;
        let headers = request.headers_mut();
        if let Some((kind, _)) = &ask.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(token) = self.bearer()? {
            headers.insert(AUTHORIZATION, token);
        }
        Ok(request)
    }

    /// A token in a file is read each time: it is replaced while it is in use.
    fn bearer(&self) -> Result<Option<HeaderValue>, KubeconfigError> {
        match &*self.login {
            Login::Certificate { .. } => Ok(None),
            Login::Token(token) => bearer(token).map(Some),
            Login::TokenFile(path) => bearer(&tls::file(path)?).map(Some),
        }
    }

    async fn connected(&mut self) -> Result<SendRequest<Bytes>, KubeError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.sender());
        }
        let connecting = connect(&self.server, &self.tls);
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| KubeError::Silent { server: self.server.to_string(), limit: CONNECT_TIMEOUT })??;
        Ok(self.connection.insert(connection).sender())
    }
}

async fn connect(server: &Server, tls: &Arc<ClientConfig>) -> Result<Connection, KubeError> {
    let failed = |source| KubeError::Connect { server: server.to_string(), source };
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(server.name.clone(), stream).await.map_err(failed)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let begun = Connection::begin(stream, &mut builder).await;
    begun.map_err(|source| KubeError::Transport { server: server.to_string(), source })
}

/// Without leaving a copy behind where the buffer was before it grew.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.capacity() - body.len() < chunk.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + chunk.len()) * 2));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn bearer(token: &Secret) -> Result<HeaderValue, KubeconfigError> {
    let text = token.expose().trim_ascii();
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(text);
    let mut value = HeaderValue::from_bytes(&header)
        .ok()
        .filter(|_| !text.is_empty())
        .ok_or(KubeconfigError::Value { what: "token", why: "is none" })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The `reason` of a `Status`, which is one word, and what it is about.
fn refusal(body: &[u8]) -> (String, Option<Box<About>>) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        reason: String,
        details: Details,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Details {
        kind: String,
        name: String,
    }
    let Status { reason, details } = serde_json::from_slice(body).unwrap_or_default();
    let reason = reason.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let about = About { kind: details.kind, name: details.name };
    let about = (!about.kind.is_empty()).then(|| Box::new(about));
    (reason, about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_one_word_is_kept_and_no_sentence_about_the_object() {
        let status =
            br#"{"kind":"Status","message":"Secret \"x\" is invalid: data: hunter2","reason":"Invalid","code":422}"#;
        assert_eq!(refusal(status), ("Invalid".to_owned(), None));
        assert_eq!(refusal(br#"{"reason":"a b\u001b[2Jc"}"#).0, "ab2Jc");
        assert_eq!((refusal(b"upstream connect error").0, refusal(b"").0), (String::new(), String::new()));
    }

    #[test]
    fn a_token_is_sent_without_the_line_break_of_its_file() {
        let header = bearer(&Secret::copy_of(b"abc\n")).unwrap();
        assert!(header == "Bearer abc" && header.is_sensitive());
        for text in [&b""[..], b"\n", b"a\nb", b"a\0b"] {
            assert!(bearer(&Secret::copy_of(text)).is_err());
        }
    }
}
