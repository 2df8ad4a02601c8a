//! No reload leaves something stored without a provider that opens it, unless the operator says so; and what a start has left so is told.
//!
//! What must have an opener is a set that is computed from what is on the disk alone, whatever providers run:
//!
//! | what | where it is remembered | one of these keys must have a way |
//! |---|---|---|
//! | a KEK of the ring | its copies, as every text carries them | those that made them |
//! | the key_id | the epoch that is reported | those that it names |
//! | texts with a KEK of their own: mode "direct", and where the local KEK lacks copies | the marks | each by itself: one text may have a wrap by all of them, and the next by this one alone |
//! | texts of other nodes | a key that was seen | each by itself |
//! | texts that Nodeseal has not made | the marks, once a provider is handed them | each by itself, with `opens_foreign` |
//!
//! Where copies were made here by a key, texts of other nodes under it alone are told and keep no reload from taking effect: a table must be able to
//! leave after a migration.
//!
//! `--abandon` takes a key out of the last three rows until a provider has it again. A provider is a way to the key that it has told itself, or
//! that its table names, unless it has refused what that key had made; a likely one to the key that its name stood for in an earlier run; and
//! while nothing is known of it it may be one to any key of its kind. A reload must not take away the last way, nor one that may be the last:
//! where a way leaves, of those that are left only one counts that has opened what its key has made (`Next`). Nor does a way leave that tells
//! a key and does not open what that one makes: what it has made itself nobody else opens. What has no way before a reload is not lost by
//! it: it is told, and keeps no other change from taking effect.

mod foreign;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::books::Change;
use super::{Keeper, Proof, trouble};
use crate::audit::{Event, emit};
use crate::keyring::epoch::{Part, Reported};
use crate::keyring::error::KeeperError;
use crate::keyring::evidence::{NoProof, Subject};
use crate::keyring::marks::{Marks, ProviderKey};
use crate::keyring::ring::KekState;
use crate::keyring::rooted::Rooted;
use crate::keyring::state_file::State;
use crate::provider::set::Member;
use crate::provider::{KeyIdentity, KeyState, ProviderKind, Wrapped};
use crate::store::Disk;
use crate::types::KekId;
use crate::types::clock::UnixSeconds;

/// Why a key must have a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Copies(KekId),
    Direct,
    KeyId,
    Others,
    /// The same of a key by which copies were made here.
    OthersToo,
    /// It is handed what Nodeseal has not made.
    Foreign,
}

impl Why {
    /// What the operator does.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Foreign => REMEDY_FOREIGN,
            Self::Copies(_) | Self::Direct | Self::KeyId | Self::Others | Self::OthersToo => REMEDY,
        }
    }

    /// Behind "a key, which".
    const fn said(self) -> &'static str {
        match self {
            Self::Copies(_) => "has made copies of a local KEK",
            Self::Direct => "may have encrypted ciphertexts in mode \"direct\"",
            Self::KeyId => "the key_id names",
            Self::Others | Self::OthersToo => "may have encrypted ciphertexts of other nodes",
            Self::Foreign => "opens ciphertexts that Nodeseal has not made",
        }
    }
}

const REMEDY: &str = "restore its table with write = false; or, when the storage was migrated on all nodes and no backup that may be restored needs it, give it up: `nodeseal reload --abandon`";

const REMEDY_FOREIGN: &str = "restore its table with opens_foreign = true; or, when `nodeseal etcd scan` finds nothing that another plugin has made, give it up: `nodeseal reload --abandon`";

const FULL: &str = "as many keys of providers were seen here as nodeseald remembers, which is a server that names another key again and again: see what its key is. Until then each key that a provider has counts as needed";

/// Providers from now on, or none.
pub struct Next {
    /// The providers and their rules.
    pub rooted: Option<Arc<Rooted>>,
    /// Names of those of them that have opened what their key has made, in this run or for this change; where nobody leaves, of all.
    pub openers: HashSet<String>,
}

#[cfg(test)]
impl From<Option<Arc<Rooted>>> for Next {
    fn from(rooted: Option<Arc<Rooted>>) -> Self {
        let members = rooted.iter().flat_map(|rooted| rooted.providers.members());
        let openers = members.map(|member| member.name().to_owned()).collect();
        Self { rooted, openers }
    }
}

/// Keys of which one must have a way, and why.
struct Needed {
    any_of: Vec<ProviderKey>,
    why: Why,
}

/// A provider, as a way to a key.
struct Way<'r> {
    member: &'r Member,
    /// `None`: nothing is known.
    key: Option<KeyIdentity>,
    /// It has told so itself, or its table does.
    is_sure: bool,
}

impl Needed {
    fn has(&self, way: &Way<'_>) -> bool {
        if self.why == Why::Foreign && !way.member.opens_foreign() {
            return false;
        }
        way.key
            .as_ref()
            .is_some_and(|key| self.any_of.iter().any(|(kind, one)| (*kind, one) == (way.member.kind(), key)))
    }

    fn is_of_kind(&self, way: &Way<'_>) -> bool {
        self.any_of.iter().any(|(kind, _)| *kind == way.member.kind())
    }

    fn may_be(&self, way: &Way<'_>) -> bool {
        self.why != Why::Foreign && way.key.is_none() && self.is_of_kind(way)
    }

    /// Whether it has a way, as far as is known.
    fn is_open(&self, ways: &[Way<'_>]) -> bool {
        ways.iter().any(|way| self.has(way))
    }

    /// Whether no way is left, not even a possible one.
    fn is_shut(&self, ways: &[Way<'_>]) -> bool {
        !self.is_open(ways) && !ways.iter().any(|way| self.may_be(way))
    }

    /// Whether one leaves that has it.
    fn leaves_in(&self, before: &[Way<'_>], next: &[Way<'_>]) -> bool {
        let leaves = |way: &Way<'_>| !next.iter().any(|next| next.member.is(way.member));
        before.iter().any(|way| self.has(way) && leaves(way))
    }

    /// Whether going from the first to the second takes the last way away, or what may be that.
    fn is_lost_between(&self, before: &[Way<'_>], next: &[Way<'_>], openers: &HashSet<String>) -> bool {
        if next.iter().any(|way| way.is_sure && openers.contains(way.member.name()) && self.has(way)) {
            return false;
        }
        if self.leaves_in(before, next) {
            return true;
        }
        // Of these nobody knows which keys leave with them.
        let stays = |way: &Way<'_>| {
            let is_same = |next: &Way<'_>| {
                let (kind, key) = (way.member.kind(), way.key.as_ref());
                next.member.is(way.member)
                    || (next.is_sure && next.member.kind() == kind && key.is_some() && next.key.as_ref() == key)
            };
            next.iter().any(is_same)
        };
        let mut gone = before.iter().filter(|way| !way.is_sure && self.is_of_kind(way) && !stays(way));
        if self.is_open(next) {
            // A name that stays is that of the same provider while nothing speaks against it.
            return gone.any(|way| !next.iter().any(|next| next.member.name() == way.member.name()));
        }
        match next.iter().any(|way| self.may_be(way)) {
            true => self.is_open(before) || gone.next().is_some(),
            false => !self.is_shut(before),
        }
    }
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Whether `next` opens what the present providers do. What its own texts will need is remembered before there are any.
    pub(super) fn check_openers(&mut self, next: &Next) -> Result<(), KeeperError> {
        if let Some((lost, provider)) = self.lost_by(next).into_iter().next() {
            return Err(match lost.why {
                Why::Copies(kek) => KeeperError::LastOpener { kek },
                Why::Foreign => KeeperError::OnlyForeign { provider },
                Why::Direct | Why::KeyId | Why::Others | Why::OthersToo => {
                    let key = lost.any_of.first().map_or_else(String::new, |(_, key)| key.as_str().to_owned());
                    KeeperError::OnlyWay { provider, key }
                }
            });
        }
        self.expect_texts_of(next.rooted.as_deref());
        Ok(())
    }

    /// What `next` takes the last opener from, as far as is known, and the provider that is it.
    fn lost_by(&self, next: &Next) -> Vec<(Needed, String)> {
        let running = self.keyring.rooted();
        let (twins, before): (Vec<_>, Vec<_>) =
            self.all_ways(running.as_deref()).into_iter().partition(|way| way.member.is_twin());
        let (next_all, next_ways) = (self.all_ways(next.rooted.as_deref()), self.ways(next.rooted.as_deref()));
        let is_lost = |needed: &Needed| match needed.why {
            Why::Foreign => needed.loses_a_way(&twins, &before, &next_all, &next.openers),
            Why::OthersToo => needed.leaves_in(&twins, &next_all),
            Why::Copies(_) | Why::Direct | Why::KeyId | Why::Others => {
                let is_kept = || self.has_only_foreign_texts(needed) && needed.keeps_names(&twins, &before, &next_ways);
                let is_lost = needed.is_lost_between(&before, &next_ways, &next.openers);
                needed.leaves_in(&twins, &next_all) || (is_lost && !is_kept())
            }
        };
        let with_name = |needed: Needed| {
            let ways = || twins.iter().chain(&before).filter(|way| needed.has(way) || needed.may_be(way));
            let leaves = |way: &&Way<'_>| !next_all.iter().any(|next| next.member.is(way.member));
            let way = ways().find(leaves).or_else(|| ways().next());
            let name = way.map_or_else(String::new, |way| way.member.name().to_owned());
            (needed, name)
        };
        self.needed().into_iter().filter(is_lost).map(with_name).collect()
    }

    /// The operator does without every key that `next` can have no way to, and without those of which it takes the last opener.
    pub(super) fn give_up_openers(&mut self, next: &Next, proof: Proof) -> Result<(), KeeperError> {
        // Who has only not answered yet may have it.
        let shut = self.shut(next.rooted.as_deref());
        let lost: Vec<Needed> = self.lost_by(next).into_iter().map(|(needed, _)| needed).collect();
        let is_of_keys = |needed: &&Needed| !matches!(needed.why, Why::Copies(_) | Why::Foreign);
        let foreign: BTreeSet<&ProviderKey> = shut
            .iter()
            .chain(&lost)
            .filter(|needed| needed.why == Why::Foreign)
            .flat_map(|needed| &needed.any_of)
            .collect();
        let keys: BTreeSet<&ProviderKey> =
            shut.iter().chain(&lost).filter(is_of_keys).flat_map(|needed| &needed.any_of).collect();
        if let Proof::Scan { backups_since } = proof {
            for (kind, identity) in &foreign {
                let proved = self.prove_foreign(backups_since);
                let of_key = |why| KeeperError::NoProofOfKey { kind: *kind, key: identity.as_str().to_owned(), why };
                proved.map_err(of_key)?;
            }
            for (kind, identity) in &keys {
                self.prove_key(*kind, identity, backups_since)?;
            }
            // What it has encrypted opens by its sealed copy here, and nowhere else.
            for kek in lost.iter().filter_map(|needed| if let Why::Copies(kek) = needed.why { Some(kek) } else { None })
            {
                let proved = if self.encrypts(&kek) {
                    Err(NoProof::Writes)
                } else {
                    self.prove(Subject::Kek(&kek), backups_since)
                };
                proved.map_err(|why| KeeperError::NoProof { kek, why })?;
            }
        }
        let mut marks = self.state().marks.clone();
        for needed in shut.iter().filter(is_of_keys) {
            needed.any_of.iter().for_each(|key| marks.give_up(key.clone()));
        }
        foreign.iter().for_each(|key| marks.forget_foreign(key));
        let is_new = |key: &&ProviderKey| !self.state().marks.is_given_up(key);
        let of_copies = lost.iter().filter(|needed| matches!(needed.why, Why::Copies(_)));
        let of_copies = of_copies.flat_map(|needed| &needed.any_of);
        let told: BTreeSet<ProviderKey> =
            keys.into_iter().filter(is_new).chain(foreign).chain(of_copies).cloned().collect();
        if marks != self.state().marks {
            self.change(Change::of_memory(State { marks, ..self.state().clone() }))?;
        }
        if proof == Proof::Waived {
            for (kind, key) in &told {
                emit(&Event::ProviderKeyGivenUpWithoutScan { kind: kind.label(), key: key.as_str() });
            }
        }
        self.expect_texts_of(next.rooted.as_deref());
        Ok(())
    }

    /// Nothing stored brings a copy by it, as far as was seen, and nothing more will.
    fn prove_key(
        &self,
        kind: ProviderKind,
        identity: &KeyIdentity,
        backups_since: Option<UnixSeconds>,
    ) -> Result<(), KeeperError> {
        let running = self.keyring.rooted();
        let is_it = |way: &Way<'_>| way.member.kind() == kind && way.key.as_ref() == Some(identity);
        let writes = self.all_ways(running.as_deref()).iter().any(|way| way.member.writes() && is_it(way));
        let proved = match writes || self.is_named(kind, identity) {
            true => Err(NoProof::Writes),
            false => self.prove(Subject::Key(kind, identity), backups_since),
        };
        proved.map_err(|why| KeeperError::NoProofOfKey { kind, key: identity.as_str().to_owned(), why })
    }

    /// New texts are under it. In mode "direct" the active KEK has none, unless the providers are away.
    fn encrypts(&self, kek: &KekId) -> bool {
        let active = self.make_active();
        active.and_then(|active| active.kek().map(|active| active.id == *kek)).unwrap_or(false)
    }

    fn prove(&self, subject: Subject<'_>, backups_since: Option<UnixSeconds>) -> Result<(), NoProof> {
        self.evidence.proves(subject, self.turned(), backups_since, (self.settings.now)())
    }

    /// Takes note of what keys have done since the last look, and tells of those that nobody has any more.
    pub(super) fn look_at_openers(&mut self) {
        let running = self.keyring.rooted();
        let mut marks = self.state().marks.clone();
        for (entry, _) in self.ring().entries() {
            let copies = self.keys.wraps(&entry.id).into_iter().flat_map(|set| &set.wraps);
            copies.for_each(|Wrapped { kind, identity, .. }| marks.put_copies((*kind, identity.clone())));
        }
        for way in self.ways(running.as_deref()).into_iter().filter(|way| way.is_sure) {
            way.key.into_iter().for_each(|key| marks.take_back(&(way.member.kind(), key)));
        }
        self.save_marks(marks);
        self.expect_texts_of(running.as_deref());
        if self.state().marks.is_full() && !std::mem::replace(&mut self.marks_full_told, true) {
            emit(&Event::ProviderKeysFull { hint: FULL });
        }
        let lost = self.lost();
        self.openers_told.retain(|key| lost.contains_key(key));
        for (key, why) in &lost {
            if self.openers_told.insert(key.clone()) {
                let (kind, key) = (key.0.label(), key.1.as_str());
                emit(&Event::ProviderKeyLost { kind, key, why: why.said(), hint: why.remedy() });
            }
        }
    }

    /// A text was given out with wraps by these keys and no others.
    pub(super) fn seen_direct(&mut self, seen: &[(String, KeyState)]) {
        let Some(rooted) = self.keyring.rooted() else { return };
        let mut marks = self.state().marks.clone();
        for (name, KeyState { identity, .. }) in seen {
            let member = rooted.providers.members().iter().find(|member| member.name() == name);
            member.into_iter().for_each(|member| marks.put_direct((member.kind(), identity.clone())));
        }
        self.save_marks(marks);
    }

    /// Keys that must have a way and have none, for people.
    pub(super) fn lost_openers(&self) -> Vec<String> {
        let lost = self.lost().into_iter();
        let said = |((kind, key), why): (ProviderKey, Why)| {
            let (kind, key, why) = (kind.label(), key.as_str(), why.said());
            format!("no configured provider has the {kind} key {key}, which {why}")
        };
        lost.map(said).collect()
    }

    fn lost(&self) -> BTreeMap<ProviderKey, Why> {
        let running = self.keyring.rooted();
        let mut lost = BTreeMap::new();
        for Needed { any_of, why } in self.shut(running.as_deref()) {
            // Of a KEK there is a sealed copy here.
            if !matches!(why, Why::Copies(_)) {
                any_of.into_iter().for_each(|key| _ = lost.entry(key).or_insert(why));
            }
        }
        lost
    }

    /// What has no way among these, not even a possible one. Who tells a key that he does not have may open what Nodeseal has not made.
    fn shut(&self, rooted: Option<&Rooted>) -> Vec<Needed> {
        let (ways, all_ways) = (self.ways(rooted), self.all_ways(rooted));
        let is_shut = |needed: &Needed| needed.is_shut(if needed.why == Why::Foreign { &all_ways } else { &ways });
        self.needed().into_iter().filter(is_shut).collect()
    }

    /// In mode "direct" every key that writes may soon be the only one of a text, and whoever is handed what Nodeseal has not made is needed
    /// for that from now on.
    fn expect_texts_of(&mut self, rooted: Option<&Rooted>) {
        let Some(rooted) = rooted else { return };
        let mut marks = self.state().marks.clone();
        for way in self.all_ways(Some(rooted)) {
            let Some(key) = way.key.map(|key| (way.member.kind(), key)) else { continue };
            if way.member.opens_foreign() {
                marks.put_foreign(key.clone());
            }
            if !rooted.rules.local_kek && way.member.writes() && !way.member.is_twin() {
                marks.put_direct(key);
            }
        }
        self.save_marks(marks);
    }

    /// What cannot be written counts at once, and comes onto the disk with the next write.
    fn save_marks(&mut self, marks: Marks) {
        if marks == self.state().marks {
            return;
        }
        let next = State { marks: marks.clone(), ..self.state().clone() };
        if let Err(error) = self.change(Change::of_memory(next)) {
            self.books.remember_marks(marks);
            trouble("remember what a provider's key has done", &error);
        }
    }

    fn ways<'r>(&self, rooted: Option<&'r Rooted>) -> Vec<Way<'r>> {
        self.all_ways(rooted).into_iter().filter(|way| !way.member.is_twin()).collect()
    }

    /// Also those that tell a key and do not open what it makes.
    fn all_ways<'r>(&self, rooted: Option<&'r Rooted>) -> Vec<Way<'r>> {
        let members = rooted.into_iter().flat_map(|rooted| rooted.providers.members());
        let way = |member: &'r Member| {
            let own = member.own_identity();
            let is_sure = own.is_some();
            Way { member, key: own.or_else(|| member.identity()).or_else(|| self.key_of(member)), is_sure }
        };
        members.map(way).collect()
    }

    /// See the module.
    fn needed(&self) -> Vec<Needed> {
        let State { roots, marks, .. } = self.state();
        let counts = |key: &ProviderKey| !marks.is_given_up(key);
        let mut all = Vec::new();
        for (entry, _) in self.ring().entries().filter(|(_, state)| *state != KekState::Destroyed) {
            let copies = self.keys.wraps(&entry.id).into_iter().flat_map(|set| set.of_every_text());
            let any_of = copies.map(|copy| (copy.kind, copy.identity.clone())).collect();
            all.push(Needed { any_of, why: Why::Copies(entry.id) });
        }
        let alone = |key: &ProviderKey, why| Needed { any_of: vec![key.clone()], why };
        all.extend(marks.foreign().map(|key| alone(key, Why::Foreign)));
        all.extend(marks.direct().filter(|key| counts(key)).map(|key| alone(key, Why::Direct)));
        if marks.is_full() {
            let running = self.keyring.rooted();
            let ways = self.all_ways(running.as_deref()).into_iter();
            let keys = ways.filter_map(|way| Some((way.member, (way.member.kind(), way.key?))));
            for (member, key) in keys.filter(|(_, key)| !marks.knows(key)) {
                all.extend(member.opens_foreign().then(|| alone(&key, Why::Foreign)));
                all.extend((!member.is_twin()).then(|| alone(&key, Why::Direct)));
            }
        }
        if let Reported::Epoch(epoch) = &roots.reported {
            let keys = epoch.parts.iter().map(|Part { kind, identity, .. }| (*kind, identity.clone()));
            all.push(Needed { any_of: keys.filter(counts).collect(), why: Why::KeyId });
        }
        let seen = roots.records.iter().map(|record| (record.kind, record.identity().clone()));
        let others: BTreeSet<ProviderKey> = seen.chain(marks.copies().cloned()).filter(counts).collect();
        let why = |key: &ProviderKey| if marks.has_copies(key) { Why::OthersToo } else { Why::Others };
        all.extend(others.iter().map(|key| alone(key, why(key))));
        all.retain(|needed| !needed.any_of.is_empty());
        all
    }
}
