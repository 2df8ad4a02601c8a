//! A node on a disk of the model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::device::Device;
use super::ledger::Ledger;
use super::provider::Provider;
use crate::envelope::Api;
use crate::keyring::export::Export;
use crate::keyring::keeper::{self, KeeperHandle, KekRow, KeyTable, ResealOrder, Settings};
use crate::keyring::recovery::{self, Identity, Recipient};
use crate::keyring::ring::MoveError;
use crate::keyring::{self, Encrypted, Founding, KeeperError, Keyring, KeyringError, MaxAge, Resume};
use crate::store::StateDir;
use crate::store::sim::SimDisk;
use crate::types::{ClusterId, KekId, KeyId, SealPolicy, SealTo};

pub(super) const TO: SealTo = SealTo::Tpm2(SealPolicy::None);
const ROOT: &str = "/state";
const DEK: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(super) fn cluster() -> ClusterId {
    "c1".parse().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local!(static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap());
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A node that does not run.
pub(super) struct Node {
    pub(super) disk: SimDisk,
    pub(super) device: Arc<Device>,
    pub(super) ledger: Ledger,
    /// Seconds.
    pub(super) clock: u64,
    /// Seconds: the clock after the operation, if that is later.
    pub(super) later: u64,
    /// The key_id that was reported when the operation began.
    pub(super) left: Option<KeyId>,
    /// The KEK that the operation is about, if it is about one.
    pub(super) target: Option<KekId>,
    /// NV index of a guard.
    pub(super) guard: Option<u32>,
    /// Opens the recovery file, if there is one.
    pub(super) identity: Option<Arc<Identity>>,
    /// What a recovery file that was kept elsewhere holds.
    export: Arc<Vec<u8>>,
    /// A request or a bundle of another node.
    pub(super) file: Arc<Vec<u8>>,
    /// What wraps its KEKs, if anything does.
    pub(super) provider: Option<Provider>,
    /// Contents that must lie somewhere on the disk for ever.
    pub(super) kept: Vec<(String, Vec<u8>)>,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            disk: SimDisk::default(),
            device: Arc::new(Device::new()),
            ledger: Ledger::default(),
            clock: 0,
            later: 0,
            left: None,
            target: None,
            guard: None,
            identity: None,
            export: Arc::default(),
            file: Arc::default(),
            provider: None,
            kept: Vec::new(),
        }
    }

    /// The same node on another disk, at a moment from which on both go their own ways.
    pub(super) fn on(&self, disk: SimDisk) -> Self {
        Self {
            disk,
            device: self.device.copy(),
            ledger: self.ledger.clone(),
            left: self.left.clone(),
            identity: self.identity.clone(),
            export: Arc::clone(&self.export),
            file: Arc::clone(&self.file),
            provider: self.provider.as_ref().map(Provider::copy),
            kept: self.kept.clone(),
            ..*self
        }
    }

    fn recipients(&self) -> Vec<Recipient> {
        self.identity.iter().map(|identity| identity.recipient()).collect()
    }

    pub(super) fn order(&self) -> ResealOrder {
        ResealOrder { to: TO, guard: self.guard, recipients: Some(self.recipients()) }
    }

    fn found<T>(
        &self,
        found: impl FnOnce(&StateDir<SimDisk>, &Founding<'_>) -> Result<T, KeeperError>,
    ) -> Result<T, KeeperError> {
        let dir = StateDir::create_on(self.disk.clone(), Path::new(ROOT)).map_err(KeeperError::Store)?;
        let (cluster, sealer, recipients) = (cluster(), self.device.client(), self.recipients());
        let founding =
            Founding { cluster: &cluster, sealer: &sealer, to: TO, guard: self.guard, recipients: &recipients };
        found(&dir, &founding)
    }

    /// As `nodeseal init` does.
    pub(super) fn init(&self) -> Result<(), KeeperError> {
        self.found(|dir, founding| keyring::init(dir, founding, self.clock)).map(|_| ())
    }

    /// Takes a copy of the recovery file away from the node.
    pub(super) fn keep_recovery_file(&mut self) {
        let file = &self.files()[recovery::FILE];
        let export = recovery::decrypt(self.identity.as_ref().unwrap(), file).unwrap();
        self.export = Arc::new(export.encode().expose().to_vec());
    }

    /// As `nodeseal recover` does.
    pub(super) fn recover(&self) -> Result<(), KeeperError> {
        let export = Export::decode(&self.export).unwrap();
        self.found(|dir, founding| keyring::recover(dir, founding, export, Resume::NewKek, self.clock)).map(|_| ())
    }

    fn settings(&self, now: fn() -> u64) -> Settings<SimDisk> {
        Settings {
            disk: self.disk.clone(),
            state_dir: ROOT.into(),
            cluster: cluster(),
            sealer: self.device.client(),
            max_age: MaxAge::DEFAULT,
            guarded: self.guard.is_some(),
            now,
        }
    }

    /// As `nodeseal reseal` does while no daemon runs.
    pub(super) fn reseal(&self) -> Result<(), KeeperError> {
        keeper::with_keeper(&self.settings(|| 0), false, |keeper| keeper.reseal(self.order())).map(|_| ())
    }

    pub(super) fn start(&self) -> Running {
        self.start_in(|body| body())
    }

    /// The keeper's thread, inside of something.
    pub(super) fn start_in(&self, around: impl FnOnce(Box<dyn FnOnce() + Send>) + Send + 'static) -> Running {
        thread_local!(static CLOCK: RefCell<Arc<AtomicU64>> = RefCell::default());
        let settings = self.settings(|| CLOCK.with_borrow(|clock| clock.load(Ordering::SeqCst)));
        let (keyring, handle, body) = keeper::new(settings);
        keyring.begin_with(self.provider.as_ref().map(Provider::rooted));
        let clock = Arc::new(AtomicU64::new(self.clock));
        let own = Arc::clone(&clock);
        let thread = thread::spawn(move || {
            CLOCK.set(own);
            around(Box::new(body));
        });
        Running { keyring, handle, clock, thread: Some(thread) }
    }

    /// Starts the node, lets something happen to it, and stops it. For the way to where an operation begins.
    pub(super) fn live(&mut self, happen: impl FnOnce(&Running)) {
        let running = self.start();
        running.first_attempt().unwrap();
        self.ledger.encrypt(&running);
        happen(&running);
        self.ledger.encrypt(&running);
        self.ledger.assert_holds(&running);
        drop(running);
        // Without a daemon the keeper ends only when nothing is under way: the counter of the guard has counted.
        keeper::with_keeper(&self.settings(|| 0), false, |keeper| keeper.list()).unwrap();
    }

    /// Damages the file on the medium.
    pub(super) fn damage(&self, name: &str) {
        self.set(name, Some(b"NODESEAL torn".to_vec()));
    }

    /// Changes the file on the medium, or takes it away.
    pub(super) fn set(&self, name: &str, content: Option<Vec<u8>>) {
        self.disk.scribble(&Path::new(ROOT).join(name), content);
    }

    /// Contents of the files of the state directory, by their names inside of it.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let name = |path: &Path| path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
        self.disk.files().into_iter().map(|(path, bytes)| (name(&path), bytes)).collect()
    }
}

/// Several times the pause after which the keeper tries again in a test.
const FAULT_TIMEOUT: Duration = Duration::from_millis(300);

/// A node that runs.
pub(super) struct Running {
    pub(super) keyring: Arc<Keyring>,
    pub(super) handle: KeeperHandle,
    pub(super) clock: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// How the first attempt to open the keys ended.
    pub(super) fn first_attempt(&self) -> Result<(), KeyringError> {
        block_on(self.keyring.key_id()).map(|_| ())
    }

    /// The keeper tries again by itself, after half a second and later.
    pub(super) fn opens_by_itself(&self) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while self.keyring.key_id_now().is_none() {
            assert!(Instant::now() < give_up, "the keys do not open by themselves once the disk is well");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn has_provider(&self) -> bool {
        self.keyring.rooted().is_some()
    }

    pub(super) fn table(&self) -> KeyTable {
        self.handle.list().unwrap()
    }

    pub(super) fn row(&self, state: &str) -> Option<KekRow> {
        self.table().keys.into_iter().find(|row| row.state == state)
    }

    pub(super) fn kek(&self, state: &str) -> KekId {
        self.row(state).unwrap().id.parse().unwrap()
    }

    /// Asks until the device, which may still have something to count, is free.
    pub(super) fn ask<T>(&self, ask: impl Fn(&KeeperHandle) -> Result<T, KeeperError>) -> Result<T, KeeperError> {
        loop {
            match ask(&self.handle) {
                Err(KeeperError::Busy) => thread::sleep(Duration::from_millis(1)),
                answer => return answer,
            }
        }
    }

    /// Makes a KEK unless one is pending, and turns to it.
    pub(super) fn renew(&self) -> Result<(), KeeperError> {
        match self.ask(KeeperHandle::rotate) {
            Ok(_) | Err(KeeperError::Move(MoveError::Pending)) => {}
            Err(error) => return Err(error),
        }
        // With a provider the keeper may have turned to it by itself.
        let Some(row) = self.row("pre-activation") else { return Ok(()) };
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match self.handle.activate(row.id.parse().unwrap()) {
                Err(KeeperError::Move(MoveError::Active)) if self.has_provider() => return Ok(()),
                // The provider is about to wrap it.
                Err(KeeperError::Unwrapped { .. }) if Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(1));
                }
                other => return other.map(|_| ()),
            }
        }
    }

    /// Whether it comes, also when the disk fails in between. A fault is got over within moments, or not at all while it lasts.
    pub(super) fn until(&self, disk: &SimDisk, is: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        let mut struck = None;
        while !is() {
            if disk.was_struck() && started.elapsed() > FAULT_TIMEOUT + *struck.get_or_insert(started.elapsed()) {
                return false;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "it does not come");
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    pub(super) fn encrypt(&self) -> Result<Encrypted, KeyringError> {
        block_on(self.keyring.encrypt(Api::V2, DEK))
    }

    pub(super) fn decrypt(&self, old: &Encrypted) -> Result<bool, KeyringError> {
        let opened = block_on(self.keyring.decrypt_v2(old.key_id.as_str(), old.attached.wraps().unwrap(), &old.text))?;
        Ok(opened.plaintext.same_as(DEK))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the keeper has panicked");
    }
}
