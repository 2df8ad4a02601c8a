//! Two servers that tell the same key, and have not the same: Vault tells births to the second, and one tool makes both keys.

use super::*;
use crate::provider::set::twin::Twin;

fn twin(name: &str, pad: u8) -> Member {
    Member::new(name, Role::Required, Arc::new(Twin(pad)))
}

#[tokio::test(start_paused = true)]
async fn two_keys_that_are_told_as_one_have_a_copy_each_or_are_told() {
    for are_probed in [false, true] {
        let members = vec![twin("east", 3), twin("west", 5)];
        for member in members.iter().filter(|_| are_probed) {
            member.probe(Instant::now() + BUDGET).await.unwrap();
        }
        let providers = Providers::new(members, Strategy::Ordered);
        let outcome = providers.wrap_by(&key(), &of(), |_| true).await;
        let wraps: Vec<Wrapped> = outcome.wraps.iter().map(|(_, wrap)| wrap.clone()).collect();
        if !outcome.owed.is_empty() {
            continue;
        }
        for (name, pad) in [("east", 3), ("west", 5)] {
            // The other one is lost for good.
            let alone = Providers::new(vec![twin(name, pad)], Strategy::Ordered);
            let opened = alone.unwrap(&wraps, &of(), is_right).await;
            assert!(opened.is_ok(), "`{name}` is required, owes nothing, and opens no copy (probed: {are_probed})");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_refuses_once_is_asked_again_and_one_that_refuses_again_counts_for_nothing() {
    let (east, west) = (twin("east", 3), twin("west", 5));
    let end = || Instant::now() + BUDGET;
    for member in [&east, &west] {
        member.probe(end()).await.unwrap();
    }
    let wrap = east.wrap_and_prove(&key(), &of(), BUDGET, end()).await.unwrap();
    let specimen = Specimen::opened(wrap, of(), Fingerprint::of(&key()));
    assert!(west.open_specimen(&specimen, end()).await.is_err() && !west.is_twin(), "it may be behind");
    assert!(west.is_probe_due(Duration::from_secs(3600)), "it is looked at soon");
    west.probe(end()).await.unwrap();
    assert!(west.is_twin() && west.health().failing == [Operation::Unwrap]);
    // Two keys, as whoever counts them has to know.
    let providers = Providers::new(vec![east.clone(), west.clone()], Strategy::Ordered);
    assert_eq!(providers.keys(|_| true).len(), 2);
    // What was put right is found out by the next probe.
    let own = west.wrap_and_prove(&key(), &of(), BUDGET, end()).await.unwrap();
    west.show(Specimen::opened(own.clone(), of(), Fingerprint::of(&key())));
    west.probe(end()).await.unwrap();
    assert!(!west.is_twin() && west.health().failing.is_empty());
}

/// Opens everything, to a key of its own.
struct Liar;

impl Kek for Liar {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Twin(9).probe().await })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async move { Twin(9).wrap_key(key, context).await })
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async { Ok(Key::copy_of(&[0xEE; 32]).unwrap()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_opens_a_specimen_to_another_key_is_none() {
    let end = || Instant::now() + BUDGET;
    let east = twin("east", 3);
    let west = Member::new("west", Role::DecryptOnly, Arc::new(Liar));
    for member in [&east, &west] {
        member.probe(end()).await.unwrap();
    }
    let wrap = east.wrap_and_prove(&key(), &of(), BUDGET, end()).await.unwrap();
    let specimen = Specimen::opened(wrap, of(), Fingerprint::of(&key()));
    for _ in 0..3 {
        assert!(west.open_specimen(&specimen, end()).await.is_err(), "what came is not what the key has wrapped");
    }
}

/// What Kubernetes' own server code and most plugins in Go answer to a text that is not theirs: UNKNOWN or INTERNAL, which is `Down`; and
/// nodeseald as a plugin: NOT_FOUND.
struct Unlike(ErrorKind);

impl Kek for Unlike {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        let version = KeyVersion::new("1").unwrap();
        Box::pin(async { Ok(KeyState { identity: identity("transit/k@1764255600"), version }) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async move { Twin(9).wrap_key(key, context).await })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async move { Twin(9).unwrap_key(wrapped, context).await.map_err(|_| ProviderError::new(self.0, "")) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_twin_is_known_in_whichever_words_it_refuses_what_the_key_has_made() {
    for kind in [ErrorKind::Text, ErrorKind::NoKey, ErrorKind::Down] {
        let west = Member::new("west", Role::Required, Arc::new(Unlike(kind)));
        let providers = Providers::new(vec![twin("east", 3), west.clone()], Strategy::Ordered);
        for member in providers.members() {
            member.probe(Instant::now() + BUDGET).await.unwrap();
        }
        for _ in 0..10 {
            providers.wrap_by(&key(), &of(), |_| true).await;
            west.probe(Instant::now() + BUDGET).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        let health = west.health();
        assert!(west.is_twin() || health.failing.contains(&Operation::Unwrap), "{kind:?}: {health:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_no_way_opens_any_more_makes_no_way_a_twin_unless_one_of_them_opens_it() {
    // Of a version that is not to be used any more, as of Vault's min_decryption_version.
    for is_opened in [false, true] {
        let west = Member::new("west", Role::Required, Arc::new(Unlike(ErrorKind::NoKey)));
        let other = if is_opened { twin("east", 3) } else { west_again() };
        for member in [&west, &other] {
            member.probe(Instant::now() + BUDGET).await.unwrap();
        }
        let wrap = twin("east", 3).wrap_and_prove(&key(), &of(), BUDGET, Instant::now() + BUDGET).await.unwrap();
        let kept = Specimen::kept(wrap, of(), Fingerprint::of(&key()));
        for member in [&west, &other] {
            member.show(kept.clone());
        }
        for _ in 0..3 {
            for member in [&west, &other] {
                member.probe(Instant::now() + BUDGET).await.unwrap();
            }
        }
        assert_eq!((west.is_twin(), other.is_twin()), (is_opened, false));
    }
}

fn west_again() -> Member {
    Member::new("west-2", Role::Required, Arc::new(Unlike(ErrorKind::NoKey)))
}

#[tokio::test(start_paused = true)]
async fn a_way_that_cannot_serve_now_is_no_twin_unless_it_tells_its_key_and_refuses_all_the_same() {
    let (east, west) = (twin("east", 3), Member::new("west", Role::Required, Arc::new(Unlike(ErrorKind::Down))));
    for member in [&east, &west] {
        member.probe(Instant::now() + BUDGET).await.unwrap();
    }
    let providers = Providers::new(vec![east, west.clone()], Strategy::Ordered);
    // Many texts of mode "direct" within a moment in which it is sealed.
    for _ in 0..10 {
        assert_eq!(providers.wrap(&key(), &of()).await.wraps.len(), 1);
    }
    assert!(!west.is_twin());
}

/// Has the key of `Twin(3)` and may wrap with it; how it answers who asks it to open is changed from outside.
struct Half(Arc<std::sync::Mutex<ErrorKind>>);

impl Kek for Half {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Twin(3).probe().await })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async move { Twin(3).wrap_key(key, context).await })
    }

    fn unwrap_key<'a>(&'a self, _: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        let kind = *self.0.lock().unwrap();
        Box::pin(async move { Err(ProviderError::new(kind, "permission denied")) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_may_not_open_keeps_no_other_way_to_its_key_from_wrapping() {
    for kind in [ErrorKind::Forbidden, ErrorKind::Unfit, ErrorKind::Down] {
        let half = Arc::new(std::sync::Mutex::new(kind));
        let west = Member::new("west", Role::Optional, Arc::new(Half(half)));
        let providers = Providers::new(vec![twin("east", 3), west.clone()], Strategy::Ordered);
        for round in 0..10 {
            for member in providers.members() {
                member.probe(Instant::now() + BUDGET).await.unwrap();
            }
            let made = providers.wrap(&key(), &of()).await;
            let owed: Vec<_> = made.owed.iter().map(|owed| (&owed.provider, owed.error.to_string())).collect();
            assert_eq!(
                made.wraps.len(),
                1,
                "{kind:?}, text {round}: `east` is well and is asked for nothing: {owed:?}"
            );
            sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_way_is_taken_for_is_what_it_said_last_and_not_what_it_said_first() {
    let half = Arc::new(std::sync::Mutex::new(ErrorKind::Forbidden));
    let (east, west) = (twin("east", 3), Member::new("west", Role::Optional, Arc::new(Half(Arc::clone(&half)))));
    let end = || Instant::now() + BUDGET;
    for member in [&east, &west] {
        member.probe(end()).await.unwrap();
    }
    let wrap = east.wrap_and_prove(&key(), &of(), BUDGET, end()).await.unwrap();
    west.show(Specimen::opened(wrap, of(), Fingerprint::of(&key())));
    for _ in 0..3 {
        west.probe(end()).await.unwrap();
    }
    assert!(!west.is_twin() && west.health().failure.is_some(), "it may not open, as far as is known");
    // The right was given, and now it is seen that it is another key.
    *half.lock().unwrap() = ErrorKind::Text;
    for _ in 0..5 {
        west.probe(end()).await.unwrap();
    }
    assert!(west.is_twin(), "it refuses what the key has made: {:?}", west.health().failure);
}
