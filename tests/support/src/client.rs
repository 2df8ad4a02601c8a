//! A KMS client over HTTP/2 on a unix socket, for both APIs. Every call has a time limit of its own.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::runtime;

/// Far above every limit that is tested, so that a hang is a failure with a name.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// gRPC status codes.
pub mod code {
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const NOT_FOUND: u32 = 5;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const UNAVAILABLE: u32 = 14;
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server said no.
    Status { code: u32, text: String },
    /// There was no whole answer.
    Broken(String),
}

impl Refusal {
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Broken(_) => None,
        }
    }
}

pub type Answer<T> = Result<T, Refusal>;

pub mod v2 {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct StatusResponse {
        #[prost(string, tag = "1")]
        pub version: String,
        #[prost(string, tag = "2")]
        pub healthz: String,
        #[prost(string, tag = "3")]
        pub key_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct EncryptRequest {
        #[prost(bytes = "vec", tag = "1")]
        pub plaintext: Vec<u8>,
        #[prost(string, tag = "2")]
        pub uid: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct EncryptResponse {
        #[prost(bytes = "vec", tag = "1")]
        pub ciphertext: Vec<u8>,
        #[prost(string, tag = "2")]
        pub key_id: String,
        #[prost(map = "string, bytes", tag = "3")]
        pub annotations: HashMap<String, Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct DecryptRequest {
        #[prost(bytes = "vec", tag = "1")]
        pub ciphertext: Vec<u8>,
        #[prost(string, tag = "2")]
        pub uid: String,
        #[prost(string, tag = "3")]
        pub key_id: String,
        #[prost(map = "string, bytes", tag = "4")]
        pub annotations: HashMap<String, Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct DecryptResponse {
        #[prost(bytes = "vec", tag = "1")]
        pub plaintext: Vec<u8>,
    }
}

pub mod v1 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct VersionRequest {
        #[prost(string, tag = "1")]
        pub version: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct VersionResponse {
        #[prost(string, tag = "1")]
        pub version: String,
        #[prost(string, tag = "2")]
        pub runtime_name: String,
        #[prost(string, tag = "3")]
        pub runtime_version: String,
    }

    /// Of Encrypt and of Decrypt alike.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BytesRequest {
        #[prost(string, tag = "1")]
        pub version: String,
        #[prost(bytes = "vec", tag = "2")]
        pub bytes: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BytesResponse {
        #[prost(bytes = "vec", tag = "1")]
        pub bytes: Vec<u8>,
    }
}

/// What kube-apiserver stores for one seed, and what it was made of.
#[derive(Clone, Debug)]
pub struct Stored {
    pub plaintext: Vec<u8>,
    pub text: Vec<u8>,
    pub key_id: String,
}

/// One connection.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
}

impl Client {
    pub fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap_or_else(|refusal| panic!("no connection: {refusal:?}"))
    }

    pub fn try_connect(socket: &Path) -> Answer<Self> {
        limited(async {
            let stream = UnixStream::connect(socket).await.map_err(broken)?;
            // A window of 8 MiB: our own h2 takes hundreds of small answers at once for an attack at its default of 64 KiB.
            let mut builder = h2::client::Builder::new();
            let builder = builder.initial_connection_window_size(8 * 1024 * 1024);
            let (send, connection) = builder.handshake(stream).await.map_err(broken)?;
            tokio::spawn(connection);
            Ok(Self { send })
        })
    }

    pub fn status(&self) -> Answer<v2::StatusResponse> {
        limited(self.ask("/v2.KeyManagementService/Status", Vec::new()))
    }

    pub fn encrypt(&self, plaintext: &[u8]) -> Answer<v2::EncryptResponse> {
        limited(self.clone().encrypting(plaintext.to_vec()))
    }

    /// For many calls at once.
    pub async fn encrypting(self, plaintext: Vec<u8>) -> Answer<v2::EncryptResponse> {
        let request = v2::EncryptRequest { plaintext, uid: next_uid() };
        self.ask("/v2.KeyManagementService/Encrypt", request.encode_to_vec()).await
    }

    pub fn decrypt(&self, text: &[u8], key_id: &str) -> Answer<Vec<u8>> {
        self.decrypt_request(request(text, key_id))
    }

    pub fn decrypt_request(&self, request: v2::DecryptRequest) -> Answer<Vec<u8>> {
        limited(self.clone().decrypting(request))
    }

    /// For many calls at once.
    pub async fn decrypting(self, request: v2::DecryptRequest) -> Answer<Vec<u8>> {
        let answer: Answer<v2::DecryptResponse> =
            self.ask("/v2.KeyManagementService/Decrypt", request.encode_to_vec()).await;
        answer.map(|response| response.plaintext)
    }

    /// Encrypts a fresh seed.
    pub fn store(&self) -> Answer<Stored> {
        let mut plaintext = vec![0; 32];
        getrandom::fill(&mut plaintext).unwrap();
        let response = self.encrypt(&plaintext)?;
        Ok(Stored { plaintext, text: response.ciphertext, key_id: response.key_id })
    }

    /// What was stored comes back.
    pub fn assert_opens(&self, stored: &Stored) {
        match self.decrypt(&stored.text, &stored.key_id) {
            Ok(plaintext) => assert_eq!(plaintext, stored.plaintext, "another plaintext came back"),
            Err(refusal) => panic!("a text that was answered does not open: {refusal:?}"),
        }
    }

    pub fn version(&self, asked: &str) -> Answer<v1::VersionResponse> {
        let request = v1::VersionRequest { version: asked.into() };
        limited(self.ask("/v1beta1.KeyManagementService/Version", request.encode_to_vec()))
    }

    pub fn encrypt_v1(&self, plaintext: &[u8]) -> Answer<Vec<u8>> {
        self.bytes_v1("Encrypt", "v1beta1", plaintext)
    }

    pub fn decrypt_v1(&self, text: &[u8]) -> Answer<Vec<u8>> {
        self.bytes_v1("Decrypt", "v1beta1", text)
    }

    pub fn bytes_v1(&self, method: &str, version: &str, bytes: &[u8]) -> Answer<Vec<u8>> {
        let request = v1::BytesRequest { version: version.into(), bytes: bytes.to_vec() };
        let path = format!("/v1beta1.KeyManagementService/{method}");
        let answer: Answer<v1::BytesResponse> = limited(self.ask(&path, request.encode_to_vec()));
        answer.map(|response| response.bytes)
    }

    /// Any bytes as the body of a call, prefix and all.
    pub fn body(&self, path: &str, body: Vec<u8>) -> Answer<Vec<u8>> {
        limited(self.exchange(path, body))
    }

    /// A call whose message does not come. It ends when what this gives is dropped.
    pub fn begin_and_never_end(&self, path: &str) -> impl Drop + use<> {
        let send = self.send.clone();
        let request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(()).unwrap();
        let begun = async move {
            let mut send = send.ready().await.map_err(broken)?;
            Ok(Unfinished { _call: send.send_request(request, false).map_err(broken)? })
        };
        limited(begun).unwrap_or_else(|refusal| panic!("no call: {refusal:?}"))
    }

    async fn ask<T: Message + Default>(&self, path: &str, message: Vec<u8>) -> Answer<T> {
        let bytes = self.exchange(path, framed(&message)).await?;
        T::decode(&bytes[..]).map_err(broken)
    }

    async fn exchange(&self, path: &str, body: Vec<u8>) -> Answer<Vec<u8>> {
        let mut send = self.send.clone().ready().await.map_err(broken)?;
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut stream) = send.send_request(request, false).map_err(broken)?;
        // A server that refused already may have reset this half.
        let _ = stream.send_data(body.into(), true);
        finish(response).await
    }
}

struct Unfinished {
    _call: (h2::client::ResponseFuture, h2::SendStream<Bytes>),
}

impl Drop for Unfinished {
    fn drop(&mut self) {}
}

/// Reads an answer to its end.
pub async fn finish(response: h2::client::ResponseFuture) -> Answer<Vec<u8>> {
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    if head.status != 200 {
        return Err(Refusal::Broken(format!("HTTP status {}", head.status)));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    let trailers = match head.headers.contains_key("grpc-status") {
        true => head.headers,
        false => body.trailers().await.map_err(broken)?.unwrap_or_default(),
    };
    check_status(&trailers)?;
    match bytes.split_first_chunk::<5>() {
        Some(([0, len @ ..], message)) if message.len() == u32::from_be_bytes(*len) as usize => Ok(message.to_vec()),
        _ => Err(Refusal::Broken(format!("{} bytes that are no gRPC message", bytes.len()))),
    }
}

fn check_status(trailers: &HeaderMap) -> Answer<()> {
    let text = |name| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        None => Err(Refusal::Broken("no grpc-status".into())),
        Some(0) => Ok(()),
        Some(code) => Err(Refusal::Status { code, text: percent_decoded(&text("grpc-message").unwrap_or_default()) }),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|pair| base16ct::mixed::decode_vec(pair).ok());
        (bytes, rest) = match (first, digits) {
            (b'%', Some(byte)) => ([bytes, byte].concat(), &tail[2..]),
            _ => ([bytes, vec![*first]].concat(), tail),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A message with its gRPC prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &len[..], message].concat()
}

/// A Decrypt as kube-apiserver sends it.
pub fn request(text: &[u8], key_id: &str) -> v2::DecryptRequest {
    v2::DecryptRequest {
        ciphertext: text.to_vec(),
        uid: next_uid(),
        key_id: key_id.into(),
        annotations: HashMap::new(),
    }
}

/// Looks like kube-apiserver's UUIDs.
pub fn next_uid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("5f0c3a52-6f8e-4c7e-9a2b-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for it on this thread.
pub fn limited<T>(future: impl Future<Output = Answer<T>>) -> Answer<T> {
    runtime::shared().block_on(async {
        timeout(CALL_TIMEOUT, future).await.unwrap_or_else(|_| Err(Refusal::Broken("no answer in time".into())))
    })
}

fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal::Broken(error.to_string())
}
