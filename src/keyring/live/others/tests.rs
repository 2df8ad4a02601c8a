//! Misses against an imitated provider that counts: a real one cannot be asked to be slow, wrong and away at will.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::super::places::WAITING_MAX;
use super::*;
use crate::keyring::rooted::{OnOutage, Rules};
use crate::provider::set::{Member, Providers, Role, Strategy};
use crate::provider::{
    Answer, Context, ErrorKind, Form, Kek, KeyIdentity, KeyState, KeyVersion, ProviderError, ProviderKind, Wrapped,
};
use crate::types::{Class, Explained};

/// Its texts are the keys themselves.
#[derive(Default)]
struct Imitated {
    calls: AtomicU32,
    is_away: AtomicBool,
    never_blocks: bool,
    asked_in: Mutex<Option<tokio::runtime::Id>>,
}

impl Kek for Imitated {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        unreachable!("nobody probes here")
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        unreachable!("nobody wraps here")
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            self.calls.fetch_add(1, Ordering::SeqCst);
            *self.asked_in.lock().unwrap() = Some(Handle::current().id());
            tokio::time::sleep(Duration::from_millis(20)).await;
            match self.is_away.load(Ordering::SeqCst) {
                true => Err(ProviderError::new(ErrorKind::Forbidden, "")),
                false => Ok(Key::copy_of(wrapped.text()).unwrap()),
            }
        })
    }

    fn never_blocks(&self) -> bool {
        self.never_blocks
    }
}

fn rooted(kek: &Arc<Imitated>) -> Arc<Rooted> {
    let member = Member::new("v", Role::Required, Arc::clone(kek) as _);
    let rules = Rules {
        local_kek: true,
        min_wraps: 1,
        epoch: crate::keyring::calendar::EpochRule::default(),
        on_outage: OnOutage::Coast,
        activation_delay: Duration::ZERO,
        probe_every: Duration::from_secs(60),
    };
    Arc::new(Rooted::new(Handle::current(), Providers::new(vec![member], Strategy::Ordered), rules))
}

#[tokio::test]
async fn a_provider_that_never_blocks_is_asked_where_the_call_is_and_another_one_on_the_providers_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let theirs = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    for (never_blocks, expected) in [(true, Handle::current().id()), (false, theirs.id())] {
        let kek = Arc::new(Imitated { never_blocks, ..Imitated::default() });
        let here = rooted(&kek);
        let rooted = Rooted::new(theirs.clone(), here.providers.clone(), here.rules.clone());
        assert!(get(&Others::default(), &rooted, brought(7, 7), false).await.is_ok());
        assert_eq!(*kek.asked_in.lock().unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_takes_nobodys_answer_along_wherever_it_is_asked_for() {
    for never_blocks in [true, false] {
        let kek = Arc::new(Imitated { never_blocks, ..Imitated::default() });
        let (others, rooted) = (Others::default(), rooted(&kek));
        let short = Duration::from_millis(5);
        let (first, second) = tokio::join!(
            tokio::time::timeout(short, get(&others, &rooted, brought(7, 7), true)),
            get(&others, &rooted, brought(7, 7), true)
        );
        assert!(first.is_err() && second.is_ok());
        assert_eq!(kek.calls.load(Ordering::SeqCst), 1);
    }
}

const ID: KekId = KekId::from_bytes([1; 16]);

fn brought(wrapped: u8, checked: u8) -> Brought {
    let (identity, version) = (KeyIdentity::new("k").unwrap(), KeyVersion::new("1").unwrap());
    let wrap = Wrapped::new(ProviderKind::Vault, identity, version, vec![wrapped; Key::LEN]).unwrap();
    Brought { check: Check::of(&ID, &[checked; Key::LEN]), wraps: vec![wrap], form: Form::Local }
}

async fn get(others: &Others, rooted: &Rooted, brought: Brought, keep: bool) -> Result<Arc<LiveKek>, ProvidersError> {
    let places = Places::default();
    match others.get(rooted, &"c1".parse().unwrap(), ID, brought, keep, &places).await {
        Err(KeyringError::Providers(error)) => Err(error),
        opened => Ok(opened.unwrap().0),
    }
}

#[tokio::test]
async fn sixty_four_that_miss_the_same_kek_are_one_question_and_later_ones_none() {
    let kek = Arc::<Imitated>::default();
    let (others, rooted) = (Others::default(), rooted(&kek));
    let mut asked = JoinSet::new();
    for _ in 0..64 {
        let (others, rooted) = (others.clone(), Arc::clone(&rooted));
        asked.spawn(async move { get(&others, &rooted, brought(7, 7), true).await.unwrap() });
    }
    let opened = asked.join_all().await;
    assert!(opened.iter().all(|kek| kek.copy_key().expose() == &[7; 32]));
    let check = brought(7, 7).check;
    assert!(others.is_first_told(ID, check) && !others.is_first_told(ID, check), "one sealed copy is asked for");
    get(&others, &rooted, brought(7, 7), true).await.unwrap();
    assert_eq!(kek.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn where_a_kek_came_from_is_told_of_the_call_that_asked_and_of_the_one_after_it() {
    let kek = Arc::<Imitated>::default();
    let (others, rooted, places) = (Others::default(), rooted(&kek), Places::default());
    let cluster = "c1".parse().unwrap();
    for expected in [Source::Provider, Source::Memory] {
        let (_, source) = others.get(&rooted, &cluster, ID, brought(7, 7), true, &places).await.unwrap();
        assert_eq!(source, expected);
    }
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_not_remembered() {
    let kek = Arc::<Imitated>::default();
    kek.is_away.store(true, Ordering::SeqCst);
    let (others, rooted) = (Others::default(), rooted(&kek));
    let (one, two) =
        tokio::join!(get(&others, &rooted, brought(7, 7), true), get(&others, &rooted, brought(7, 7), true));
    assert_eq!((one.err().unwrap().class(), two.err().unwrap().class()), (Class::Denied, Class::Denied));
    assert_eq!(kek.calls.load(Ordering::SeqCst), 1);
    kek.is_away.store(false, Ordering::SeqCst);
    assert!(get(&others, &rooted, brought(7, 7), true).await.is_ok());
}

#[tokio::test]
async fn a_wrong_key_is_no_answer_and_spoils_nothing_for_the_right_one() {
    let kek = Arc::<Imitated>::default();
    let (others, rooted) = (Others::default(), rooted(&kek));
    // Wraps that somebody else has made under the id of a KEK of ours.
    assert!(get(&others, &rooted, brought(9, 9), true).await.is_ok());
    assert_eq!(get(&others, &rooted, brought(9, 7), true).await.err().unwrap().class(), Class::Corrupt);
    let right = get(&others, &rooted, brought(7, 7), true).await.unwrap();
    assert_eq!(right.copy_key().expose(), &[7; 32]);
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_asked_for_each_time() {
    let kek = Arc::<Imitated>::default();
    let (others, rooted) = (Others::default(), rooted(&kek));
    for calls in 1..4 {
        assert!(get(&others, &rooted, brought(7, 7), false).await.is_ok());
        assert_eq!(kek.calls.load(Ordering::SeqCst), calls);
    }
    let slots = others.slots();
    assert!(slots.kept.is_empty() && slots.asked.is_empty());
}

#[tokio::test]
async fn a_text_with_another_copy_does_not_wait_for_the_question_of_one_that_lacks_it() {
    let kek = Arc::<Imitated>::default();
    let (others, rooted) = (Others::default(), rooted(&kek));
    // What the first brings opens to another key, so that it is refused.
    let (first, second) =
        tokio::join!(get(&others, &rooted, brought(9, 7), true), get(&others, &rooted, brought(7, 7), true));
    assert!(first.is_err());
    assert_eq!(second.unwrap().copy_key().expose(), &[7; 32]);
}

#[tokio::test]
async fn what_is_destroyed_is_forgotten_and_an_answer_that_comes_later_is_not_kept() {
    use crate::keyring::live::{Keyring, Snapshot};

    let kek = Arc::<Imitated>::default();
    let (keyring, rooted) = (Keyring::opening("c1".parse().unwrap(), |_| ()), rooted(&kek));
    let publish = |destroyed: &[KekId]| {
        let destroyed = destroyed.iter().copied().collect();
        keyring.publish(Snapshot { active: None, awaits_bundle: false, by_id: HashMap::new(), destroyed });
    };
    publish(&[]);
    let opened = get(&keyring.others, &rooted, brought(7, 7), true).await.unwrap();
    assert_eq!(keyring.others.slots().kept.len(), 1);
    publish(&[ID]);
    assert!(keyring.others.slots().kept.is_empty(), "a key that was destroyed stays in memory");
    drop(opened);
    publish(&[]);
    let late = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        publish(&[ID]);
    };
    let (opened, ()) = tokio::join!(get(&keyring.others, &rooted, brought(7, 7), true), late);
    assert!(opened.is_ok());
    assert!(keyring.others.slots().kept.is_empty(), "a key comes back after it was destroyed");
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_may_wait_are_refused_at_once_and_what_is_in_memory_needs_no_place() {
    let kek = Arc::<Imitated>::default();
    let (others, rooted) = (Others::default(), rooted(&kek));
    assert!(get(&others, &rooted, brought(8, 8), true).await.is_ok());
    let places = Arc::new(Places::default());
    let ask = |key| {
        let (others, rooted, places) = (others.clone(), Arc::clone(&rooted), Arc::clone(&places));
        async move { others.get(&rooted, &"c1".parse().unwrap(), ID, brought(key, key), true, &places).await }
    };
    let mut waiting = JoinSet::new();
    (0..WAITING_MAX).for_each(|_| _ = waiting.spawn(ask(7)));
    // The provider takes 20 ms, and no time passes while something can be done.
    while places.are_left() {
        tokio::task::yield_now().await;
    }
    let at_once = |call| tokio::time::timeout(Duration::ZERO, call);
    assert!(matches!(at_once(ask(7)).await, Ok(Err(KeyringError::Crowded))));
    assert!(matches!(at_once(ask(9)).await, Ok(Err(KeyringError::Crowded))));
    assert!(matches!(at_once(ask(8)).await, Ok(Ok(_))));
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    assert!(ask(9).await.is_ok(), "a place that was given back");
}
