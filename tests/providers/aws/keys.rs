//! What a key does: wrap, open, rotate, move away, be disabled.

use std::sync::Arc;

use nodeseal::provider::aws::AwsKek;
use nodeseal::provider::{ErrorKind, Kek, ProviderKind, Wrapped};
use serde_json::json;

use super::ground::{Local, anybody, open, run, settings, static_keys};
use super::moto::{ACCOUNT, Moto, REGION};

#[test]
fn a_hundred_keys_come_back_the_same_under_the_identity_and_version_that_a_probe_tells() {
    let moto = Moto::start();
    let arn = moto.key();
    let provider = open(&moto.endpoint(), &arn);
    run(async {
        let state = provider.probe().await.unwrap();
        assert_eq!(state.identity.as_str(), arn);
        for number in 0..100 {
            let wrapped = Local::new("c1", number).round_trip(&provider).await;
            assert_eq!((wrapped.kind, &wrapped.identity), (ProviderKind::Aws, &state.identity));
            assert_eq!(wrapped.version, state.version);
        }
    });
}

#[test]
fn sixty_four_at_once_get_each_their_own() {
    let moto = Moto::start();
    let provider = Arc::new(open(&moto.endpoint(), &moto.key()));
    run(async {
        let tasks: Vec<_> = (0..64)
            .map(|number| {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move { Local::new("c1", number).round_trip(&*provider).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_wrap_opens_only_for_its_cluster_and_its_kek_and_unchanged() {
    let moto = Moto::start();
    let provider = open(&moto.endpoint(), &moto.key());
    let own = Local::new("c1", 1);
    run(async {
        let wrapped = own.round_trip(&provider).await;
        for other in [Local::new("c2", 1), Local::new("c1", 2)] {
            let refused = provider.unwrap_key(&wrapped, other.context()).await.err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::Text, "{refused}");
        }
        let mut text = wrapped.text().to_vec();
        *text.last_mut().unwrap() ^= 1;
        let changed = Wrapped::new(wrapped.kind, wrapped.identity, wrapped.version, text).unwrap();
        let refused = provider.unwrap_key(&changed, own.context()).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Text, "{refused}");
    });
}

#[test]
fn a_wrap_of_another_key_is_refused_before_anybody_is_asked() {
    let moto = Moto::start();
    let (first, mut second) = (open(&moto.endpoint(), &moto.key()), moto.key());
    let local = Local::new("c1", 1);
    run(async {
        let wrapped = local.round_trip(&first).await;
        second.push('x');
        let nobody = open("http://127.0.0.1:1", &second);
        let refused = nobody.unwrap_key(&wrapped, local.context()).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Text, "{refused}");
    });
}

#[test]
fn a_rotation_on_demand_moves_the_version_and_old_wraps_open() {
    let moto = Moto::start();
    let arn = moto.key();
    let provider = open(&moto.endpoint(), &arn);
    let local = Local::new("c1", 1);
    run(async {
        let before = provider.probe().await.unwrap();
        let old = local.round_trip(&provider).await;
        moto.kms("RotateKeyOnDemand", &json!({"KeyId": arn}));
        let after = provider.probe().await.unwrap();
        assert_eq!(before.identity, after.identity);
        assert_ne!(before.version, after.version);
        assert_eq!(provider.probe().await.unwrap(), after, "it moves once");
        let opened = provider.unwrap_key(&old, local.context()).await.unwrap();
        assert!(opened.expose() == local.key.expose());
        let new = local.round_trip(&provider).await;
        assert_eq!((old.version, new.version), (before.version, after.version));
    });
}

#[test]
fn a_rotation_is_seen_by_a_wrap_without_a_probe_in_between() {
    let moto = Moto::start();
    let arn = moto.key();
    let provider = open(&moto.endpoint(), &arn);
    run(async {
        let old = Local::new("c1", 1).round_trip(&provider).await;
        moto.kms("RotateKeyOnDemand", &json!({"KeyId": arn}));
        let new = Local::new("c1", 1).round_trip(&provider).await;
        assert_ne!(old.version, new.version);
    });
}

#[test]
fn a_key_that_is_disabled_or_going_or_not_there_is_no_key() {
    let moto = Moto::start();
    let (disabled, going) = (moto.key(), moto.key());
    moto.kms("DisableKey", &json!({"KeyId": disabled.rsplit('/').next()}));
    moto.kms("ScheduleKeyDeletion", &json!({"KeyId": going.rsplit('/').next(), "PendingWindowInDays": 7}));
    let absent = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    for (arn, word) in [(disabled, "Disabled"), (going, "PendingDeletion"), (absent, "does not exist")] {
        let provider = open(&moto.endpoint(), &arn);
        let error = run(provider.probe()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoKey);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_key_that_is_disabled_while_it_is_used_is_no_key_until_it_is_enabled_again() {
    let moto = Moto::start();
    let arn = moto.key();
    let provider = open(&moto.endpoint(), &arn);
    let local = Local::new("c1", 1);
    let id = json!({"KeyId": arn.rsplit('/').next()});
    run(async {
        let wrapped = local.round_trip(&provider).await;
        moto.kms("DisableKey", &id);
        for refused in [
            provider.unwrap_key(&wrapped, local.context()).await.err(),
            provider.wrap_key(&local.key, local.context()).await.err(),
        ] {
            assert_eq!(refused.unwrap().kind(), ErrorKind::NoKey);
        }
        moto.kms("EnableKey", &id);
        assert!(provider.unwrap_key(&wrapped, local.context()).await.unwrap().expose() == local.key.expose());
    });
}

#[test]
fn a_text_of_another_key_is_not_one_of_this_key_even_if_it_says_so() {
    let moto = Moto::start();
    let (first, second) = (open(&moto.endpoint(), &moto.key()), open(&moto.endpoint(), &moto.key()));
    let local = Local::new("c1", 1);
    run(async {
        let wrapped = local.round_trip(&first).await;
        let identity = second.probe().await.unwrap().identity;
        let text = wrapped.text().to_vec();
        let forged = Wrapped::new(wrapped.kind, identity, wrapped.version, text).unwrap();
        let refused = second.unwrap_key(&forged, local.context()).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Text, "{refused}");
    });
}

#[test]
fn a_key_that_cannot_wrap_does_not_fit() {
    let moto = Moto::start();
    let rsa = moto.key_of(&json!({"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT_DECRYPT"}));
    let error = run(open(&moto.endpoint(), &rsa).probe()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unfit);
    assert!(error.to_string().contains("RSA_2048"), "{error}");
}

#[test]
fn an_alias_names_its_key_and_is_refused_when_it_moves() {
    let moto = Moto::start();
    let (first, second) = (moto.key(), moto.key());
    moto.kms("CreateAlias", &json!({"AliasName": "alias/nodeseal", "TargetKeyId": first}));
    let provider = open(&moto.endpoint(), &format!("arn:aws:kms:{REGION}:{ACCOUNT}:alias/nodeseal"));
    let local = Local::new("c1", 1);
    run(async {
        let wrapped = local.round_trip(&provider).await;
        assert_eq!(wrapped.identity.as_str(), first);
        moto.kms("UpdateAlias", &json!({"AliasName": "alias/nodeseal", "TargetKeyId": second}));
        let error = provider.probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unfit);
        assert!(error.to_string().contains(&first) && error.to_string().contains(&second), "{error}");
        // What the first key made still opens, and nothing is ever made by the second one.
        let opened = provider.unwrap_key(&wrapped, local.context()).await.unwrap();
        assert!(opened.expose() == local.key.expose());
        if let Ok(more) = provider.wrap_key(&local.key, local.context()).await {
            assert_eq!(more.identity.as_str(), first);
        }
    });
}

#[test]
fn a_region_that_is_not_the_keys_is_refused_when_it_is_opened() {
    let key = format!("arn:aws:kms:us-east-1:{ACCOUNT}:alias/x");
    let error = AwsKek::open(settings("http://127.0.0.1:1", &key, static_keys()), anybody()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unfit);
}
