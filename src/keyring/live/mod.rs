//! The keyring in memory, as the API sees it.
//!
//! One snapshot answers a whole call, so that the key_id of a Status and of an Encrypt can never come from two sides of a rotation.
//! Nothing here waits for the network but a text whose KEK this node does not have, and mode "direct".

mod decrypt;
mod others;
mod places;
mod seen;
mod serving;
mod snapshot;
mod tally;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use self::decrypt::Decrypted;
use self::others::Others;
use self::places::Places;
pub use self::places::WAITING_MAX;
use self::seen::Seen;
use self::serving::Serving;
pub(super) use self::snapshot::{Active, LiveKek, Snapshot};
use self::snapshot::{How, Local, sealing};
use self::tally::Tally;
pub use self::tally::{Told, Unknown};
use super::attached::{Attached, Check};
use super::error::KeyringError;
use super::rooted::{ProvidersError, Rooted};
use super::uses::Claim;
use crate::envelope::{Api, EnvelopeError};
use crate::provider::set::{Member, NotOpened, WrapContext};
use crate::provider::{Form, KeyIdentity, KeyState};
use crate::types::{ClusterId, KekId, Key, KeyId, lock, random};

/// How long an Encrypt waits for the next block of uses: inside of kube-apiserver's 3 s (config `timeout` default).
const RESERVATION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call waits for the first attempt to open the keys, or to have the first KEK wrapped: what came in while the process
/// restarted is answered late and not refused. Inside of kube-apiserver's 3 s as well.
const OPENING_TIMEOUT: Duration = Duration::from_millis(2500);

/// What the keyring asks of the keeper. Must not block.
pub(super) enum Ask {
    /// The next block of uses.
    Block,
    /// A sealed copy of another node's KEK, so that the next start needs nobody for it.
    Keep(Arc<LiveKek>),
    /// To take note of the keys that providers have used, by their names.
    Seen(Vec<(String, KeyState)>),
}

/// Answers from memory.
pub struct Keyring {
    cluster: ClusterId,
    keys: RwLock<Keys>,
    rooted: RwLock<Option<Arc<Rooted>>>,
    others: Others,
    places: Places,
    /// Woken by the keeper after every change of `keys` and every block that it reserved.
    changed: Notify,
    /// Blocks that were asked for and could not be reserved.
    refused_blocks: AtomicU64,
    tally: Tally,
    seen: Seen,
    serving: Serving,
    ask: Box<dyn Fn(Ask) + Send + Sync>,
}

enum Keys {
    /// The first attempt to open them is under way.
    Opening,
    /// An attempt failed; the keeper goes on trying.
    Locked(SealRefusal),
    Open(Arc<Snapshot>),
}

/// Why the last attempt to open the keys failed, for people. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRefusal {
    /// The whole chain.
    pub error: String,
    /// What the operator does next.
    pub hint: String,
    /// The next attempt.
    pub retry_at: Instant,
    /// It is not made before this file has changed.
    pub waits_for: Option<PathBuf>,
}

/// What an Encrypt gives.
pub struct Encrypted {
    /// What kube-apiserver stores.
    pub text: Vec<u8>,
    /// Equals the Status of the same moment.
    pub key_id: KeyId,
    /// What has to be stored beside it (v2), or is inside of it (v1).
    pub attached: Arc<Attached>,
}

impl Keyring {
    /// Without keys: calls wait for the first attempt of the keeper to open them, and are refused once it failed.
    pub(super) fn opening(cluster: ClusterId, ask: impl Fn(Ask) + Send + Sync + 'static) -> Self {
        Self {
            cluster,
            keys: RwLock::new(Keys::Opening),
            rooted: RwLock::default(),
            others: Others::default(),
            places: Places::default(),
            changed: Notify::new(),
            refused_blocks: AtomicU64::new(0),
            tally: Tally::default(),
            seen: Seen::default(),
            serving: Serving::default(),
            ask: Box::new(ask),
        }
    }

    /// The key_id that is reported.
    pub async fn key_id(&self) -> Result<KeyId, KeyringError> {
        Ok(self.active().await?.key_id.clone())
    }

    /// The key_id that is reported, without waiting for anything.
    pub fn key_id_now(&self) -> Option<KeyId> {
        Some(self.snapshot()?.active.as_ref()?.key_id.clone())
    }

    /// Whether a call of kube-apiserver is under way.
    pub fn is_serving(&self) -> bool {
        self.serving.is_any()
    }

    /// Whether the operator's rules say that kube-apiserver must stop writing, since providers are away.
    pub fn stops_writes(&self) -> bool {
        self.rooted().is_some_and(|rooted| rooted.stops_writes())
    }

    /// Whether an Encrypt would be answered, as far as is known without asking anybody.
    pub fn would_encrypt(&self) -> bool {
        let snapshot = self.snapshot();
        match snapshot.as_ref().and_then(|snapshot| snapshot.active.as_ref()).map(|active| &active.how) {
            Some(How::Local(_) | How::Direct(Some(_))) => true,
            Some(How::Direct(None)) => self.rooted().is_some_and(|rooted| rooted.outage().is_zero()),
            None => false,
        }
    }

    /// Encrypts under the active KEK. Waits only when the disk is slower than the callers (see [`super::uses`]), and in mode
    /// "direct" for the providers.
    pub async fn encrypt(&self, api: Api, plaintext: &[u8]) -> Result<Encrypted, KeyringError> {
        let _serving = self.serving.begin();
        let active = self.active().await?;
        match self.encrypt_as(&active, api, plaintext).await {
            // It was left while this call waited for uses of it, and nobody reserves any for it now.
            Err(KeyringError::Reservation) if !self.is_active(&active) => {
                let active = self.active().await?;
                self.encrypt_as(&active, api, plaintext).await
            }
            other => other,
        }
    }

    async fn encrypt_as(&self, active: &Active, api: Api, plaintext: &[u8]) -> Result<Encrypted, KeyringError> {
        match &active.how {
            How::Local(local) => self.encrypt_local(api, &active.key_id, local, plaintext).await,
            How::Direct(None) => self.encrypt_directly(api, &active.key_id, plaintext).await,
            // kube-apiserver waits three seconds at most: who is known to be away is not asked first.
            How::Direct(Some(local)) if self.rooted().is_none_or(|rooted| !rooted.outage().is_zero()) => {
                self.encrypt_local(api, &active.key_id, local, plaintext).await
            }
            How::Direct(Some(local)) => match self.encrypt_directly(api, &active.key_id, plaintext).await {
                Err(KeyringError::Providers(_) | KeyringError::Crowded) => {
                    self.encrypt_local(api, &active.key_id, local, plaintext).await
                }
                other => other,
            },
        }
    }

    async fn encrypt_local(
        &self,
        api: Api,
        key_id: &KeyId,
        local: &Local,
        plaintext: &[u8],
    ) -> Result<Encrypted, KeyringError> {
        let Local { kek, attached, v1, v2 } = local;
        self.claim_use(kek).await?;
        let nonce = random::array().map_err(KeyringError::Random)?;
        let sealing = match api {
            Api::V1 => v1,
            Api::V2 => v2,
        };
        let text = sealing.seal(kek.key.expose(), nonce, plaintext);
        let text = text.map_err(KeyringError::Envelope)?;
        Ok(Encrypted { text, key_id: key_id.clone(), attached: Arc::clone(attached) })
    }

    /// A KEK for this text alone: each provider wraps it and proves that it opens it again.
    async fn encrypt_directly(&self, api: Api, key_id: &KeyId, plaintext: &[u8]) -> Result<Encrypted, KeyringError> {
        let rooted = self.rooted().ok_or(KeyringError::Waiting)?;
        let _place = self.places.take()?;
        let id = KekId::from_bytes(random::array().map_err(KeyringError::Random)?);
        let key = Arc::new(Key::random().map_err(KeyringError::Random)?);
        let of = WrapContext { cluster: self.cluster.clone(), kek: id };
        let (providers, asked) = (rooted.providers.clone(), Arc::clone(&key));
        let outcome = rooted.spawn(async move { providers.wrap(&asked, &of).await }).await;
        let outcome = outcome.map_err(|_| KeyringError::Providers(ProvidersError::none()))?;
        let has = |kind, key: &KeyIdentity| outcome.wraps.iter().any(|(_, wrap)| wrap.is_by(kind, key));
        if !rooted.suffices(Member::identity, has) {
            return Err(KeyringError::Providers(match outcome.owed.is_empty() {
                true => ProvidersError::too_few(),
                false => ProvidersError::of(&NotOpened { refusals: outcome.owed }),
            }));
        }
        let seen = outcome.wraps.iter().map(|(name, wrap)| (name.clone(), wrap.key_state())).collect();
        if let Some(news) = self.seen.news(seen) {
            (self.ask)(Ask::Seen(news));
        }
        let check = Check::of(&id, key.expose());
        let attached = Attached::new(check, outcome.wraps.iter().map(|(_, wrap)| wrap), Form::Once);
        let text = (|| {
            let wraps = attached.wraps().map_err(EnvelopeError::Wraps)?;
            let nonce = random::array().map_err(|_| EnvelopeError::PlaintextLength);
            sealing(api, &self.cluster, &id, key_id, &wraps)?.seal(key.expose(), nonce?, plaintext)
        })();
        let text = text.map_err(KeyringError::Envelope)?;
        Ok(Encrypted { text, key_id: key_id.clone(), attached: Arc::new(attached) })
    }

    /// Uses of the active KEK so far, for `status`.
    pub fn uses(&self) -> Option<u64> {
        Some(self.snapshot()?.active.as_ref()?.kek()?.uses.used())
    }

    /// What Decrypts have told since the start.
    pub fn told(&self) -> Told {
        self.tally.read()
    }

    /// The keeper's new truth: everything that it names is safe on disk.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.others.forget(&snapshot.destroyed);
        self.set(Keys::Open(Arc::new(snapshot)));
    }

    /// An attempt to open the keys failed: nobody waits any more.
    pub(super) fn lock(&self, refusal: SealRefusal) {
        self.set(Keys::Locked(refusal));
    }

    /// Why the keys are not open, once an attempt to open them has failed.
    pub fn refusal(&self) -> Option<SealRefusal> {
        match &*lock::read(&self.keys) {
            Keys::Locked(refusal) => Some(refusal.clone()),
            Keys::Open(_) | Keys::Opening => None,
        }
    }

    /// A block up to `uses` is safe on disk.
    pub(super) fn extend(&self, uses: u64) {
        if let Some(kek) = self.active_kek() {
            kek.uses.extend(uses);
        }
        self.changed.notify_waiters();
    }

    /// The block that was asked for cannot be reserved: whoever waits for it is told at once.
    pub(super) fn refuse_block(&self) {
        self.refused_blocks.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// The providers of the first configuration, before the keeper starts.
    pub fn begin_with(&self, rooted: Option<Arc<Rooted>>) {
        self.set_rooted(rooted);
    }

    /// The providers of the configuration from now on.
    pub(super) fn set_rooted(&self, rooted: Option<Arc<Rooted>>) {
        *lock::write(&self.rooted) = rooted;
    }

    /// The providers that run, if any of them wraps new KEKs.
    pub(super) fn writing(&self) -> Option<Arc<Rooted>> {
        self.rooted().filter(|rooted| rooted.writes())
    }

    /// The providers that run, if any do.
    pub fn rooted(&self) -> Option<Arc<Rooted>> {
        lock::read(&self.rooted).clone()
    }

    /// Takes no more uses of the active KEK, and says how many were taken. For the end of the process.
    pub(super) fn close_uses(&self) -> Option<(KekId, u64)> {
        self.active_kek().map(|kek| (kek.id, kek.uses.close()))
    }

    fn active_kek(&self) -> Option<Arc<LiveKek>> {
        self.snapshot()?.active.as_ref()?.kek().cloned()
    }

    fn set(&self, keys: Keys) {
        // A poisoned lock still holds whole keys: they are replaced in one assignment.
        *lock::write(&self.keys) = keys;
        self.changed.notify_waiters();
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        match &*lock::read(&self.keys) {
            Keys::Open(snapshot) => Some(Arc::clone(snapshot)),
            Keys::Locked(_) | Keys::Opening => None,
        }
    }

    pub(in crate::keyring) fn is_opening(&self) -> bool {
        matches!(&*lock::read(&self.keys), Keys::Opening)
    }

    async fn opened(&self) -> Result<Arc<Snapshot>, KeyringError> {
        if let Some(snapshot) = self.snapshot() {
            return Ok(snapshot);
        }
        let give_up = tokio::time::Instant::now() + OPENING_TIMEOUT;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the second look, so that a change in between is not missed.
            changed.as_mut().enable();
            // Whoever was woken by something else goes on waiting.
            if !self.is_opening() || tokio::time::timeout_at(give_up, changed).await.is_err() {
                return self.snapshot().ok_or(KeyringError::Locked);
            }
        }
    }

    /// How new texts are made now. On a node whose providers have not wrapped a KEK yet, waits for the first.
    async fn active(&self) -> Result<Arc<Active>, KeyringError> {
        if let Some(active) = self.snapshot().and_then(|snapshot| snapshot.active.clone()) {
            return Ok(active);
        }
        let give_up = tokio::time::Instant::now() + OPENING_TIMEOUT;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let snapshot = self.opened().await?;
            if let Some(active) = &snapshot.active {
                return Ok(Arc::clone(active));
            }
            // No provider and no second of waiting brings it.
            if snapshot.awaits_bundle {
                return Err(KeyringError::AwaitsBundle);
            }
            tokio::time::timeout_at(give_up, changed).await.map_err(|_| KeyringError::Waiting)?;
        }
    }

    fn is_active(&self, active: &Active) -> bool {
        let own = active.kek().map(|kek| kek.id);
        self.snapshot().and_then(|snapshot| Some(snapshot.active.as_ref()?.kek()?.id)) == own
    }

    async fn claim_use(&self, kek: &LiveKek) -> Result<(), KeyringError> {
        let refused = self.refused_blocks.load(Ordering::Acquire);
        loop {
            let mut woken = std::pin::pin!(self.changed.notified());
            match kek.uses.claim() {
                Claim::Granted => return Ok(()),
                Claim::GrantedAndLow => {
                    (self.ask)(Ask::Block);
                    return Ok(());
                }
                Claim::Exhausted => return Err(KeyringError::Exhausted),
                Claim::Wait => {
                    // Registered before the second look, so that a block that comes in between is not missed.
                    woken.as_mut().enable();
                    let second = kek.uses.claim();
                    (self.ask)(Ask::Block);
                    if matches!(second, Claim::Granted | Claim::GrantedAndLow) {
                        return Ok(());
                    }
                    tokio::time::timeout(RESERVATION_TIMEOUT, woken).await.map_err(|_| KeyringError::Reservation)?;
                    if self.active_kek().is_some_and(|active| active.id != kek.id) {
                        return Err(KeyringError::Reservation);
                    }
                    // No disk gets better within the time of one call.
                    if self.refused_blocks.load(Ordering::Acquire) != refused {
                        return match kek.uses.claim() {
                            Claim::Granted | Claim::GrantedAndLow => Ok(()),
                            Claim::Exhausted => Err(KeyringError::Exhausted),
                            Claim::Wait => Err(KeyringError::Reservation),
                        };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
impl Keyring {
    /// Takes uses of the active KEK, as many encryptions would; never more than are reserved.
    pub(super) fn claim(&self, uses: u64) {
        let Some(kek) = self.active_kek() else { return };
        for _ in 0..uses {
            if kek.uses.claim() != Claim::Granted {
                (self.ask)(Ask::Block);
            }
        }
    }

    /// Uses of the active KEK until one must wait.
    pub(super) fn left(&self) -> u64 {
        self.active_kek().map_or(0, |kek| kek.uses.left())
    }
}
