//! What lies in etcd: read, taken apart and counted, and never changed.
//!
//! It reads a running etcd, a snapshot file or the database of a stopped member, and gives each object as [`Stored`],
//! every key once, in the state of one revision. It decrypts nothing: it knows no key, and the programs that use it hold
//! none.

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
