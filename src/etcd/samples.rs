//! Objects as kube-apiserver stores them, for tests.

use std::collections::HashMap;

use prost::Message;

use crate::envelope::{Api, Binding, Sealing, Wraps};
use crate::types::{ClusterId, KekId};

/// `EncryptedObject` of kmstypes/v2/api.proto.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) source: Vec<u8>,
    #[prost(map = "string, bytes", tag = "4")]
    pub(crate) annotations: HashMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub(crate) kind: i32,
}

impl EncryptedObject {
    /// With its prefix.
    pub(crate) fn stored(&self, provider: &str) -> Vec<u8> {
        [format!("k8s:enc:kms:v2:{provider}:").as_bytes(), &self.encode_to_vec()].concat()
    }
}

/// A seed under a KEK of this number. `salt` makes another one of it.
pub(crate) fn source(api: Api, kek: u8, salt: u8) -> Vec<u8> {
    let cluster: ClusterId = "prod".parse().unwrap();
    let binding = Binding { cluster: &cluster, key_id: "ns1-a", wraps: &Wraps::default() };
    let sealing = Sealing::new(api, &KekId::from_bytes([kek; 16]), &binding).unwrap();
    sealing.seal(&[kek; 32], [salt; 12], &[salt; 32]).unwrap()
}

/// A v2 object under `kek` and `key_id`.
pub(crate) fn v2(kek: u8, key_id: &str, salt: u8) -> EncryptedObject {
    EncryptedObject {
        data: vec![1; 40],
        key_id: key_id.to_owned(),
        source: source(Api::V2, kek, salt),
        annotations: HashMap::new(),
        kind: 1,
    }
}

/// A v1 object under `kek`.
pub(crate) fn v1(provider: &str, kek: u8, salt: u8) -> Vec<u8> {
    let source = source(Api::V1, kek, salt);
    let len = u16::try_from(source.len()).unwrap().to_be_bytes();
    [format!("k8s:enc:kms:v1:{provider}:").as_bytes(), &len, &source, &[1; 40]].concat()
}
