//! KMS v1beta1: the adapter between the proto messages and the keyring. Has neither uid nor key_id; its texts describe themselves.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::pb::v1beta1::key_management_service_server::KeyManagementService;
use super::status;
use super::v2::{lend, wipe};
use crate::audit::{Event, emit};
use crate::envelope::Api;
use crate::keyring::Keyring;
use crate::kms::v1beta1::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, VersionRequest, VersionResponse,
};

/// envelope/grpc_service.go in k8s.io/apiserver checks for exactly this.
const VERSION: &str = "v1beta1";
const RUNTIME_NAME: &str = "nodeseal";
/// api.proto v1beta1: "must be semver-compatible".
const RUNTIME_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The v1beta1 service.
pub(super) struct V1(pub(super) Arc<Keyring>);

#[async_trait]
impl KeyManagementService for V1 {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: VERSION.into(),
            runtime_name: RUNTIME_NAME.into(),
            runtime_version: RUNTIME_VERSION.into(),
        }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        const OP: &str = "v1beta1.Encrypt";
        let EncryptRequest { version, plain } = request.into_inner();
        check_version(OP, &version)?;
        let encrypted = self.0.encrypt(Api::V1, &plain).await;
        wipe(plain);
        let encrypted = encrypted.map_err(|error| status::refuse(OP, "-", &error))?;
        emit(&Event::DekServed { op: OP, uid: "-", key_id: Some(&encrypted.key_id) });
        Ok(Response::new(EncryptResponse { cipher: encrypted.text.into() }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        const OP: &str = "v1beta1.Decrypt";
        let DecryptRequest { version, cipher } = request.into_inner();
        check_version(OP, &version)?;
        let decrypted = self.0.decrypt_v1(&cipher).await.map_err(|error| status::refuse(OP, "-", &error))?;
        emit(&Event::DekServed { op: OP, uid: "-", key_id: decrypted.key_id.as_ref() });
        Ok(Response::new(DecryptResponse { plain: lend(&decrypted.plaintext) }))
    }
}

/// kube-apiserver always names the version; a client that leaves it out is served.
fn check_version(op: &'static str, version: &str) -> Result<(), Status> {
    if version.is_empty() || version == VERSION {
        Ok(())
    } else {
        Err(status::bad_field(op, "-", "nodeseal: corrupt: the version is not v1beta1"))
    }
}
