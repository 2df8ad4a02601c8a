//! AWS KMS on moto: the suite. What else the provider does is in tests/aws.

#[path = "../aws/moto.rs"]
#[expect(dead_code, reason = "the suite needs less of it than tests/aws")]
mod moto;

use std::sync::Arc;
use std::time::Duration;

use nodeseal::provider::Kek;
use nodeseal::provider::aws::{AwsAuth, AwsKek, AwsSettings};
use serde_json::{Value, json};

use self::moto::{Moto, REGION};
use crate::conformance::{self, Ground};
use crate::credentials::Memory;
use crate::proxy::Proxy;

const USER: &str = "nodeseal";

/// A server, a key and a user of its own; signatures and rights are checked.
pub struct Mine {
    moto: Moto,
    proxy: Proxy,
    arn: String,
    id: String,
    secret: String,
}

impl Mine {
    pub fn new() -> Self {
        let moto = Moto::start();
        let arn = moto.key();
        let (id, secret) = moto.user(USER, "kms:*");
        moto.enforce();
        let proxy = Proxy::before(([127, 0, 0, 1], moto.port()).into());
        Self { moto, proxy, arn, id, secret }
    }

    fn open(&self, id: &str, secret: &str, timeout: Duration) -> Arc<dyn Kek> {
        let settings = AwsSettings {
            key: self.arn.parse().unwrap(),
            region: REGION.into(),
            endpoint: Some(self.proxy.url().parse().unwrap()),
            sts_endpoint: None,
            auth: AwsAuth::Static { credential: "aws-keys".into() },
            ca_file: None,
            timeout,
        };
        let keys = json!({ "access_key_id": id, "secret_access_key": secret }).to_string();
        Arc::new(AwsKek::open(settings, Memory::with("aws-keys", &keys)).unwrap())
    }

    fn administer(&self, operation: &str) {
        self.moto.relax();
        self.moto.kms(operation, &json!({ "KeyId": self.arn.rsplit('/').next() }));
        self.moto.enforce();
    }
}

impl Ground for Mine {
    fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek> {
        self.open(&self.id, &self.secret, timeout)
    }

    fn stranger(&self) -> Arc<dyn Kek> {
        self.open("AKIANOBODY", &self.secret, conformance::TIMEOUT)
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

// All but one: under the ARN of a key there is never another one, and an alias that moves is refused (tests/aws).
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
}
