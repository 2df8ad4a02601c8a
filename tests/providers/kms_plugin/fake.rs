//! A KMS plugin that does what a test tells it, message by message. Its messages are written by hand, so that a mistake in the
//! generated ones is noticed.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message;

use crate::front::{Act, Mode};

#[derive(Clone, PartialEq, Message)]
pub struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub plaintext: Vec<u8>,
}

/// Also the Version of v1beta1, whose first field is the version.
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub healthz: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
}

/// An answer to one call.
#[derive(Clone)]
pub struct Said {
    pub http: u16,
    pub kind: &'static str,
    pub body: Vec<u8>,
    /// Number and message; no trailers without.
    pub status: Option<(String, String)>,
}

impl Said {
    pub fn message(message: &impl Message) -> Self {
        Self {
            http: 200,
            kind: "application/grpc",
            body: framed(&message.encode_to_vec()),
            status: Some(("0".into(), String::new())),
        }
    }

    pub fn refusal(code: u16, message: &str) -> Self {
        let status = Some((code.to_string(), message.to_owned()));
        Self { http: 200, kind: "application/grpc", body: Vec::new(), status }
    }
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// To a path and a message.
type Answer = Arc<dyn Fn(&str, &[u8]) -> Said + Send + Sync>;

/// Answers every call: its path, and its message.
pub fn plugin(answer: impl Fn(&str, &[u8]) -> Said + Send + Sync + 'static) -> Mode {
    let answer: Answer = Arc::new(answer);
    let act: Act = Arc::new(move |stream: UnixStream| {
        let answer = answer.clone();
        let runtime = test_support::runtime::own();
        runtime.block_on(async move {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::UnixStream::from_std(stream).unwrap();
            // A client that hangs up ends it.
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(call(request, respond, answer.clone()));
            }
        });
    });
    Mode::Act(act)
}

async fn call(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, answer: Answer) -> Option<()> {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    let said = answer(&path, &bytes[5..]);
    let response = Response::builder().status(said.http).header("content-type", said.kind).body(()).unwrap();
    let mut sender = respond.send_response(response, false).ok()?;
    if !said.body.is_empty() {
        sender.send_data(said.body.into(), said.status.is_none()).ok()?;
    }
    let mut trailers = HeaderMap::new();
    if let Some((code, message)) = said.status {
        trailers.insert("grpc-status", code.parse().unwrap());
        trailers.insert("grpc-message", message.replace(' ', "%20").parse().unwrap());
    }
    sender.send_trailers(trailers).ok()
}

/// Keeps what it encrypts, under a handle: gives it back for exactly what it gave out, and for nothing else.
pub struct Honest {
    pub key_id: String,
    pub annotations: BTreeMap<String, Vec<u8>>,
    pub ciphertext_bytes: usize,
    kept: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    pub uids: Mutex<Vec<String>>,
}

impl Honest {
    pub fn new(key_id: &str, annotations: &[(&str, &[u8])], ciphertext_bytes: usize) -> Arc<Self> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        let (kept, uids) = (Mutex::default(), Mutex::default());
        Arc::new(Self { key_id: key_id.into(), annotations, ciphertext_bytes, kept, uids })
    }

    pub fn serve(self: &Arc<Self>) -> Mode {
        let own = self.clone();
        plugin(move |path, message| own.answer(path, message))
    }

    fn answer(&self, path: &str, message: &[u8]) -> Said {
        match path {
            "/v2.KeyManagementService/Status" => Said::message(&StatusResponse {
                version: "v2".into(),
                healthz: "ok".into(),
                key_id: self.key_id.clone(),
            }),
            "/v2.KeyManagementService/Encrypt" => {
                let asked = EncryptRequest::decode(message).unwrap();
                self.uids.lock().unwrap().push(asked.uid);
                let mut kept = self.kept.lock().unwrap();
                let mut ciphertext = vec![0xC7; self.ciphertext_bytes];
                ciphertext[..8].copy_from_slice(&u64::try_from(kept.len()).unwrap().to_be_bytes());
                kept.insert(ciphertext.clone(), asked.plaintext);
                Said::message(&EncryptResponse {
                    ciphertext,
                    key_id: self.key_id.clone(),
                    annotations: self.annotations.clone(),
                })
            }
            "/v2.KeyManagementService/Decrypt" => {
                let asked = DecryptRequest::decode(message).unwrap();
                self.uids.lock().unwrap().push(asked.uid);
                let kept = self.kept.lock().unwrap();
                match kept.get(&asked.ciphertext) {
                    Some(plaintext) if asked.key_id == self.key_id && asked.annotations == self.annotations => {
                        Said::message(&DecryptResponse { plaintext: plaintext.clone() })
                    }
                    _ => Said::refusal(3, "not as it was given"),
                }
            }
            _ => Said::refusal(12, "unknown method"),
        }
    }
}
