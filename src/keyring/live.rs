//! The keyring in memory, as the API sees it.
//!
//! One snapshot answers a whole call, so that the key_id of a Status and of an Encrypt can never come from two sides of a rotation.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::error::KeyringError;
use super::uses::{Claim, UseCounter};
use crate::envelope::{self, Api, Binding, EnvelopeError, Parsed, Sealing, Wraps};
use crate::sandbox::memory::LockedKey;
use crate::types::{ClusterId, KekId, Key, KeyId, Secret, random};

/// How long an Encrypt waits for the next block of uses: inside of kube-apiserver's 3 s (config `timeout` default).
const RESERVATION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call waits for the first attempt to open the keys: what came in while the process restarted is answered late and
/// not refused. Inside of kube-apiserver's 3 s as well.
const OPENING_TIMEOUT: Duration = Duration::from_millis(2500);

/// Answers from memory.
pub struct Keyring {
    cluster: ClusterId,
    keys: RwLock<Keys>,
    /// Woken by the keeper after every change of `keys` and every block that it reserved.
    changed: Notify,
    /// Asks the keeper for a block. Must not block.
    ask_for_block: Box<dyn Fn() + Send + Sync>,
}

enum Keys {
    /// The first attempt to open them is under way.
    Opening,
    /// An attempt failed; the keeper goes on trying.
    Locked,
    Open(Arc<Snapshot>),
}

/// Everything that one call needs.
pub(super) struct Snapshot {
    pub(super) active: Arc<LiveKek>,
    pub(super) by_id: HashMap<KekId, Arc<LiveKek>>,
}

/// A KEK in memory.
pub(super) struct LiveKek {
    pub(super) key_id: KeyId,
    key: LockedKey,
    pub(super) uses: UseCounter,
    v1: Sealing,
    v2: Sealing,
}

impl LiveKek {
    /// The key, for exports.
    pub(super) fn copy_key(&self) -> Option<Key> {
        Key::copy_of(self.key.expose())
    }

    pub(super) fn new(
        cluster: &ClusterId,
        id: &KekId,
        key: LockedKey,
        uses: UseCounter,
    ) -> Result<Self, EnvelopeError> {
        let key_id = KeyId::of_local_kek(cluster, id);
        let to = Binding { cluster, key_id: key_id.as_str(), wraps: &Wraps::default() };
        let (v1, v2) = (Sealing::new(Api::V1, id, &to)?, Sealing::new(Api::V2, id, &to)?);
        Ok(Self { key_id, key, uses, v1, v2 })
    }
}

/// What an Encrypt gives.
pub struct Encrypted {
    /// What kube-apiserver stores.
    pub text: Vec<u8>,
    /// Of the KEK that was used; equals the Status of the same moment.
    pub key_id: KeyId,
}

/// What a Decrypt gives.
pub struct Decrypted {
    /// The DEK or seed.
    pub plaintext: Secret,
    /// Of the KEK that was used.
    pub key_id: KeyId,
}

impl Keyring {
    /// Without keys: calls wait for the first attempt of the keeper to open them, and are refused once it failed.
    pub fn opening(cluster: ClusterId, ask_for_block: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            cluster,
            keys: RwLock::new(Keys::Opening),
            changed: Notify::new(),
            ask_for_block: Box::new(ask_for_block),
        }
    }

    /// The key_id that is reported.
    pub async fn key_id(&self) -> Result<KeyId, KeyringError> {
        Ok(self.opened().await?.active.key_id.clone())
    }

    /// The key_id that is reported, without waiting for anything.
    pub fn key_id_now(&self) -> Option<KeyId> {
        self.snapshot().map(|snapshot| snapshot.active.key_id.clone())
    }

    /// Encrypts under the active KEK. Waits only when the disk is slower than the callers (see [`super::uses`]).
    pub async fn encrypt(&self, api: Api, plaintext: &[u8]) -> Result<Encrypted, KeyringError> {
        let snapshot = self.opened().await?;
        let kek = &snapshot.active;
        self.claim_use(kek).await?;
        let nonce = random::array().map_err(KeyringError::Random)?;
        let sealing = match api {
            Api::V1 => &kek.v1,
            Api::V2 => &kek.v2,
        };
        let text = sealing.seal(kek.key.expose(), nonce, plaintext);
        Ok(Encrypted { text: text.map_err(KeyringError::Envelope)?, key_id: kek.key_id.clone() })
    }

    /// Decrypts what a v1 Encrypt of this cluster gave, under whichever KEK it names.
    pub async fn decrypt_v1(&self, text: &[u8]) -> Result<Decrypted, KeyringError> {
        self.opened().await?.open(envelope::parse_v1(&self.cluster, text))
    }

    /// Decrypts what a v2 Encrypt of this cluster gave, with the key_id and annotations that were stored beside it.
    pub async fn decrypt_v2(&self, key_id: &str, wraps: Wraps<'_>, text: &[u8]) -> Result<Decrypted, KeyringError> {
        self.opened().await?.open(envelope::parse_v2(&self.cluster, key_id, wraps, text))
    }

    /// Uses of the active KEK so far, for `status`.
    pub fn uses(&self) -> Option<u64> {
        self.snapshot().map(|snapshot| snapshot.active.uses.used())
    }

    /// The keeper's new truth: everything that it names is safe on disk.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.set(Keys::Open(Arc::new(snapshot)));
    }

    /// An attempt to open the keys failed: nobody waits any more.
    pub(super) fn lock(&self) {
        self.set(Keys::Locked);
    }

    /// A block up to `uses` is safe on disk.
    pub(super) fn extend(&self, uses: u64) {
        if let Some(snapshot) = self.snapshot() {
            snapshot.active.uses.extend(uses);
        }
        self.changed.notify_waiters();
    }

    fn set(&self, keys: Keys) {
        // A poisoned lock still holds whole keys: they are replaced in one assignment.
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.changed.notify_waiters();
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        match &*self.keys.read().unwrap_or_else(PoisonError::into_inner) {
            Keys::Open(snapshot) => Some(Arc::clone(snapshot)),
            Keys::Locked | Keys::Opening => None,
        }
    }

    fn is_opening(&self) -> bool {
        matches!(&*self.keys.read().unwrap_or_else(PoisonError::into_inner), Keys::Opening)
    }

    async fn opened(&self) -> Result<Arc<Snapshot>, KeyringError> {
        if let Some(snapshot) = self.snapshot() {
            return Ok(snapshot);
        }
        let mut changed = std::pin::pin!(self.changed.notified());
        // Registered before the second look, so that a change in between is not missed.
        changed.as_mut().enable();
        if self.is_opening() {
            // Late or not, what counts is what is there now.
            let _ = tokio::time::timeout(OPENING_TIMEOUT, changed).await;
        }
        self.snapshot().ok_or(KeyringError::Locked)
    }

    async fn claim_use(&self, kek: &LiveKek) -> Result<(), KeyringError> {
        loop {
            let mut woken = std::pin::pin!(self.changed.notified());
            match kek.uses.claim() {
                Claim::Granted => return Ok(()),
                Claim::GrantedAndLow => {
                    (self.ask_for_block)();
                    return Ok(());
                }
                Claim::Exhausted => return Err(KeyringError::Exhausted),
                Claim::Wait => {
                    // Registered before the second look, so that a block that comes in between is not missed.
                    woken.as_mut().enable();
                    let second = kek.uses.claim();
                    (self.ask_for_block)();
                    if matches!(second, Claim::Granted | Claim::GrantedAndLow) {
                        return Ok(());
                    }
                    tokio::time::timeout(RESERVATION_TIMEOUT, woken).await.map_err(|_| KeyringError::Reservation)?;
                }
            }
        }
    }
}

#[cfg(test)]
impl Keyring {
    /// Takes uses of the active KEK, as many encryptions would; never more than are reserved.
    pub(super) fn claim(&self, uses: u64) {
        let Some(snapshot) = self.snapshot() else { return };
        for _ in 0..uses {
            if snapshot.active.uses.claim() != Claim::Granted {
                (self.ask_for_block)();
            }
        }
    }

    /// Uses of the active KEK until one must wait.
    pub(super) fn left(&self) -> u64 {
        self.snapshot().map_or(0, |snapshot| snapshot.active.uses.left())
    }
}

impl Snapshot {
    fn open(&self, parsed: Result<Parsed<'_>, EnvelopeError>) -> Result<Decrypted, KeyringError> {
        let parsed = parsed.map_err(KeyringError::Envelope)?;
        let kek = self.by_id.get(parsed.kek_id()).ok_or_else(|| KeyringError::UnknownKek(*parsed.kek_id()))?;
        let plaintext = parsed.open(kek.key.expose()).map_err(KeyringError::Envelope)?;
        Ok(Decrypted { plaintext, key_id: kek.key_id.clone() })
    }
}
