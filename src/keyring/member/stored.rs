//! The files `members/<name>.member`: whom this node gives keys to and takes keys from, authenticated under the node root.
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | given: u8, and if 1: KEK id | identity: u16 length, bytes | MAC, 32 bytes
//! ```
//!
//! `given`: the KEK in pre-activation that was given to this member last. The MAC is over `nodeseal member`, a zero byte and
//! everything before it, under the key of the state. Without it somebody with the disk could name a node of his own.

use super::Identity;
use crate::keyring::bundle::{self, BundleError};
use crate::keyring::mac::{HMAC_SHA256, MAC_BYTES, mac};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, MemberName, RootId};

/// The folder of these files.
pub const DIR: &str = "members";
/// The ending of these files.
pub const SUFFIX: &str = ".member";

const LABEL: &[u8] = b"nodeseal member\0";

/// Name of the file inside of the folder of the root.
pub fn file_name(name: &MemberName) -> String {
    format!("{DIR}/{name}{SUFFIX}")
}

/// A node whose identity was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who it is.
    pub identity: Identity,
    /// As it came.
    pub file: Vec<u8>,
    /// The KEK in pre-activation that was given to it last.
    pub given: Option<KekId>,
}

impl Known {
    /// From the file that the other node made.
    pub fn new(file: &[u8], cluster: &ClusterId) -> Result<Self, BundleError> {
        let identity = Identity::decode(file)?;
        identity.check(cluster)?;
        Ok(Self { identity, file: file.to_vec(), given: None })
    }

    /// What both operators have compared.
    pub fn fingerprint(&self) -> String {
        bundle::fingerprint(&self.file)
    }

    /// The payload of the file.
    pub fn encode(&self, root: &RootId, mac_key: &Key) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(HMAC_SHA256).raw(root.as_bytes());
        match &self.given {
            None => w.u8(0),
            Some(kek) => w.u8(1).raw(kek.as_bytes()),
        };
        w.bytes16(&self.file);
        let tag = mac(mac_key, &[LABEL, w.as_bytes()]).finalize();
        w.raw(&tag).finish()
    }

    /// Authenticates and reads the payload.
    pub fn decode(bytes: &[u8], cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Result<Self, BundleError> {
        let format = BundleError::Format;
        let (body, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(format(WireError::Short("MAC")))?;
        if !mac(mac_key, &[LABEL, body]).is(tag) {
            return Err(BundleError::Tag);
        }
        let (given, file) = read(body, root).map_err(format)?;
        Ok(Self { given, ..Self::new(file, cluster)? })
    }
}

fn read<'b>(body: &'b [u8], root: &RootId) -> Result<(Option<KekId>, &'b [u8]), WireError> {
    let mut r = Reader::new(body);
    if r.u8("algorithm")? != HMAC_SHA256 {
        return Err(WireError::BadValue("algorithm"));
    }
    if r.array("root id")? != *root.as_bytes() {
        return Err(WireError::BadValue("root id"));
    }
    let given = match r.u8("given")? {
        0 => None,
        1 => Some(KekId::from_bytes(r.array("KEK id")?)),
        _ => return Err(WireError::BadValue("given")),
    };
    let file = r.bytes16("identity")?;
    r.end()?;
    Ok((given, file))
}
