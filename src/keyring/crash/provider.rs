//! A provider that is always there, and whose key can be rotated.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::keyring::rooted::{OnOutage, Rooted, Rules};
use crate::provider::set::{Member, Providers, Role, Strategy};
use crate::provider::{Answer, Context, Kek, KeyIdentity, KeyState, KeyVersion, ProviderKind, Wrapped};
use crate::types::Key;

/// Its key's version. A copy goes its own way.
pub(super) struct Provider(Arc<AtomicU32>);

impl Provider {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }

    pub(super) fn copy(&self) -> Self {
        Self(Arc::new(AtomicU32::new(self.0.load(Ordering::SeqCst))))
    }

    pub(super) fn rotate_to(&self, version: u32) {
        self.0.store(version, Ordering::SeqCst);
    }

    /// As a configuration would have it that is in a hurry.
    pub(super) fn rooted(&self) -> Arc<Rooted> {
        let member = Member::new("p", Role::Required, Arc::new(Imitated(Arc::clone(&self.0))));
        let rules = Rules {
            local_kek: true,
            min_wraps: 1,
            epoch: 0,
            on_outage: OnOutage::Coast,
            activation_delay: Duration::ZERO,
            probe_every: Duration::from_millis(5),
        };
        Arc::new(Rooted::new(runtime(), Providers::new(vec![member], Strategy::Ordered), rules))
    }
}

fn runtime() -> Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    let begin = || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    };
    RUNTIME.get_or_init(begin).clone()
}

struct Imitated(Arc<AtomicU32>);

impl Imitated {
    fn state(&self) -> KeyState {
        let version = self.0.load(Ordering::SeqCst).to_string();
        KeyState { identity: KeyIdentity::new("k").unwrap(), version: KeyVersion::new(version).unwrap() }
    }
}

impl Kek for Imitated {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(self.state()) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        let KeyState { identity, version } = self.state();
        Box::pin(async { Ok(Wrapped::new(ProviderKind::Vault, identity, version, key.expose().to_vec()).unwrap()) })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async { Ok(Key::copy_of(wrapped.text()).unwrap()) })
    }
}
