//! One gRPC call after the other over a connection to a KMS plugin: unary, without compression, without a retry.
//!
//! Total over whatever the other side sends: an answer is one whole message of at most [`ANSWER_MAX_BYTES`] with a gRPC status of
//! its own, or an error. It knows nothing of what the calls mean, and sets no time limit: who calls does, and a call
//! whose future is dropped is reset.
//!
//! Our copies of request and answer are wiped. What h2 copies into its own buffers on their way is not: frames below 256 bytes, and
//! what was read from the socket.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode, Version};
use prost::Message;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::wiped;
use crate::http2;

/// Bytes of an answer. The longest of the API has 32 kB of annotations, 1 kB of text and 1 kB of key_id (kmsv2/envelope.go).
pub(crate) const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Bytes of an answer's header list (RFC 9113 §6.5.2). grpc-go sends below 300.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// gRPC: one byte for compression, four for the length.
const PREFIX_BYTES: usize = 5;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Not what gRPC or the API allow.
    #[error("{0}")]
    Answer(&'static str),
    /// The plugin said no.
    #[error("the plugin refused with gRPC code {code}")]
    Refused {
        /// gRPC's number.
        code: u16,
        /// The plugin's sentence, as it came.
        message: String,
    },
    /// HTTP/2 or the socket.
    #[error("the connection failed")]
    Transport(#[source] h2::Error),
}

impl CallError {
    /// The other side hung up, or gave the call up in an orderly way, as against speaking something else than HTTP/2.
    pub(crate) fn is_of_peer_that_left(&self) -> bool {
        let Self::Transport(error) = self else { return false };
        let orderly = [Reason::NO_ERROR, Reason::CANCEL, Reason::REFUSED_STREAM, Reason::ENHANCE_YOUR_CALM];
        error.is_io() || (error.is_remote() && error.reason().is_some_and(|reason| orderly.contains(&reason)))
    }
}

/// A connection, closed when it drops.
pub(crate) struct Connection(http2::Connection);

impl Connection {
    /// Begins HTTP/2 on a socket that is connected.
    pub(crate) async fn begin(stream: UnixStream) -> Result<Self, CallError> {
        let mut builder = h2::client::Builder::new();
        builder.max_header_list_size(HEADER_LIST_MAX_BYTES);
        http2::Connection::begin(stream, &mut builder).await.map(Self).map_err(CallError::Transport)
    }

    /// Asks `path` (`/package.Service/Method`). `within` is what the plugin is told of the caller's patience.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        question: &Q,
        within: Duration,
    ) -> Result<A, CallError> {
        let request = Request::post(format!("http://localhost{path}"))
            .version(Version::HTTP_2)
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", timeout_text(within))
            .body(())
            .map_err(|_| CallError::Answer("the request cannot be built"))?;
        let mut sender = self.0.sender().ready().await.map_err(CallError::Transport)?;
        let (response, mut body) = sender.send_request(request, false).map_err(CallError::Transport)?;
        body.send_data(frame(question), true).map_err(CallError::Transport)?;
        let (head, mut body) = response.await.map_err(CallError::Transport)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(CallError::Answer("the answer is one of HTTP and not of gRPC"));
        }
        let is_grpc = |kind: &http::HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        if !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            return Err(CallError::Answer("the answer does not say that it is one of gRPC"));
        }
        let mut told = is_success(&head.headers)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(PREFIX_BYTES + ANSWER_MAX_BYTES));
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(CallError::Transport)?;
            // Fails only when more is released than was received.
            let _ = body.flow_control().release_capacity(chunk.len());
            if bytes.len() + chunk.len() > PREFIX_BYTES + ANSWER_MAX_BYTES {
                return Err(CallError::Answer("an answer is longer than any of the API"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if let Some(trailers) = body.trailers().await.map_err(CallError::Transport)? {
            told |= is_success(&trailers)?;
        }
        if !told {
            return Err(CallError::Answer("an answer has no gRPC status"));
        }
        message(bytes)
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout_text(within: Duration) -> String {
    format!("{}m", within.as_millis().clamp(1, 99_999_999))
}

/// A message as gRPC sends it.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut frame = Zeroizing::new(Vec::with_capacity(PREFIX_BYTES + len));
    frame.push(0);
    // The longest of our messages is below 70 kB.
    frame.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    // There is room for all of it, which is the one way for this to fail.
    let _ = message.encode(&mut *frame);
    wiped(frame)
}

/// The one message of an answer.
fn message<A: Message + Default>(bytes: Zeroizing<Vec<u8>>) -> Result<A, CallError> {
    let Some((&[compressed, a, b, c, d], body)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(CallError::Answer("an answer is cut short"));
    };
    if compressed != 0 {
        return Err(CallError::Answer("an answer is compressed, which was not offered"));
    }
    if u32::from_be_bytes([a, b, c, d]).try_into() != Ok(body.len()) {
        return Err(CallError::Answer("an answer is cut short, or more than one message"));
    }
    let body = wiped(bytes).slice(PREFIX_BYTES..);
    A::decode(body).map_err(|_| CallError::Answer("an answer is not a message of the API"))
}

/// Whether these headers tell a status, which must be OK.
pub(crate) fn is_success(headers: &HeaderMap) -> Result<bool, CallError> {
    let Some(code) = headers.get("grpc-status") else { return Ok(false) };
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    match code.ok_or(CallError::Answer("the gRPC status is no number"))? {
        0 => Ok(true),
        code => {
            let message = headers.get("grpc-message").map(|text| percent_decoded(text.as_bytes())).unwrap_or_default();
            Err(CallError::Refused { code, message })
        }
    }
}

/// gRPC over HTTP/2, "Status-Message": UTF-8 with percent signs. What is neither is kept as it is.
fn percent_decoded(text: &[u8]) -> String {
    percent_encoding::percent_decode(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::v2::DecryptResponse;

    #[test]
    fn an_answer_is_exactly_one_message() {
        let sent = DecryptResponse { plaintext: Bytes::from_static(b"abc") };
        let whole = frame(&sent).to_vec();
        let read = |bytes: &[u8]| message::<DecryptResponse>(Zeroizing::new(bytes.to_vec()));
        assert_eq!(read(&whole).unwrap(), sent);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(read(&[&whole[..], &whole].concat()).is_err());
        assert!(read(&[&[1], &whole[1..]].concat()).is_err());
        assert!(read(&[0, 0, 0, 0, 1, 0xFF]).is_err());
    }

    #[test]
    fn a_status_is_a_number_and_its_message_is_decoded() {
        let told = |code: &'static str, message: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", code.parse().unwrap());
            headers.insert("grpc-message", message.parse().unwrap());
            is_success(&headers)
        };
        assert!(told("0", "").unwrap() && !is_success(&HeaderMap::new()).unwrap());
        assert!(matches!(told("x", ""), Err(CallError::Answer(_))));
        let Err(CallError::Refused { code: 5, message }) = told("5", "no%20such %C3%BC 100% %zz") else { panic!() };
        assert_eq!(message, "no such ü 100% %zz");
    }
}
