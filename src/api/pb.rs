//! What `build.rs` makes of proto/k8s.

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(super) mod v1beta1 {
    tonic::include_proto!("v1beta1");
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(super) mod v2 {
    tonic::include_proto!("v2");
}
