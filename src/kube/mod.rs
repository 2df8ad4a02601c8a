//! Talks to kube-apiserver as an administrator does, by a kubeconfig: which key_id each API server has seen, and how what is stored gets
//! under the present key.
//!
//! No object's content is ever asked for: lists and answers to a write come as metadata alone (`PartialObjectMetadata`), and a write is a
//! patch that says nothing, or sets one annotation. Metadata can still repeat content (`kubectl apply` copies a manifest into an
//! annotation), so the buffers that answers are read into are wiped, and of an item only its name, its namespace and our own annotation are
//! kept. The HTTP/2 and TLS libraries, and the JSON reader for a text with escapes, have copies for a moment that nobody wipes. Nothing that
//! the server says about an object's content is repeated to anyone.
//!
//! What it refuses: a server without TLS or without a named authority, and logins by programs (`exec`).

mod client;
mod date;
mod discovery;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod kubeconfig;
mod metrics;
mod migration;
mod objects;
mod record;
#[cfg(test)]
mod tests;
mod tls;

pub use client::Client;
pub use discovery::{Resource, api_servers, resources};
pub use error::{About, KubeError};
pub use kubeconfig::{Kubeconfig, KubeconfigError, Server};
pub use metrics::{Looked, Reported, look};
pub use migration::{Migration, Migrations, State};
pub use objects::{Item, Page, Pages, Touched, touch};
pub use record::{Progress, Record};

/// On everything that is made here.
const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGED_BY: &str = "nodeseal";
/// Label of a migration: the key that it is for ([`KeyMark`]).
const LABEL_KEY: &str = "nodeseal/key-id-hash";
/// Label of the record: when the run began, in seconds since 1970.
const LABEL_BEGUN: &str = "nodeseal/begun";
/// Annotation of an object under KMS v1, for which kube-apiserver only writes what changes ([`Record::annotation`]).
const ANNOTATION: &str = "nodeseal/written-under";

/// Digits of a [`KeyMark`]: a label holds 63, and a name of an object is read by people.
const MARK_DIGITS: usize = 40;

/// The hash of a key_id, as far as a label holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMark(String);

impl KeyMark {
    /// Of a hash as kube-apiserver's metrics show it: `sha256:` and 64 hexadecimal digits.
    pub fn of(hash: &str) -> Option<Self> {
        let digits = hash.strip_prefix("sha256:")?;
        let is_hex = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| Self(digits[..MARK_DIGITS].to_owned()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
