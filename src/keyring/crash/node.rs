//! A node on a disk of the model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::device::Device;
use super::ledger::Ledger;
use super::provider::Provider;
use super::running::Running;
use crate::keyring::export::Export;
use crate::keyring::keeper::{self, KeyTable, ResealOrder, Settings};
use crate::keyring::kek_file;
use crate::keyring::maker::MakerKey;
use crate::keyring::recovery::{self, Identity, Recipient};
use crate::keyring::rooted::Rooted;
use crate::keyring::state_file::State;
use crate::keyring::{self, Founding, KeeperError, MaxAge, RecoverOrder, Resume};
use crate::seal::credentials::CredentialKey;
use crate::seal::root::{NodeRoot, Parent};
use crate::store::sim::SimDisk;
use crate::store::{Disk, Kind, StateDir, container};
use crate::types::clock::EARLIEST;
use crate::types::random;
use crate::types::{ClusterId, CredentialName, KekId, Key, KeyId, SealPolicy, SealTo, Secret};

pub(super) const TO: SealTo = SealTo::Tpm2(SealPolicy::None);
const ROOT: &str = "/state";
/// Where the files of each node root are.
const ROOTS: &str = "roots";

pub(super) fn cluster() -> ClusterId {
    "c1".parse().unwrap()
}

// Of the node whose keeper runs on this thread.
thread_local!(static CLOCK: RefCell<Arc<AtomicU64>> = RefCell::default());

/// No file of ours.
const TORN: &[u8] = b"NODESEAL torn";

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
    pub(super) export: Arc<Vec<u8>>,
    /// A request or a bundle of another node.
    pub(super) file: Arc<Vec<u8>>,
    /// What wraps its KEKs, if anything does.
    pub(super) provider: Option<Provider>,
    /// Contents that must lie somewhere on the disk for ever.
    pub(super) kept: Vec<(String, Vec<u8>)>,
    /// Another node, with its own device and the same provider, that must read every text.
    pub(super) reader: Option<Arc<Running>>,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            disk: SimDisk::default(),
            device: Arc::new(Device::new()),
            ledger: Ledger::default(),
            clock: EARLIEST,
            later: 0,
            left: None,
            target: None,
            guard: None,
            identity: None,
            export: Arc::default(),
            file: Arc::default(),
            provider: None,
            kept: Vec::new(),
            reader: None,
        }
    }

    /// The same node on another disk, at a moment from which on both go their own ways.
    pub(super) fn on(&self, disk: SimDisk) -> Self {
        Self {
            disk,
            // Whoever may make a counter makes it in a device of its own.
            device: if self.guard.is_some() { self.device.apart() } else { self.device.copy() },
            ledger: self.ledger.clone(),
            left: self.left.clone(),
            identity: self.identity.clone(),
            export: Arc::clone(&self.export),
            file: Arc::clone(&self.file),
            provider: self.provider.as_ref().map(Provider::copy),
            kept: self.kept.clone(),
            reader: self.reader.clone(),
            ..*self
        }
    }

    /// Equal for nodes of one template with which nothing can go another way: all that a boot begins with.
    pub(super) fn digest(&self) -> [u8; 32] {
        let Self { disk, device, ledger, clock, later, left, target, provider, kept, .. } = self;
        // Those of one template share these.
        let Self { guard: _, identity: _, export: _, file: _, reader: _, .. } = self;
        let mut sum = Sha256::new();
        sum.update(disk.digest());
        ledger.digest(&mut sum);
        let state = (device.state(), provider.as_ref().map(Provider::state));
        sum.update(format!("{state:?}{clock}.{later}.{left:?}{target:?}{kept:?}"));
        sum.finalize().into()
    }

    /// Whether what was planned for its disk, its device or its provider has happened.
    pub(super) fn was_struck(&self) -> bool {
        let provider = self.provider.as_ref().is_some_and(Provider::was_struck);
        self.disk.was_struck() || self.device.was_struck() || provider
    }

    fn recipients(&self) -> Vec<Recipient> {
        self.identity.iter().map(|identity| identity.recipient()).collect()
    }

    pub(super) fn order(&self) -> ResealOrder {
        let (guard, recipients) = (self.guard, Some(self.recipients()));
        ResealOrder { to: TO, guard, recipients, parent: Parent::Same, replace_counter: false }
    }

    fn found<T>(
        &self,
        found: impl FnOnce(&StateDir<SimDisk>, &Founding<'_>) -> Result<T, KeeperError>,
    ) -> Result<T, KeeperError> {
        let dir = StateDir::create_on(self.disk.clone(), Path::new(ROOT)).map_err(KeeperError::Store)?;
        let (cluster, sealer, recipients) = (cluster(), self.device.client(), self.recipients());
        let founding = Founding {
            cluster: &cluster,
            sealer: &sealer,
            to: TO,
            guard: self.guard,
            replace_counter: false,
            recipients: &recipients,
        };
        found(&dir, &founding)
    }

    /// As `nodeseal init` does.
    pub(super) fn init(&self) -> Result<(), KeeperError> {
        self.found(|dir, founding| keyring::init(dir, founding, self.clock)).map(|_| ())
    }

    /// Takes a copy of the recovery file away from the node.
    pub(super) fn keep_recovery_file(&mut self) {
        let file = &self.files()[recovery::FILE];
        let (export, _) = recovery::decrypt(self.identity.as_ref().unwrap(), file).unwrap();
        let maker = MakerKey::new(&Key::copy_of(&[1; Key::LEN]).unwrap());
        self.export = Arc::new(export.encode_signed(&maker).expose().to_vec());
    }

    /// As `nodeseal recover` does.
    pub(super) fn recover(&self) -> Result<(), KeeperError> {
        self.recover_to(Resume::NewKek)
    }

    pub(super) fn recover_to(&self, resume: Resume) -> Result<(), KeeperError> {
        let (export, _) = Export::decode(&self.export).unwrap();
        self.found(|dir, founding| {
            let order = RecoverOrder { resume, give_up_device: false };
            keyring::recover(dir, founding, export, order, self.clock)
        })
        .map(|_| ())
    }

    /// A node of the same cluster with its own device and the same provider, which was just set up.
    pub(super) fn neighbour(&self) -> Self {
        let provider = self.provider.as_ref().map(Provider::shared);
        let node = Self { provider, clock: self.clock, ..Self::new() };
        node.init().unwrap();
        node
    }

    /// A node that has nothing of its own to read texts with but the provider, and keeps nothing.
    pub(super) fn reader() -> Arc<Running> {
        let node = Self { provider: Some(Provider::new().directly()), ..Self::new() };
        node.init().unwrap();
        let running = node.start();
        running.first_attempt().unwrap();
        // The device has opened its root, and is asked no more.
        Arc::new(running)
    }

    fn settings(&self) -> Settings<SimDisk> {
        Settings {
            disk: self.disk.clone(),
            state_dir: ROOT.into(),
            cluster: cluster(),
            sealer: self.device.client(),
            max_age: MaxAge::DEFAULT,
            guard: self.guard,
            pin_file: None,
            now: || CLOCK.with_borrow(|clock| clock.load(Ordering::SeqCst)),
            is_synchronised: || true,
        }
    }

    /// As `nodeseal reseal` does while no daemon runs.
    pub(super) fn reseal(&self) -> Result<(), KeeperError> {
        CLOCK.set(Arc::new(AtomicU64::new(self.clock)));
        keeper::with_keeper(&self.settings(), false, |keeper| keeper.reseal(self.order())).map(|_| ())
    }

    /// As `nodeseal reseal --accept-rollback` does.
    pub(super) fn accept_rollback(&self) -> Result<(), KeeperError> {
        CLOCK.set(Arc::new(AtomicU64::new(self.clock)));
        keeper::with_keeper(&self.settings(), true, |keeper| keeper.reseal(self.order())).map(|_| ())
    }

    pub(super) fn start(&self) -> Running {
        self.start_in(|body| body())
    }

    /// With other providers than its own.
    pub(super) fn start_with(&self, rooted: Arc<Rooted>) -> Running {
        self.start_around(Some(rooted), |body| body())
    }

    /// The keeper's thread, inside of something.
    pub(super) fn start_in(&self, around: impl FnOnce(Box<dyn FnOnce() + Send>) + Send + 'static) -> Running {
        self.start_around(self.provider.as_ref().map(Provider::rooted), around)
    }

    fn start_around(
        &self,
        rooted: Option<Arc<Rooted>>,
        around: impl FnOnce(Box<dyn FnOnce() + Send>) + Send + 'static,
    ) -> Running {
        let (keyring, handle, body) = keeper::new(self.settings());
        keyring.begin_with(rooted);
        let clock = Arc::new(AtomicU64::new(self.clock));
        let own = Arc::clone(&clock);
        let thread = thread::spawn(random::carried(move || {
            CLOCK.set(own);
            around(Box::new(body));
        }));
        Running::new(keyring, handle, clock, thread)
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
        self.open_once().unwrap();
    }

    /// One attempt to open the keys, by a keeper that ends at once.
    pub(super) fn open_once(&self) -> Result<KeyTable, KeeperError> {
        CLOCK.set(Arc::new(AtomicU64::new(self.clock)));
        keeper::with_keeper(&self.settings(), false, |keeper| keeper.list())
    }

    /// Starts the node, lets something happen to it, and kills it: nothing was written after the answer.
    pub(super) fn live_and_die(&mut self, happen: impl FnOnce(&Running)) {
        let running = self.start();
        running.first_attempt().unwrap();
        self.ledger.encrypt(&running);
        happen(&running);
        self.ledger.encrypt(&running);
        let killed = self.disk.after_kill();
        // The device has the time to count.
        drop(running);
        *self = self.on(killed);
    }

    /// Where the file is: at the top, or in the folder of the newest node root.
    fn path_of(&self, name: &str) -> String {
        let files = self.files();
        let is_there = |path: &str| files.contains_key(path) || files.contains_key(&format!("{path}.prev"));
        let newest = self.disk.newest(&Path::new(ROOT).join(ROOTS));
        let below = newest.map(|root| format!("{ROOTS}/{root}/{name}"));
        // Not a file of this root: those of the state directory itself.
        let is_common = name.starts_with("recovery") || name.ends_with(".pending") || name == "current";
        match below {
            Some(below) if !is_there(name) && !is_common => below,
            Some(_) | None => name.to_owned(),
        }
    }

    /// Its name inside of the folder of its node root.
    pub(super) fn short_name(path: &str) -> &str {
        let below = path.strip_prefix(ROOTS).and_then(|rest| rest.strip_prefix('/')?.split_once('/'));
        below.map_or(path, |(_, name)| name)
    }

    /// What is in the file.
    pub(super) fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.files().remove(&self.path_of(name))
    }

    /// Damages the file on the medium.
    pub(super) fn damage(&self, name: &str) {
        self.set(name, Some(TORN.to_vec()));
    }

    /// The same with the generation before.
    pub(super) fn damage_both(&self, name: &str) {
        let path = self.path_of(name);
        for path in [format!("{path}.prev"), path] {
            self.disk.scribble(&Path::new(ROOT).join(path), Some(TORN.to_vec()));
        }
    }

    /// Changes the file on the medium, or takes it away.
    pub(super) fn set(&self, name: &str, content: Option<Vec<u8>>) {
        self.disk.scribble(&Path::new(ROOT).join(self.path_of(name)), content);
    }

    /// The same by the whole name.
    pub(super) fn scribble(&self, name: &str, content: Option<Vec<u8>>) {
        self.disk.scribble(&Path::new(ROOT).join(name), content);
    }

    /// The state directory itself, with nothing in it.
    pub(super) fn make_top(&self) {
        StateDir::create_on(self.disk.clone(), Path::new(ROOT)).map(drop).unwrap();
    }

    pub(super) fn make_dir(&self, name: &str) {
        self.disk.make_dir(&Path::new(ROOT).join(name)).unwrap();
        self.disk.sync_dir(Path::new(ROOT)).unwrap();
    }

    /// An empty folder goes.
    pub(super) fn remove_dir(&self, name: &str) {
        self.disk.remove_dir(&Path::new(ROOT).join(name)).unwrap();
        self.disk.sync_dir(Path::new(ROOT).join(name).parent().unwrap()).unwrap();
    }

    /// The folder of the node root that was made last.
    pub(super) fn newest_root(&self) -> String {
        format!("{ROOTS}/{}", self.disk.newest(&Path::new(ROOT).join(ROOTS)).unwrap())
    }

    /// Folders of the state directory, by their names inside of it.
    pub(super) fn folders(&self) -> Vec<String> {
        let folders = self.disk.tree().into_iter().filter(|(_, content)| content.is_none());
        folders.filter_map(|(path, _)| Some(path.strip_prefix(ROOT).ok()?.to_str()?.to_owned())).collect()
    }

    /// A credential as the operator's tool seals it while nodeseald does not run.
    pub(super) fn seal_credential(&self, name: &CredentialName, content: &[u8]) {
        let dir = StateDir::open_on(self.disk.clone(), &Path::new(ROOT).join(self.newest_root())).unwrap();
        let (root, _) = NodeRoot::open(&dir, &self.device.client()).unwrap();
        let key = CredentialKey::of(&root, &cluster());
        let payload = key.seal(&Secret::new(content.to_vec()), name, &cluster(), 1).unwrap();
        key.store(&dir, &payload, name, &cluster()).unwrap();
    }

    /// What the disk would have of this KEK id if it stood for another key.
    pub(super) fn kek_file_with_another_key(&self, id: &KekId) -> Vec<u8> {
        let dir = StateDir::open_on(self.disk.clone(), &Path::new(ROOT).join(self.newest_root())).unwrap();
        let (root, _) = NodeRoot::open(&dir, &self.device.client()).unwrap();
        let label = kek_file::KekLabel { id: *id, created: 1 };
        let (key, wrapping_key) = (Key::copy_of(&[9; Key::LEN]).unwrap(), root.kek_wrapping_key(&cluster()));
        let payload = kek_file::seal(&key, &label, &cluster(), &root.id(), &wrapping_key, [7; 12]).unwrap();
        container::wrap(Kind::LocalKek, &payload)
    }

    /// Names of the sealed copies of KEKs, newest generations.
    pub(super) fn kek_files(&self) -> Vec<String> {
        self.files().into_keys().filter(|name| name.ends_with(kek_file::SUFFIX)).collect()
    }

    /// The KEKs of every generation of the recovery file, and of every copy of it, that the identity opens.
    pub(super) fn recovery_files(&self, identity: &Identity) -> Vec<(String, Vec<KekId>)> {
        let files = self.files().into_iter().filter(|(name, _)| Self::short_name(name).starts_with("recovery"));
        let open = |(name, file): (String, Vec<u8>)| {
            let keks = recovery::decrypt(identity, &file).ok()?.0.keys.iter().map(|(id, _)| *id).collect();
            Some((name, keks))
        };
        files.filter_map(open).collect()
    }

    /// Rewrites the state as a node with this many uses of its active KEK would have it.
    pub(super) fn set_uses(&self, uses: u64) {
        self.change_state(|state| State { ring: state.ring.with_reservation(uses), ..state });
    }

    /// Rewrites the state behind everybody's back.
    pub(super) fn change_state(&self, change: impl FnOnce(State) -> State) {
        let state = self.path_of("state");
        let folder = Path::new(ROOT).join(Path::new(&state).parent().unwrap());
        let dir = StateDir::open_on(self.disk.clone(), &folder).unwrap();
        let (root, _) = NodeRoot::open(&dir, &self.device.client()).unwrap();
        let (cluster, mac_key) = (cluster(), root.state_mac_key(&cluster()));
        let read = |version, bytes: &[u8]| State::decode(version, bytes, &cluster, &root.id(), &mac_key);
        let state = change(dir.load("state", Kind::State, read).unwrap().value);
        dir.replace_both("state", Kind::State, &state.encode(&cluster, &root.id(), &mac_key)).unwrap();
    }

    /// Contents of the files of the state directory, by their names inside of it.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let name = |path: &Path| path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
        self.disk.files().into_iter().map(|(path, bytes)| (name(&path), bytes)).collect()
    }
}
