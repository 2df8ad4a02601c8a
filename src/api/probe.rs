//! One Encrypt and one Decrypt through a KMS socket, as kube-apiserver would make them: the proof behind `status --probe` and `dev`.
//!
//! Draws its own random bytes, asks for them back, and keeps neither. Works with any KMS v2 plugin.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::kms::v2::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use crate::kms::{CallError, Connection, Message, wiped};
use crate::types::random::{self, RandomError};
use crate::types::{Class, Explained, Key, hex};

/// kube-apiserver's own limit for a call (apiserver/v1/defaults.go), for all three together.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Of KMS v2.
const SERVICE: &str = "/v2.KeyManagementService/";

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Explained for ProbeError {
    fn class(&self) -> Class {
        match self {
            Self::Contract(_) => Class::Internal,
            Self::Refused { .. } | Self::Random(_) | Self::Timeout | Self::Transport(_) | Self::Unreachable { .. } => {
                Class::Unavailable
            }
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Contract(_) => "report this: kube-apiserver would refuse the plugin",
            Self::Transport(_) => "add the user that runs this command to listen.allow_users",
            Self::Refused { .. } | Self::Random(_) | Self::Timeout => "see the log of nodeseald",
            Self::Unreachable { .. } => "start nodeseald, and check that this user may open the socket",
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
    let connection = Connection::begin(stream).await.map_err(|error| failed("", error))?;
    let status: StatusResponse = call(&connection, "Status", &StatusRequest {}).await?;
    let plaintext = Key::random().map_err(ProbeError::Random)?;
    let uid = hex::encode(random::array::<16>().map_err(ProbeError::Random)?);
    let request = EncryptRequest { plaintext: copy_of(&plaintext), uid: uid.clone() };
    let encrypted: EncryptResponse = call(&connection, "Encrypt", &request).await?;
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
    let decrypted: DecryptResponse = call(&connection, "Decrypt", &request).await?;
    if decrypted.plaintext != plaintext.expose()[..] {
        return Err(ProbeError::Contract("Decrypt does not give back what was encrypted"));
    }
    Ok(Probe { key_id: status.key_id, ciphertext_bytes, took: Duration::ZERO })
}

async fn call<Q: Message, A: Message + Default>(
    connection: &Connection,
    call: &'static str,
    message: &Q,
) -> Result<A, ProbeError> {
    let answer = connection.call(&format!("{SERVICE}{call}"), message, TIMEOUT).await;
    answer.map_err(|error| failed(call, error))
}

fn copy_of(key: &Key) -> Bytes {
    wiped(Zeroizing::new(key.expose().to_vec()))
}

fn failed(call: &'static str, error: CallError) -> ProbeError {
    match error {
        CallError::Answer(why) => ProbeError::Contract(why),
        CallError::Refused { code, message } => ProbeError::Refused { call, code: code.to_string(), message },
        CallError::Transport(source) => ProbeError::Transport(source),
    }
}
