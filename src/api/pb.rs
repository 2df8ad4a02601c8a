//! The services that `build.rs` makes of proto/k8s, on the messages of [`crate::kms`].

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(super) mod v1beta1 {
    include!(concat!(env!("OUT_DIR"), "/services/v1beta1.rs"));
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(super) mod v2 {
    include!(concat!(env!("OUT_DIR"), "/services/v2.rs"));
}
