//! Keeper and keyring over a real state directory. The sealer is imitated, since what is tested here is how the keys behave when it
//! refuses, and at counts and ages that no real device reaches in a test. The real one: tests/tpm and tests/service.

mod clock;
mod pins;
mod recover;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::keeper::{self, KeeperHandle, Settings};
use super::live::{Active, LiveKek, Snapshot};
use super::state_file::State;
use super::uses::UseCounter;
use super::*;
use crate::envelope::{Api, Wraps};
use crate::keyring::keeper::Proof;
use crate::sandbox::memory::LockedKey;
use crate::seal::client::SealerClient;
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::frame;
use crate::seal::protocol::{DeviceBlob, Request, Response};
use crate::seal::root::NodeRoot;
use crate::store::{Kind, RealDisk, StateDir};
use crate::types::{ClusterId, KekId, Key, KeyId, SealPolicy, SealTo};

const TO: SealTo = SealTo::Tpm2(SealPolicy::None);
const DAY: u64 = 24 * 3600;
const DEK: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A node with an imitated sealing device.
struct Node {
    dir: tempfile::TempDir,
    refuses: Arc<AtomicBool>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sealer")).unwrap();
        let refuses = Arc::new(AtomicBool::new(false));
        let refusing = Arc::clone(&refuses);
        thread::spawn(move || imitate(&listener, &refusing));
        Self { dir, refuses }
    }

    fn set_up() -> Self {
        let node = Self::new();
        node.init(0).unwrap();
        node
    }

    fn init(&self, now: u64) -> Result<KekId, KeeperError> {
        let (cluster, sealer) = (cluster(), self.sealer());
        let founding = Founding {
            cluster: &cluster,
            sealer: &sealer,
            to: TO,
            guard: None,
            replace_counter: false,
            recipients: &[],
        };
        init(&self.open_dir(), &founding, now)
    }

    fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// Of the root that counts.
    fn root_dir(&self) -> std::path::PathBuf {
        let roots = std::fs::read_dir(self.state_dir().join("roots")).unwrap();
        let mut roots: Vec<_> = roots.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(roots.len(), 1);
        roots.remove(0)
    }

    fn open_dir(&self) -> StateDir {
        StateDir::create(&self.state_dir()).unwrap()
    }

    fn sealer(&self) -> SealerClient {
        SealerClient::Socket(self.dir.path().join("sealer"))
    }

    fn start(&self, now: fn() -> u64) -> Running {
        let (keyring, handle, body) = keeper::new(Settings {
            disk: RealDisk,
            state_dir: self.state_dir(),
            cluster: cluster(),
            sealer: self.sealer(),
            max_age: MaxAge::DEFAULT,
            guard: None,
            pin_file: None,
            now,
            is_synchronised: || true,
        });
        Running { keyring, handle, thread: Some(thread::spawn(body)) }
    }

    /// Rewrites the state as a node with this many uses would have it.
    fn set_uses(&self, uses: u64) {
        let dir = Home::find(self.open_dir()).unwrap().root;
        let (root, _) = NodeRoot::open(&dir, &self.sealer()).unwrap();
        let mac_key = root.state_mac_key(&cluster());
        let read = |version, bytes: &[u8]| State::decode(version, bytes, &cluster(), &root.id(), &mac_key);
        let state = dir.load("state", Kind::State, read).unwrap().value;
        let state = State { generation: state.generation + 1, ring: state.ring.with_reservation(uses), ..state };
        dir.replace("state", Kind::State, &state.encode(&cluster(), &root.id(), &mac_key)).unwrap();
    }
}

struct Running {
    keyring: Arc<Keyring>,
    handle: KeeperHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn encrypt(&self) -> Result<Encrypted, KeyringError> {
        block_on(self.keyring.encrypt(Api::V2, DEK))
    }

    fn assert_decrypts(&self, old: &Encrypted) {
        let opened = block_on(self.keyring.decrypt_v2(old.key_id.as_str(), Wraps::default(), &old.text));
        assert!(opened.unwrap().plaintext.same_as(DEK));
    }

    fn activate(&self, id: KekId) {
        self.handle.activate(keeper::Activation { id: Some(id), ..keeper::Activation::default() }).unwrap();
    }

    fn key_id(&self) -> KeyId {
        block_on(self.keyring.key_id()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn cluster() -> ClusterId {
    "c1".parse().unwrap()
}

/// Answers as a device would: what it sealed opens again with the same authorisation value.
fn imitate(listener: &UnixListener, refuses: &AtomicBool) {
    let sealed: Mutex<Vec<(Vec<u8>, Vec<u8>)>> = Mutex::default();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let message = frame::read(&mut stream).unwrap().unwrap();
        let answer = match Request::decode(message.expose()).unwrap() {
            _ if refuses.load(Ordering::SeqCst) => Response::Fault(Fault::new(FaultCode::TpmFailed, "")),
            Request::Seal { auth, secret, .. } => {
                let mut sealed = sealed.lock().unwrap();
                sealed.push((auth.expose().to_vec(), secret.expose().to_vec()));
                Response::Sealed(DeviceBlob::new(vec![u8::try_from(sealed.len()).unwrap()]).unwrap())
            }
            Request::Unseal { auth, blob } => {
                let (wanted, secret) = sealed.lock().unwrap()[usize::from(blob.as_bytes()[0]) - 1].clone();
                match wanted == auth.expose() {
                    true => Response::Unsealed(Key::copy_of(&secret).unwrap()),
                    false => Response::Fault(Fault::new(FaultCode::Auth, "")),
                }
            }
            _ => unreachable!("the keyring never asks"),
        };
        frame::write(&mut stream, &answer.encode()).unwrap();
    }
}

fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_init_is_refused_and_changes_nothing() {
    let node = Node::set_up();
    let before = files(&node.state_dir());
    let again = node.init(1);
    assert!(matches!(again, Err(KeeperError::AlreadySetUp)));
    assert_eq!(files(&node.state_dir()), before);
}

#[test]
fn a_lost_state_file_is_no_reason_to_make_new_keys() {
    let node = Node::set_up();
    for name in ["state", "state.prev"] {
        let _ = std::fs::remove_file(node.root_dir().join(name));
    }
    let again = node.init(1);
    assert!(matches!(again, Err(KeeperError::AlreadySetUp)));
}

#[test]
fn an_init_that_the_device_interrupted_is_done_again() {
    let node = Node::new();
    node.refuses.store(true, Ordering::SeqCst);
    assert!(node.init(0).is_err());
    node.refuses.store(false, Ordering::SeqCst);
    node.init(0).unwrap();
    node.start(|| 0).encrypt().unwrap();
}

#[test]
fn a_kek_past_its_age_is_replaced_at_start_and_its_texts_still_open() {
    let node = Node::set_up();
    let old = node.start(|| DAY).encrypt().unwrap();
    let running = node.start(|| 90 * DAY);
    let new = running.encrypt().unwrap();
    assert_ne!(new.key_id, old.key_id);
    assert_eq!(running.key_id(), new.key_id);
    running.assert_decrypts(&old);
    running.assert_decrypts(&new);
}

#[test]
fn a_kek_past_half_of_its_uses_is_replaced() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let node = Node::set_up();
    let old = node.start(|| 0).encrypt().unwrap();
    node.set_uses(ROTATE_AT_USES);
    let running = node.start(|| CLOCK.load(Ordering::SeqCst));
    assert_ne!(running.key_id(), old.key_id);
    running.assert_decrypts(&old);
}

#[test]
fn at_the_hard_limit_encrypt_is_refused_and_decrypt_goes_on() {
    let keyring = Keyring::opening(cluster(), |_| {});
    let id = KekId::from_bytes([1; 16]);
    let key = LockedKey::new(Key::random().unwrap()).unwrap();
    let uses = UseCounter::new(HARD_LIMIT_USES - 1, HARD_LIMIT_USES + RESERVED_BLOCK_USES, HARD_LIMIT_USES);
    let kek = Arc::new(LiveKek::new(id, key, uses));
    let key_id = KeyId::of_local_kek(&cluster(), &id);
    let active = Active::local(&cluster(), key_id, Arc::clone(&kek), &[]).unwrap();
    keyring.publish(Snapshot {
        active: Some(Arc::new(active)),
        awaits_bundle: false,
        by_id: [(id, kek)].into(),
        destroyed: HashSet::new(),
    });
    let last = block_on(keyring.encrypt(Api::V2, DEK)).unwrap();
    assert!(matches!(block_on(keyring.encrypt(Api::V2, DEK)), Err(KeyringError::Exhausted)));
    let opened = block_on(keyring.decrypt_v2(last.key_id.as_str(), Wraps::default(), &last.text));
    assert!(opened.unwrap().plaintext.same_as(DEK));
}

#[test]
fn a_rotation_that_the_device_refuses_changes_nothing() {
    let node = Node::set_up();
    let running = node.start(|| 0);
    let old = running.encrypt().unwrap();
    let before = files(&node.state_dir());
    node.refuses.store(true, Ordering::SeqCst);
    assert!(matches!(running.handle.rotate(), Err(KeeperError::Root(_))));
    assert_eq!(files(&node.state_dir()), before);
    assert_eq!(running.encrypt().unwrap().key_id, old.key_id);
}

#[test]
fn a_state_that_fell_back_keeps_every_kek_and_reports_no_key_id_that_was_left() {
    let node = Node::set_up();
    let running = node.start(|| 0);
    let first = running.encrypt().unwrap();
    let row = running.handle.rotate().unwrap();
    running.activate(row.id.parse::<KekId>().unwrap());
    let second = running.encrypt().unwrap();
    drop(running);
    std::fs::write(node.root_dir().join("state"), b"NODESEAL torn").unwrap();

    let running = node.start(|| 0);
    let third = running.encrypt().unwrap();
    assert_ne!(third.key_id, first.key_id);
    for text in [&first, &second, &third] {
        running.assert_decrypts(text);
    }
}

#[test]
fn a_kek_that_the_state_does_not_know_is_taken_in_to_decrypt() {
    let node = Node::set_up();
    let old = std::fs::read(node.root_dir().join("state")).unwrap();
    let running = node.start(|| 0);
    let row = running.handle.rotate().unwrap();
    running.activate(row.id.parse::<KekId>().unwrap());
    let text = running.encrypt().unwrap();
    drop(running);
    for name in ["state", "state.prev"] {
        std::fs::write(node.root_dir().join(name), &old).unwrap();
    }
    node.start(|| 0).assert_decrypts(&text);
}

#[test]
fn every_file_of_a_new_node_has_a_spare_copy() {
    let node = Node::set_up();
    let text = node.start(|| 0).encrypt().unwrap();
    for (path, _) in files(&node.state_dir()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "lock" || name.ends_with(".prev") {
            continue;
        }
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() / 2]).unwrap();
        node.start(|| 0).assert_decrypts(&text);
        if name != "state" {
            std::fs::write(&path, &good).unwrap();
        }
    }
}

#[test]
fn calls_wait_for_the_first_attempt_to_open_and_are_refused_at_once_after_it_failed() {
    let node = Node::set_up();
    let running = node.start(|| 0);
    running.encrypt().expect("the call came before the keys were open, and waited for them");
    drop(running);
    node.refuses.store(true, Ordering::SeqCst);
    let running = node.start(|| 0);
    assert!(matches!(running.encrypt(), Err(KeyringError::Locked)));
    assert!(matches!(running.handle.list(), Err(KeeperError::Locked)));
    node.refuses.store(false, Ordering::SeqCst);
    // The keeper's own pause between attempts is half a second.
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while running.encrypt().is_err() {
        assert!(std::time::Instant::now() < give_up, "the keys open by themselves once the device answers");
        thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn more_encryptions_than_one_block_never_fail_and_are_counted_on_disk_first() {
    let node = Node::set_up();
    let running = node.start(|| 0);
    let calls = RESERVED_BLOCK_USES + 1000;
    block_on(async {
        for _ in 0..calls {
            running.keyring.encrypt(Api::V2, DEK).await.unwrap();
        }
    });
    drop(running);
    let again = node.start(|| 0);
    let row = again.handle.list().unwrap().keys.remove(0);
    assert!(row.uses >= calls && row.uses <= calls + 2 * RESERVED_BLOCK_USES, "{}", row.uses);
}

#[test]
fn a_destroyed_kek_is_gone_and_a_power_cut_in_between_does_not_bring_it_back() {
    let node = Node::set_up();
    let running = node.start(|| 0);
    let old = running.encrypt().unwrap();
    let first = running.handle.list().unwrap().keys.remove(0).id;
    let file = node.root_dir().join(format!("keyring/{first}.kek"));
    let bytes = std::fs::read(&file).unwrap();
    let row = running.handle.rotate().unwrap();
    running.activate(row.id.parse::<KekId>().unwrap());
    running.handle.retire(first.parse().unwrap(), ring::RetireTo::Destroyed, Proof::Waived).unwrap();
    let gone = block_on(running.keyring.decrypt_v2(old.key_id.as_str(), Wraps::default(), &old.text));
    assert!(matches!(gone, Err(KeyringError::UnknownKek(_))));
    drop(running);
    std::fs::write(&file, bytes).unwrap();
    let running = node.start(|| 0);
    let gone = block_on(running.keyring.decrypt_v2(old.key_id.as_str(), Wraps::default(), &old.text));
    assert!(matches!(gone, Err(KeyringError::UnknownKek(_))));
    assert!(!file.exists());
}
