//! Another KMS plugin: the suite on a real `nodeseald` and on a plugin over Kubernetes' own server code, both in both APIs; and
//! plugins that lie, refuse, or are somebody else's.

mod fake;
mod foreign;
mod go;
mod peers;

use std::sync::Arc;
use std::time::Duration;

use nodeseal::provider::kms_plugin::{KmsPlugin, KmsPluginSettings};
use nodeseal::provider::{ErrorKind, Kek, KeyIdentity, Wrapped};
use nodeseal::types::{Api, Key};

use crate::conformance::{self, Ground, Of, Trouble, refused};
use crate::dev::Dev;
use crate::front::{Front, Mode};
use fake::{DecryptResponse, EncryptResponse, Honest, Said, StatusResponse, framed, plugin};
use go::Go;

/// `nodeseald` as the other plugin.
pub struct V2(Mine);
pub struct V1(Mine);
/// A plugin in Go.
pub struct GoV2(Mine);
pub struct GoV1(Mine);

struct Mine {
    server: Server,
    front: Front,
    api: Api,
}

/// Ended when it drops.
enum Server {
    Nodeseal(Dev),
    Go(#[expect(dead_code, reason = "held")] Go),
    None,
}

impl Mine {
    fn new(api: Api) -> Self {
        let dev = Dev::start("tpm2");
        let front = Front::before(dev.path("kms.sock"));
        Self { server: Server::Nodeseal(dev), front, api }
    }

    fn go(api: Api) -> Self {
        let go = Go::start();
        let front = Front::before(go.socket());
        Self { server: Server::Go(go), front, api }
    }

    /// A plugin of the tests alone.
    fn fake(mode: Mode) -> Self {
        let front = Front::before("/nonexistent/socket".into());
        front.set(mode);
        Self { server: Server::None, front, api: Api::V2 }
    }

    fn settings(&self) -> KmsPluginSettings {
        KmsPluginSettings {
            socket: self.front.path(),
            api: self.api,
            key: KeyIdentity::new("the-other-kms").unwrap(),
            allow_uids: Vec::new(),
            opens_foreign: false,
            timeout: conformance::TIMEOUT,
            own_sockets: vec!["/nonexistent/kms.sock".into()],
        }
    }

    fn kek(&self, timeout: Duration) -> Arc<KmsPlugin> {
        Arc::new(KmsPlugin::new(KmsPluginSettings { timeout, ..self.settings() }))
    }

    fn rotate(&self) {
        let Server::Nodeseal(dev) = &self.server else { panic!("its key lives as long as it does") };
        let id = dev.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
        dev.ask(&["keys", "activate", &id]);
    }

    fn trouble(&self, trouble: Trouble) {
        self.front.set(match trouble {
            Trouble::None => Mode::Pass,
            Trouble::Reset => Mode::Reset,
            Trouble::Half => Mode::Half,
            Trouble::Silent => Mode::Silent,
            Trouble::Late(pause) => Mode::Late(pause),
            Trouble::Lie(number) => lies().remove(number),
            Trouble::Flood => plugin(|_, _| {
                let status = StatusResponse { version: "v2".into(), healthz: "x".repeat(2 << 20), key_id: "k".into() };
                Said::message(&status)
            }),
        });
    }
}

/// A message of three fields that are read as any of the API's answers.
fn said(first: &[u8], second: &str, third: &[u8]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    [field(1, first), field(2, second.as_bytes()), field(3, third)].concat()
}

/// Each is wrong as an answer to every question.
fn lies() -> Vec<Mode> {
    let always = |said: Said| plugin(move |_, _| said.clone());
    let ok = || Some(("0".to_owned(), String::new()));
    let grpc = |body: Vec<u8>| Said { http: 200, kind: "application/grpc", body, status: ok() };
    let whole = framed(&said(&[b'v'; 64], "ok", b"k"));
    vec![
        Mode::Act(Arc::new(|mut stream| {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            // Until the client has read it: an end with bytes unread is a reset.
            while matches!(std::io::Read::read(&mut stream, &mut [0; 1024]), Ok(1..)) {}
        })),
        always(grpc(Vec::new())),
        always(grpc(framed(&[]))),
        always(grpc(framed(b"\xFF\xFF\xFF"))),
        always(grpc(framed(&said(b"", "", b"")))),
        // Another version; another number of bytes; a text that is too short for one.
        always(grpc(framed(&said(b"v3", "ok", b"k")))),
        always(grpc([&whole[..], &whole].concat())),
        always(grpc([&[1], &whole[1..]].concat())),
        always(grpc(whole[..whole.len() - 1].to_vec())),
        always(Said { status: None, ..grpc(whole.clone()) }),
        always(Said { http: 404, ..grpc(whole.clone()) }),
        always(Said { kind: "text/html", ..grpc(whole.clone()) }),
        always(Said { status: Some(("x".into(), String::new())), ..grpc(whole) }),
    ]
}

macro_rules! ground {
    ($name:ident, $mine:expr, $rotate:expr) => {
        impl $name {
            pub fn new() -> Self {
                Self($mine)
            }
        }

        impl Ground for $name {
            fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek> {
                self.0.kek(timeout)
            }
            fn stranger(&self) -> Arc<dyn Kek> {
                panic!("a plugin knows no login")
            }
            fn trouble(&self, trouble: Trouble) {
                self.0.trouble(trouble);
            }
            fn lies(&self) -> usize {
                lies().len()
            }
            fn rotate(&self) {
                let rotate: fn(&Mine) = $rotate;
                rotate(&self.0);
            }
            fn disable(&self) {
                panic!("the API has no such call")
            }
            fn restore(&self) {
                panic!("the API has no such call")
            }
            fn delete_and_recreate(&self) {
                panic!("a plugin tells no identity of its key")
            }
            // A plugin knows no login, and may still say no: PERMISSION_DENIED and RESOURCE_EXHAUSTED.
            fn deny(&self) {
                self.0.front.set(plugin(|_, _| Said::refusal(7, "no")));
            }
            fn allow(&self) {
                self.0.front.set(Mode::Pass);
            }
            fn throttle(&self) {
                self.0.front.set(plugin(|_, _| Said::refusal(8, "slowly")));
            }
            fn logins(&self) -> usize {
                0
            }
            fn asked(&self) -> usize {
                self.0.front.asked()
            }
            fn kek_away(&self) -> Arc<dyn Kek> {
                let socket = "/nonexistent/socket".into();
                Arc::new(KmsPlugin::new(KmsPluginSettings { socket, ..self.0.settings() }))
            }
            fn binds(&self) -> bool {
                true
            }
            fn canaries(&self) -> Vec<String> {
                Vec::new()
            }
            fn saw_a_wrap(&self) -> bool {
                // Texts that nodeseald made open, which the claim has seen.
                true
            }
        }
    };
}

ground!(V2, Mine::new(Api::V2), Mine::rotate);
ground!(V1, Mine::new(Api::V1), |_| panic!("KMS v1beta1 tells no version of the key"));
ground!(GoV2, Mine::go(Api::V2), Mine::rotate);
ground!(GoV1, Mine::go(Api::V1), Mine::rotate);

// Without these claims:
// * a_denied_login: a plugin has no logins; its refusals are in a_refusal_has_its_kind;
// * a_key_made_anew: a plugin tells no identity; that the name stays with the key is the operator's promise;
// * a_disabled_version: the API has no such call; NOT_FOUND is in a_refusal_has_its_kind;
// * a_failure_of_the_server: speaks no HTTP; the codes of gRPC are in a_refusal_has_its_kind;
// * all of conformance/network.rs: it listens on a unix socket of this machine, and knows no login.
mod v2 {
    crate::conformance::suite! { super::V2::new();
        a_hundred_keys_come_back_as_they_were
        a_wrap_opens_after_rotations_and_names_its_own_version
        a_text_opens_for_its_own_cluster_and_kek_only
        a_changed_text_never_gives_other_bytes
        an_answer_that_cannot_be_right_is_an_error
        what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
        sixty_four_at_once_share_one_login
        one_that_limits_us_for_ever_fails_is_asked_ever_more_slowly_and_recovers
        one_that_denies_us_for_ever_fails_gets_no_storm_of_logins_and_recovers
        two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
        a_rotation_under_load_never_makes_text_and_version_differ
    }
}

// And without those about rotation: v1beta1 tells no version of the key.
mod v1beta1 {
    crate::conformance::suite! { super::V1::new();
        a_hundred_keys_come_back_as_they_were
        a_text_opens_for_its_own_cluster_and_kek_only
        a_changed_text_never_gives_other_bytes
        an_answer_that_cannot_be_right_is_an_error
        what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
        sixty_four_at_once_share_one_login
        one_that_limits_us_for_ever_fails_is_asked_ever_more_slowly_and_recovers
        one_that_denies_us_for_ever_fails_gets_no_storm_of_logins_and_recovers
        two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
    }
}

// Without rotation: its key lives as long as the process; and without what is the same whoever serves.
mod go_v2 {
    crate::conformance::suite! { super::GoV2::new();
        a_hundred_keys_come_back_as_they_were
        a_text_opens_for_its_own_cluster_and_kek_only
        a_changed_text_never_gives_other_bytes
        what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
        sixty_four_at_once_share_one_login
        two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
    }
}

mod go_v1beta1 {
    crate::conformance::suite! { super::GoV1::new();
        a_hundred_keys_come_back_as_they_were
        a_text_opens_for_its_own_cluster_and_kek_only
        a_changed_text_never_gives_other_bytes
        what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
        sixty_four_at_once_share_one_login
        two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
    }
}

async fn kind_of(mode: Mode) -> (Option<ErrorKind>, Option<ErrorKind>, String) {
    let mine = Mine::fake(mode);
    let kek = mine.kek(conformance::TIMEOUT);
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let (probed, wrapped) = (kek.probe().await.err(), kek.wrap_key(&key, of.context()).await.err());
    let text = probed.as_ref().map(ToString::to_string).unwrap_or_default();
    (probed.map(|error| error.kind()), wrapped.map(|error| error.kind()), text)
}

#[tokio::test]
async fn text_key_id_and_annotations_go_back_as_they_came_with_a_uid_for_each_call() {
    let long = "k".repeat(1024);
    for (key_id, version_bytes) in [("projects/p/1", 12), ("mit Leerzeichen ü", 71), (&long, 71)] {
        let honest = Honest::new(key_id, &[("a.example", b"\x00\xFF"), ("b.example", b"")], 1024);
        let mine = Mine::fake(honest.serve());
        let kek = mine.kek(conformance::TIMEOUT);
        let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
        let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
        assert_eq!(wrapped.version, kek.probe().await.unwrap().version);
        assert_eq!(wrapped.version.as_str().len(), version_bytes);
        let stored = Wrapped::decode(&wrapped.encode()).unwrap();
        assert_eq!(kek.unwrap_key(&stored, of.context()).await.unwrap().expose(), key.expose());
        let uids = honest.uids.lock().unwrap().clone();
        assert!(uids.len() == 2 && uids.iter().all(|uid| uid.len() == 32) && uids[0] != uids[1], "{uids:?}");
    }
}

#[tokio::test]
async fn an_answer_that_a_wrap_cannot_hold_is_refused_and_says_so() {
    let longest = Honest::new("k", &[("a.example", &[1; 3000])], 1024);
    let (_, kind, _) = kind_of(longest.serve()).await;
    assert_eq!(kind, None);
    let longer = Honest::new("k", &[("a.example", &[1; 3100])], 1024);
    let mine = Mine::fake(longer.serve());
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let error = mine.kek(conformance::TIMEOUT).wrap_key(&key, of.context()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unfit);
    assert!(error.to_string().contains("1 annotations takes 4150 bytes, and a wrap holds 4096"), "{error}");
}

#[tokio::test]
async fn a_plugin_that_is_not_well_is_down_with_its_own_words() {
    let sick =
        StatusResponse { version: "v2".into(), healthz: format!("no\nHSM {}", "ab".repeat(40)), key_id: "k".into() };
    let (kind, _, text) = kind_of(plugin(move |_, _| Said::message(&sick))).await;
    assert_eq!(kind, Some(ErrorKind::Down));
    assert!(text.contains("no HSM [...]") && !text.contains("abab"), "{text}");
    let nameless = StatusResponse { version: "v2beta1".into(), healthz: "ok".into(), key_id: String::new() };
    assert_eq!(kind_of(plugin(move |_, _| Said::message(&nameless))).await.0, Some(ErrorKind::Lied));
}

#[tokio::test]
async fn an_encryption_that_is_none_is_a_lie() {
    for (ciphertext, key_id) in
        [(vec![], "k"), (vec![1; 63], "k"), (vec![1; 64], ""), (vec![1; 64], &*"k".repeat(1025))]
    {
        let answer = EncryptResponse { ciphertext, key_id: key_id.into(), annotations: [].into() };
        let (_, kind, _) = kind_of(plugin(move |_, _| Said::message(&answer))).await;
        assert_eq!(kind, Some(ErrorKind::Lied));
    }
}

#[tokio::test]
async fn what_was_not_encrypted_is_not_opened() {
    let honest = Honest::new("k", &[], 100);
    let mine = Mine::fake(honest.serve());
    let kek = mine.kek(conformance::TIMEOUT);
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    for (plaintext, kind) in [(vec![], ErrorKind::Lied), (vec![7; 32], ErrorKind::Lied), (vec![7; 64], ErrorKind::Text)]
    {
        let answer = DecryptResponse { plaintext };
        mine.front.set(plugin(move |_, _| Said::message(&answer)));
        assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.err().map(|error| error.kind()), Some(kind));
    }
    // A name of the key that is not ours.
    let other = KmsPluginSettings { key: KeyIdentity::new("another").unwrap(), ..mine.settings() };
    let answer = KmsPlugin::new(other).unwrap_key(&wrapped, of.context()).await;
    assert_eq!(answer.err().map(|error| error.kind()), Some(ErrorKind::Text));
}

#[tokio::test]
async fn a_refusal_has_its_kind() {
    for (code, kind) in [
        (2, ErrorKind::Down),
        (4, ErrorKind::Away),
        (5, ErrorKind::NoKey),
        (7, ErrorKind::Forbidden),
        (8, ErrorKind::Throttled),
        (9, ErrorKind::NoKey),
        (12, ErrorKind::Unfit),
        (13, ErrorKind::Down),
        (14, ErrorKind::Down),
        (16, ErrorKind::Login),
    ] {
        let (probed, wrapped, text) = kind_of(plugin(move |_, _| Said::refusal(code, "cannot reach the device"))).await;
        assert_eq!((probed, wrapped), (Some(kind), Some(kind)), "{code}");
        assert!(text.contains("cannot reach the device"), "{text}");
    }
}

#[tokio::test]
async fn a_text_is_opened_by_the_api_that_made_it() {
    let mine = Mine::new(Api::V1);
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = mine.kek(conformance::TIMEOUT).wrap_key(&key, of.context()).await.unwrap();
    let later = KmsPlugin::new(KmsPluginSettings { api: Api::V2, ..mine.settings() });
    assert_eq!(later.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    // And a changed context is none of the plugin's business: it gives the bytes, and we refuse them.
    let ground = V1(mine);
    refused(&ground, later.unwrap_key(&wrapped, Of::new("test", 1).context()).await, &[ErrorKind::Text]);
}
