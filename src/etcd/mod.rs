//! What lies in etcd: read, taken apart and counted, and never changed.
//!
//! It reads a running etcd, a snapshot file or the database of a stopped member, and gives each object as [`Stored`],
//! every key once, in the state of one revision. It decrypts nothing: it knows no key, and the programs that use it hold
//! none.

mod client;
mod client_error;
pub mod content;
pub mod count;
mod endpoint;
#[cfg(test)]
pub(crate) mod fake;
pub mod findings;
pub mod object;
mod proto;
pub mod question;
mod range;
pub mod resource;
#[cfg(test)]
pub(crate) mod samples;
pub mod snapshot;
mod tls;
pub mod wanted;

pub use client::{Client, Keys, State};
pub use client_error::ClientError;
pub use endpoint::{Endpoint, EndpointError};
pub use range::OBJECT_MAX_BYTES;
pub use tls::{TlsError, TlsFiles};

/// One object as etcd stores it, in the state of the revision that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// etcd's key, such as `/registry/secrets/default/token`.
    pub key: &'a [u8],
    /// As kube-apiserver wrote it: a transformer's prefix and ciphertext, or plain.
    pub value: &'a [u8],
    /// Revision of the object's last change.
    pub mod_revision: i64,
}

/// Why reading ended before the last object.
#[derive(Debug)]
pub enum ReadError<E> {
    /// etcd or the way to it.
    Source(ClientError),
    /// Whoever takes the objects has had enough.
    Taker(E),
}
