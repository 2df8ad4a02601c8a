//! What is told of a provider that does one thing and not another, and what one text may cost the others.

use std::sync::Mutex;

use super::*;
use crate::types::{Class, Explained};

/// Behaves as it is told for each operation. Texts of nines have a mood of their own.
struct Each {
    probe: Mutex<Mood>,
    wrap: Mutex<Mood>,
    unwrap: Mutex<Mood>,
    nines: Mutex<Mood>,
    /// Failures of wraps before the first that goes well.
    stumbles: AtomicU32,
    calls: AtomicU32,
}

impl Each {
    fn fine() -> Arc<Self> {
        let fine = || Mutex::new(Mood::Fine);
        let (stumbles, calls) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { probe: fine(), wrap: fine(), unwrap: fine(), nines: fine(), stumbles, calls })
    }

    fn set(self: &Arc<Self>, strategy: Strategy) -> Providers {
        Providers::new(vec![Member::new("a", Role::Required, Arc::clone(self) as _)], strategy)
    }

    async fn as_told(&self, mood: &Mutex<Mood>) -> Result<bool, ProviderError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mood = *mood.lock().unwrap();
        match mood {
            Mood::Fine => {}
            Mood::Slow(time) => sleep(time).await,
            Mood::Refuses(kind) => return Err(ProviderError::new(kind, "")),
            Mood::Hangs => std::future::pending().await,
            Mood::Lies => return Ok(false),
        }
        Ok(true)
    }
}

impl Kek for Each {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async {
            self.as_told(&self.probe).await?;
            Ok(KeyState { identity: identity("a"), version: KeyVersion::new("1").unwrap() })
        })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            self.as_told(&self.wrap).await?;
            if self.stumbles.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(ProviderError::new(ErrorKind::Down, "503"));
            }
            let version = KeyVersion::new("1").unwrap();
            Ok(Wrapped::new(ProviderKind::Vault, identity("a"), version, key.expose().to_vec()).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            let mood = if wrapped.text() == [9; 32] { &self.nines } else { &self.unwrap };
            let text = if self.as_told(mood).await? { wrapped.text() } else { &[0xEE; 32] };
            Ok(Key::copy_of(text).unwrap())
        })
    }
}

fn nines() -> Wrapped {
    Wrapped::new(ProviderKind::Vault, identity("a"), KeyVersion::new("1").unwrap(), vec![9; 32]).unwrap()
}

async fn opens(set: &Providers, wrap: Wrapped) -> Result<(), Class> {
    let opened = set.unwrap(&[wrap], &of(), |_| true).await;
    opened.map(drop).map_err(|error| error.refusals[0].error.class())
}

async fn probe(set: &Providers) -> bool {
    set.members()[0].probe(Instant::now() + Duration::from_secs(5)).await.is_ok()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_provider_that_limits_us_for_ever_fails_and_every_refusal_says_why() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    *kek.wrap.lock().unwrap() = Mood::Refuses(ErrorKind::Throttled);
    for second in 0..30 {
        let owed = set.wrap(&key(), &of()).await.owed;
        assert_eq!(owed[0].error.class(), Class::Throttled, "{}", owed[0].error);
        assert!(probe(&set).await);
        let health = set.members()[0].health();
        assert!(second > 5 || health.failing_for.is_none_or(|time| time > BUDGET));
        sleep(SECOND).await;
    }
    let health = set.members()[0].health();
    assert!(health.failing_for.is_some_and(|time| time > SECOND * 20), "{health:?}");
    assert_eq!(health.failure.map(|(class, _)| class), Some(Class::Throttled));
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_refuses_stays_a_failure_whatever_its_probes_say_until_it_does_it() {
    for kind in [ErrorKind::Forbidden, ErrorKind::Down, ErrorKind::Lied, ErrorKind::Unfit] {
        let kek = Each::fine();
        let set = kek.set(Strategy::Ordered);
        *kek.wrap.lock().unwrap() = Mood::Refuses(kind);
        assert_eq!(set.wrap(&key(), &of()).await.owed.len(), 1);
        for _ in 0..10 {
            sleep(SECOND).await;
            assert!(probe(&set).await);
        }
        let health = set.members()[0].health();
        assert!(health.failing_for.is_some_and(|time| time >= SECOND * 10), "{kind:?} {health:?}");
        // It is allowed again, and nobody asks but the probe.
        *kek.wrap.lock().unwrap() = Mood::Fine;
        assert!(probe(&set).await);
        assert_eq!(set.members()[0].health().failing_for, None, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unwrap_that_failed_is_tried_again_by_the_probe() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    *kek.unwrap.lock().unwrap() = Mood::Refuses(ErrorKind::Forbidden);
    assert_eq!(opens(&set, wrap_of("a")).await, Err(Class::Denied));
    assert!(probe(&set).await);
    assert!(set.members()[0].health().failure.is_some());
    *kek.unwrap.lock().unwrap() = Mood::Fine;
    assert!(probe(&set).await);
    assert_eq!(set.members()[0].health().failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_right_to_open_that_was_lost_is_known_within_a_day() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    assert_eq!(set.wrap(&key(), &of()).await.wraps.len(), 1);
    *kek.unwrap.lock().unwrap() = Mood::Refuses(ErrorKind::Forbidden);
    for _ in 0..25 {
        sleep(SECOND * 3600).await;
        assert!(probe(&set).await);
    }
    assert_eq!(set.members()[0].health().failing, [Operation::Unwrap]);
    // Asked by each probe from then on, and no oftener once it is well.
    *kek.unwrap.lock().unwrap() = Mood::Fine;
    assert!(probe(&set).await);
    let calls = kek.calls.load(Ordering::SeqCst);
    assert!(probe(&set).await);
    assert_eq!(kek.calls.load(Ordering::SeqCst), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_is_a_failure_of_wraps_and_a_right_to_open_is_not() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    let member = &set.members()[0];
    *kek.unwrap.lock().unwrap() = Mood::Refuses(ErrorKind::Forbidden);
    opens(&set, wrap_of("a")).await.unwrap_err();
    assert_eq!((member.health().failing, member.health().wraps_fail_for), (vec![Operation::Unwrap], None));
    *kek.probe.lock().unwrap() = Mood::Refuses(ErrorKind::Away);
    assert!(!probe(&set).await);
    assert!(member.health().wraps_fail_for.is_some());
    // Nothing tells that it can log in but what it does then.
    *kek.probe.lock().unwrap() = Mood::Refuses(ErrorKind::Login);
    assert!(!probe(&set).await);
    assert!(member.health().failing.contains(&Operation::Login));
}

#[tokio::test(start_paused = true)]
async fn a_text_that_the_provider_fails_on_closes_it_to_nothing_else() {
    for kind in [ErrorKind::Down, ErrorKind::Protocol, ErrorKind::Lied] {
        let kek = Each::fine();
        let set = kek.set(Strategy::Ordered);
        *kek.nines.lock().unwrap() = Mood::Refuses(kind);
        for _ in 0..10 {
            assert!(opens(&set, nines()).await.is_err());
        }
        let health = set.members()[0].health();
        assert!(!health.is_open && health.failure.is_none(), "{kind:?} {health:?}");
        assert_eq!(opens(&set, wrap_of("a")).await, Ok(()));
        assert_eq!(set.wrap(&key(), &of()).await.wraps.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_to_decrypt_that_is_missing_is_said_to_be_that_and_no_lie() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    for kind in [ErrorKind::Forbidden, ErrorKind::NoKey, ErrorKind::Unfit] {
        *kek.unwrap.lock().unwrap() = Mood::Refuses(kind);
        assert_eq!(set.wrap(&key(), &of()).await.owed[0].error.kind(), kind);
    }
    for mood in [Mood::Refuses(ErrorKind::Text), Mood::Lies] {
        *kek.unwrap.lock().unwrap() = mood;
        assert_eq!(set.wrap(&key(), &of()).await.owed[0].error.kind(), ErrorKind::Lied);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrap_that_fails_for_a_moment_is_asked_for_again_within_the_budget() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    for _ in 0..40 {
        kek.stumbles.store(2, Ordering::SeqCst);
        let begun = Instant::now();
        assert_eq!(set.wrap(&key(), &of()).await.wraps.len(), 1);
        assert!(begun.elapsed() < BUDGET);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_slower_than_an_attempt_and_within_the_budget_serves() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    *kek.unwrap.lock().unwrap() = Mood::Slow(Duration::from_millis(1200));
    assert_eq!(opens(&set, wrap_of("a")).await, Ok(()));
    *kek.wrap.lock().unwrap() = Mood::Slow(SECOND);
    assert_eq!(set.wrap(&key(), &of()).await.wraps.len(), 1);
    assert!(!set.members()[0].health().is_open);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_open_for_longer_than_the_time_that_is_left_is_said_at_once() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    *kek.unwrap.lock().unwrap() = Mood::Hangs;
    while !set.members()[0].health().is_open {
        assert_eq!(opens(&set, wrap_of("a")).await, Err(Class::Unavailable));
    }
    // The pauses grow with each trial that fails.
    for _ in 0..3 {
        assert_eq!(opens(&set, wrap_of("a")).await, Err(Class::Unavailable));
        sleep(SECOND * 2).await;
    }
    let calls = kek.calls.load(Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(opens(&set, wrap_of("a")).await, Err(Class::Unavailable));
    assert_eq!(set.wrap(&key(), &of()).await.owed.len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!(kek.calls.load(Ordering::SeqCst), calls);
}

/// Cannot log in, which it found out by itself before anybody asked.
struct Resting;

impl Resting {
    fn answer<T: Send + 'static>() -> Answer<'static, T> {
        let until = Instant::now() + Duration::from_secs(30);
        Box::pin(async move { Err(ProviderError::new(ErrorKind::Login, "the token file is missing").until(until)) })
    }
}

impl Kek for Resting {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Self::answer()
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Self::answer()
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Self::answer()
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_fails_before_anybody_asks_for_it_is_told() {
    let providers = Providers::new(vec![Member::new("a", Role::Required, Arc::new(Resting))], Strategy::Ordered);
    for _ in 0..10 {
        assert!(providers.wrap(&key(), &of()).await.wraps.is_empty());
        assert!(providers.members()[0].probe(Instant::now() + Duration::from_secs(5)).await.is_err());
        sleep(Duration::from_secs(30)).await;
    }
    let health = providers.members()[0].health();
    assert_eq!(health.failure.map(|(class, _)| class), Some(Class::Denied));
    assert!(health.wraps_fail_for.is_some(), "every wrap has failed for five minutes");
}

#[tokio::test(start_paused = true)]
async fn what_failed_when_it_still_wrapped_is_no_trouble_of_one_that_only_opens_by_now() {
    let each = Each::fine();
    *each.wrap.lock().unwrap() = Mood::Refuses(ErrorKind::Forbidden);
    let providers = each.set(Strategy::Ordered);
    assert!(providers.wrap(&key(), &of()).await.wraps.is_empty());
    let eased = providers.members()[0].under("a", Role::DecryptOnly);
    for _ in 0..10 {
        assert!(eased.probe(Instant::now() + Duration::from_secs(5)).await.is_ok());
        sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(eased.health().failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_text_that_may_not_be_opened_stays_a_trouble_when_what_is_wrapped_now_may() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    // Rights that go by the KEK (a condition on the encryption context), or by the version.
    *kek.nines.lock().unwrap() = Mood::Refuses(ErrorKind::Forbidden);
    assert_eq!(opens(&set, nines()).await, Err(Class::Denied));
    assert_eq!(set.members()[0].health().failing, [Operation::Unwrap]);
    assert!(set.wrap(&key(), &of()).await.owed.is_empty());
    assert_eq!(set.members()[0].health().failing, [Operation::Unwrap], "nothing has opened that text");
}

/// Tells its key, and limits wraps for as long as it says.
struct Limiting(AtomicU32);

impl Kek for Limiting {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity("a"), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(ProviderError::new(ErrorKind::Throttled, "429").after(Some(SECOND * 60)))
        })
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async { Err(ProviderError::new(ErrorKind::Text, "")) })
    }
}

#[tokio::test(start_paused = true)]
async fn how_long_a_provider_wants_to_be_left_alone_is_kept_whatever_else_it_answers_meanwhile() {
    let kek = Arc::new(Limiting(AtomicU32::new(0)));
    let set = Providers::new(vec![Member::new("a", Role::Required, Arc::clone(&kek) as _)], Strategy::Ordered);
    for _ in 0..50 {
        assert_eq!(set.wrap(&key(), &of()).await.owed[0].error.class(), Class::Throttled);
        assert!(probe(&set).await);
        sleep(SECOND).await;
    }
    assert_eq!(kek.0.load(Ordering::SeqCst), 1, "wraps that it was asked for in the minute for which it said no");
    set.members()[0].failed(None, &ProviderError::new(ErrorKind::Away, "a probe that was not answered"));
    assert_eq!(
        set.wrap(&key(), &of()).await.owed[0].error.class(),
        Class::Throttled,
        "it is held back because it limits"
    );
}

/// Opens texts of sevens alone. Of others it says what a plugin in Go says that gives its error no code: UNKNOWN, which is `Down`.
struct WithoutCodes;

impl Kek for WithoutCodes {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity("a"), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        let text = key.expose().to_vec();
        Box::pin(async {
            Ok(Wrapped::new(ProviderKind::Vault, identity("a"), KeyVersion::new("1").unwrap(), text).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            match wrapped.text() {
                [7, ..] => Ok(Key::copy_of(wrapped.text()).unwrap()),
                _ => Err(ProviderError::new(ErrorKind::Down, "gRPC code 2")),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn texts_that_do_not_open_hold_nothing_else_back_however_many_they_are_and_whatever_is_said_of_them() {
    let set = Providers::new(vec![Member::new("a", Role::Required, Arc::new(WithoutCodes))], Strategy::Ordered);
    assert!(probe(&set).await);
    assert!(set.unwrap(&[wrap_of("a")], &of(), is_right).await.is_ok());
    for bad in 100..110 {
        let version = KeyVersion::new("1").unwrap();
        let wrap = Wrapped::new(ProviderKind::Vault, identity("a"), version, vec![bad; 32]).unwrap();
        assert!(set.unwrap(&[wrap], &of(), is_right).await.is_err());
    }
    assert!(!set.members()[0].health().is_open, "its circuit is open for texts that are not its own");
    assert!(set.unwrap(&[wrap_of("a")], &of(), is_right).await.is_ok());
    assert_eq!(set.wrap(&key(), &of()).await.wraps.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_fails_on_every_text_is_told_and_held_back_when_it_fails_on_one_that_is_in_order_too() {
    let kek = Each::fine();
    let set = kek.set(Strategy::Ordered);
    assert_eq!(set.wrap(&key(), &of()).await.wraps.len(), 1);
    *kek.unwrap.lock().unwrap() = Mood::Refuses(ErrorKind::Down);
    for bad in 100..110 {
        let version = KeyVersion::new("1").unwrap();
        let wrap = Wrapped::new(ProviderKind::Vault, identity("a"), version, vec![bad; 32]).unwrap();
        assert!(opens(&set, wrap).await.is_err());
    }
    let health = set.members()[0].health();
    assert!(health.is_open && health.failing == [Operation::Unwrap], "{health:?}");
    *kek.unwrap.lock().unwrap() = Mood::Fine;
    assert!(probe(&set).await);
    let health = set.members()[0].health();
    assert!(!health.is_open && health.failing.is_empty(), "{health:?}");
}
