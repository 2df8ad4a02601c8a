//! What a member says when it has taken a KEK in: without it, nobody turns to that KEK.

use super::{MemberKeys, check_signed, read_magic, split};
use crate::keyring::attached::{CHECK_BYTES, Check};
use crate::keyring::bundle::BundleError;
use crate::keyring::maker::Maker;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId};

pub(in crate::keyring) const MAGIC: &[u8; 8] = b"NSEALRCP";
pub(in crate::keyring) const VERSION: u16 = 1;
const LABEL: &[u8] = b"nodeseal member receipt v1\0";

/// A node has a KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where it is valid.
    pub cluster: ClusterId,
    /// Which one.
    pub kek: KekId,
    /// Who says so.
    pub by: Maker,
    check: [u8; CHECK_BYTES],
}

impl Receipt {
    /// The file.
    pub(in crate::keyring) fn sign(cluster: &ClusterId, kek: &KekId, check: Check, keys: &MemberKeys) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).bytes16(cluster.as_str().as_bytes()).raw(kek.as_bytes());
        w.raw(check.as_bytes()).raw(keys.maker().as_bytes());
        keys.signed(LABEL, w.finish())
    }

    /// Total over any bytes. The signature holds for whom it names, who need not be anybody.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        let (body, signature) = split(file)?;
        let receipt = Self::read(body).map_err(BundleError::Format)?;
        check_signed(&receipt.by, LABEL, body, signature)?;
        Ok(receipt)
    }

    fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        read_magic(&mut r, MAGIC, VERSION)?;
        let cluster = r.text16("cluster")?.parse().map_err(|_| WireError::BadValue("cluster"))?;
        let kek = KekId::from_bytes(r.array("KEK id")?);
        let (check, by) = (r.array("check")?, Maker::from_bytes(r.array("signing key")?));
        r.end()?;
        Ok(Self { cluster, kek, by, check })
    }

    /// Whether it says that this member has this very key.
    pub(in crate::keyring) fn says(&self, cluster: &ClusterId, by: &Maker, kek: &KekId, check: Check) -> bool {
        self.cluster == *cluster && self.by == *by && self.kek == *kek && self.check == *check.as_bytes()
    }
}
