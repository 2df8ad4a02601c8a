//! Somebody on the bus who is honest until something is sealed, and then puts his own storage root key into the TPM's answers: what
//! is pinned to an older seal gives him nothing.

use std::os::unix::net::UnixListener;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use nodeseal::seal::client::{SealerClient, SealerError};
use nodeseal::seal::duplicate::{ParentPublic, Randomness, duplicate};
use nodeseal::seal::fault::{Fault, FaultCode};
use nodeseal::seal::frame;
use nodeseal::seal::host_secret::HostSecret;
use nodeseal::seal::protocol::{CounterStep, DeviceBlob, Request};
use nodeseal::seal::root::{NodeRoot, Parent, RootError};
use nodeseal::sealer::settings::TpmSettings;
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::sealer::{Devices, Sealer};
use nodeseal::store::{RealDisk, StateDir};
use nodeseal::types::{Backend, SealPolicy, SealTo, hex};
use sha2::{Digest, Sha256};
use test_support::swtpm::Swtpm;

use crate::interposed::THEIR_KEY;
use crate::interposer::{
    CREATE, CREATE_PRIMARY, EVICT_CONTROL, Exchange, Interposer, NV_DEFINE_SPACE, READ_PUBLIC, START_AUTH_SESSION,
    UNSEAL, response,
};
use crate::support::{
    AUTH, SECRET, assert_nothing_left, assert_opens, auth, engine, engine_at, expect_fault, seal, secret, settings,
};

const TO: SealTo = SealTo::Tpm2(SealPolicy::None);
const INDEX: u32 = 0x0180_0001;

/// How the public area of an ECC key with a SHA-256 Name begins, its bytes, and where its coordinates are.
const ECC_SHA256: [u8; 4] = [0x00, 0x23, 0x00, 0x0B];
const AREA_BYTES: usize = 90;
const X: usize = 24;
const Y: usize = 58;

/// Puts his own key into an answer with a public area, and the Name that goes with it.
fn theirs(mut answer: Vec<u8>) -> Vec<u8> {
    let Some(at) = answer.windows(4).position(|four| four == ECC_SHA256) else { return answer };
    let digest = |answer: &[u8]| Sha256::digest(&answer[at..at + AREA_BYTES]);
    let old = digest(&answer);
    let key = hex::decode(THEIR_KEY).unwrap();
    answer[at + X..at + X + 32].copy_from_slice(&key[..32]);
    answer[at + Y..at + Y + 32].copy_from_slice(&key[32..]);
    let new = digest(&answer);
    while let Some(name) = answer.windows(32).position(|bytes| bytes == old.as_slice()) {
        answer[name..name + 32].copy_from_slice(&new);
    }
    answer
}

/// Swaps every storage root key, once `after` was seen.
fn swapping(tpm: &Swtpm, after: Option<u32>) -> Interposer {
    let mut honest = after.is_some();
    Interposer::before(tpm, move |code, bytes, tpm| {
        let answer = tpm(bytes);
        honest &= after != Some(code);
        if !honest && matches!(code, READ_PUBLIC | CREATE_PRIMARY) { theirs(answer) } else { answer }
    })
}

/// What the owner of the swapped key reads: the first parameter of the first command under each session that is salted to it
/// (TPM 2.0 Part 1 §19.6 and §21). His private key is 1, so that the shared point of one-pass Diffie-Hellman is the one on the bus.
fn stolen(record: &[Exchange]) -> Vec<Vec<u8>> {
    let mut sessions: Vec<(Vec<u8>, [u8; 32], Vec<u8>)> = Vec::new();
    let mut stolen = Vec::new();
    for (command, answer) in record {
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        if code == START_AUTH_SESSION && answer.len() > 14 {
            let (caller, salt) = sized(&command[18..]);
            let (point, _) = sized(salt);
            let (x, _) = sized(point);
            let salt = kdfe(x, "SECRET", x, &hex::decode(THEIR_KEY).unwrap()[..32]);
            let (tpm, _) = sized(&answer[14..]);
            let key = kdfa(&salt, "ATH", tpm, caller, 256);
            sessions.push((answer[10..14].to_vec(), key, tpm.to_vec()));
        } else if command[..2] == [0x80, 0x02] {
            // One handle, and the session that authorises its use.
            let Some(known) = sessions.iter().position(|(handle, ..)| handle == &command[18..22]) else { continue };
            let (_, key, tpm) = sessions.remove(known);
            let (caller, _) = sized(&command[22..]);
            let area = usize::try_from(u32::from_be_bytes(command[14..18].try_into().unwrap())).unwrap();
            if command.len() == 18 + area {
                continue;
            }
            let (parameter, _) = sized(&command[18 + area..]);
            let derived = kdfa(&key, "CFB", caller, &tpm, 256);
            stolen.push(cfb_decrypt(&derived, parameter));
        }
    }
    stolen
}

/// A TPM2B's content, and what follows it.
fn sized(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes[2..].split_at(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}

fn kdfe(z: &[u8], label: &str, u: &[u8], v: &[u8]) -> [u8; 32] {
    Sha256::digest([&1_u32.to_be_bytes(), z, label.as_bytes(), &[0], u, v].concat()).into()
}

fn kdfa(key: &[u8], label: &str, u: &[u8], v: &[u8], bits: u32) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
    mac.update(&[&1_u32.to_be_bytes(), label.as_bytes(), &[0], u, v, &bits.to_be_bytes()].concat());
    mac.finalize().into_bytes().into()
}

/// AES-128-CFB, key and first block behind each other.
fn cfb_decrypt(derived: &[u8; 32], text: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new_from_slice(&derived[..16]).unwrap();
    let mut before: [u8; 16] = derived[16..].try_into().unwrap();
    let mut plain = Vec::new();
    for chunk in text.chunks(16) {
        let mut block = before.into();
        cipher.encrypt_block(&mut block);
        plain.extend(chunk.iter().zip(block.iter()).map(|(byte, pad)| byte ^ pad));
        before[..chunk.len()].copy_from_slice(chunk);
    }
    plain
}

fn holds(stolen: &[Vec<u8>], secret: &[u8]) -> bool {
    stolen.iter().any(|bytes| bytes.windows(secret.len()).any(|part| part == secret))
}

/// The sealer in this process.
struct Server(tempfile::TempDir);

impl Server {
    fn start(settings: TpmSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sealer")).unwrap();
        std::thread::spawn(move || {
            let mut devices = Devices::default().with(Backend::Tpm2, Box::new(Tpm2::new(settings)));
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = Request::decode(frame::read(&mut stream).unwrap().unwrap().expose()).unwrap();
                frame::write(&mut stream, &devices.answer(request).encode()).unwrap();
            }
        });
        Self(dir)
    }

    fn client(&self) -> SealerClient {
        SealerClient::Socket(self.0.path().join("sealer"))
    }
}

fn state_dir(dir: &tempfile::TempDir) -> StateDir<RealDisk> {
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    state.make_dir("node").unwrap();
    state
}

fn device_fault<T>(result: Result<T, RootError>) -> Result<T, Fault> {
    match result {
        Err(RootError::Sealer(SealerError::Device(fault))) => Err(fault),
        other => Ok(other.unwrap()),
    }
}

#[test]
fn without_a_pin_a_swapped_key_reads_what_is_sealed_and_the_auth_value_of_a_counter() {
    // A first setup on an attacked bus: what the threat model says of it, and proof that the look below finds a secret.
    let tpm = Swtpm::start();
    seal(&tpm, &SealPolicy::None);
    let evil = swapping(&tpm, None);
    assert!(engine_at(evil.port()).seal(&secret(), &auth(), &SealPolicy::None, None).is_err());
    let found = stolen(&evil.record());
    assert!(holds(&found, &SECRET) && holds(&found, &AUTH[..30]));
    let evil = swapping(&tpm, None);
    let made = engine_at(evil.port()).counters().unwrap().count(CounterStep::Make, INDEX, &auth(), None);
    assert!(made.is_err());
    assert!(holds(&stolen(&evil.record()), &AUTH[..30]));
}

#[test]
fn a_reseal_gives_nothing_to_a_key_that_is_swapped_after_the_seal_was_opened() {
    let tpm = Swtpm::start();
    let dir = tempfile::tempdir().unwrap();
    let state = state_dir(&dir);
    let honest = Server::start(settings(tpm.port()));
    let root = NodeRoot::create(&state, &honest.client(), TO, None).unwrap();
    let auth = || HostSecret::load(&state).unwrap().value.auth(&root.id());
    let device_secret = honest.client().unseal(root.sealed().blob.clone(), auth()).unwrap();
    let before = std::fs::read(dir.path().join("state/node/root.seal")).unwrap();
    let evil = swapping(&tpm, Some(UNSEAL));
    let attacked = Server::start(settings(evil.port()));
    let resealed = device_fault(NodeRoot::reseal(&state, &attacked.client(), TO, Parent::Same));
    let found = stolen(&evil.record());
    assert!(!holds(&found, device_secret.expose()), "he has the device secret");
    assert!(!holds(&found, &auth().expose()[..30]), "he has the authValue");
    assert_eq!((evil.count(UNSEAL), evil.count(CREATE)), (1, 0));
    let detail = expect_fault(resealed, FaultCode::SrkChanged);
    assert!(detail.contains("found 000b") && detail.contains("under 000b"), "{detail}");
    // Both sessions of the honest half, and none of the other.
    assert_eq!(evil.count(START_AUTH_SESSION), 2);
    assert_eq!(std::fs::read(dir.path().join("state/node/root.seal")).unwrap(), before);
    NodeRoot::open(&state, &honest.client()).unwrap();
    // On an honest bus the same goes on, and so does a root that is made beside the old one.
    NodeRoot::reseal(&state, &honest.client(), TO, Parent::Same).unwrap();
    let (root, _) = NodeRoot::open(&state, &honest.client()).unwrap();
    NodeRoot::create(&state, &honest.client(), TO, Some(&root.sealed().blob)).unwrap();
    let created = NodeRoot::create(
        &state,
        &Server::start(settings(swapping(&tpm, None).port())).client(),
        TO,
        Some(&root.sealed().blob),
    );
    expect_fault(device_fault(created.map(|_| ())), FaultCode::SrkChanged);
    assert_nothing_left(&tpm);
}

#[test]
fn seal_parent_import_and_every_step_of_a_counter_are_pinned() {
    let tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    let count = |port, step| engine_at(port).counters().unwrap().count(step, INDEX, &auth(), Some(&pin));
    // What he would have made for himself.
    let parent = engine_at(swapping(&tpm, None).port()).importer().unwrap().parent(None).unwrap();
    let his = ParentPublic::parse(&parent).unwrap();
    let made = duplicate(&his, &secret(), &auth(), &Randomness::fresh().unwrap()).unwrap().encode();
    let value = count(tpm.port(), CounterStep::Make).unwrap();
    type Work<'a> = Box<dyn Fn(u16) -> Result<(), Fault> + 'a>;
    let mut all: Vec<(&str, Work<'_>)> = vec![
        ("seal", Box::new(|port| engine_at(port).seal(&secret(), &auth(), &SealPolicy::None, Some(&pin)).map(|_| ()))),
        ("parent", Box::new(|port| engine_at(port).importer().unwrap().parent(Some(&pin)).map(|_| ()))),
        ("import", Box::new(|port| engine_at(port).importer().unwrap().import(&made, &auth(), Some(&pin)).map(|_| ()))),
    ];
    for (name, step) in [
        ("make", CounterStep::Make),
        ("read", CounterStep::Read),
        ("advance", CounterStep::Advance),
        ("remove", CounterStep::Remove),
        ("replace", CounterStep::Replace),
    ] {
        all.push((name, Box::new(move |port| count(port, step).map(|_| ()))));
    }
    for (name, work) in &all {
        let evil = swapping(&tpm, None);
        let result = work(evil.port());
        assert_eq!(evil.count(START_AUTH_SESSION), 0, "{name}: a salt was sent");
        assert!(stolen(&evil.record()).is_empty(), "{name}");
        expect_fault(result, FaultCode::SrkChanged);
    }
    assert_eq!(count(tpm.port(), CounterStep::Read).unwrap(), value);
    // He says that the handle is empty, and answers for the key that is then made.
    for (name, work) in &all {
        let evil = Interposer::before(&tpm, |code, bytes, tpm| match code {
            READ_PUBLIC => response(0x18B),
            CREATE_PRIMARY => theirs(tpm(bytes)),
            _ => tpm(bytes),
        });
        let result = work(evil.port());
        assert_eq!((evil.count(START_AUTH_SESSION), evil.count(EVICT_CONTROL)), (0, 0), "{name}");
        expect_fault(result, FaultCode::SrkMissing);
        tpm.try_tool("tpm2_flushcontext -t");
    }
    assert_eq!(count(tpm.port(), CounterStep::Read).unwrap(), value);
    assert_nothing_left(&tpm);
}

#[test]
fn a_pin_is_kept_by_a_key_that_was_lost_from_its_handle_and_not_by_a_cleared_tpm() {
    let tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    let mut engine = engine(&tpm);
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    let parent = engine.importer().unwrap().parent(Some(&pin)).unwrap();
    let value = engine.counters().unwrap().count(CounterStep::Make, INDEX, &auth(), Some(&pin)).unwrap();
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "", "only a seal puts it back");
    let again = engine.seal(&secret(), &auth(), &SealPolicy::None, Some(&pin)).unwrap();
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "- 0x81000001");
    assert_eq!(engine.importer().unwrap().parent(Some(&again)).unwrap(), parent);
    assert_eq!(engine.counters().unwrap().count(CounterStep::Read, INDEX, &auth(), Some(&again)).unwrap(), value);
    assert_opens(&tpm, &again);
    tpm.tool("tpm2_clear -Q -c p");
    let sealed = engine.seal(&secret(), &auth(), &SealPolicy::None, Some(&pin));
    expect_fault(sealed, FaultCode::SrkMissing);
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "", "nothing was made");
    assert_nothing_left(&tpm);
    assert_opens(&tpm, &engine.seal(&secret(), &auth(), &SealPolicy::None, None).unwrap());
}

#[test]
fn another_parent_handle_needs_the_operators_word_at_reseal_and_nothing_else_follows_it_before() {
    let tpm = Swtpm::start();
    let dir = tempfile::tempdir().unwrap();
    let state = state_dir(&dir);
    let old = Server::start(settings(tpm.port()));
    NodeRoot::create(&state, &old.client(), TO, None).unwrap();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tpm.tool(&format!("tpm2_createprimary -Q -C o -G rsa2048 -a {attributes} -c theirs.ctx"));
    tpm.tool("tpm2_evictcontrol -Q -C o -c theirs.ctx 0x81000010");
    tpm.tool("tpm2_flushcontext -t");
    let new = Server::start(TpmSettings { parent_handle: 0x8100_0010, ..settings(tpm.port()) });
    let (root, _) = NodeRoot::open(&state, &new.client()).unwrap();
    let pin = root.sealed().blob.clone();
    assert_eq!(new.client().parent(Some(&pin)).unwrap(), old.client().parent(None).unwrap());
    assert_ne!(new.client().parent(None).unwrap(), old.client().parent(None).unwrap());
    let value = new.client().counter(CounterStep::Make, INDEX, auth(), Some(&pin)).unwrap();
    let refused = NodeRoot::reseal(&state, &new.client(), TO, Parent::Same);
    let detail = expect_fault(device_fault(refused), FaultCode::SrkChanged);
    assert!(FaultCode::SrkChanged.hint().contains("--new-parent"), "{detail}");
    let resealed = NodeRoot::reseal(&state, &new.client(), TO, Parent::New).unwrap();
    assert_ne!(resealed.digest(), root.sealed().digest());
    let (root, _) = NodeRoot::open(&state, &old.client()).unwrap();
    assert_eq!((root.sealed().digest(), root.sealed().blob.policy()), (resealed.digest(), Some(SealPolicy::None)));
    // The counter goes on under the new one.
    assert_eq!(old.client().counter(CounterStep::Read, INDEX, auth(), Some(&resealed.blob)).unwrap(), value);
    assert_nothing_left(&tpm);
}

#[test]
fn a_seal_of_a_token_is_no_pin_and_a_damaged_one_is_refused_before_the_tpm_is_asked() {
    let tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    let token = DeviceBlob::new(DeviceBlob::PKCS11_MAGIC.to_vec()).unwrap();
    let blob = engine(&tpm).seal(&secret(), &auth(), &SealPolicy::None, Some(&token)).unwrap();
    assert_opens(&tpm, &blob);
    let mut bytes = pin.as_bytes().to_vec();
    bytes[20] ^= 1;
    let damaged = DeviceBlob::new(bytes).unwrap();
    let watched = Interposer::before(&tpm, |_, bytes, tpm| tpm(bytes));
    let mut engine = engine_at(watched.port());
    expect_fault(engine.seal(&secret(), &auth(), &SealPolicy::None, Some(&damaged)), FaultCode::Format);
    expect_fault(engine.importer().unwrap().parent(Some(&damaged)), FaultCode::Format);
    let counted = engine.counters().unwrap().count(CounterStep::Make, INDEX, &auth(), Some(&damaged));
    expect_fault(counted, FaultCode::Format);
    assert_eq!((watched.record().len(), watched.count(NV_DEFINE_SPACE)), (0, 0));
}
