//! A key in a token that is shared: the suite on SoftHSM, behind a real `nodeseal-sealer`, and what else a token does.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nodeseal::provider::pkcs11::{Pkcs11Kek, Pkcs11KekSettings};
use nodeseal::provider::{ErrorKind, Kek};
use nodeseal::seal::client::SealerClient;
use nodeseal::seal::token_key::TokenKey;
use nodeseal::types::{Key, hex};

use crate::conformance::{self, Ground, Of, Trouble, refused};
use crate::dev::Dev;
use crate::front::{Front, Mode};

const LABEL: &str = "shared key";
/// Of a key that was put aside.
const ASIDE: &str = "00000000000000000000000000000000";

/// A token of its own with a key.
pub struct Mine {
    dev: Dev,
    front: Front,
    /// Of the key while it is put aside.
    id: Mutex<String>,
}

impl Mine {
    pub fn new() -> Self {
        let mine = Self::without_key();
        mine.make();
        mine
    }

    fn without_key() -> Self {
        let dev = Dev::start("pkcs11");
        let front = Front::before(dev.path("sealer.sock"));
        Self { dev, front, id: Mutex::default() }
    }

    /// Past the front.
    fn sealer(&self) -> SealerClient {
        SealerClient::Socket(self.dev.path("sealer.sock"))
    }

    /// What a node with `make_key` does; gives the id.
    fn make(&self) -> String {
        let key = TokenKey::new(LABEL, None).unwrap();
        hex::encode(self.sealer().shared_key(key, true, conformance::TIMEOUT).unwrap().id().unwrap())
    }

    fn open(&self, key: TokenKey, make_key: bool, timeout: Duration) -> Arc<Pkcs11Kek> {
        let settings = Pkcs11KekSettings { key, make_key, timeout };
        Arc::new(Pkcs11Kek::open(settings, SealerClient::Socket(self.front.path())).unwrap())
    }

    /// Another program of the token's owner.
    fn tool(&self, args: &[&str]) {
        let config = fs::read_to_string(self.dev.path("nodeseal.toml")).unwrap();
        let module = config.lines().find_map(|line| line.strip_prefix("module = ")).unwrap().trim_matches('"');
        let pin = fs::read_to_string(self.dev.path("token/pin")).unwrap();
        let mut command = Command::new("pkcs11-tool");
        command.args(["--module", module, "--token-label", "nodeseal-dev", "--login", "--pin", &pin]).args(args);
        let output = command.env("SOFTHSM2_CONF", self.dev.path("token/softhsm2.conf")).output();
        let output = output.expect("opensc is installed");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    fn rename(&self, from: &str, to: &str) {
        self.tool(&["--set-id", to, "--type", "secrkey", "--id", from]);
    }

    fn delete(&self) {
        self.tool(&["--delete-object", "--type", "secrkey", "--label", LABEL]);
    }
}

fn answering(bytes: Vec<u8>) -> Mode {
    Mode::Act(Arc::new(move |mut stream: UnixStream| {
        // All of the question: its end is told.
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = stream.write_all(&bytes);
    }))
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

impl Ground for Mine {
    fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek> {
        self.open(TokenKey::new(LABEL, None).unwrap(), false, timeout)
    }

    fn stranger(&self) -> Arc<dyn Kek> {
        panic!("the PIN is the sealer's: see a_wrong_pin_is_a_refused_login")
    }

    fn trouble(&self, trouble: Trouble) {
        // Kinds of the sealer protocol (docs/formats.md): a key of another label, one without an id, an unasked answer.
        let other = [&[2, 0x86, 0, 1][..], b"x", &[0, 16], &[7; 16]].concat();
        let nameless = [&[2, 0x86, 0, 10][..], LABEL.as_bytes(), &[0, 0]].concat();
        let lies = [vec![], vec![0xFF], vec![2], vec![2, 0x86], other, nameless, vec![2, 0x84, 0, 0, 0, 0, 0, 0, 0, 1]];
        self.front.set(match trouble {
            Trouble::None => Mode::Pass,
            Trouble::Reset => Mode::Reset,
            Trouble::Half => Mode::Half,
            Trouble::Silent => Mode::Silent,
            Trouble::Late(pause) => Mode::Late(pause),
            Trouble::Lie(number) => answering(frame(&lies[number])),
            Trouble::Flood => answering(frame(&vec![2; 1 << 20])),
        });
    }

    fn lies(&self) -> usize {
        7
    }

    fn rotate(&self) {
        panic!("PKCS#11 has no versions of a key")
    }

    fn disable(&self) {
        let key = TokenKey::new(LABEL, None).unwrap();
        let found = self.sealer().shared_key(key, false, conformance::TIMEOUT).unwrap();
        let id = hex::encode(found.id().unwrap());
        self.rename(&id, ASIDE);
        *self.id.lock().unwrap() = id;
    }

    fn restore(&self) {
        self.rename(ASIDE, &self.id.lock().unwrap());
    }

    fn delete_and_recreate(&self) {
        self.delete();
        self.make();
    }

    fn deny(&self) {
        panic!("PKCS#11 has no rights of a login on a key")
    }

    fn kek_away(&self) -> Arc<dyn Kek> {
        let key = TokenKey::new(LABEL, None).unwrap();
        let settings = Pkcs11KekSettings { key, make_key: false, timeout: conformance::TIMEOUT };
        Arc::new(Pkcs11Kek::open(settings, SealerClient::Socket(Path::new("/nonexistent/s").into())).unwrap())
    }

    fn binds(&self) -> bool {
        true
    }

    fn canaries(&self) -> Vec<String> {
        vec![fs::read_to_string(self.dev.path("token/pin")).unwrap()]
    }
}

// Without these claims:
// * a_wrap_opens_after_rotations, a_rotation_under_load: a key of PKCS#11 has no versions; another key is another provider;
// * a_denied_login: whoever has the PIN may use the key; the login alone is tried below;
// * a_failure_of_the_server_has_its_kind: speaks no HTTP; the sealer's faults are mapped in src/provider/pkcs11/fault.rs;
// * all of conformance/network.rs: the sealer is on this machine, by a unix socket, and logs in with a PIN;
// * one_that_limits_us, one_that_denies_us: no token says that it is asked too often, or who may use a key.
conformance::suite! { Mine::new();
    a_hundred_keys_come_back_as_they_were
    a_text_opens_for_its_own_cluster_and_kek_only
    a_changed_text_never_gives_other_bytes
    an_answer_that_cannot_be_right_is_an_error
    what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
    a_key_made_anew_under_the_same_name_is_another_key
    a_disabled_version_is_no_key_until_it_is_restored
    sixty_four_at_once_share_one_login
    two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
}

#[tokio::test]
async fn one_node_makes_the_key_the_others_find_it_and_two_of_a_name_are_refused_until_one_is_chosen() {
    let mine = Mine::without_key();
    let named = |id: Option<&str>| TokenKey::new(LABEL, id.map(|id| hex::decode(id).unwrap())).unwrap();
    let (maker, finder) = (mine.open(named(None), true, conformance::TIMEOUT), mine.kek());
    refused(&mine, finder.probe().await, &[ErrorKind::NoKey]);
    let state = maker.probe().await.unwrap();
    assert_eq!(finder.probe().await.unwrap(), state);
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = maker.wrap_key(&key, of.context()).await.unwrap();

    // As two nodes that make one at the same moment would leave it.
    let first = mine.make();
    let second = "5e".repeat(16);
    mine.tool(&["--keygen", "--key-type", "AES:32", "--sensitive", "--label", LABEL, "--id", &second]);
    for kek in [&*maker as &dyn Kek, &*finder] {
        let error = refused(&mine, kek.probe().await, &[ErrorKind::NoKey]);
        let text = error.to_string();
        assert!(text.contains(&first) && text.contains(&second), "{text}");
        // What was wrapped opens all the same.
        assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    }
    let chosen = mine.open(named(Some(&second)), false, conformance::TIMEOUT);
    assert_ne!(chosen.probe().await.unwrap().identity, state.identity);
    assert_eq!(chosen.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    // Where a key was seen, a lost one is not made anew.
    mine.delete();
    mine.delete();
    refused(&mine, maker.probe().await, &[ErrorKind::NoKey]);
    refused(&mine, maker.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::NoKey]);
}

#[tokio::test]
async fn a_key_with_a_short_id_and_the_key_of_the_seal_are_refused() {
    let mine = Mine::without_key();
    mine.tool(&["--keygen", "--key-type", "AES:32", "--sensitive", "--label", LABEL, "--id", "01"]);
    let error = refused(&mine, mine.kek().probe().await, &[ErrorKind::NoKey]);
    assert!(error.to_string().contains("16 random bytes"), "{error}");
    let seal = mine.open(TokenKey::new("nodeseal", None).unwrap(), true, conformance::TIMEOUT);
    let error = refused(&mine, seal.probe().await, &[ErrorKind::NoKey]);
    assert!(error.to_string().contains("seals the node root"), "{error}");
}

#[tokio::test]
async fn a_pair_of_aes_and_hmac_keys_wraps_as_well_and_rsa_never() {
    let mine = Mine::without_key();
    let keygen = |kind: &str| {
        mine.tool(&["--keygen", "--key-type", kind, "--sensitive", "--label", LABEL, "--id", &"5e".repeat(16)]);
    };
    mine.tool(&["--keypairgen", "--key-type", "RSA:2048", "--label", LABEL, "--id", &"4a".repeat(16)]);
    let kek = mine.kek();
    refused(&mine, kek.probe().await, &[ErrorKind::NoKey]);
    keygen("GENERIC:32");
    refused(&mine, kek.probe().await, &[ErrorKind::NoKey]);
    keygen("AES:32");
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    // The mechanism stands behind magic and version (docs/formats.md, "PKCS#11 blob").
    assert_eq!(wrapped.text()[10], 3);
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    refused(&mine, kek.unwrap_key(&wrapped, Of::new("prod", 2).context()).await, &[ErrorKind::Text]);
}

#[tokio::test]
async fn a_wrong_pin_is_a_refused_login_and_a_killed_sealer_no_event() {
    let mine = Mine::new();
    let kek = mine.kek();
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    mine.dev.kill_sealer();
    // The supervisor holds the socket: the question waits there until the next sealer takes it.
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    let pin = mine.dev.path("token/pin");
    let right = fs::read(&pin).unwrap();
    fs::write(&pin, "0815-0815").unwrap();
    mine.dev.kill_sealer();
    refused(&mine, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::Login]);
    fs::write(&pin, right).unwrap();
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
}

#[tokio::test]
async fn a_sealer_that_hangs_stops_neither_the_runtime_nor_the_questions_after_it() {
    let mine = Mine::new();
    let kek = mine.kek_within(Duration::from_millis(500));
    mine.trouble(Trouble::Silent);
    let begun = Instant::now();
    let ticks = async {
        let mut ticks = 0;
        while begun.elapsed() < Duration::from_millis(400) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            ticks += 1;
        }
        ticks
    };
    let (answer, ticks) = tokio::join!(kek.probe(), ticks);
    refused(&mine, answer, &[ErrorKind::Away]);
    assert!(ticks > 10 && begun.elapsed() < Duration::from_secs(2), "{ticks} {:?}", begun.elapsed());
    // Those that gave up are not asked for.
    for _ in 0..5 {
        drop(tokio::time::timeout(Duration::from_millis(1), kek.probe()).await);
    }
    mine.trouble(Trouble::None);
    let patient = Instant::now();
    while kek.probe().await.is_err() {
        assert!(patient.elapsed() < Duration::from_secs(5), "it is asked again");
    }
    let none =
        Pkcs11KekSettings { key: TokenKey::new(LABEL, None).unwrap(), make_key: false, timeout: conformance::TIMEOUT };
    let nobody = Pkcs11Kek::open(none, SealerClient::Socket(Path::new("/nonexistent/s").into())).unwrap();
    refused(&mine, nobody.probe().await, &[ErrorKind::Away]);
}
