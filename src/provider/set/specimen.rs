//! Something that a provider's key has made, by which a provider shows that it has this key: it opens it, and to what was wrapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hmac::Mac;

use super::WrapContext;
use crate::provider::Wrapped;
use crate::types::Key;
use crate::types::mac::hmac_sha256;

const LABEL: &[u8] = b"nodeseal specimen v1\0";

/// Tells a key from every other one, and says nothing of it to whoever does not have it. Stays in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    const BYTES: usize = 16;

    /// Of this key.
    pub fn of(key: &Key) -> Self {
        let tag = hmac_sha256(key.expose()).chain_update(LABEL).finalize().into_bytes();
        let mut print = [0; Self::BYTES];
        print.copy_from_slice(&tag[..Self::BYTES]);
        Self(print)
    }

    pub(super) fn is_of(&self, key: &Key) -> bool {
        *self == Self::of(key)
    }
}

/// See the module. All clones are one specimen: what one provider has opened is known to be in order when another one refuses it.
#[derive(Clone, Debug)]
pub struct Specimen {
    /// By the key.
    pub wrap: Wrapped,
    /// What it is bound to.
    pub of: WrapContext,
    key: Fingerprint,
    has_opened: Arc<AtomicBool>,
}

impl Specimen {
    /// A copy that lies here, of which nobody knows whether it still opens.
    pub fn kept(wrap: Wrapped, of: WrapContext, key: Fingerprint) -> Self {
        Self { wrap, of, key, has_opened: Arc::default() }
    }

    /// Some provider has opened it just now.
    pub fn opened(wrap: Wrapped, of: WrapContext, key: Fingerprint) -> Self {
        let specimen = Self::kept(wrap, of, key);
        specimen.opens();
        specimen
    }

    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key.is_of(key)
    }

    pub(super) fn opens(&self) {
        self.has_opened.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_opened(&self) -> bool {
        self.has_opened.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_one_key() {
        let [one, other] = [1, 2].map(|byte| Key::of(&[byte; Key::LEN]));
        assert!(Fingerprint::of(&one).is_of(&one) && !Fingerprint::of(&one).is_of(&other));
    }
}
