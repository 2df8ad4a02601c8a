//! Providers whose keys can be rotated, and which can be away or hang.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::keyring::rooted::{OnOutage, Rooted, Rules};
use crate::provider::set::{Member, Providers, Role, Strategy};
use crate::provider::{
    Answer, Context, ErrorKind, Kek, KeyIdentity, KeyState, KeyVersion, PluginText, ProviderError, ProviderKind,
    Wrapped,
};
use crate::types::Key;

/// What becomes of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Refused at once.
    Away,
    /// Not answered for as long as this lasts.
    Hangs,
}

#[derive(Default)]
struct Desk {
    key: &'static str,
    /// Of the key.
    version: u32,
    /// Of what it wraps, where that is another one.
    lag: Option<u32>,
    /// It opens nothing.
    is_shut: bool,
    /// It is handed what Nodeseal has not made.
    opens_foreign: bool,
    /// Wraps that it made.
    wraps: usize,
    /// Questions since the last plan.
    asked: usize,
    plan: Option<(usize, Silence)>,
}

/// To what everything opens that Nodeseal has not made.
pub(super) const FOREIGN: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

/// A copy goes its own way; a shared one is the same provider.
pub(super) struct Provider {
    desk: Arc<Mutex<Desk>>,
    local_kek: bool,
}

impl Silence {
    pub(super) const ALL: [Self; 2] = [Self::Away, Self::Hangs];
}

impl Provider {
    pub(super) fn new() -> Self {
        Self::of("k")
    }

    /// With a key of this name.
    pub(super) fn of(key: &'static str) -> Self {
        Self { desk: Arc::new(Mutex::new(Desk { key, version: 1, ..Desk::default() })), local_kek: true }
    }

    pub(super) fn copy(&self) -> Self {
        let Desk { key, version, .. } = *self.desk();
        Self { desk: Arc::new(Mutex::new(Desk { key, version, ..Desk::default() })), ..*self }
    }

    /// All that a copy has.
    pub(super) fn state(&self) -> (&'static str, u32, bool) {
        let Desk { key, version, .. } = *self.desk();
        (key, version, self.local_kek)
    }

    /// For another node.
    pub(super) fn shared(&self) -> Self {
        Self { desk: Arc::clone(&self.desk), ..*self }
    }

    /// For a node that makes a KEK for each text and keeps none.
    pub(super) fn directly(self) -> Self {
        Self { local_kek: false, ..self }
    }

    pub(super) fn rotate_to(&self, version: u32) {
        self.desk().version = version;
    }

    /// Wraps under this version, whatever it says of its key.
    pub(super) fn lag_at(&self, version: u32) {
        self.desk().lag = Some(version);
    }

    /// What it opens from now on is nothing, as if another key had made it.
    pub(super) fn shut(&self) {
        self.desk().is_shut = true;
    }

    /// From now on it is handed what Nodeseal has not made, or it is not.
    pub(super) fn open_foreign(&self, opens: bool) {
        self.desk().opens_foreign = opens;
    }

    /// Wraps that it has made so far.
    pub(super) fn wraps(&self) -> usize {
        self.desk().wraps
    }

    /// Counts questions from 0 on again, and answers none of them from there on.
    pub(super) fn plan(&self, plan: Option<(usize, Silence)>) {
        let mut desk = self.desk();
        (desk.asked, desk.plan) = (0, plan);
    }

    /// Whether a question was not answered.
    pub(super) fn was_struck(&self) -> bool {
        let desk = self.desk();
        desk.plan.is_some_and(|(planned, _)| desk.asked > planned)
    }

    /// Questions since the last plan.
    pub(super) fn asked(&self) -> usize {
        self.desk().asked
    }

    /// As a configuration would have it that is in a hurry.
    pub(super) fn rooted(&self) -> Arc<Rooted> {
        together(&[("p", Role::Required, self)], |rules| rules.local_kek = self.local_kek)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }
}

/// Several in one configuration, by their names. The same one twice is two ways to one key.
pub(super) fn together(members: &[(&str, Role, &Provider)], change: impl FnOnce(&mut Rules)) -> Arc<Rooted> {
    let member = |(name, role, provider): &(&str, Role, &Provider)| {
        let (desk, opens_foreign) = (Arc::clone(&provider.desk), provider.desk().opens_foreign);
        Member::new(*name, *role, Arc::new(Imitated { desk, opens_foreign }))
    };
    let mut rules = Rules {
        local_kek: true,
        min_wraps: 1,
        epoch: crate::keyring::calendar::EpochRule::default(),
        on_outage: OnOutage::Coast,
        activation_delay: Duration::ZERO,
        probe_every: Duration::from_millis(5),
    };
    change(&mut rules);
    Arc::new(Rooted::new(runtime(), Providers::new(members.iter().map(member).collect(), Strategy::Ordered), rules))
}

/// As a reload proves its providers before they count.
pub(super) fn proved(rooted: Arc<Rooted>) -> Arc<Rooted> {
    for member in rooted.providers.members() {
        let member = member.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let probe = async move { member.probe(tokio::time::Instant::now() + Duration::from_secs(5)).await };
        rooted.runtime.spawn(async move { tell.send(probe.await.is_ok()) });
        assert!(told.recv().unwrap(), "a provider does not prove itself");
    }
    rooted
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

/// One table of a configuration.
struct Imitated {
    desk: Arc<Mutex<Desk>>,
    opens_foreign: bool,
}

impl Imitated {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }

    /// Its key, if this question is answered. Whoever hangs gives no answer later: the connection is another one then.
    async fn state(&self) -> Result<KeyState, ProviderError> {
        let silence = {
            let mut desk = self.desk();
            let at = desk.asked;
            desk.asked += 1;
            desk.plan.filter(|(planned, _)| at >= *planned).map(|(_, silence)| silence)
        };
        let away = || ProviderError::new(ErrorKind::Away, "imitated");
        match silence {
            Some(Silence::Away) => return Err(away()),
            Some(Silence::Hangs) => {
                while self.desk().plan.is_some() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                return Err(away());
            }
            None => {}
        }
        let Desk { key, version, .. } = *self.desk();
        let version = KeyVersion::new(version.to_string()).unwrap();
        Ok(KeyState { identity: KeyIdentity::new(key).unwrap(), version })
    }
}

impl Kek for Imitated {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(self.state())
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            let KeyState { identity, mut version } = self.state().await?;
            let mut desk = self.desk();
            desk.wraps += 1;
            if let Some(lag) = desk.lag {
                version = KeyVersion::new(lag.to_string()).unwrap();
            }
            Ok(Wrapped::new(ProviderKind::Vault, identity, version, key.expose().to_vec()).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            self.state().await?;
            if self.desk().is_shut {
                return Err(ProviderError::new(ErrorKind::Text, "imitated"));
            }
            Ok(Key::copy_of(wrapped.text()).unwrap())
        })
    }

    fn opens_foreign(&self) -> bool {
        self.opens_foreign
    }

    fn open_foreign<'a>(&'a self, _: &'a PluginText) -> Answer<'a, Key> {
        Box::pin(async {
            self.state().await?;
            if self.desk().is_shut {
                return Err(ProviderError::new(ErrorKind::Text, "imitated"));
            }
            Ok(Key::of(&FOREIGN))
        })
    }
}
