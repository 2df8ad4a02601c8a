//! Claims about a provider as a node has it, in a set: one that refuses for ever, and two ways to one key.

use std::time::{Duration, Instant};

use nodeseal::provider::set::{BUDGET, Member, Providers, Role, Strategy, WrapContext};
use nodeseal::provider::{Kek, ProviderError, Wrapped};
use nodeseal::types::Explained;
use nodeseal::types::{Class, KekId, Key};
use tokio::time::sleep;

use super::{Ground, shown};

/// For how long it refuses: what lasts longer than a budget is a failure.
const FOR_EVER: Duration = Duration::from_secs(6);
/// The pauses of a circuit grow to 30 s.
const SOON: Duration = Duration::from_secs(60);

/// A set of these, by this order, that are all required.
struct Set(Providers);

impl Set {
    fn new(keks: Vec<std::sync::Arc<dyn Kek>>) -> Self {
        let member = |(number, kek)| Member::new(format!("provider-{number}"), Role::Required, kek);
        Self(Providers::new(keks.into_iter().enumerate().map(member).collect(), Strategy::Ordered))
    }

    fn first(&self) -> &Member {
        &self.0.members()[0]
    }

    async fn wrap(&self, key: &Key) -> Result<Wrapped, ProviderError> {
        let mut outcome = self.0.wrap(key, &of()).await;
        assert!(outcome.wraps.len() < 2, "two wraps of one key");
        match outcome.wraps.pop() {
            Some((_, wrapped)) => Ok(wrapped),
            None => Err(outcome.owed.remove(0).error),
        }
    }

    async fn opens(&self, wrapped: &Wrapped, key: &Key) {
        let opened = self.0.unwrap(std::slice::from_ref(wrapped), &of(), |_| true).await;
        assert_eq!(opened.unwrap().expose(), key.expose());
    }

    async fn probe(&self) -> bool {
        self.first().probe(tokio::time::Instant::now() + super::TIMEOUT).await.is_ok()
    }
}

fn of() -> WrapContext {
    WrapContext { cluster: "prod".parse().unwrap(), kek: KekId::from_bytes([1; 16]) }
}

/// Until it is well, with nobody asking but the probe.
async fn recovers(set: &Set) {
    let begun = Instant::now();
    while !set.probe().await || set.first().health().failure.is_some() {
        assert!(begun.elapsed() < SOON, "{:?}", set.first().health());
        sleep(Duration::from_millis(100)).await;
    }
}

/// Wraps ten times a second and probes once, as a node does at its worst. How often it wrapped.
async fn refuses_for_ever(ground: &impl Ground, set: &Set, class: Class) -> usize {
    let begun = Instant::now();
    let mut calls = 0;
    while begun.elapsed() < FOR_EVER {
        let error = set.wrap(&Key::random().unwrap()).await.expect_err("it wraps");
        assert_eq!(error.class(), class, "{error}");
        let all = shown(&error);
        ground.canaries().iter().for_each(|canary| assert!(!all.contains(canary), "{canary} in {all}"));
        if calls % 10 == 0 {
            set.probe().await;
        }
        calls += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let health = set.first().health();
    assert!(health.failing_for.is_some_and(|time| time > BUDGET), "{health:?}");
    assert!(health.wraps_fail_for.is_some_and(|time| time > BUDGET), "{health:?}");
    assert_eq!(health.failure.as_ref().map(|(class, _)| *class), Some(class), "{health:?}");
    // It works, and says no: what it has wrapped may still be opened.
    assert!(!health.is_open, "{health:?}");
    calls
}

/// Not in a token: none says that it is asked too often.
pub async fn one_that_limits_us_for_ever_fails_is_asked_ever_more_slowly_and_recovers(ground: impl Ground) {
    let set = Set::new(vec![ground.kek()]);
    let key = Key::random().unwrap();
    let wrapped = set.wrap(&key).await.unwrap();
    ground.throttle();
    let before = ground.asked();
    refuses_for_ever(&ground, &set, Class::Throttled).await;
    // Two or three requests for each probe, and as many for the wraps between pauses of 0.5, 1, 2 and 4 s.
    let asked = ground.asked() - before;
    assert!((2..=50).contains(&asked), "{asked}");
    ground.trouble(super::Trouble::None);
    recovers(&set).await;
    set.opens(&wrapped, &key).await;
    set.wrap(&key).await.unwrap();
}

/// Not in a token: whoever has the PIN may use its keys.
pub async fn one_that_denies_us_for_ever_fails_gets_no_storm_of_logins_and_recovers(ground: impl Ground) {
    let set = Set::new(vec![ground.kek()]);
    let key = Key::random().unwrap();
    let wrapped = set.wrap(&key).await.unwrap();
    ground.deny();
    let before = (ground.asked(), ground.logins());
    let calls = refuses_for_ever(&ground, &set, Class::Denied).await;
    let (asked, logins) = (ground.asked() - before.0, ground.logins() - before.1);
    assert!(asked <= 4 * calls + 10, "{asked} requests for {calls} calls");
    assert!(logins <= 1, "{logins} logins");
    ground.allow();
    recovers(&set).await;
    set.opens(&wrapped, &key).await;
    set.wrap(&key).await.unwrap();
}

pub async fn two_ways_to_one_key_are_one_key_and_stand_in_for_each_other(ground: impl Ground) {
    let (well, other) = (ground.kek(), ground.kek());
    let state = well.probe().await.unwrap();
    let key = Key::random().unwrap();
    let both = Set::new(vec![well, other]);
    for member in both.0.members() {
        member.probe(tokio::time::Instant::now() + super::TIMEOUT).await.unwrap();
    }
    assert_eq!(both.0.keys(|_| true).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    let wrapped = both.wrap(&key).await.unwrap();
    for (keks, is_first) in
        [(vec![ground.kek_away(), ground.kek()], true), (vec![ground.kek(), ground.kek_away()], false)]
    {
        let set = Set::new(keks);
        set.0.members().iter().for_each(|member| member.remember(state.identity.clone()));
        assert_eq!(set.0.keys(|_| true).len(), 1);
        let made = set.wrap(&key).await.unwrap();
        set.opens(&made, &key).await;
        set.opens(&wrapped, &key).await;
        assert_eq!(set.first().health().failure.is_some(), is_first);
    }
}
