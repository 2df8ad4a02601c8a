//! Stock tonic on a current-thread runtime, with the two Kubernetes services and constant answers.
//!
//! Does what every KMS plugin must do at least (HTTP/2, protobuf, one unix socket), and nothing else: no key, no peer check, no
//! authority layer, no bounds. Usage: `bare-echo SOCKET`.

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

mod v1beta1 {
    tonic::include_proto!("v1beta1");
}

mod v2 {
    tonic::include_proto!("v2");
}

use v1beta1::key_management_service_server::{KeyManagementService as V1, KeyManagementServiceServer as V1Server};
use v2::key_management_service_server::{KeyManagementService as V2, KeyManagementServiceServer as V2Server};

/// As long as what Nodeseal answers: 90 bytes of v2 text, 136 of v1, a 32-byte DEK, a 44-byte key_id.
const V2_TEXT: [u8; 90] = [1; 90];
const V1_TEXT: [u8; 137] = [1; 137];
const DEK: [u8; 32] = [2; 32];
const KEY_ID: &str = "ns1-0000000000000000000000000000000000000000";

struct Echo;

#[async_trait]
impl V1 for Echo {
    async fn version(&self, _: Request<v1beta1::VersionRequest>) -> Result<Response<v1beta1::VersionResponse>, Status> {
        Ok(Response::new(v1beta1::VersionResponse {
            version: "v1beta1".into(),
            runtime_name: "echo".into(),
            runtime_version: "0.1.0".into(),
        }))
    }

    async fn decrypt(&self, _: Request<v1beta1::DecryptRequest>) -> Result<Response<v1beta1::DecryptResponse>, Status> {
        Ok(Response::new(v1beta1::DecryptResponse { plain: DEK.to_vec() }))
    }

    async fn encrypt(&self, _: Request<v1beta1::EncryptRequest>) -> Result<Response<v1beta1::EncryptResponse>, Status> {
        Ok(Response::new(v1beta1::EncryptResponse { cipher: V1_TEXT.to_vec() }))
    }
}

#[async_trait]
impl V2 for Echo {
    async fn status(&self, _: Request<v2::StatusRequest>) -> Result<Response<v2::StatusResponse>, Status> {
        Ok(Response::new(v2::StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: KEY_ID.into() }))
    }

    async fn decrypt(&self, _: Request<v2::DecryptRequest>) -> Result<Response<v2::DecryptResponse>, Status> {
        Ok(Response::new(v2::DecryptResponse { plaintext: DEK.to_vec() }))
    }

    async fn encrypt(&self, _: Request<v2::EncryptRequest>) -> Result<Response<v2::EncryptResponse>, Status> {
        Ok(Response::new(v2::EncryptResponse {
            ciphertext: V2_TEXT.to_vec(),
            key_id: KEY_ID.into(),
            annotations: Default::default(),
        }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: bare-echo SOCKET")?;
    let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
    Server::builder()
        .add_service(V1Server::new(Echo))
        .add_service(V2Server::new(Echo))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
