//! What texts of another plugin leave behind in what is known of the one that is handed them.

use std::sync::atomic::AtomicBool;

use tokio::time::timeout;

use super::disabled::Unspoken;
use super::*;
use crate::provider::PluginText;

/// Takes a second for its first text, or refuses each, as its role was changed.
#[derive(Default)]
struct Old {
    asked: AtomicU32,
    is_slow_once: bool,
    refuses: AtomicBool,
}

impl Kek for Old {
    fn kind(&self) -> ProviderKind {
        ProviderKind::KmsPlugin
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity("k"), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            let KeyState { identity, version } = self.probe().await?;
            Ok(Wrapped::new(ProviderKind::KmsPlugin, identity, version, key.expose().to_vec()).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            if self.is_slow_once && self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
                sleep(Duration::from_secs(2)).await;
            }
            Ok(Key::copy_of(wrapped.text()).unwrap())
        })
    }

    fn opens_foreign(&self) -> bool {
        true
    }

    fn open_foreign<'a>(&'a self, _: &'a PluginText) -> Answer<'a, Key> {
        Box::pin(async {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            if self.is_slow_once && asked == 0 {
                sleep(Duration::from_secs(2)).await;
            }
            match self.refuses.load(Ordering::SeqCst) {
                true => Err(ProviderError::new(ErrorKind::Forbidden, "gRPC code 7")),
                false => Ok(key()),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_answer_to_a_text_of_another_plugin_is_no_failure_for_ever() {
    let old = Arc::new(Old { is_slow_once: true, ..Old::default() });
    let member = Member::new("old", Role::DecryptOnly, old);
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    let probe = || member.probe(Instant::now() + BUDGET);
    probe().await.unwrap();
    // The second question, beside the first one, is answered.
    assert!(providers.open_foreign(&PluginText::v1beta1(&[7; 32])).await.is_ok());
    for number in 0..48 {
        sleep(Duration::from_secs(3600)).await;
        assert!(providers.open_foreign(&PluginText::v1beta1(&[number; 32])).await.is_ok());
        probe().await.unwrap();
    }
    let health = member.health();
    assert!(health.failure.is_none(), "all has gone well for two days: {health:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_may_open_none_of_the_texts_of_another_plugin_is_not_well() {
    let old = Arc::new(Old::default());
    let member = Member::new("old", Role::DecryptOnly, Arc::clone(&old) as Arc<dyn Kek>);
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    assert!(providers.open_foreign(&PluginText::v1beta1(&[7; 32])).await.is_ok());
    old.refuses.store(true, Ordering::SeqCst);
    for number in 0..48 {
        sleep(Duration::from_secs(3600)).await;
        let refused = providers.open_foreign(&PluginText::v1beta1(&[number; 32])).await.err().unwrap().refusals;
        assert_eq!(refused[0].error.kind(), ErrorKind::Forbidden);
        member.probe(Instant::now() + BUDGET).await.unwrap();
    }
    let health = member.health();
    assert!(health.failure.is_some(), "it has opened nothing for two days: {health:?}");
}

#[tokio::test(start_paused = true)]
async fn one_slow_answer_to_a_text_of_another_plugin_keeps_no_copies_from_one_that_wraps() {
    let old = Arc::new(Old { is_slow_once: true, ..Old::default() });
    let member = Member::new("old", Role::Optional, old);
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    assert!(providers.open_foreign(&PluginText::v1beta1(&[7; 32])).await.is_ok());
    for _ in 0..20 {
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(providers.wrap(&key(), &of()).await.wraps.len(), 1);
        member.probe(Instant::now() + BUDGET).await.unwrap();
    }
    // `Keeper::pay_a_debt` asks only those of whom this is so.
    assert!(member.health().failure.is_none(), "{:?}", member.health());
}

#[tokio::test(start_paused = true)]
async fn texts_of_another_plugin_take_from_nobody_the_doubt_that_they_cannot_settle() {
    for with_foreign in [false, true] {
        let member = Member::new("old", Role::Optional, Arc::new(Unspoken(Arc::default())));
        let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
        for number in 0..60 {
            if with_foreign {
                assert!(providers.open_foreign(&PluginText::v1beta1(&[number; 32])).await.is_err());
            }
            let version = KeyVersion::new("1").unwrap();
            let wrap = Wrapped::new(ProviderKind::KmsPlugin, identity("k"), version, vec![number; 32]).unwrap();
            assert!(providers.unwrap(&[wrap], &of(), is_right).await.is_err());
            sleep(Duration::from_secs(1)).await;
        }
        assert!(member.health().is_open, "with texts of another plugin: {with_foreign}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_answer_to_a_wrap_is_over_with_the_next_probe() {
    let old = Arc::new(Old { is_slow_once: true, ..Old::default() });
    let member = Member::new("old", Role::DecryptOnly, old);
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    let wrap = Wrapped::new(ProviderKind::KmsPlugin, identity("k"), KeyVersion::new("1").unwrap(), vec![7; 32]);
    assert!(providers.unwrap(&[wrap.unwrap()], &of(), is_right).await.is_ok());
    // The KEK is in memory from here on, and nobody asks for it again.
    for _ in 0..60 {
        sleep(Duration::from_secs(60)).await;
        member.probe(Instant::now() + BUDGET).await.unwrap();
    }
    assert!(member.health().failure.is_none(), "{:?}", member.health());
}

#[tokio::test(start_paused = true)]
async fn a_right_to_texts_of_another_plugin_that_is_given_back_is_found_by_the_probe() {
    let old = Arc::new(Old::default());
    let member = Member::new("old", Role::DecryptOnly, Arc::clone(&old) as Arc<dyn Kek>);
    let providers = Providers::new(vec![member.clone()], Strategy::Ordered);
    old.refuses.store(true, Ordering::SeqCst);
    assert!(providers.open_foreign(&PluginText::v1beta1(&[7; 32])).await.is_err());
    // It opens ours all the same: that is another right.
    let wrap = Wrapped::new(ProviderKind::KmsPlugin, identity("k"), KeyVersion::new("1").unwrap(), vec![7; 32]);
    assert!(providers.unwrap(&[wrap.unwrap()], &of(), is_right).await.is_ok());
    member.probe(Instant::now() + BUDGET).await.unwrap();
    assert_eq!(member.health().failing, [Operation::Unwrap]);
    old.refuses.store(false, Ordering::SeqCst);
    member.probe(Instant::now() + BUDGET).await.unwrap();
    assert!(member.health().failure.is_none(), "{:?}", member.health());
}

#[tokio::test(start_paused = true)]
async fn a_question_that_was_given_up_without_an_answer_is_asked_again_by_the_probe() {
    for is_foreign in [false, true] {
        let old = Arc::new(Old { is_slow_once: true, ..Old::default() });
        let member = Member::new("old", Role::DecryptOnly, old);
        let version = KeyVersion::new("1").unwrap();
        let wrap = Wrapped::new(ProviderKind::KmsPlugin, identity("k"), version, vec![7; 32]).unwrap();
        member.probe(Instant::now() + BUDGET).await.unwrap();
        // Longer than an attempt should take, and then whoever has asked is gone.
        let (given_up, end) = (ATTEMPT + Duration::from_millis(1), Instant::now() + BUDGET);
        let is_gone = match is_foreign {
            true => timeout(given_up, member.open_foreign_text(&PluginText::v1beta1(&[7; 32]), end)).await.is_err(),
            false => timeout(given_up, member.unwrap(&wrap, &of(), end)).await.is_err(),
        };
        assert!(is_gone && member.health().failing == [Operation::Unwrap], "{:?}", member.health());
        member.probe(Instant::now() + BUDGET).await.unwrap();
        assert!(member.health().failure.is_none(), "foreign: {is_foreign}, {:?}", member.health());
    }
}
