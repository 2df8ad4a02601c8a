//! KMS v2: the adapter between the proto messages and the keyring. Thin and dull on purpose.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};
use zeroize::{Zeroize, Zeroizing};

use super::pb::v2::key_management_service_server::KeyManagementService;
use super::{V2Version, status};
use crate::audit::{Event, emit};
use crate::envelope::{Api, KEY_ID_MAX_BYTES, Wraps};
use crate::keyring::{Attached, Keyring};
use crate::kms::v2::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use crate::types::{RequestUid, Secret};

/// api.proto v2, StatusResponse: "the only acceptable value is ok".
const HEALTHY: &str = "ok";
/// The operator's rule `on_outage = "stop-writes-after …"` has come into force.
const AWAY: &str = "nodeseal: unavailable: the providers have been unreachable for longer than write.on_outage allows";

/// The v2 service.
pub(super) struct V2 {
    pub(super) keyring: Arc<Keyring>,
    pub(super) version: V2Version,
}

#[async_trait]
impl KeyManagementService for V2 {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let key_id = self.keyring.key_id().await.map_err(|error| status::refuse("v2.Status", "-", &error))?;
        let version = match self.version {
            V2Version::V2 => "v2",
            V2Version::V2beta1 => "v2beta1",
        };
        let healthz = if self.keyring.stops_writes() { AWAY } else { HEALTHY };
        Ok(Response::new(StatusResponse {
            version: version.into(),
            healthz: healthz.into(),
            key_id: key_id.to_string(),
        }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        const OP: &str = "v2.Encrypt";
        let EncryptRequest { plaintext, uid } = request.into_inner();
        let uid = uid_of(OP, &uid)?;
        let encrypted = self.keyring.encrypt(Api::V2, &plaintext).await;
        wipe(plaintext);
        let encrypted = encrypted.map_err(|error| status::refuse(OP, uid.as_str(), &error))?;
        emit(&Event::DekServed { op: OP, uid: uid.as_str(), key_id: Some(&encrypted.key_id) });
        Ok(Response::new(EncryptResponse {
            ciphertext: encrypted.text.into(),
            key_id: encrypted.key_id.to_string(),
            annotations: annotations(&encrypted.attached),
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
            .keyring
            .decrypt_v2(&key_id, wraps, &ciphertext)
            .await
            .map_err(|error| status::refuse(OP, uid.as_str(), &error))?;
        emit(&Event::DekServed { op: OP, uid: uid.as_str(), key_id: decrypted.key_id.as_ref() });
        Ok(Response::new(DecryptResponse { plaintext: lend(&decrypted.plaintext) }))
    }
}

fn annotations(attached: &Attached) -> HashMap<String, bytes::Bytes> {
    attached.iter().map(|(name, value)| (name.to_owned(), bytes::Bytes::copy_from_slice(value))).collect()
}

fn uid_of<'a>(op: &'static str, uid: &'a str) -> Result<RequestUid<'a>, Status> {
    RequestUid::parse(uid)
        .map_err(|_| status::bad_field(op, "-", "nodeseal: corrupt: the uid is empty, too long or not visible ASCII"))
}

/// A plaintext for an answer, wiped when the answer has been encoded. What HTTP/2 holds of it until it is sent is not ours to wipe.
pub(super) fn lend(plaintext: &Secret) -> bytes::Bytes {
    bytes::Bytes::from_owner(Zeroizing::new(plaintext.expose().to_vec()))
}

/// Wipes a request's secret if nobody else holds the buffer; what HTTP/2 still holds of it is gone with the stream.
pub(super) fn wipe(bytes: bytes::Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes[..].zeroize();
    }
}
