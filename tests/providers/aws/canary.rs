//! Canaries: known secrets go through everything while every log is at its finest level, and are found nowhere.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nodeseal::provider::aws::{AwsAuth, AwsBase, AwsKek};
use nodeseal::provider::{Kek, ProviderError};
use nodeseal::types::{Key, hex};
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::environment::{again, told};
use super::fake::{Fake, KEY, described};
use super::ground::{Local, Sealed, run, settings, static_keys};
use super::moto::{Moto, REGION};

const SECRET_KEY: &str = "CANARY0secret0access0key0ZZZZZZZZZZZZZZZ";
const SESSION_TOKEN: &str = "CANARY0session0tokenZZZZZZZZZZZZZZZZZZZZ";
const WEB_TOKEN: &str = "CANARY0web0identity0tokenZZZZZZZZZZZZZZZ";
const KEK: &[u8; 32] = b"CANARY0key0encryption0key0ZZZZZZ";

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Does this with every log of this thread, where its runtime lives, at the finest level.
fn logged(work: impl FnOnce()) -> String {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false).with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("the log works");
        work();
    });
    let text = log.text();
    assert!(text.contains("the log works"));
    text
}

/// The spelling of a secret that was found.
fn found(text: &str) -> Option<String> {
    let secrets = [SECRET_KEY.as_bytes(), SESSION_TOKEN.as_bytes(), WEB_TOKEN.as_bytes(), KEK];
    let list = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let spellings = secrets.iter().flat_map(|secret| {
        let half = &secret[4..20];
        let inner = BASE64.encode(&secret[..30]);
        let own = String::from_utf8(half.to_vec()).unwrap();
        [own, hex::encode(half), hex::encode(half).to_uppercase(), list(half), list(half).replace(' ', ""), inner]
    });
    spellings.into_iter().find(|spelling| text.contains(spelling.as_str()))
}

/// Every form in which an error is shown.
fn shown(error: &ProviderError) -> String {
    format!("{error} {error:?} {error:#?} {}", nodeseal::types::Chain(error))
}

fn kek() -> Local {
    Local { key: Key::copy_of(KEK).unwrap(), ..Local::new("c1", 1) }
}

/// By itself the SDK leaves bodies and signatures out of its log, unless this says otherwise. It must not matter.
const TALKATIVE: (&str, &str) = ("LOG_SENSITIVE_BODIES", "true");

#[test]
fn the_sdk_by_itself_writes_the_key_into_the_log_when_the_environment_says_so() {
    // Otherwise the other test here would prove nothing.
    let Some((endpoint, arn)) = told() else {
        let moto = Moto::start();
        let test = "aws::canary::the_sdk_by_itself_writes_the_key_into_the_log_when_the_environment_says_so";
        return again(test, &moto.endpoint(), &moto.key(), &[TALKATIVE]);
    };
    let text = logged(|| {
        let login = aws_credential_types::Credentials::new("AKIA", SECRET_KEY, None, None, "test");
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(aws_sdk_kms::config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(aws_sdk_kms::config::Region::new(REGION))
            .endpoint_url(endpoint)
            .credentials_provider(login);
        let client = aws_sdk_kms::Client::from_conf(config.build());
        let plain = aws_sdk_kms::primitives::Blob::new(KEK);
        run(async {
            let answer = client.encrypt().key_id(&arn).plaintext(plain).send().await.unwrap();
            client.decrypt().ciphertext_blob(answer.ciphertext_blob.unwrap()).send().await.unwrap();
        });
    });
    assert!(found(&text).is_some());
}

#[test]
fn no_secret_of_a_login_or_a_wrap_is_in_the_log_at_its_finest_level() {
    let Some((endpoint, arn)) = told() else {
        let moto = Moto::start();
        let test = "aws::canary::no_secret_of_a_login_or_a_wrap_is_in_the_log_at_its_finest_level";
        let (endpoint, arn) = (moto.endpoint(), moto.key());
        again(test, &endpoint, &arn, &[]);
        return again(test, &endpoint, &arn, &[TALKATIVE]);
    };
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, WEB_TOKEN).unwrap();
    let role = || "arn:aws:iam::123456789012:role/x".parse().unwrap();
    let sealed = Arc::new(Sealed::default());
    let keys = json!({"access_key_id": "AKIA", "secret_access_key": SECRET_KEY, "session_token": SESSION_TOKEN});
    sealed.put_raw("keys", &keys.to_string());
    let base = AwsBase::Static { credential: "keys".parse().unwrap() };
    let logins = [
        static_keys(),
        AwsAuth::AssumeRole { role: role(), external_id: None, base },
        AwsAuth::WebIdentity { role: role(), token_file },
    ];
    let text = logged(|| {
        for auth in logins {
            let provider = AwsKek::open(settings(&endpoint, &arn, auth), Arc::clone(&sealed) as _).unwrap();
            run(async {
                kek().round_trip(&provider).await;
                kek().round_trip(&provider).await;
            });
        }
    });
    assert_eq!(found(&text), None);
    // Not only the known secrets: nothing that the SDK says of a request.
    assert!(!text.contains("aws_smithy_runtime::client::orchestrator"), "{text}");
}

#[test]
fn no_secret_is_in_an_error_whatever_the_server_sends_back() {
    let plain = BASE64.encode(KEK);
    let told = format!("canonical request: x-amz-security-token:{SESSION_TOKEN} {SECRET_KEY} {plain}");
    let bodies = [
        (400, json!({"__type": "InvalidSignatureException", "message": told})),
        (500, json!({"__type": "KMSInternalException", "message": told})),
        (400, json!({"__type": "InvalidCiphertextException", "message": told})),
        (200, json!({"KeyId": KEY, "Plaintext": plain, "KeyMaterialId": {"not": "a text"}, "CiphertextBlob": "AAAA"})),
        (200, json!({"KeyId": told, "Plaintext": plain, "CiphertextBlob": "!"})),
        (200, json!({"KeyId": told, "Plaintext": plain, "CiphertextBlob": "AAAA"})),
    ];
    let sealed = Arc::new(Sealed::default());
    let keys = json!({"access_key_id": "AKIA", "secret_access_key": SECRET_KEY, "session_token": SESSION_TOKEN});
    sealed.put_raw("keys", &keys.to_string());
    for (status, body) in bodies {
        let server = Fake::start(move |operation, _| match operation {
            "DescribeKey" => described(Some("m")),
            _ => (status, body.clone()),
        });
        let text = logged(|| {
            let settings = settings(&server.endpoint(), KEY, static_keys());
            let provider = AwsKek::open(settings, Arc::clone(&sealed) as _).unwrap();
            let local = kek();
            let error = run(provider.wrap_key(&local.key, local.context())).err().unwrap();
            assert_eq!(found(&shown(&error)), None, "{error}");
        });
        assert_eq!(found(&text), None);
    }
}
