//! The owner of the keys: one thread that opens them, lets its owners change them, and publishes to the [`Keyring`].
//!
//! | owner | what it alone may touch |
//! |---|---|
//! | [`books`] | the state on disk |
//! | [`keys`] | KEKs and their copies in memory |
//! | [`errands`] | what is still to be done, and who has the device and the providers |
//! | [`probes`] | what providers have said since they were configured |
//!
//! What kube-apiserver can see is always on disk already. A rotation opens the node root by the device once more, so that a device
//! that would not open it at the next boot is noticed now. Devices are asked on a thread of their own, one question at a time: one
//! that hangs stops neither reservations nor `status`. It retries for ever when the keys cannot be opened: the process that holds the
//! socket does not exit over a device. Opening writes nothing that it needs: a disk that is full or read-only keeps no key closed.

mod arrival;
mod backoff;
mod books;
mod bundles;
mod check;
mod copies;
mod credentials;
mod device;
mod epochs;
mod errands;
mod evidence;
mod handle;
mod key_id;
mod keys;
mod members;
mod offline;
mod openers;
mod others;
mod probes;
mod renew;
mod report;
mod request;
mod reseal;
mod restore;
mod retire;
mod rotation;
mod start;
mod uses;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use self::arrival::{Arrival, Message};
pub(in crate::keyring) use self::books::digest;
use self::books::{Books, Change};
use self::errands::Errands;
pub use self::handle::KeeperHandle;
use self::keys::Keys;
pub use self::offline::with_keeper;
pub use self::openers::Next;
use self::others::Others;
use self::probes::Probes;
use self::request::Request;
pub use self::request::{
    Activation, CheckReport, KekRow, KeyTable, MemberRow, Overview, Proof, ProvidersReport, RenewOrder, Renewed,
    ResealOrder, Seen,
};
#[cfg(test)]
pub(in crate::keyring) use self::start::PIN_LOOK_EVERY;
use self::uses::Blocks;
use crate::audit::{Event, emit};
use crate::keyring::cryptoperiod::MaxAge;
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::evidence::Evidence;
use crate::keyring::export::Export;
use crate::keyring::live::{Ask, Keyring, Snapshot};
use crate::keyring::marks::ProviderKey;
use crate::keyring::ring::KekState;
use crate::keyring::state_file::State;
use crate::keyring::uses::hard_limit;
use crate::sandbox::memory::LockedKey;
use crate::seal::client::SealerClient;
use crate::seal::protocol::DeviceBlob;
use crate::store::{Disk, RealDisk};
use crate::types::clock::UnixSeconds;
use crate::types::stack::{self, KEEPER_BYTES};
use crate::types::{Chain, ClusterId, Explained, KekId};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_secs(60);

/// What the keeper works with.
pub struct Settings<D: Disk = RealDisk> {
    /// Where the state directory is.
    pub disk: D,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Goes into every AAD.
    pub cluster: ClusterId,
    /// Who opens the node root.
    pub sealer: SealerClient,
    /// When a KEK is replaced without being asked.
    pub max_age: MaxAge,
    /// NV index of the counter that the configuration asks for, if it asks for a guarded state directory.
    pub guard: Option<u32>,
    /// The file of the PIN that each question to the device gives away, where no sealer of its own remembers a wrong one.
    pub pin_file: Option<PathBuf>,
    /// The clock.
    pub now: fn() -> UnixSeconds,
    /// Whether the clock is known to be set by a source of time.
    pub is_synchronised: fn() -> bool,
}

/// A keyring without keys, the handle to its keeper, and the keeper's thread body, which returns on [`KeeperHandle::stop`].
pub fn new<D: Disk + Clone + Send>(settings: Settings<D>) -> (Arc<Keyring>, KeeperHandle, impl FnOnce() + Send) {
    let (sender, messages) = channel();
    let handle = KeeperHandle(sender.clone());
    let own = sender.clone();
    let ask = move |what| {
        // Fails only when the keeper has stopped.
        let _ = sender.send(Message::Arrival(match what {
            Ask::Block => Arrival::Reserve,
            Ask::Keep(kek) => Arrival::Keep(kek),
            Ask::Seen(seen) => Arrival::Seen(seen),
        }));
    };
    let keyring = Arc::new(Keyring::opening(settings.cluster.clone(), ask));
    let published = Arc::clone(&keyring);
    (keyring, handle, move || run(&settings, &published, &own, &messages))
}

fn run<D: Disk + Clone>(
    settings: &Settings<D>,
    keyring: &Keyring,
    own: &Sender<Message>,
    messages: &Receiver<Message>,
) {
    let Some(mut keeper) = start::unlock(settings, keyring, own, messages) else { return };
    stack::wiped::<KEEPER_BYTES, _>(|| keeper.proceed());
    let mut next_tick = Instant::now() + TICK;
    loop {
        let message = match messages.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return keeper.finish(messages),
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => {
                next_tick = Instant::now() + TICK;
                None
            }
        };
        stack::wiped::<KEEPER_BYTES, _>(|| {
            if let Some(message) = message {
                keeper.take(message);
            }
            keeper.proceed();
        });
    }
}

struct Keeper<'a, D: Disk> {
    settings: &'a Settings<D>,
    keyring: &'a Keyring,
    /// Where answers of the device and of providers come back.
    own: &'a Sender<Message>,
    books: Books<D>,
    keys: Keys,
    errands: Errands<Request>,
    probes: Probes,
    /// The KEK that was made for a key_id, and what that one names.
    made_for: Option<(KekId, Reported)>,
    /// KEKs of other nodes without a sealed copy here.
    others: Others,
    blocks: Blocks,
    rotation: rotation::Rotation,
    check: check::Check,
    evidence: Evidence,
    /// Keys that nobody has any more: told once.
    openers_told: HashSet<ProviderKey>,
    marks_full_told: bool,
    /// When kube-apiserver was last told another key_id or given another active KEK, if that was in this run.
    turned: Option<Instant>,
    /// Since when, at the latest, somebody is handed what Nodeseal has not made. No scan from before says that he is not needed: a backup
    /// may have been restored because of which he is asked.
    foreign_since: UnixSeconds,
    /// Keys of the node root that outlive a question to the device.
    derived: Derived,
    /// What times of probes are counted from.
    started: Instant,
}

/// See [`Keeper::derived`].
struct Derived {
    counter_auth: Arc<LockedKey>,
    credential_key: LockedKey,
    member_seed: LockedKey,
    /// The seal of the node root: pins what else is asked of the device.
    pin: DeviceBlob,
}

impl<D: Disk + Clone> Keeper<'_, D> {
    fn take(&mut self, message: Message) {
        match message {
            Message::Arrival(arrival) => self.arrived(arrival),
            Message::Request(asked) => asked.begin().into_iter().for_each(|request| self.requested(request)),
            Message::Stop => {}
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::BundleImported(reply, imported) => {
                self.device_is_free();
                let _ = reply.send(self.bundle_imported(*imported));
            }
            Arrival::BundleRequested(node, reply, parent) => {
                self.device_is_free();
                let _ = reply.send(self.bundle_requested(node, parent));
            }
            Arrival::IdentityAsked(name, reply, parent) => {
                self.device_is_free();
                let parent = parent.map_err(KeeperError::Device);
                let _ = reply.send(parent.and_then(|parent| self.identity_made(name, parent)));
            }
            Arrival::Checked(checked) => self.checked(*checked),
            Arrival::Counted(counted) => self.counted(counted),
            Arrival::CountersRemoved(removed) => self.counters_removed(removed),
            Arrival::Keep(kek) => self.keep(kek),
            Arrival::Opened(errand, root) => self.opened(errand, root),
            Arrival::OpenedToRotate(reply, root) => self.opened_to_rotate(reply, root),
            Arrival::OpenedToRestore(export, reply, root) => {
                self.device_is_free();
                let _ = reply.send(self.opened_to_restore(*export, root));
            }
            Arrival::Probed(name, seen) => self.probed(name, seen),
            Arrival::RootMade(made) => self.root_made(*made),
            Arrival::RootProved(proved) => self.root_proved(*proved),
            Arrival::Resealed(reply, resealed) => {
                self.device_is_free();
                let _ = reply.send(self.resealed(*resealed));
            }
            Arrival::Reserve => self.reserve(),
            Arrival::Seen(seen) => {
                self.seen_direct(&seen);
                self.observe(seen);
            }
            Arrival::Wrapped(kek, outcome, purpose) => self.wrapped(kek, *outcome, purpose),
        }
    }

    fn requested(&mut self, request: Request) {
        // The device works for us: no reason to send an operator away.
        if request.asks_the_device() && self.device_works_for_us() {
            return self.errands.wait(request);
        }
        // A reply that nobody waits for any more is no error.
        let _ = match request {
            Request::Activate(activation, reply) => reply.send(self.activate(&activation)).is_ok(),
            Request::AddMember(file, fingerprint, replace, reply) => {
                reply.send(self.add_member(&file, &fingerprint, replace)).is_ok()
            }
            Request::BundleAccept(file, fingerprint, reply) => self.bundle_accept(&file, fingerprint.as_deref(), reply),
            Request::BundleFor(name, reply) => reply.send(self.bundle_for(&name)).is_ok(),
            Request::Identity(name, reply) => self.member_identity(name, reply),
            Request::Members(reply) => reply.send(self.member_rows()).is_ok(),
            Request::Receipt(reply) => reply.send(self.receipt()).is_ok(),
            Request::RemoveMember(name, reply) => reply.send(self.remove_member(&name)).is_ok(),
            Request::BundleMake(file, fingerprint, reply) => reply.send(self.bundle_make(&file, &fingerprint)).is_ok(),
            Request::AskForBundle(node, reply) => self.bundle_request(node, reply),
            Request::Check(reply) => self.check_now(reply),
            Request::Configure(next, abandon, reply) => {
                let given_up = match abandon {
                    Some(proof) => self.give_up_openers(&next, proof),
                    None => self.check_openers(&next),
                };
                reply.send(given_up.map(|()| self.configure(next.rooted))).is_ok()
            }
            Request::CredentialOpen(name, reply) => reply.send(self.open_credential(&name)).is_ok(),
            Request::CredentialReplace(name, from, content, reply) => {
                reply.send(self.replace_credential(&name, from, &content)).is_ok()
            }
            Request::CredentialRemove(name, reply) => reply.send(self.remove_credential(&name)).is_ok(),
            Request::CredentialStore(name, payload, reply) => {
                reply.send(self.store_credential(&name, &payload)).is_ok()
            }
            Request::List(reply) => reply.send(Ok(self.table())).is_ok(),
            Request::Overview(reply) => reply.send(self.overview()).is_ok(),
            Request::RenewRoot(order, reply) => self.renew_root(order, reply),
            Request::Reseal(order, reply) => self.reseal(order, reply),
            Request::Restore(export, reply) => self.restore(*export, reply),
            Request::Evidence(reply) => reply.send(Ok(self.seen())).is_ok(),
            Request::Rehearsed(reply) => reply.send(self.rehearsed()).is_ok(),
            Request::Scanned(scan, reply) => reply.send(self.scanned(scan)).is_ok(),
            Request::Retire(id, to, proof, reply) => reply.send(self.retire(&id, to, proof)).is_ok(),
            Request::Rotate(reply) => self.rotate(reply),
            Request::Specimens(reply) => reply.send(Ok(self.specimens())).is_ok(),
        };
    }

    /// Whatever is due and can be done now.
    fn proceed(&mut self) {
        self.list_errands();
        while let Some(request) = self.errands.next_waiting() {
            self.requested(request);
        }
        let now = Instant::now();
        self.look_at_openers();
        self.settle(now);
        self.keep_others(now);
        self.rotate_if_due(now);
        self.pursue(now);
        self.check_if_due(now);
    }

    /// What every keeper does, also one without a daemon: nothing here makes or moves a key.
    fn settle(&mut self, now: Instant) {
        self.pay_guard(now);
        self.remove_counters(now);
        self.settle_state(now);
        self.settle_recovery_file(now);
    }

    fn settle_state(&mut self, now: Instant) {
        use self::errands::Errand;
        self.errands.want_if(Errand::State, self.books.is_state_owed);
        if !self.errands.is_due(Errand::State, now) {
            return;
        }
        match self.change(Change::of_memory(self.state().clone())) {
            Ok(()) => {
                self.errands.want_if(Errand::State, self.books.is_state_owed);
                self.pay_guard(now);
            }
            Err(error) => {
                self.errands.failed(Errand::State, now);
                trouble("write the state in both generations", &error);
            }
        }
    }

    /// What the present state asks for.
    fn list_errands(&mut self) {
        use self::errands::Errand;
        self.errands.want_if(Errand::Count, self.books.is_count_owed);
        self.errands.want_if(Errand::RecoveryFile, self.books.is_recovery_owed);
        self.errands.want_if(Errand::Keep, !self.others.is_empty());
        self.errands.want_if(Errand::Rotate, self.is_rotation_due());
        self.errands.want(Errand::Check);
    }

    /// Commits a change, and takes nothing into memory before it is safe.
    fn change(&mut self, change: Change<'_>) -> Result<(), KeeperError> {
        let exporter = Exporter { settings: self.settings, keys: &self.keys };
        let (reported, active) = (self.state().roots.reported.clone(), self.ring().active().id);
        self.books.change(change, |state| exporter.export(state))?;
        if reported != self.state().roots.reported || active != self.ring().active().id {
            self.turned = Some(Instant::now());
        }
        self.errands.want_if(errands::Errand::Count, self.books.is_count_owed);
        self.errands.hurry(errands::Errand::Count);
        self.pay_guard(Instant::now());
        Ok(())
    }

    fn settle_recovery_file(&mut self, now: Instant) {
        use self::errands::Errand;
        if !self.errands.is_due(Errand::RecoveryFile, now) {
            return;
        }
        let exporter = Exporter { settings: self.settings, keys: &self.keys };
        match self.books.settle_recovery_file(|state| exporter.export(state)) {
            Ok(()) => self.errands.done(Errand::RecoveryFile),
            Err(error) => {
                self.errands.failed(Errand::RecoveryFile, now);
                trouble("write the recovery file", &error);
            }
        }
    }

    fn export(&self, state: &State) -> Export {
        Exporter { settings: self.settings, keys: &self.keys }.export(state)
    }

    fn ring(&self) -> &crate::keyring::ring::Ring {
        self.books.ring()
    }

    fn state(&self) -> &State {
        self.books.state()
    }

    fn publish(&self) {
        let entry = self.ring().active();
        if let Some(kek) = self.keys.get(&entry.id) {
            kek.uses.limit_to(hard_limit(entry.shared));
            kek.uses.extend(entry.uses_reserved);
        }
        let destroyed = self.ring().entries().filter(|(_, state)| *state == KekState::Destroyed);
        let destroyed = destroyed.map(|(entry, _)| entry.id).collect();
        let by_id = self.keys.usable(self.ring());
        let awaits_bundle = self.state().awaits_bundle;
        self.keyring.publish(Snapshot { active: self.make_active(), awaits_bundle, by_id, destroyed });
    }
}

/// Makes the keyring's export, as it will be in a state.
struct Exporter<'k, D: Disk> {
    settings: &'k Settings<D>,
    keys: &'k Keys,
}

impl<D: Disk> Exporter<'_, D> {
    fn export(&self, state: &State) -> Export {
        let key = |id: KekId| self.keys.get(&id).map(|live| (id, live.copy_key()));
        // What has decrypted only for long is opened by the key that is in here, and its texts bring their own copies along.
        let encrypts = [Some(state.ring.active()), state.ring.pending()].into_iter().flatten();
        let copies = encrypts.filter_map(|entry| Some((entry.id, self.keys.wraps(&entry.id)?.clone())));
        Export {
            cluster: self.settings.cluster.clone(),
            written: (self.settings.now)(),
            roots: state.roots.clone(),
            ring: state.ring.clone(),
            copies: copies.collect(),
            keys: state.ring.usable().filter_map(|(entry, _)| key(entry.id)).collect(),
        }
    }
}

fn trouble(what: &'static str, error: &KeeperError) {
    emit(&Event::StateTroubled { what, error: &Chain(error).to_string(), hint: error.hint() });
}
