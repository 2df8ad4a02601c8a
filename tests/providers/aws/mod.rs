//! AWS KMS on moto, an AWS that runs on this machine: the suite, and what else the provider does there and on a small server that
//! lies as it is told.
//!
//! `moto` starts one server for each test, `ground` has what a provider stands on, `fake` answers one line for each operation.

mod away;
mod canary;
mod environment;
mod fake;
mod ground;
mod keys;
mod lies;
mod logins;
mod moto;
mod setup;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nodeseal::provider::Kek;
use nodeseal::provider::aws::{AwsAuth, AwsKek, AwsSettings};
use nodeseal::provider::set::{Member, Role, WrapContext};
use nodeseal::types::{KekId, Key};
use serde_json::{Value, json};
use test_support::proxy::{Proxy, Seen};

use self::moto::{Moto, REGION};
use crate::conformance::{self, Ground};
use crate::credentials::Memory;

const USER: &str = "nodeseal";

/// A server, a key and a user of its own; signatures and rights are checked.
pub struct Mine {
    moto: Moto,
    proxy: Proxy,
    arn: String,
    id: String,
    secret: String,
    /// Made when it is first assumed.
    role: OnceLock<String>,
    folder: tempfile::TempDir,
}

impl Mine {
    pub fn new() -> Self {
        let moto = Moto::start();
        let arn = moto.key();
        let (id, secret) = moto.user(USER, "kms:*");
        moto.enforce();
        let proxy = Proxy::before(([127, 0, 0, 1], moto.port()).into());
        Self { moto, proxy, arn, id, secret, role: OnceLock::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self, timeout: Duration) -> AwsSettings {
        AwsSettings {
            key: self.arn.parse().unwrap(),
            region: REGION.into(),
            endpoint: Some(self.proxy.url().parse().unwrap()),
            sts_endpoint: Some(self.proxy.url().parse().unwrap()),
            auth: AwsAuth::Static { credential: "aws-keys".parse().unwrap() },
            ca_file: None,
            timeout,
        }
    }

    fn open(&self, id: &str, secret: &str, settings: AwsSettings) -> Arc<dyn Kek> {
        let keys = json!({ "access_key_id": id, "secret_access_key": secret }).to_string();
        Arc::new(AwsKek::open(settings, Memory::with("aws-keys", &keys)).unwrap())
    }

    fn by_token_file(&self, file: &Path, timeout: Duration) -> Arc<dyn Kek> {
        // Nothing is checked from here on: moto fails on a question that nobody has signed, as this one of STS.
        let role = self.role.get_or_init(|| {
            self.moto.relax();
            self.moto.role("wrapper", "kms:*")
        });
        let auth = AwsAuth::WebIdentity { role: role.parse().unwrap(), token_file: file.to_owned() };
        let settings = AwsSettings { auth, ..self.settings(timeout) };
        Arc::new(AwsKek::open(settings, Arc::<Memory>::default()).unwrap())
    }

    fn administer(&self, operation: &str) {
        self.moto.relax();
        self.moto.kms(operation, &json!({ "KeyId": self.arn.rsplit('/').next() }));
        self.moto.enforce();
    }
}

impl Ground for Mine {
    fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek> {
        self.open(&self.id, &self.secret, self.settings(timeout))
    }

    fn stranger(&self) -> Arc<dyn Kek> {
        self.open("AKIANOBODY", &self.secret, self.settings(conformance::TIMEOUT))
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn rotate(&self) {
        self.administer("RotateKeyOnDemand");
    }

    fn disable(&self) {
        self.administer("DisableKey");
    }

    fn restore(&self) {
        self.administer("EnableKey");
    }

    fn delete_and_recreate(&self) {
        panic!("AWS never gives the id of a key to another one");
    }

    fn deny(&self) {
        self.moto.relax();
        self.moto.iam(&format!("Action=DeleteUserPolicy&UserName={USER}&PolicyName=p"));
        self.moto.enforce();
    }

    fn allow(&self) {
        self.moto.relax();
        self.moto.permit(USER, "kms:*");
        self.moto.enforce();
    }

    /// In AWS's own words.
    fn throttle(&self) {
        self.proxy.change(|_, mut given| {
            given.status = 400;
            given.body = json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }).to_string();
            given
        });
    }

    fn kek_away(&self) -> Arc<dyn Kek> {
        let endpoint = Some(conformance::NOWHERE.parse().unwrap());
        self.open(&self.id, &self.secret, AwsSettings { endpoint, ..self.settings(conformance::TIMEOUT) })
    }

    fn kek_at(&self, url: &str, roots: &Path, timeout: Duration) -> Arc<dyn Kek> {
        let (endpoint, ca_file) = (Some(url.parse().unwrap()), Some(roots.to_owned()));
        self.open(&self.id, &self.secret, AwsSettings { endpoint, ca_file, ..self.settings(timeout) })
    }

    /// Static keys ask nobody for a login.
    fn kek_that_logs_in(&self, timeout: Duration) -> Arc<dyn Kek> {
        let file = self.folder.path().join("token");
        std::fs::write(&file, self.fresh_token()).unwrap();
        self.by_token_file(&file, timeout)
    }

    fn kek_by_token_file(&self, file: &Path) -> Arc<dyn Kek> {
        self.by_token_file(file, conformance::TIMEOUT)
    }

    /// moto looks at its form alone.
    fn fresh_token(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1000);
        let claims = json!({ "jti": NUMBER.fetch_add(1, Ordering::Relaxed) }).to_string();
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn is_login(seen: &Seen) -> bool {
        seen.body.contains("Action=AssumeRole")
    }

    fn binds(&self) -> bool {
        true
    }

    fn canaries(&self) -> Vec<String> {
        let sent = self.proxy.seen();
        let plain = sent.iter().filter_map(|seen| {
            let body: Value = serde_json::from_str(&seen.body).ok()?;
            Some(body["Plaintext"].as_str()?.to_owned())
        });
        plain.chain([self.secret.clone()]).collect()
    }

    fn is_wrap(path: &str) -> bool {
        path == "/"
    }
}

// All but one: under the ARN of a key there is never another one, and an alias that moves is refused (`keys`).
conformance::suite! { Mine::new();
    a_hundred_keys_come_back_as_they_were
    a_wrap_opens_after_rotations_and_names_its_own_version
    a_text_opens_for_its_own_cluster_and_kek_only
    a_changed_text_never_gives_other_bytes
    an_answer_that_cannot_be_right_is_an_error
    what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
    a_failure_of_the_server_has_its_kind
    a_denied_login_is_told_from_a_denied_use
    a_disabled_version_is_no_key_until_it_is_restored
    sixty_four_at_once_share_one_login
    a_rotation_under_load_never_makes_text_and_version_differ
    a_name_of_which_the_first_address_is_silent_serves_calls_by_the_second
    connections_that_take_longer_than_an_attempt_serve_the_attempts_after_it
    a_login_that_takes_longer_than_a_call_may_is_made_once_and_serves_the_calls_after_it
    an_authority_that_changes_stops_neither_what_is_connected_nor_who_trusts_the_new_one
    a_token_file_that_is_refreshed_often_is_read_as_it_is_and_makes_no_more_logins
    one_that_limits_us_for_ever_fails_is_asked_ever_more_slowly_and_recovers
    one_that_denies_us_for_ever_fails_gets_no_storm_of_logins_and_recovers
    two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
}

#[tokio::test]
async fn a_wrap_is_proved_by_one_decrypt() {
    let mine = Mine::new();
    let member = Member::new("aws", Role::Required, mine.kek());
    let of = WrapContext { cluster: "prod".parse().unwrap(), kek: KekId::from_bytes([1; 16]) };
    let (key, end) = (Key::random().unwrap(), tokio::time::Instant::now() + conformance::TIMEOUT);
    member.wrap_and_prove(&key, &of, conformance::TIMEOUT, end).await.unwrap();
    let seen = mine.proxy().seen();
    let asked = |operation: &str| {
        seen.iter().filter(|seen| seen.header("x-amz-target") == Some(&format!("TrentService.{operation}"))).count()
    };
    assert_eq!((asked("Encrypt"), asked("Decrypt")), (1, 1));
}
