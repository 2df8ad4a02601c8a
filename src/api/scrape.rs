//! The metrics endpoint: `GET /metrics` over HTTP/1.1, on a thread and a runtime of its own, so that whoever collects costs no call of the KMS
//! API its turn.
//!
//! One question for each connection, a few connections at once, a bounded head and a bounded time for each; a body is not read. Nobody is
//! asked who he is: the kernel decides who may connect, by the mode of the socket, and what is told is no secret. On the network it is the
//! machine itself alone.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// At once: a collector, its spare, and a person. More are closed unread.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of a head, and of what is read ahead of it; the least that hyper takes.
const HEAD_MAX_BYTES: usize = 8192;
/// From the connection to the last byte of the answer: the time that Prometheus gives a scrape (`scrape_timeout`).
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// After accept(2) failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PATH: &str = "/metrics";

/// Where metrics are given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket.
    Unix(PathBuf),
    /// A port of this machine that no other one reaches.
    Loopback(SocketAddr),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

/// A socket that listens at such a place.
#[derive(Debug)]
pub enum Listener {
    /// See [`Place::Unix`].
    Unix(UnixListener),
    /// See [`Place::Loopback`].
    Loopback(TcpListener),
}

/// What is answered, and as what.
pub struct Page<F> {
    /// Of the text.
    pub content_type: &'static str,
    /// Makes the text. It may block for a while: everybody who asks meanwhile waits too.
    pub text: F,
}

/// Answers until the process ends. An error is what kept it from beginning.
pub fn serve<F: Fn() -> String + Send + Sync + 'static>(listener: Listener, page: Page<F>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
    let (page, places) = (Arc::new(page), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    runtime.block_on(async {
        match listener {
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                loop {
                    admit(listener.accept().await, &page, &places).await;
                }
            }
            Listener::Loopback(listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    admit(listener.accept().await, &page, &places).await;
                }
            }
        }
    })
}

async fn admit<S, A, F>(accepted: io::Result<(S, A)>, page: &Arc<Page<F>>, places: &Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> String + Send + Sync + 'static,
{
    let Ok((stream, _)) = accepted else { return sleep(ACCEPT_PAUSE).await };
    let Ok(place) = Arc::clone(places).try_acquire_owned() else { return };
    let page = Arc::clone(page);
    tokio::spawn(async move {
        let _place = place;
        let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&request, &page))));
        let mut builder = http1::Builder::new();
        let builder = builder.keep_alive(false).max_buf_size(HEAD_MAX_BYTES).timer(TokioTimer::new());
        // A collector that goes away, or that takes its time, is its own affair.
        let _ = timeout(CONNECTION_TIMEOUT, builder.serve_connection(TokioIo::new(stream), service)).await;
    });
}

fn answer<F: Fn() -> String>(request: &Request<Incoming>, page: &Page<F>) -> Response<String> {
    let plain = |status, text: &str| {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    };
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "nodeseald gives its metrics at /metrics");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut response = Response::new((page.text)());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn page() -> Page<impl Fn() -> String + Send + Sync + 'static> {
        Page { content_type: "application/openmetrics-text", text: || "x 1\n# EOF\n".to_owned() }
    }

    fn asked(mut stream: impl Read + Write, request: &str) -> String {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_page_is_given_by_a_socket_and_by_a_port_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        thread::spawn(|| serve(Listener::Unix(unix), page()));
        thread::spawn(|| serve(Listener::Loopback(tcp), page()));
        let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
        let by_unix = |line: &str| asked(UnixStream::connect(&path).unwrap(), &request(line));
        let answers = [by_unix("GET /metrics"), asked(TcpStream::connect(address).unwrap(), &request("GET /metrics"))];
        for answer in answers {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nx 1\n# EOF\n"), "{answer}");
            assert!(answer.contains("content-type: application/openmetrics-text\r\n"), "{answer}");
        }
        assert!(by_unix("HEAD /metrics").ends_with("\r\n\r\n"));
        assert!(by_unix("GET /").starts_with("HTTP/1.1 404"));
        assert!(by_unix("POST /metrics").starts_with("HTTP/1.1 405"));
        // What was not read of it may reset the connection before the refusal is read.
        let mut stream = UnixStream::connect(&path).unwrap();
        let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(HEAD_MAX_BYTES));
        let mut answer = Vec::new();
        let _ = stream.write_all(long.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }

    #[test]
    fn those_who_ask_nothing_take_their_places_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(|| serve(Listener::Unix(listener), page()));
        let mut silent: Vec<_> = (0..=CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let mut last = silent.pop().unwrap();
        assert_eq!(last.read(&mut [0; 1]).unwrap(), 0, "closed unread");
        drop(silent);
        // As soon as the others are seen to have gone.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let mut stream = UnixStream::connect(&path).unwrap();
            let mut answer = String::new();
            let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.ends_with("# EOF\n") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{answer}");
        }
    }
}
