//! What the environment says counts for the default chain, and for nothing else.
//!
//! A test cannot change its own environment safely, so each runs itself again as a child with another one.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use nodeseal::provider::aws::{AwsAuth, AwsKek};
use nodeseal::provider::{ErrorKind, Kek};

use super::ground::{Local, Sealed, run, settings, static_keys};
use super::moto::Moto;

/// Endpoint and key, for the child.
const ENDPOINT: &str = "NODESEAL_TEST_ENDPOINT";
const KEY: &str = "NODESEAL_TEST_KEY";

/// Runs this test of this program again in this environment.
pub fn again(test: &str, endpoint: &str, key: &str, variables: &[(&str, &str)]) {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env_clear().env("PATH", env::var("PATH").unwrap());
    child.env(ENDPOINT, endpoint).env(KEY, key).envs(variables.iter().copied());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// What the child was told, if this is the child.
pub fn told() -> Option<(String, String)> {
    Some((env::var(ENDPOINT).ok()?, env::var(KEY).ok()?))
}

/// Counts who comes.
fn trap() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let caught = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&caught);
    thread::spawn(move || listener.incoming().for_each(|_| _ = count.fetch_add(1, Ordering::SeqCst)));
    (address, caught)
}

#[test]
fn with_sealed_keys_nothing_of_the_environment_or_a_profile_is_followed() {
    if let Some((endpoint, key)) = told() {
        let secret = env::var("NODESEAL_TEST_SECRET").unwrap();
        let (id, secret) = secret.split_once(' ').unwrap();
        let provider =
            AwsKek::open(settings(&endpoint, &key, static_keys()), Sealed::with("keys", id, secret)).unwrap();
        run(Local::new("c1", 1).round_trip(&provider));
        return;
    }
    let moto = Moto::start();
    let key = moto.key();
    let (id, secret) = moto.user("nodeseal", "kms:*");
    moto.enforce();
    let (address, caught) = trap();
    let url = format!("http://{address}");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    fs::write(
        &config,
        format!("[default]\nendpoint_url = {url}\naws_access_key_id = AKIAWRONG\naws_secret_access_key = x\n"),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    again(
        "aws::environment::with_sealed_keys_nothing_of_the_environment_or_a_profile_is_followed",
        &moto.endpoint(),
        &key,
        &[
            ("NODESEAL_TEST_SECRET", &format!("{id} {secret}")),
            ("AWS_ACCESS_KEY_ID", "AKIAWRONG"),
            ("AWS_SECRET_ACCESS_KEY", "wrong"),
            ("AWS_SESSION_TOKEN", "wrong"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_CONFIG_FILE", config),
            ("AWS_SHARED_CREDENTIALS_FILE", config),
            ("AWS_ENDPOINT_URL", &url),
            ("AWS_ENDPOINT_URL_KMS", &url),
            ("AWS_ENDPOINT_URL_STS", &url),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url),
            ("AWS_MAX_ATTEMPTS", "9"),
            ("HTTP_PROXY", &url),
            ("http_proxy", &url),
            ("HTTPS_PROXY", &url),
            ("ALL_PROXY", &url),
        ],
    );
    assert_eq!(caught.load(Ordering::SeqCst), 0);
}

#[test]
fn the_default_chain_takes_what_the_environment_has() {
    if let Some((endpoint, key)) = told() {
        let settings = settings(&endpoint, &key, AwsAuth::DefaultChain);
        let provider = AwsKek::open(settings, Arc::new(Sealed::default())).unwrap();
        run(Local::new("c1", 1).round_trip(&provider));
        return;
    }
    let moto = Moto::start();
    let key = moto.key();
    let (id, secret) = moto.user("nodeseal", "kms:*");
    moto.enforce();
    let test = "aws::environment::the_default_chain_takes_what_the_environment_has";
    again(test, &moto.endpoint(), &key, &[("AWS_ACCESS_KEY_ID", &id), ("AWS_SECRET_ACCESS_KEY", &secret)]);
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("credentials");
    fs::write(&profile, format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")).unwrap();
    again(test, &moto.endpoint(), &key, &[("AWS_SHARED_CREDENTIALS_FILE", profile.to_str().unwrap())]);
}

#[test]
fn the_default_chain_that_finds_nothing_is_a_refused_login() {
    if let Some((endpoint, key)) = told() {
        let settings = settings(&endpoint, &key, AwsAuth::DefaultChain);
        let error = run(AwsKek::open(settings, Arc::new(Sealed::default())).unwrap().probe()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Login, "{error}");
        return;
    }
    let test = "aws::environment::the_default_chain_that_finds_nothing_is_a_refused_login";
    again(
        test,
        "http://127.0.0.1:1",
        super::fake::KEY,
        &[("AWS_EC2_METADATA_DISABLED", "true"), ("HOME", "/nonexistent")],
    );
}
