//! The daily look, and the one that an operator asks for: the device opens the root and the result is thrown away, both
//! generations of every file are read, and the counter. While all is well nothing is written.
//!
//! It goes by what is in memory, not by what lies there: a file that is gone in both generations, or that says something else, is
//! written anew from memory. What neither memory nor the disk has is named, and then all is not well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::arrival::{Arrival, Checked};
use super::books::Change;
use super::errands::{Errand, Holder, Slot};
use super::request::{CheckReport, Reply};
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::files::CURRENT;
use crate::keyring::files::{self, FILES, Generations, Place, STATE};
use crate::keyring::kek_file::{self, KekLabel};
use crate::keyring::kek_store::save_kek;
use crate::keyring::member::Known;
use crate::keyring::state_file::State;
use crate::keyring::wraps_file::{self, WrapSet};
use crate::keyring::{guard, recovery};
use crate::seal::client::SealerError;
use crate::seal::root::{NodeRoot, SealedRoot};
use crate::store::{Disk, Examined, Kind, LoadError, Pair, Repaired, StateDir};
use crate::types::clock::UnixSeconds;
use crate::types::{Chain, Explained, KekId, Key};

const LACKING: &str =
    "restore its file in keyring/ from a backup, or retire the KEK if nothing is encrypted under it any more";
const LOOK: &str = "check the files of the state directory";

/// Between two looks that nobody has asked for.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// What the last look has found.
#[derive(Default)]
pub(super) struct Check {
    last: Option<CheckReport>,
}

impl Check {
    pub(super) fn last(&self) -> Option<&CheckReport> {
        self.last.as_ref()
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Once a day. The start itself was a look.
    pub(super) fn check_if_due(&mut self, now: Instant) {
        if self.check.last.is_none() && self.started.elapsed() < EVERY {
            return;
        }
        if !self.errands.is_due(Errand::Check, now) || !self.errands.is_free(Slot::Device) {
            return;
        }
        match self.begin_check(Holder::Errand(Errand::Check), None) {
            Ok(()) => {}
            // There is nothing that the device could be asked with.
            Err(error @ KeeperError::Root(_)) => _ = self.look(Err(error), Ok(())),
            Err(error) => {
                self.errands.failed(Errand::Check, now);
                trouble("check device and files", &error);
            }
        }
    }

    /// The operator has asked.
    pub(super) fn check_now(&mut self, reply: Reply<CheckReport>) -> bool {
        match self.begin_check(Holder::Operator, Some(reply.clone())) {
            Ok(()) => true,
            Err(error @ KeeperError::Root(_)) => {
                let report = self.look(Err(error), Ok(()));
                reply.send(Ok(report)).is_ok()
            }
            Err(error) => reply.send(Err(error)).is_ok(),
        }
    }

    fn begin_check(&mut self, holder: Holder, reply: Option<Reply<CheckReport>>) -> Result<(), KeeperError> {
        let guard = self.state().guard;
        let (auth, pin) = (Arc::clone(&self.derived.counter_auth), self.derived.pin.clone());
        self.ask_device(holder, move |question, sealer| {
            let root = question.open(sealer);
            let counter = guard.map(|guard| guard::value(sealer, guard.index, &auth.copy(), &pin));
            Arrival::Checked(Box::new(Checked { root, counter, reply }))
        })
    }

    /// The device has answered.
    pub(super) fn checked(&mut self, Checked { root, counter, reply }: Checked) {
        self.device_is_free();
        let opened = root.map_err(KeeperError::Root).and_then(|root| self.check_root(&root).map(|()| root));
        let counted = self.check_counter(counter);
        let report = self.look(opened, counted);
        if let Some(reply) = reply {
            let _ = reply.send(Ok(report));
        }
    }

    /// The look itself. `opened` is the root, if it is the one in use.
    fn look(&mut self, opened: Result<NodeRoot, KeeperError>, counted: Result<(), KeeperError>) -> CheckReport {
        let mut report = CheckReport { opens: true, at: self.now(), ..CheckReport::default() };
        // Files that are well are of no use where another root may count.
        let counts = self.books.folder().map(drop);
        self.look_at_files(opened.as_ref().ok(), &mut report);
        if let Err(error) = opened.map(drop).and(counted).and(counts) {
            would_not_open(&error, &mut report);
        }
        self.errands.rest(Errand::Check, Instant::now(), EVERY);
        self.check.last = Some(report.clone());
        report
    }

    fn check_counter(&self, counter: Option<Result<u64, SealerError>>) -> Result<(), KeeperError> {
        let (Some(guard), Some(value)) = (self.state().guard, counter) else { return Ok(()) };
        let value = value.map_err(KeeperError::Device)?;
        // One change may still have to be counted.
        if value == guard.expected || (self.books.is_count_owed && value + 1 == guard.expected) {
            return Ok(());
        }
        Err(KeeperError::CounterBehind { value, expected: guard.expected })
    }

    /// Reads every file in both generations, and writes anew what is lost: from memory what is in memory, and the rest from the
    /// generation that is whole. `root` is the one in use, where the device has just opened it.
    pub(super) fn look_at_files(&mut self, root: Option<&NodeRoot>, report: &mut CheckReport) {
        note(CURRENT, self.books.home.repair().map_err(KeeperError::Store), report);
        let state = self.rewrite_state();
        note(STATE, state, report);
        self.look_at_keks(root, report);
        self.look_at_copies(report);
        for row in FILES.iter().filter(|row| row.is_checked) {
            // Those above are in memory, and the recovery file is below.
            let Some(kind @ (Kind::HostSecret | Kind::NodeRoot | Kind::Credential | Kind::Member)) = row.kind else {
                continue;
            };
            let pair = match row.generations {
                // Without the device nobody knows which of two that differ is the right one.
                Generations::Both if root.is_some() => Pair::Alike,
                Generations::Both | Generations::Alternate => Pair::Successive,
                Generations::One => continue,
            };
            let dir = self.dir_of(row.place);
            match files::matching(dir, row) {
                Ok(names) => {
                    for name in names {
                        note(&name, self.repair(dir, &name, kind, pair), report);
                    }
                }
                Err(error) => note(row.name, Err(KeeperError::Store(error)), report),
            }
        }
        match self.books.holds_recovery_file() {
            Ok(true) => {}
            Ok(false) => self.books.is_recovery_owed |= !self.state().recipients.is_empty(),
            Err(error) => note(recovery::FILE, Err(error), report),
        }
        if let Err(error) = self.books.keep_spare() {
            trouble("reserve space for a full disk", &error);
        }
    }

    /// Every KEK of the ring that can decrypt.
    fn look_at_keks(&self, root: Option<&NodeRoot>, report: &mut CheckReport) {
        let wrapping_key = root.map(|root| root.kek_wrapping_key(&self.settings.cluster));
        for (entry, _) in self.ring().usable().filter(|(entry, _)| !self.state().is_placeholder(&entry.id)) {
            let label = KekLabel { id: entry.id, created: entry.created };
            let key = self.keys.get(&entry.id).map(|kek| kek.copy_key());
            let looked = match &key {
                Some(key) => self.look_at_kek(root, wrapping_key.as_ref(), &label, key),
                None => self.look_for_kek(wrapping_key.as_ref(), &entry.id),
            };
            if looked.is_err() && key.is_none() {
                report.lacking.push(entry.id.to_string());
                report.hint.get_or_insert_with(|| LACKING.to_owned());
            }
            if let (Err(error), true) = (&looked, key.is_some() && entry.id == self.ring().active().id) {
                would_not_open(error, report);
            }
            note(&kek_file::file_name(&entry.id), looked, report);
        }
    }

    /// One that is in memory.
    fn look_at_kek(
        &self,
        root: Option<&NodeRoot>,
        wrapping_key: Option<&Key>,
        label: &KekLabel,
        key: &Key,
    ) -> Result<bool, KeeperError> {
        let (dir, name) = (&self.books.home.root, kek_file::file_name(&label.id));
        let accept = |_: u8, bytes: &[u8]| self.accept_kek(bytes, wrapping_key, &label.id, Some(key));
        let pair = if wrapping_key.is_some() { Pair::Alike } else { Pair::Successive };
        match (dir.repair(&name, Kind::LocalKek, pair, accept), root) {
            (Ok(repaired), _) => Ok(repaired != Repaired::Nothing),
            (Err(error), Some(root)) if error.is_lost() => {
                dir.make_dir(kek_file::DIR).map_err(KeeperError::Store)?;
                save_kek(dir, &self.settings.cluster, root, label, key).map(|()| true)
            }
            (Err(LoadError::Store(source)), _) => Err(KeeperError::KekMissing { kek: label.id, source }),
            (Err(LoadError::Content(())), _) => Err(KeeperError::Store(dir.damaged(&name))),
        }
    }

    /// One that did not open when the service started: its file may be back.
    fn look_for_kek(&self, wrapping_key: Option<&Key>, id: &KekId) -> Result<bool, KeeperError> {
        // Without the root a file that is whole says nothing.
        let Some(wrapping_key) = wrapping_key else { return Err(KeeperError::NotOpened(*id)) };
        let (dir, name) = (&self.books.home.root, kek_file::file_name(id));
        let accept = |_: u8, bytes: &[u8]| self.accept_kek(bytes, Some(wrapping_key), id, None);
        match dir.repair(&name, Kind::LocalKek, Pair::Alike, accept) {
            Ok(repaired) => Ok(repaired != Repaired::Nothing),
            Err(LoadError::Store(source)) => Err(KeeperError::KekMissing { kek: *id, source }),
            Err(LoadError::Content(())) => Err(KeeperError::NotOpened(*id)),
        }
    }

    fn accept_kek(&self, bytes: &[u8], wrapping_key: Option<&Key>, id: &KekId, key: Option<&Key>) -> Result<(), ()> {
        let Some(wrapping_key) = wrapping_key else { return Ok(()) };
        let opened = kek_file::open(bytes, &self.settings.cluster, &self.books.root_id(), wrapping_key);
        let (label, theirs) = opened.map_err(drop)?;
        let is_same = key.is_none_or(|key| key.expose().ct_eq(theirs.expose()).into());
        (label.id == *id && is_same).then_some(()).ok_or(())
    }

    /// What providers have made. Without a set in memory any that is whole is fine.
    fn look_at_copies(&self, report: &mut CheckReport) {
        for (entry, _) in self.ring().usable() {
            let name = wraps_file::file_name(&entry.id);
            let looked = match self.keys.wraps(&entry.id) {
                Some(set) => self.look_at_set(&entry.id, &name, set),
                None => match self.books.home.root.exists(&name) {
                    Ok(true) => self.repair(&self.books.home.root, &name, Kind::Wraps, Pair::Alike),
                    Ok(false) => Ok(false),
                    Err(error) => Err(KeeperError::Store(error)),
                },
            };
            note(&name, looked, report);
        }
    }

    fn look_at_set(&self, id: &KekId, name: &str, set: &WrapSet) -> Result<bool, KeeperError> {
        let dir = &self.books.home.root;
        let mac_key = self.books.mac_key().copy();
        let bytes = set.encode(id, &self.settings.cluster, &self.books.root_id(), &mac_key);
        let accept = |_: u8, found: &[u8]| (found == bytes).then_some(()).ok_or(());
        match dir.repair(name, Kind::Wraps, Pair::Alike, accept) {
            Ok(repaired) => Ok(repaired != Repaired::Nothing),
            Err(error) if error.is_lost() => {
                dir.make_dir(kek_file::DIR).map_err(KeeperError::Store)?;
                dir.replace_both(name, Kind::Wraps, &bytes).map(|()| true).map_err(KeeperError::Store)
            }
            Err(LoadError::Store(error)) => Err(KeeperError::Store(error)),
            Err(LoadError::Content(())) => Err(KeeperError::Store(dir.damaged(name))),
        }
    }

    fn dir_of(&self, place: Place) -> &StateDir<D> {
        match place {
            Place::Root => &self.books.home.root,
            Place::Top => &self.books.home.top,
        }
    }

    /// Whether a generation was lost, or the newest is not what is in memory, and both were written. Never the other way round: what
    /// is in memory is newer than what the disk has left.
    fn rewrite_state(&mut self) -> Result<bool, KeeperError> {
        let (cluster, root) = (&self.settings.cluster, self.books.root_id());
        let mac_key = self.books.mac_key().copy();
        let read = |version: u8, bytes: &[u8]| State::decode(version, bytes, cluster, &root, &mac_key).map_err(drop);
        let Examined { newest, previous } = self.books.home.root.examine(STATE, Kind::State, read);
        let mut is_lost = newest.as_ref().is_ok_and(|newest| newest.generation != self.state().generation);
        for read in [newest, previous] {
            match read {
                Ok(_) => {}
                Err(error) if error.is_lost() => is_lost = true,
                Err(LoadError::Store(error)) => return Err(KeeperError::Store(error)),
                Err(LoadError::Content(())) => is_lost = true,
            }
        }
        if is_lost {
            self.change(Change::of_memory(self.state().clone()))?;
        }
        Ok(is_lost)
    }

    /// Whether something was written. What its own reader refuses is damaged as well.
    fn repair(&self, dir: &StateDir<D>, name: &str, kind: Kind, pair: Pair) -> Result<bool, KeeperError> {
        let accept = |_: u8, bytes: &[u8]| self.accepts(name, kind, bytes).then_some(()).ok_or(());
        match dir.repair(name, kind, pair, accept) {
            Ok(Repaired::Nothing) => Ok(false),
            Ok(Repaired::Anew(_)) => Ok(true),
            Err(LoadError::Store(error)) => Err(KeeperError::Store(error)),
            Err(LoadError::Content(())) => Err(KeeperError::Store(dir.damaged(name))),
        }
    }

    fn accepts(&self, name: &str, kind: Kind, bytes: &[u8]) -> bool {
        let (cluster, root) = (&self.settings.cluster, self.books.root_id());
        let mac_key = self.books.mac_key().copy();
        match kind {
            Kind::HostSecret => bytes.len() == Key::LEN,
            Kind::NodeRoot => SealedRoot::decode(bytes).is_ok_and(|sealed| sealed.id == root),
            Kind::Member => Known::decode(bytes, cluster, &root, &mac_key).is_ok(),
            Kind::Wraps => {
                let id = name.trim_start_matches(kek_file::DIR).trim_start_matches('/');
                let id = id.strip_suffix(wraps_file::SUFFIX).and_then(|id| id.parse().ok());
                id.is_some_and(|id| WrapSet::decode(bytes, &id, cluster, &root, &mac_key).is_ok())
            }
            // Its digest tells damage; what seals it is with the device.
            Kind::Credential => true,
            // These are compared with what is in memory, or are not looked at.
            Kind::BundleRequest
            | Kind::Current
            | Kind::Evidence
            | Kind::InitMarker
            | Kind::LocalKek
            | Kind::Recovery
            | Kind::State => false,
        }
    }

    fn now(&self) -> UnixSeconds {
        (self.settings.now)()
    }
}

/// What became of one file.
fn note(name: &str, looked: Result<bool, KeeperError>, report: &mut CheckReport) {
    match looked {
        Ok(false) => {}
        Ok(true) => {
            emit(&Event::StateRepaired { file: name });
            report.repaired.push(name.to_owned());
        }
        Err(error) => {
            trouble(LOOK, &error);
            report.damaged.push(name.to_owned());
        }
    }
}

/// The next start would be refused.
fn would_not_open(error: &KeeperError, report: &mut CheckReport) {
    let said = Chain(error).to_string();
    emit(&Event::SealWouldNotOpen { class: error.class(), error: &said, hint: error.hint() });
    report.opens = false;
    report.error = Some(said);
    report.hint = Some(error.hint().to_owned());
}
