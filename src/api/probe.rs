//! One Encrypt and one Decrypt through a KMS socket, as kube-apiserver would make them: the proof behind `status --probe` and `dev`.
//!
//! Draws its own random bytes, asks for them back, and keeps neither. Works with any KMS v2 plugin.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Version};
use prost::Message;
use tokio::net::UnixStream;

use super::pb::v2::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use crate::types::random::{self, RandomError};
use crate::types::{Class, Key};

/// kube-apiserver's own limit for a call (apiserver/v1/defaults.go), for all three together.
const TIMEOUT: Duration = Duration::from_secs(3);
/// gRPC: one byte for compression, four for the length.
const PREFIX_BYTES: usize = 5;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Probe {
    /// Of Status and of Encrypt, which agree.
    pub key_id: String,
    /// Bytes of the text that 32 bytes were encrypted to.
    pub ciphertext_bytes: usize,
    /// Of the three calls, with connecting.
    pub took: Duration,
}

/// Why the round trip failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The plugin breaks the contract.
    #[error("{0}")]
    Contract(&'static str),
    /// The plugin refused.
    #[error("{call} was refused: {message} (gRPC code {code})")]
    Refused {
        /// Which call.
        call: &'static str,
        /// gRPC's number.
        code: String,
        /// The plugin's sentence.
        message: String,
    },
    /// No randomness.
    #[error("no random bytes to encrypt")]
    Random(#[source] RandomError),
    /// No answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// HTTP/2.
    #[error("the connection failed")]
    Transport(#[source] h2::Error),
    /// No connection.
    #[error("cannot connect to {path}", path = path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
}

impl ProbeError {
    /// Decides the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Contract(_) => Class::Internal,
            Self::Refused { .. } | Self::Random(_) | Self::Timeout | Self::Transport(_) | Self::Unreachable { .. } => {
                Class::Unavailable
            }
        }
    }

    /// What the operator does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Contract(_) => "report this: kube-apiserver would refuse the plugin",
            Self::Transport(_) => "see that our user is one of listen.allow_users",
            Self::Refused { .. } | Self::Random(_) | Self::Timeout => "see the log of nodeseald",
            Self::Unreachable { .. } => "start nodeseald, and see that our user may open the socket",
        }
    }
}

/// Status, Encrypt, Decrypt.
pub async fn round_trip(socket: &Path) -> Result<Probe, ProbeError> {
    let started = Instant::now();
    let mut probe = tokio::time::timeout(TIMEOUT, calls(socket)).await.map_err(|_| ProbeError::Timeout)??;
    probe.took = started.elapsed();
    Ok(probe)
}

async fn calls(socket: &Path) -> Result<Probe, ProbeError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| ProbeError::Unreachable { path: socket.to_owned(), source })?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(ProbeError::Transport)?;
    // Ends with the last handle; its failure shows in the calls.
    tokio::spawn(connection);
    let status: StatusResponse = call(&client, "Status", &StatusRequest {}).await?;
    let plaintext = Key::random().map_err(ProbeError::Random)?;
    let uid = hex::encode(random::array::<16>().map_err(ProbeError::Random)?);
    let request = EncryptRequest { plaintext: Bytes::copy_from_slice(plaintext.expose()), uid: uid.clone() };
    let encrypted: EncryptResponse = call(&client, "Encrypt", &request).await?;
    if encrypted.key_id != status.key_id {
        return Err(ProbeError::Contract("Encrypt and Status give different key_ids"));
    }
    let ciphertext_bytes = encrypted.ciphertext.len();
    let request = DecryptRequest {
        ciphertext: encrypted.ciphertext,
        uid,
        key_id: encrypted.key_id,
        annotations: encrypted.annotations,
    };
    let decrypted: DecryptResponse = call(&client, "Decrypt", &request).await?;
    if decrypted.plaintext != plaintext.expose()[..] {
        return Err(ProbeError::Contract("Decrypt does not give back what was encrypted"));
    }
    Ok(Probe { key_id: status.key_id, ciphertext_bytes, took: Duration::ZERO })
}

async fn call<Q: Message, A: Message + Default>(
    client: &SendRequest<Bytes>,
    call: &'static str,
    message: &Q,
) -> Result<A, ProbeError> {
    let request = Request::post(format!("http://localhost/v2.KeyManagementService/{call}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|_| ProbeError::Contract("the request cannot be built"))?;
    let mut client = client.clone().ready().await.map_err(ProbeError::Transport)?;
    let (response, mut body) = client.send_request(request, false).map_err(ProbeError::Transport)?;
    body.send_data(frame(message), true).map_err(ProbeError::Transport)?;
    let response = response.await.map_err(ProbeError::Transport)?;
    let (head, mut body) = response.into_parts();
    refused(call, &head.headers)?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(ProbeError::Transport)?;
        // Fails only when more is released than was received.
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    if let Some(trailers) = body.trailers().await.map_err(ProbeError::Transport)? {
        refused(call, &trailers)?;
    }
    if bytes.len() < PREFIX_BYTES {
        return Err(ProbeError::Contract("an answer is cut short"));
    }
    bytes.advance(PREFIX_BYTES);
    A::decode(bytes).map_err(|_| ProbeError::Contract("an answer is not a message of the API"))
}

fn frame(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + body.len());
    frame.put_u8(0);
    // The longest of our messages is below 2 kB.
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(&body);
    frame.freeze()
}

fn refused(call: &'static str, headers: &HeaderMap) -> Result<(), ProbeError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match text("grpc-status") {
        Some(code) if code != "0" => {
            let message = text("grpc-message").unwrap_or_default().replace("%20", " ");
            Err(ProbeError::Refused { call, code, message })
        }
        Some(_) | None => Ok(()),
    }
}
