//! What one call needs, in one piece: the KEKs of the node, and how a new text is made at this moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::envelope::{Api, Binding, EnvelopeError, Sealing, Wraps};
use crate::keyring::attached::{Attached, Check};
use crate::keyring::uses::UseCounter;
use crate::provider::{Form, Wrapped};
use crate::sandbox::memory::LockedKey;
use crate::types::{ClusterId, KekId, Key, KeyId};

/// Everything that one call needs.
pub(in crate::keyring) struct Snapshot {
    /// `None` until providers have wrapped the first KEK of a node that is to have them, and on a node that has none yet.
    pub(in crate::keyring) active: Option<Arc<Active>>,
    /// The first KEK comes in a bundle.
    pub(in crate::keyring) awaits_bundle: bool,
    pub(in crate::keyring) by_id: HashMap<KekId, Arc<LiveKek>>,
    /// The operator's order holds, whatever a provider could still open.
    pub(in crate::keyring) destroyed: HashSet<KekId>,
}

/// A KEK in memory.
pub(in crate::keyring) struct LiveKek {
    pub(in crate::keyring) id: KekId,
    pub(super) check: Check,
    pub(super) key: LockedKey,
    pub(in crate::keyring) uses: UseCounter,
}

impl LiveKek {
    pub(in crate::keyring) fn new(id: KekId, key: LockedKey, uses: UseCounter) -> Self {
        Self { id, check: Check::of(&id, key.expose()), key, uses }
    }

    pub(in crate::keyring) const fn check(&self) -> Check {
        self.check
    }

    /// The key, for exports and for providers.
    pub(in crate::keyring) fn copy_key(&self) -> Key {
        self.key.copy()
    }

    /// The one that a text needs, if the text says which.
    pub(super) fn is_of(&self, check: Option<Check>) -> bool {
        check.is_none_or(|check| check == self.check)
    }
}

/// How new texts are made, and what is reported with them.
pub(in crate::keyring) struct Active {
    pub(in crate::keyring) key_id: KeyId,
    pub(super) how: How,
}

pub(super) enum How {
    /// Under a local KEK.
    Local(Box<Local>),
    /// Each under a KEK of its own, which providers wrap. Where they do not, under a local KEK without all its copies, if there is
    /// one: better without copies than not at all.
    Direct(Option<Box<Local>>),
}

pub(super) struct Local {
    pub(super) kek: Arc<LiveKek>,
    pub(super) attached: Arc<Attached>,
    pub(super) v1: Sealing,
    pub(super) v2: Sealing,
}

impl Active {
    pub(in crate::keyring) fn local(
        cluster: &ClusterId,
        key_id: KeyId,
        kek: Arc<LiveKek>,
        wraps: &[Wrapped],
    ) -> Result<Self, EnvelopeError> {
        let attached = Arc::new(Attached::new(kek.check, wraps, Form::Local));
        let bound = attached.wraps().map_err(EnvelopeError::Wraps)?;
        let sealing = |api| sealing(api, cluster, &kek.id, &key_id, &bound);
        let (v1, v2) = (sealing(Api::V1)?, sealing(Api::V2)?);
        Ok(Self { key_id, how: How::Local(Box::new(Local { kek, attached, v1, v2 })) })
    }

    pub(in crate::keyring) fn direct(key_id: KeyId) -> Self {
        Self { key_id, how: How::Direct(None) }
    }

    /// As [`Active::direct`] while the providers answer, and else as this one.
    pub(in crate::keyring) fn until_copied(self) -> Self {
        match self.how {
            How::Local(local) => Self { key_id: self.key_id, how: How::Direct(Some(local)) },
            How::Direct(_) => self,
        }
    }

    /// The local KEK that encrypts, if one does.
    pub(in crate::keyring) fn kek(&self) -> Option<&Arc<LiveKek>> {
        match &self.how {
            How::Local(local) | How::Direct(Some(local)) => Some(&local.kek),
            How::Direct(None) => None,
        }
    }
}

pub(super) fn sealing(
    api: Api,
    cluster: &ClusterId,
    id: &KekId,
    key_id: &KeyId,
    wraps: &Wraps<'_>,
) -> Result<Sealing, EnvelopeError> {
    Sealing::new(api, id, &Binding { cluster, key_id: key_id.as_str(), wraps })
}
