//! Another node root for a node in use: new device secret, new host secret, new authorisation values. No KEK and no key_id changes,
//! and no call of kube-apiserver notices.
//!
//! The new root is made by the device, written into a folder of its own and opened from there by the device, as every start does it.
//! Then everything that lies under the old root is sealed under the new one and read back. One write turns `current`: before it
//! the old root is whole, and after it the new one. The old folder is removed last; what a stop leaves of it, the next start removes.

use std::sync::Arc;

use super::arrival::{Arrival, RootMade, RootProved};
use super::books::Sealing;
use super::errands::Holder;
use super::request::{RenewOrder, Renewed, Reply};
use super::{Derived, Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::bundle::REQUEST_FILE;
use crate::keyring::error::KeeperError;
use crate::keyring::files::STATE;
use crate::keyring::guard::{self, Stranger};
use crate::keyring::kek_file::KekLabel;
use crate::keyring::kek_store::{load_kek, save_kek};
use crate::keyring::maker::MakerKey;
use crate::keyring::recovery;
use crate::keyring::state_file::{Guard, SealMark, State};
use crate::keyring::wraps_file::{self, WrapSet};
use crate::sandbox::memory::LockedKey;
use crate::seal::credentials::{self, CredentialKey};
use crate::seal::root::{FreshRoot, NodeRoot, Question, RootError};
use crate::store::{Disk, Kind, LoadError, StateDir};
use crate::types::{RootId, Secret};

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device; [`Keeper::root_made`] goes on.
    pub(super) fn renew_root(&mut self, order: RenewOrder, reply: Reply<Renewed>) -> bool {
        match self.begin_renewal(order, &reply) {
            Ok(None) => true,
            Ok(Some(would)) => reply.send(Ok(would)).is_ok(),
            Err(error) => reply.send(Err(error)).is_ok(),
        }
    }

    fn begin_renewal(&mut self, order: RenewOrder, reply: &Reply<Renewed>) -> Result<Option<Renewed>, KeeperError> {
        self.check_all_open()?;
        if self.state().recipients.is_empty() && !order.without_recovery_file {
            return Err(KeeperError::NoRecoveryFile);
        }
        let names = credentials::list(&self.books.home.root).map_err(KeeperError::Store)?;
        if order.dry_run {
            let (keks, credentials) = (self.keys.count(), names.len());
            return Ok(Some(Renewed { old: self.books.root_id(), new: None, keks, credentials }));
        }
        let cluster = self.settings.cluster.clone();
        let former = self.state().guard.map(|guard| guard.index);
        let (reply, pin) = (reply.clone(), self.derived.pin.clone());
        self.on_device(Holder::Operator, move |sealer| {
            let made = FreshRoot::make(sealer, order.to, Some(&pin)).map_err(KeeperError::Root).and_then(|fresh| {
                let auth = fresh.root.counter_auth(&cluster);
                // The old counter goes on guarding the old root until that is left.
                let index =
                    order.guard.map(|index| if former == Some(index) { guard::other_index(index) } else { index });
                // One that an interrupted renewal has left there is of a root that is gone.
                let make = |index| guard::make(sealer, index, &auth, Stranger::Replaced, &fresh.root.sealed().blob);
                let guard = index.map(make).transpose()?;
                Ok((fresh, guard))
            });
            Arrival::RootMade(Box::new(RootMade { reply, made }))
        })?;
        Ok(None)
    }

    /// Nothing is left behind: what does not open here cannot be sealed under another root.
    fn check_all_open(&self) -> Result<(), KeeperError> {
        let lacking = self
            .ring()
            .usable()
            .find(|(entry, _)| !self.keys.has(&entry.id) && !self.state().is_placeholder(&entry.id));
        match lacking {
            Some((entry, _)) => Err(KeeperError::NotOpened(entry.id)),
            None => Ok(()),
        }
    }

    /// The device has sealed another root: it goes into a folder of its own, and the device opens it from there.
    pub(super) fn root_made(&mut self, RootMade { reply, made }: RootMade) {
        self.device_is_free();
        let asked = made.and_then(|(fresh, guard)| {
            let id = fresh.root.id();
            let dir = self.books.home.make_folder(&id).map_err(KeeperError::Store)?;
            fresh.save(&dir).map_err(KeeperError::Root)?;
            let question = Question::load(&dir).map_err(KeeperError::Root)?;
            let reply = reply.clone();
            self.on_device(Holder::Operator, move |sealer| {
                let root = question.open(sealer);
                Arrival::RootProved(Box::new(RootProved { reply, guard, root }))
            })
        });
        if let Err(error) = asked {
            self.give_up_renewal();
            let _ = reply.send(Err(error));
        }
    }

    /// The device has opened it.
    pub(super) fn root_proved(&mut self, proved: RootProved) {
        self.device_is_free();
        let RootProved { reply, guard, root } = proved;
        let renewed = root.map_err(KeeperError::Root).and_then(|root| self.move_under(&root, guard));
        if renewed.is_err() {
            self.give_up_renewal();
        }
        let _ = reply.send(renewed);
    }

    /// What is half made is removed now, or by the next start.
    fn give_up_renewal(&mut self) {
        if let Err(error) = self.books.home.tidy().map_err(KeeperError::Store) {
            trouble("remove a node root that was not finished", &error);
        }
    }

    fn move_under(&mut self, root: &NodeRoot, guard: Option<Guard>) -> Result<Renewed, KeeperError> {
        self.check_all_open()?;
        let cluster = &self.settings.cluster;
        let old = self.books.root_id();
        let dir = self.books.home.make_folder(&root.id()).map_err(KeeperError::Store)?;
        let keks = self.seal_keks(&dir, root)?;
        let credentials = self.seal_credentials(&dir, root)?;
        let mut next = State {
            generation: self.state().generation + 1,
            written: (self.settings.now)(),
            seal: Some(SealMark::of(root.sealed())),
            next_seal: None,
            ..self.state().guarded_by(guard)
        };
        // Signed by the new root from the moment on at which that counts.
        let file = self.recovery_file_under(&mut next, root)?;
        self.take_request_along(&dir)?;
        let mac_key = root.state_mac_key(cluster);
        for (file, payload) in self.members_under(&root.id(), &mac_key)? {
            dir.replace_both(&file, Kind::Member, &payload).map_err(KeeperError::Store)?;
        }
        super::evidence::save(&dir, &self.evidence, cluster, &root.id(), &mac_key)?;
        let bytes = next.encode(cluster, &root.id(), &mac_key);
        dir.replace_both(STATE, Kind::State, &bytes).map_err(KeeperError::Store)?;
        let read = |version, bytes: &[u8]| State::decode(version, bytes, cluster, &root.id(), &mac_key);
        let back = dir.load(STATE, Kind::State, read).map_err(|error| match error {
            LoadError::Content(source) => KeeperError::State(source),
            LoadError::Store(source) => KeeperError::Store(source),
        })?;
        if back.value != next {
            return Err(KeeperError::Root(RootError::Verify));
        }
        let locked = |key| LockedKey::new(key).map_err(KeeperError::Memory);
        let derived = Derived {
            counter_auth: Arc::new(locked(root.counter_auth(cluster))?),
            credential_key: locked(root.credential_key(cluster))?,
            member_seed: locked(root.member_seed(cluster))?,
            pin: root.sealed().blob.clone(),
        };
        let sealing = Sealing::of(root, cluster)?;
        self.books.home.turn(&root.id(), false).map_err(KeeperError::Store)?;
        self.books.move_to(sealing, next);
        self.derived = derived;
        self.publish();
        emit(&Event::RootRenewed { old: &old, new: &root.id() });
        // The old root is left: nothing of it is needed any more. Its counter is on record, and removed as soon as the device has time.
        self.give_up_renewal();
        if let Some(file) = file
            && let Err(error) = self.books.write_recovery_file(&file)
        {
            // Owed, and tried again.
            trouble("write the recovery file", &error);
        }
        self.list_errands();
        self.settle_recovery_file(std::time::Instant::now());
        Ok(Renewed { old, new: Some(root.id()), keks, credentials })
    }

    /// A bundle that is on its way answers it.
    fn take_request_along(&self, dir: &StateDir<D>) -> Result<(), KeeperError> {
        let read = |_, bytes: &[u8]| Ok::<_, std::convert::Infallible>(Secret::new(bytes.to_vec()));
        match self.books.home.root.load(REQUEST_FILE, Kind::BundleRequest, read) {
            Ok(request) => {
                dir.replace_both(REQUEST_FILE, Kind::BundleRequest, request.value.expose()).map_err(KeeperError::Store)
            }
            Err(LoadError::Store(error)) if error.is_missing() => Ok(()),
            Err(LoadError::Store(error)) => Err(KeeperError::Store(error)),
            Err(LoadError::Content(never)) => match never {},
        }
    }

    /// What the state under the new root speaks of.
    fn recovery_file_under(&self, next: &mut State, root: &NodeRoot) -> Result<Option<Vec<u8>>, KeeperError> {
        if next.recipients.is_empty() || next.awaits_bundle {
            return Ok(None);
        }
        let maker = MakerKey::of(root, &self.settings.cluster);
        let file = recovery::encrypt(&next.recipients, &self.export(next), &maker).map_err(KeeperError::Recovery)?;
        next.recovery = Some(super::digest(&file));
        Ok(Some(file))
    }

    fn seal_keks(&self, dir: &StateDir<D>, root: &NodeRoot) -> Result<usize, KeeperError> {
        let cluster = &self.settings.cluster;
        let mac_key = root.state_mac_key(cluster);
        let mut count = 0;
        for (entry, _) in self.ring().usable().filter(|(entry, _)| !self.state().is_placeholder(&entry.id)) {
            let id = entry.id;
            let key = self.keys.get(&id).map(|kek| kek.copy_key()).ok_or(KeeperError::NotOpened(id))?;
            save_kek(dir, cluster, root, &KekLabel { id, created: entry.created }, &key)?;
            let (_, back) = load_kek(dir, cluster, &root.id(), &root.kek_wrapping_key(cluster), &id)?;
            if back.expose() != key.expose() {
                return Err(KeeperError::Root(RootError::Verify));
            }
            if let Some(set) = self.keys.wraps(&id) {
                save_wraps(dir, set, &id, cluster, &root.id(), &mac_key)?;
            }
            count += 1;
        }
        Ok(count)
    }

    fn seal_credentials(&self, dir: &StateDir<D>, root: &NodeRoot) -> Result<usize, KeeperError> {
        let (cluster, from) = (&self.settings.cluster, &self.books.home.root);
        let (old, new) = (self.key_of_credentials()?, CredentialKey::of(root, cluster));
        let labels = credentials::list(from).map_err(KeeperError::Store)?;
        let fail = KeeperError::Credentials;
        for label in &labels {
            let (content, nonce) = old.open_marked(from, &label.name, cluster).map_err(fail)?;
            let payload = new.carry_over(&content, label, cluster, nonce).map_err(fail)?;
            new.store(dir, &payload, &label.name, cluster).map_err(fail)?;
        }
        Ok(labels.len())
    }
}

fn save_wraps<D: Disk>(
    dir: &StateDir<D>,
    set: &WrapSet,
    id: &crate::types::KekId,
    cluster: &crate::types::ClusterId,
    root: &RootId,
    mac_key: &crate::types::Key,
) -> Result<(), KeeperError> {
    let bytes = set.encode(id, cluster, root, mac_key);
    dir.replace_both(&wraps_file::file_name(id), Kind::Wraps, &bytes).map_err(KeeperError::Store)
}
