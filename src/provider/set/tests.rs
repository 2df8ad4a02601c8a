//! Sets of imitated providers under a clock that stands still: what happens when one is slow, away, throttled or lies. Real ones
//! pass the conformance suite; what is tried here no real one does on request.

mod disabled;
mod foreign;
mod health;
mod renamed;
mod twins;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::provider::{Answer, Context, Kek, KeyIdentity, KeyState, KeyVersion, ProviderKind};
use crate::types::KekId;

/// How one behaves.
#[derive(Clone, Copy)]
enum Mood {
    Fine,
    Slow(Duration),
    Refuses(ErrorKind),
    Hangs,
    /// Opens everything to another key.
    Lies,
}

struct Imitated {
    identity: &'static str,
    /// Its table says which key it has, as that of another plugin does.
    is_written: bool,
    mood: Mood,
    calls: Arc<AtomicU32>,
}

impl Imitated {
    async fn answer(&self, key: &Key) -> Result<Key, ProviderError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.mood {
            Mood::Fine => {}
            Mood::Slow(time) => sleep(time).await,
            Mood::Refuses(kind) => return Err(ProviderError::new(kind, "")),
            Mood::Hangs => std::future::pending().await,
            Mood::Lies => return Ok(Key::copy_of(&[0xEE; 32]).unwrap()),
        }
        Ok(Key::copy_of(key.expose()).unwrap())
    }
}

impl Kek for Imitated {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn identity(&self) -> Option<KeyIdentity> {
        self.is_written.then(|| identity(self.identity))
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity(self.identity), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            let text = match self.mood {
                Mood::Lies => key.expose().to_vec(),
                _ => self.answer(key).await?.expose().to_vec(),
            };
            let version = KeyVersion::new("1").unwrap();
            Ok(Wrapped::new(ProviderKind::Vault, identity(self.identity), version, text).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            let key = Key::copy_of(wrapped.text()).unwrap();
            self.answer(&key).await
        })
    }
}

fn identity(text: &str) -> KeyIdentity {
    KeyIdentity::new(text).unwrap()
}

fn of() -> WrapContext {
    WrapContext { cluster: "c1".parse().unwrap(), kek: KekId::from_bytes([1; 16]) }
}

fn key() -> Key {
    Key::copy_of(&[7; 32]).unwrap()
}

fn is_right(key: &Key) -> bool {
    key.expose() == &[7; 32]
}

fn wrap_of(name: &str) -> Wrapped {
    Wrapped::new(ProviderKind::Vault, identity(name), KeyVersion::new("1").unwrap(), vec![7; 32]).unwrap()
}

struct Set {
    providers: Providers,
    calls: Vec<Arc<AtomicU32>>,
}

fn set(strategy: Strategy, moods: &[(&'static str, Mood)]) -> Set {
    let mut calls = Vec::new();
    let member = |(name, mood): &(&'static str, Mood)| {
        let counter = Arc::new(AtomicU32::new(0));
        calls.push(Arc::clone(&counter));
        Member::new(
            *name,
            Role::Optional,
            Arc::new(Imitated { identity: name, is_written: false, mood: *mood, calls: counter }),
        )
    };
    let members = moods.iter().map(member).collect();
    Set { providers: Providers::new(members, strategy), calls }
}

impl Set {
    fn calls(&self) -> Vec<u32> {
        self.calls.iter().map(|calls| calls.load(Ordering::SeqCst)).collect()
    }

    /// Lets every member show which key it has.
    async fn probed(self) -> Self {
        for member in self.providers.members() {
            member.probe(Instant::now() + BUDGET).await.unwrap();
        }
        self
    }

    async fn unwrap(&self) -> (Result<Key, NotOpened>, Duration) {
        let started = Instant::now();
        let wraps: Vec<Wrapped> = self.providers.members().iter().map(|member| wrap_of(member.name())).collect();
        (self.providers.unwrap(&wraps, &of(), is_right).await, started.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_takes_seconds_is_too_slow_for_a_text_and_not_for_a_copy_of_a_kek() {
    let set = set(Strategy::Ordered, &[("a", Mood::Slow(Duration::from_secs(2))), ("b", Mood::Hangs)]);
    let owed = set.providers.wrap(&key(), &of()).await.owed;
    assert_eq!(owed.len(), 2);
    let started = Instant::now();
    let outcome = set.providers.wrap_by(&key(), &of(), |_| true).await;
    assert_eq!(outcome.wraps, [("a".to_owned(), wrap_of("a"))]);
    assert_eq!(outcome.owed[0].provider, "b");
    assert!(started.elapsed() <= COPY_BUDGET);
}

#[tokio::test(start_paused = true)]
async fn a_new_kek_is_wrapped_by_all_and_what_is_missing_is_a_debt_with_a_name() {
    let moods = [("a", Mood::Fine), ("b", Mood::Refuses(ErrorKind::Down)), ("c", Mood::Hangs), ("d", Mood::Fine)];
    let set = set(Strategy::Ordered, &moods);
    let started = Instant::now();
    let outcome = set.providers.wrap(&key(), &of()).await;
    assert_eq!(outcome.wraps, [("a".to_owned(), wrap_of("a")), ("d".to_owned(), wrap_of("d"))]);
    let owed: Vec<_> = outcome.owed.iter().map(|refusal| refusal.provider.as_str()).collect();
    assert_eq!(owed, ["b", "c"]);
    assert!(started.elapsed() <= BUDGET);
}

#[tokio::test(start_paused = true)]
async fn one_that_lies_is_found_out_and_named_and_the_others_serve() {
    let set = set(Strategy::Ordered, &[("liar", Mood::Lies), ("honest", Mood::Fine)]);
    let outcome = set.providers.wrap(&key(), &of()).await;
    assert_eq!(outcome.wraps, [("honest".to_owned(), wrap_of("honest"))]);
    assert_eq!((outcome.owed[0].provider.as_str(), outcome.owed[0].error.kind()), ("liar", ErrorKind::Lied));
}

#[tokio::test(start_paused = true)]
async fn one_that_opens_to_another_key_is_passed_over_and_named() {
    let set = set(Strategy::Ordered, &[("liar", Mood::Lies), ("honest", Mood::Fine)]).probed().await;
    assert!(set.unwrap().await.0.is_ok());
    let liar = self::set(Strategy::Ordered, &[("liar", Mood::Lies)]).probed().await;
    let refusals = liar.unwrap().await.0.err().unwrap().refusals;
    // Alone, it may be the text that is wrong.
    assert_eq!((refusals[0].provider.as_str(), refusals[0].error.kind()), ("liar", ErrorKind::Text));
    assert_eq!(liar.providers.members()[0].health().failure, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_at_once_waits_for_no_timer() {
    let set = set(Strategy::Ordered, &[("a", Mood::Refuses(ErrorKind::Down)), ("b", Mood::Fine)]).probed().await;
    // Between two ticks of the timer, as nearly always.
    tokio::time::advance(Duration::from_micros(100)).await;
    let (opened, took) = set.unwrap().await;
    assert_eq!((opened.is_ok(), took), (true, Duration::ZERO));
    let begun = Instant::now();
    assert_eq!(self::set(Strategy::Ordered, &[("b", Mood::Fine)]).providers.wrap(&key(), &of()).await.wraps.len(), 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn in_order_the_next_is_asked_when_the_one_before_has_failed() {
    let set = set(Strategy::Ordered, &[("away", Mood::Refuses(ErrorKind::Down)), ("b", Mood::Fine), ("c", Mood::Fine)]);
    let (opened, took) = set.probed().await.unwrap_with_calls([1, 1, 0]).await;
    assert!(opened.is_ok() && took < Duration::from_millis(10));
}

impl Set {
    async fn unwrap_with_calls<const N: usize>(&self, calls: [u32; N]) -> (Result<Key, NotOpened>, Duration) {
        let answer = self.unwrap().await;
        assert_eq!(self.calls(), calls);
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn in_turn_each_is_asked_as_often_as_the_others() {
    let set = set(Strategy::RoundRobin, &[("a", Mood::Fine), ("b", Mood::Fine), ("c", Mood::Fine)]).probed().await;
    for _ in 0..9 {
        set.unwrap().await.0.unwrap();
    }
    assert_eq!(set.calls(), [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn hedged_the_next_is_asked_as_soon_as_the_first_is_slower_than_usual() {
    let slow = Mood::Slow(Duration::from_millis(700));
    let set = set(Strategy::Fastest, &[("slow", slow), ("fast", Mood::Fine)]).probed().await;
    let (opened, took) = set.unwrap().await;
    assert!(opened.is_ok() && took <= Duration::from_millis(201), "{took:?}");
    assert_eq!(set.calls(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn hedged_one_that_is_always_slow_is_no_longer_asked_first_wherever_it_stands() {
    let (slow, fast) = (Mood::Slow(Duration::from_millis(500)), Mood::Slow(Duration::from_millis(10)));
    let set = set(Strategy::Fastest, &[("slow", slow), ("fast", fast)]).probed().await;
    for _ in 0..10 {
        set.unwrap().await.0.unwrap();
    }
    for _ in 0..100 {
        let (opened, took) = set.unwrap().await;
        assert!(opened.is_ok() && took <= Duration::from_millis(12), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_provider_costs_one_attempt_and_then_its_circuit_opens() {
    let set = set(Strategy::Ordered, &[("hangs", Mood::Hangs), ("b", Mood::Fine)]).probed().await;
    for _ in 0..5 {
        let (opened, took) = set.unwrap().await;
        assert!(opened.is_ok() && took >= ATTEMPT && took < ATTEMPT + Duration::from_millis(10), "{took:?}");
    }
    let (opened, took) = set.unwrap().await;
    assert!(opened.is_ok() && took < Duration::from_millis(10), "the circuit is open: {took:?}");
    assert_eq!(set.calls(), [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_not_held_back_by_an_open_circuit_and_closes_it() {
    let set = set(Strategy::Ordered, &[("a", Mood::Hangs)]).probed().await;
    for _ in 0..2 {
        assert!(set.unwrap().await.0.is_err());
    }
    let member = &set.providers.members()[0];
    // Attempts that were dropped with their question tell of it as soon as the runtime comes to it.
    sleep(Duration::from_millis(1)).await;
    assert!(member.health().is_open);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    assert!(!member.health().is_open);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_answers_the_budget_ends_it_and_says_what_each_one_said() {
    let set = set(Strategy::Fastest, &[("a", Mood::Hangs), ("b", Mood::Refuses(ErrorKind::Down))]).probed().await;
    let (opened, took) = set.unwrap().await;
    let refusals = opened.err().unwrap().refusals;
    let named: Vec<_> = refusals.iter().map(|refusal| refusal.provider.as_str()).collect();
    assert!(named.contains(&"a") && named.contains(&"b"), "{named:?}");
    assert!(took <= BUDGET + Duration::from_millis(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stays_one_is_not_asked_again() {
    let set =
        set(Strategy::Ordered, &[("a", Mood::Refuses(ErrorKind::Text)), ("b", Mood::Refuses(ErrorKind::Forbidden))]);
    let (opened, took) = set.probed().await.unwrap_with_calls([1, 1]).await;
    assert!(opened.is_err() && took < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_wrap_is_for_the_provider_with_that_key_whatever_it_is_called() {
    let renamed = set(Strategy::Ordered, &[("other", Mood::Fine), ("key", Mood::Fine)]).probed().await;
    let opened = renamed.providers.unwrap(&[wrap_of("key")], &of(), is_right).await;
    assert!(opened.is_ok());
    assert_eq!(renamed.calls(), [0, 1]);
    let none = renamed.providers.unwrap(&[wrap_of("gone")], &of(), is_right).await;
    assert!(none.is_err_and(|error| error.refusals.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_probed_once_a_minute_and_less_while_it_works_anyway() {
    const MINUTE: Duration = Duration::from_secs(60);
    let probes = async |unwraps_every: Option<Duration>, wraps_every: Option<Duration>| {
        let set = set(Strategy::Ordered, &[("a", Mood::Fine)]);
        let member = &set.providers.members()[0];
        let mut probes = 0;
        for second in 0..3600 {
            let is_time = |every: Option<Duration>| every.is_some_and(|every| second % every.as_secs() == 0);
            if is_time(unwraps_every) {
                assert!(set.unwrap().await.0.is_ok());
            }
            if is_time(wraps_every) {
                assert_eq!(set.providers.wrap(&key(), &of()).await.wraps.len(), 1);
            }
            if member.is_probe_due(MINUTE) {
                member.probe(Instant::now() + BUDGET).await.unwrap();
                probes += 1;
            }
            sleep(Duration::from_secs(1)).await;
        }
        probes
    };
    assert_eq!(probes(None, None).await, 60);
    // Reading tells that it works, and not which version its key has: that is still asked for now and then.
    assert_eq!(probes(Some(Duration::from_secs(10)), None).await, 12);
    // Writing tells both.
    assert_eq!(probes(None, Some(Duration::from_secs(10))).await, 0);
}

/// Two ways to one key.
fn ways(moods: [Mood; 2]) -> (Providers, [Arc<AtomicU32>; 2]) {
    let calls = [0, 1].map(|_| Arc::new(AtomicU32::new(0)));
    let member = |at: usize| {
        let imitated = Imitated { identity: "k", is_written: false, mood: moods[at], calls: Arc::clone(&calls[at]) };
        let member = Member::new(["a", "b"][at], Role::Required, Arc::new(imitated));
        member.remember(identity("k"));
        member
    };
    (Providers::new(vec![member(0), member(1)], Strategy::Ordered), calls)
}

#[tokio::test(start_paused = true)]
async fn two_ways_to_one_key_make_one_wrap_and_stand_in_for_each_other() {
    for (first, second_is_asked) in [
        (Mood::Fine, false),
        (Mood::Refuses(ErrorKind::Forbidden), true),
        (Mood::Refuses(ErrorKind::Away), true),
        (Mood::Hangs, true),
        (Mood::Slow(Duration::from_secs(1)), true),
    ] {
        let (providers, calls) = ways([first, Mood::Fine]);
        let outcome = providers.wrap(&key(), &of()).await;
        assert_eq!((outcome.wraps.len(), outcome.owed.len()), (1, 0));
        assert_eq!(calls[1].load(Ordering::SeqCst) > 0, second_is_asked);
        let (providers, _) = ways([first, Mood::Fine]);
        let copies = providers.wrap_by(&key(), &of(), |_| true).await;
        assert_eq!((copies.wraps.len(), copies.owed.len()), (1, 0));
    }
    let (providers, _) = ways([Mood::Refuses(ErrorKind::Forbidden), Mood::Hangs]);
    let outcome = providers.wrap(&key(), &of()).await;
    let named: Vec<_> = outcome.owed.iter().map(|refusal| refusal.provider.as_str()).collect();
    assert_eq!((outcome.wraps.len(), named), (0, vec!["a", "b"]));
}

/// Its key is remembered from an earlier run, under a name that stands for another provider by now.
#[tokio::test(start_paused = true)]
async fn a_text_is_not_to_blame_when_a_provider_has_another_key_than_was_remembered_of_its_name() {
    let of_b = [wrap_of("b")];
    for (a, b, expected) in [
        // The one that has it is away, and the one that was thought to have it refuses what is not its own.
        (Mood::Refuses(ErrorKind::Text), Mood::Refuses(ErrorKind::Away), [ErrorKind::NoKey, ErrorKind::Away]),
        (Mood::Refuses(ErrorKind::Text), Mood::Refuses(ErrorKind::Text), [ErrorKind::NoKey, ErrorKind::Text]),
    ] {
        let set = set(Strategy::Ordered, &[("a", a), ("b", b)]);
        let [first, second] = set.providers.members() else { panic!("there are two") };
        first.remember(identity("b"));
        second.remember(identity("a"));
        let refusals = set.providers.unwrap(&of_b, &of(), is_right).await.err().unwrap().refusals;
        let kinds: Vec<_> = refusals.iter().map(|refusal| refusal.error.kind()).collect();
        assert_eq!(kinds, expected);
    }
    let set = set(Strategy::Ordered, &[("a", Mood::Refuses(ErrorKind::Text)), ("b", Mood::Fine)]);
    let [first, second] = set.providers.members() else { panic!("there are two") };
    first.remember(identity("b"));
    second.remember(identity("a"));
    assert!(set.providers.unwrap(&of_b, &of(), is_right).await.is_ok(), "whoever has it is asked, whatever its name");
}

/// Two plugins, of which neither has answered yet, and the names of both were swapped.
#[tokio::test(start_paused = true)]
async fn a_key_that_stands_in_the_table_is_known_before_the_first_answer_and_no_other_text_is_sent_there() {
    let plugin = |name, mood| {
        let calls = Arc::new(AtomicU32::new(0));
        let kek = Imitated { identity: name, is_written: true, mood, calls: Arc::clone(&calls) };
        (Member::new(name, Role::Optional, Arc::new(kek)), calls)
    };
    let ((first, calls_of_first), (second, _)) = (plugin("a", Mood::Fine), plugin("b", Mood::Fine));
    first.remember(identity("b"));
    second.remember(identity("a"));
    let providers = Providers::new(vec![first, second], Strategy::Ordered);
    assert!(providers.unwrap(&[wrap_of("b")], &of(), is_right).await.is_ok());
    assert_eq!(calls_of_first.load(Ordering::SeqCst), 0, "it was shown what is not its own");
    assert!(providers.unwrap(&[wrap_of("a")], &of(), is_right).await.is_ok());
}
