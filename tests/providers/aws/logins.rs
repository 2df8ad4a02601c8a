//! Who logs in, with what, and what happens when that is wrong, weak or replaced. moto checks signatures and rights here.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nodeseal::provider::aws::{AwsAuth, AwsBase, AwsKek};
use nodeseal::provider::{ErrorKind, Kek, ProviderError};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fake::{Fake, KEY, MATERIAL, described};
use super::ground::{LIMIT, Local, Sealed, open, run, settings, static_keys};
use super::moto::Moto;

fn refused<T>(result: Result<T, ProviderError>, kind: ErrorKind) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

#[test]
fn static_keys_sign_and_wrong_ones_are_a_refused_login() {
    let moto = Moto::start();
    let arn = moto.key();
    let (id, secret) = moto.user("nodeseal", "kms:*");
    moto.enforce();
    let with = |id: &str, secret: &str| {
        let settings = settings(&moto.endpoint(), &arn, static_keys());
        AwsKek::open(settings, Sealed::with("keys", id, secret)).unwrap()
    };
    run(async {
        Local::new("c1", 1).round_trip(&with(&id, &secret)).await;
        refused(with(&id, "wrong").probe().await, ErrorKind::Login);
        refused(with("AKIANOBODY", &secret).probe().await, ErrorKind::Login);
    });
}

#[test]
fn a_replaced_credential_takes_effect_without_a_restart() {
    let moto = Moto::start();
    let arn = moto.key();
    let (old_id, old_secret) = moto.user("nodeseal", "kms:*");
    let (new_id, new_secret) = moto.access_key("nodeseal");
    moto.enforce();
    let sealed = Sealed::with("keys", &old_id, &old_secret);
    let provider = AwsKek::open(settings(&moto.endpoint(), &arn, static_keys()), Arc::clone(&sealed) as _).unwrap();
    run(async {
        provider.probe().await.unwrap();
        moto.relax();
        moto.iam(&format!("Action=DeleteAccessKey&UserName=nodeseal&AccessKeyId={old_id}"));
        moto.enforce();
        refused(provider.probe().await, ErrorKind::Login);
        refused(provider.probe().await, ErrorKind::Login);
        sealed.put("keys", &new_id, &new_secret);
        // One refusal at most: that of the login that was still in use.
        let _ = provider.probe().await;
        Local::new("c1", 1).round_trip(&provider).await;
    });
}

#[test]
fn a_login_without_the_right_is_forbidden_and_names_it() {
    let moto = Moto::start();
    let arn = moto.key();
    let (id, secret) = moto.user("nodeseal", "kms:DescribeKey");
    moto.enforce();
    let sealed = Sealed::with("keys", &id, &secret);
    let provider = AwsKek::open(settings(&moto.endpoint(), &arn, static_keys()), sealed).unwrap();
    let local = Local::new("c1", 1);
    run(async {
        // Without the right to list rotations the key has no version that could move, and is still of use.
        assert_eq!(provider.probe().await.unwrap().version.as_str(), "unversioned");
        let text = refused(provider.wrap_key(&local.key, local.context()).await, ErrorKind::Forbidden);
        assert!(text.contains("kms:Encrypt"), "{text}");
    });
}

#[test]
fn a_missing_or_broken_credential_is_a_refused_login_and_asks_nobody() {
    let sealed = Arc::new(Sealed::default());
    let key = KEY;
    let provider = AwsKek::open(settings("http://127.0.0.1:1", key, static_keys()), Arc::clone(&sealed) as _).unwrap();
    run(async {
        refused(provider.probe().await, ErrorKind::Credential);
        sealed.put_raw("keys", "CANARY");
        let provider =
            AwsKek::open(settings("http://127.0.0.1:1", key, static_keys()), Arc::clone(&sealed) as _).unwrap();
        let text = refused(provider.probe().await, ErrorKind::Login);
        assert!(text.contains("credential keys") && !text.contains("CANARY"), "{text}");
    });
}

#[test]
fn a_role_is_assumed_with_static_keys_and_signs_what_follows() {
    let moto = Moto::start();
    let arn = moto.key();
    let role = moto.role("wrapper", "kms:*");
    let (id, secret) = moto.user("base", "sts:AssumeRole");
    moto.enforce();
    let auth = |external: &str| AwsAuth::AssumeRole {
        role: role.parse().unwrap(),
        external_id: Some(external.into()),
        base: AwsBase::Static { credential: "keys".parse().unwrap() },
    };
    let with = |secret: &str| {
        AwsKek::open(settings(&moto.endpoint(), &arn, auth("of-a-customer")), Sealed::with("keys", &id, secret))
            .unwrap()
    };
    run(async {
        Local::new("c1", 1).round_trip(&with(&secret)).await;
        let text = refused(with("wrong").probe().await, ErrorKind::Login);
        assert!(text.contains("sts:AssumeRole"), "{text}");
        // The base itself may not use the key.
        let sealed = Sealed::with("keys", &id, &secret);
        let base = AwsKek::open(settings(&moto.endpoint(), &arn, static_keys()), sealed).unwrap();
        refused(base.probe().await, ErrorKind::Forbidden);
    });
}

#[test]
fn a_role_that_may_not_be_assumed_is_a_refused_login() {
    let moto = Moto::start();
    let arn = moto.key();
    let role = moto.role("wrapper", "kms:*");
    let (id, secret) = moto.user("base", "kms:*");
    moto.enforce();
    let base = AwsBase::Static { credential: "keys".parse().unwrap() };
    let auth = AwsAuth::AssumeRole { role: role.parse().unwrap(), external_id: None, base };
    let provider = AwsKek::open(settings(&moto.endpoint(), &arn, auth), Sealed::with("keys", &id, &secret)).unwrap();
    let text = refused(run(provider.probe()), ErrorKind::Login);
    assert!(text.contains("sts:AssumeRole"), "{text}");
}

#[test]
fn a_web_identity_logs_in_with_the_token_that_the_file_has_now() {
    let moto = Moto::start();
    let arn = moto.key();
    let role = moto.role("wrapper", "kms:*");
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let auth = AwsAuth::WebIdentity { role: role.parse().unwrap(), token_file: token_file.clone() };
    let provider = AwsKek::open(settings(&moto.endpoint(), &arn, auth), Arc::new(Sealed::default())).unwrap();
    run(async {
        let text = refused(provider.probe().await, ErrorKind::Login);
        assert!(text.contains("token_file"), "{text}");
        fs::write(&token_file, "eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n").unwrap();
        // A refused login is not asked for again within the same second.
        let begun = Instant::now();
        while provider.probe().await.is_err() {
            assert!(begun.elapsed() < LIMIT);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Local::new("c1", 1).round_trip(&provider).await;
    });
}

/// An answer of STS, whose login lasts for this many seconds.
fn granted(number: usize, lasts: u64) -> (u16, Value) {
    let ends = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(lasts));
    let text = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA{number}</AccessKeyId>\
         <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{ends}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    (200, text.into())
}

/// With a web identity, whose STS is asked by number.
fn with_sts(sts: impl Fn(usize) -> (u16, Value) + Send + Sync + 'static) -> (AwsKek, Fake, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, "eyJhbGciOiJSUzI1NiJ9").unwrap();
    let number = AtomicUsize::new(0);
    let sts = Fake::start(move |_, _| sts(number.fetch_add(1, Ordering::SeqCst)));
    let kms = Fake::start(|_, _| described(Some(MATERIAL)));
    let role = "arn:aws:iam::123456789012:role/x".parse().unwrap();
    let mut settings = settings(&kms.endpoint(), KEY, AwsAuth::WebIdentity { role, token_file });
    settings.sts_endpoint = Some(sts.endpoint().parse().unwrap());
    (AwsKek::open(settings, Arc::new(Sealed::default())).unwrap(), sts, folder)
}

/// What waits for a provider within one request of kube-apiserver.
const ATTEMPT: Duration = Duration::from_millis(800);

#[test]
fn a_login_that_is_due_serves_on_while_its_renewal_takes_longer_than_an_attempt() {
    let (provider, sts, _folder) = with_sts(|number| {
        if number > 0 {
            thread::sleep(Duration::from_millis(1200));
        }
        // Half of it is over after seven seconds at most.
        granted(number, 25)
    });
    run(async {
        provider.probe().await.unwrap();
        let begun = Instant::now();
        while sts.asked().len() < 2 {
            assert!(begun.elapsed() < LIMIT, "it was never renewed");
            timeout(ATTEMPT, provider.probe()).await.expect("no answer in time").unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn callers_at_the_same_time_wait_for_one_login() {
    let moto = Moto::start();
    let arn = moto.key();
    let sts = Fake::start(|_, _| (500, json!({})));
    let role = "arn:aws:iam::123456789012:role/x".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, "eyJhbGciOiJSUzI1NiJ9").unwrap();
    let mut settings = settings(&moto.endpoint(), &arn, AwsAuth::WebIdentity { role, token_file });
    settings.sts_endpoint = Some(sts.endpoint().parse().unwrap());
    let provider = AwsKek::open(settings, Arc::new(Sealed::default())).unwrap();
    // A refused login is one attempt for each call that asked for it: nothing retries inside.
    refused(run(provider.probe()), ErrorKind::Down);
    assert_eq!(sts.asked().len(), 1);
    // And with one that is given, one for all.
    let provider = Arc::new(open(&moto.endpoint(), &arn));
    run(async {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move { provider.probe().await.unwrap() })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}
