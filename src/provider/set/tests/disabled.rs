//! A key that is disabled behind a plugin whose Status knows nothing of it.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::provider::PluginText;
use crate::types::Class;

/// Tells its key, and has it until it is disabled: from then on every call with it is answered with FAILED_PRECONDITION.
#[derive(Default)]
struct Plugin(Arc<AtomicBool>);

impl Plugin {
    fn is_there(&self) -> Result<(), ProviderError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(ProviderError::new(ErrorKind::NoKey, "gRPC code 9")),
            false => Ok(()),
        }
    }
}

impl Kek for Plugin {
    fn kind(&self) -> ProviderKind {
        ProviderKind::KmsPlugin
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity("k"), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            self.is_there()?;
            let KeyState { identity, version } = self.probe().await?;
            Ok(Wrapped::new(ProviderKind::KmsPlugin, identity, version, key.expose().to_vec()).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async { self.is_there().map(|()| Key::copy_of(wrapped.text()).unwrap()) })
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_opens_nothing_of_the_version_that_it_tells_is_not_well() {
    let is_disabled = Arc::new(AtomicBool::new(false));
    let member = Member::new("plugin", Role::DecryptOnly, Arc::new(Plugin(Arc::clone(&is_disabled))));
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    let probe = || member.probe(Instant::now() + BUDGET);
    probe().await.unwrap();
    let text = |number: u8| {
        let bytes = [&[7; 31][..], &[number]].concat();
        Wrapped::new(ProviderKind::KmsPlugin, identity("k"), KeyVersion::new("1").unwrap(), bytes).unwrap()
    };
    assert!(providers.unwrap(&[text(7)], &of(), is_right).await.is_ok());
    is_disabled.store(true, Ordering::SeqCst);
    // Two days, on which no text opens, this one that has opened before among them.
    for number in 0..48 {
        let refused = providers.unwrap(&[text(number)], &of(), |_| true).await.err().unwrap().refusals;
        assert_eq!(refused[0].error.kind().class(), Class::NotFound);
        probe().await.unwrap();
        sleep(Duration::from_secs(3600)).await;
    }
    let health = member.health();
    assert_eq!(health.failing, [Operation::Unwrap], "{health:?}");
}

/// Answers every text at once with 503.
struct Sealed(Arc<AtomicU32>);

impl Kek for Sealed {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity("k"), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async { Err(ProviderError::new(ErrorKind::Down, "503")) })
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(ProviderError::new(ErrorKind::Down, "503")) })
    }
}

#[tokio::test(start_paused = true)]
async fn texts_that_nobody_has_opened_since_the_start_do_not_each_take_all_their_time_from_a_provider_that_refuses_at_once()
 {
    let asked = Arc::new(AtomicU32::new(0));
    let member = Member::new("v", Role::DecryptOnly, Arc::new(Sealed(Arc::clone(&asked))));
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    let started = Instant::now();
    for number in 0..32 {
        let wrap = Wrapped::new(ProviderKind::Vault, identity("k"), KeyVersion::new("1").unwrap(), vec![number; 32]);
        providers.unwrap(&[wrap.unwrap()], &of(), is_right).await.err().unwrap();
    }
    let (took, asked) = (started.elapsed(), asked.load(Ordering::SeqCst));
    assert!(took < Duration::from_secs(16) && asked < 64, "32 texts took {took:?} and {asked} questions");
}

/// Answers what it cannot open as most plugins in Go do: with UNKNOWN, which says nothing of whose fault it is.
pub(super) struct Unspoken(pub(super) Arc<AtomicU32>);

impl Kek for Unspoken {
    fn kind(&self) -> ProviderKind {
        ProviderKind::KmsPlugin
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity("k"), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async { Err(ProviderError::new(ErrorKind::Down, "gRPC code 2")) })
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async { Err(ProviderError::new(ErrorKind::Down, "gRPC code 2")) })
    }

    fn opens_foreign(&self) -> bool {
        true
    }

    fn open_foreign<'a>(&'a self, _: &'a PluginText) -> Answer<'a, Key> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(ProviderError::new(ErrorKind::Down, "gRPC code 2")) })
    }
}

#[tokio::test(start_paused = true)]
async fn texts_of_another_plugin_that_do_not_open_do_not_each_take_all_their_time() {
    let asked = Arc::new(AtomicU32::new(0));
    let member = Member::new("old", Role::DecryptOnly, Arc::new(Unspoken(Arc::clone(&asked))));
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    let started = Instant::now();
    for number in 0..32 {
        assert!(providers.open_foreign(&PluginText::v1beta1(&[number; 32])).await.is_err());
    }
    let (took, asked) = (started.elapsed(), asked.load(Ordering::SeqCst));
    assert!(took < Duration::from_secs(16) && asked < 64, "32 texts took {took:?} and {asked} questions");
}
