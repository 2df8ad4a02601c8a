//! The services that `make proto` makes of proto/k8s, on the messages of [`crate::kms`].

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(super) mod v1beta1 {
    include!("../../proto/generated/services/v1beta1.rs");
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub(super) mod v2 {
    include!("../../proto/generated/services/v2.rs");
}
