//! KMS v2: the adapter between the proto messages and the keyring. Thin and dull on purpose.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};
use zeroize::Zeroize;

use super::pb::v2::key_management_service_server::KeyManagementService;
use super::pb::v2::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use super::status;
use crate::audit::{Event, emit};
use crate::envelope::{Api, KEY_ID_MAX_BYTES, Wraps};
use crate::keyring::Keyring;
use crate::types::RequestUid;

/// api.proto v2, StatusResponse: "v2" (and "v2beta1" for older API servers; it may not change between two answers).
const VERSION: &str = "v2";
/// api.proto v2, StatusResponse: "the only acceptable value is ok".
const HEALTHY: &str = "ok";

/// The v2 service.
pub(super) struct V2(pub(super) Arc<Keyring>);

#[async_trait]
impl KeyManagementService for V2 {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let key_id = self.0.key_id().await.map_err(|error| status::refuse("v2.Status", "-", &error))?;
        Ok(Response::new(StatusResponse {
            version: VERSION.into(),
            healthz: HEALTHY.into(),
            key_id: key_id.to_string(),
        }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        const OP: &str = "v2.Encrypt";
        let EncryptRequest { plaintext, uid } = request.into_inner();
        let uid = uid_of(OP, &uid)?;
        let encrypted = self.0.encrypt(Api::V2, &plaintext).await;
        wipe(plaintext);
        let encrypted = encrypted.map_err(|error| status::refuse(OP, uid.as_str(), &error))?;
        emit(&Event::DekServed { op: OP, uid: uid.as_str(), key_id: &encrypted.key_id });
        Ok(Response::new(EncryptResponse {
            ciphertext: encrypted.text.into(),
            key_id: encrypted.key_id.to_string(),
            annotations: Default::default(),
        }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        const OP: &str = "v2.Decrypt";
        let DecryptRequest { ciphertext, uid, key_id, annotations } = request.into_inner();
        let uid = uid_of(OP, &uid)?;
        if key_id.is_empty() || key_id.len() > KEY_ID_MAX_BYTES {
            return Err(status::bad_field(
                OP,
                uid.as_str(),
                "nodeseal: corrupt: the key_id is empty or longer than 1 kB",
            ));
        }
        let wraps = Wraps::new(annotations.iter().map(|(name, value)| (name.as_str(), &value[..]))).map_err(|_| {
            status::bad_field(OP, uid.as_str(), "nodeseal: corrupt: the annotations are longer than 32 kB")
        })?;
        let decrypted = self
            .0
            .decrypt_v2(&key_id, wraps, &ciphertext)
            .await
            .map_err(|error| status::refuse(OP, uid.as_str(), &error))?;
        emit(&Event::DekServed { op: OP, uid: uid.as_str(), key_id: &decrypted.key_id });
        Ok(Response::new(DecryptResponse { plaintext: decrypted.plaintext.expose().to_vec().into() }))
    }
}

fn uid_of<'a>(op: &'static str, uid: &'a str) -> Result<RequestUid<'a>, Status> {
    RequestUid::parse(uid)
        .map_err(|_| status::bad_field(op, "-", "nodeseal: corrupt: the uid is empty, too long or not visible ASCII"))
}

/// Wipes a request's secret if nobody else holds the buffer; what HTTP/2 still holds of it is gone with the stream.
pub(super) fn wipe(bytes: bytes::Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes[..].zeroize();
    }
}
