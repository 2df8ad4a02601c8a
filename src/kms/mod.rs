//! The KMS API of Kubernetes as messages, and a call of it to another plugin. Shared by our own API (`api`), its probe, and the
//! provider that uses other plugins.
//!
//! The messages are generated from proto/k8s by `make proto` and checked in. They derive `Debug` and `Clone` and are not wiped by themselves: who puts a
//! plaintext in gives bytes whose owner wipes them ([`wiped`]), and nobody logs a message.

mod client;

use bytes::Bytes;
pub(crate) use prost::Message;
use zeroize::Zeroizing;

pub(crate) use client::{CallError, Connection};
#[cfg(feature = "etcd")]
pub(crate) use client::{frame, is_success};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(crate) mod v1beta1 {
    include!("../../proto/generated/messages/v1beta1.rs");
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(crate) mod v2 {
    include!("../../proto/generated/messages/v2.rs");
}

/// Bytes for a message, which are wiped when the last user of them drops.
pub(crate) fn wiped(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(bytes)
}
