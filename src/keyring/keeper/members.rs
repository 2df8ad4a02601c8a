//! Members of the cluster: whom this node knows, what it gives to them, and what it takes from them. The formats and their checks
//! are in `keyring::member`.
//!
//! A KEK that was given to a member becomes active here only with that member's receipt: one node that cannot read what the others
//! write is what all of this is against.

use super::arrival::{Arrival, Imported, Opener};
use super::books::Change;
use super::errands::Holder;
use super::request::{MemberRow, Reply};
use super::{Activation, Keeper, KeyTable};
use crate::audit::{Event, emit};
use crate::keyring::bundle::{self, BundleError, Drawn};
use crate::keyring::error::KeeperError;
use crate::keyring::maker::Maker;
use crate::keyring::member::{self, DIR, Known, MemberKeys, Receipt, STANDING_VALID_SECONDS, SUFFIX, Standing};
use crate::keyring::state_file::{NodeMark, Nodes, State};
use crate::keyring::uses::hard_limit;
use crate::seal::duplicate::{Randomness, duplicate};
use crate::store::{Disk, Kind, LoadError};
use crate::types::{KekId, Key, MemberName, random};

impl<D: Disk + Clone> Keeper<'_, D> {
    pub(super) fn member_keys(&self) -> Result<MemberKeys, KeeperError> {
        let seed = self.derived.member_seed.copy();
        MemberKeys::new(&seed).map_err(KeeperError::Bundle)
    }

    /// Asks the device for its storage key; the answer is this node's identity.
    pub(super) fn member_identity(&mut self, name: MemberName, reply: Reply<Vec<u8>>) -> bool {
        let answer = reply.clone();
        let asked = self.ask_parent(move |parent| Arrival::IdentityAsked(name, answer, parent));
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    pub(super) fn identity_made(&self, name: MemberName, parent: Vec<u8>) -> Result<Vec<u8>, KeeperError> {
        let keys = self.member_keys()?;
        let file = keys.identity(&self.settings.cluster, name, parent).map_err(KeeperError::Bundle)?;
        // Before anybody carries it to another machine.
        Known::new(&file, &self.settings.cluster).map_err(KeeperError::Bundle)?;
        Ok(file)
    }

    /// The operator has compared the fingerprint. Takes the place of what was known under this name, and owes what that owed. With
    /// another TPM it may be another node, unless the operator says that it replaces the one that is known.
    pub(super) fn add_member(
        &mut self,
        file: &[u8],
        fingerprint: &str,
        replace: bool,
    ) -> Result<Vec<MemberRow>, KeeperError> {
        let mut known = Known::new(file, &self.settings.cluster).map_err(KeeperError::Bundle)?;
        bundle::check_fingerprint(file, fingerprint).map_err(KeeperError::Bundle)?;
        if known.identity.maker == self.member_keys()?.maker() {
            return Err(KeeperError::OwnIdentity);
        }
        let members = self.members()?;
        let others = members.iter().filter(|other| other.identity.name != known.identity.name);
        if let Some(same) = others.clone().find(|other| other.identity.maker == known.identity.maker) {
            return Err(KeeperError::MemberTwice(same.identity.name.to_string()));
        }
        // This node and that one count as well.
        bundle::check_sharers(u8::try_from(others.count() + 2).unwrap_or(u8::MAX)).map_err(KeeperError::Bundle)?;
        let former = members.iter().find(|former| former.identity.name == known.identity.name);
        known.given = former.and_then(|former| former.given);
        let marks = former.map(|former| NodeMark::of(&former.identity.parent));
        let gone = marks.filter(|mark| *mark != NodeMark::of(&known.identity.parent));
        if gone.is_some() && !replace {
            return Err(KeeperError::OtherTpm(known.identity.name.to_string()));
        }
        // First, or the same command would not know of it after a cut.
        self.forget_nodes(gone.as_slice())?;
        self.save_member(&known)?;
        emit(&Event::MemberAdded { node: known.identity.name.as_str(), fingerprint: &known.fingerprint() });
        self.member_rows()
    }

    /// A node that is gone for good: no member, and nobody who has to be given a KEK, be it known by a request alone.
    pub(super) fn remove_member(&mut self, label: &str) -> Result<Vec<MemberRow>, KeeperError> {
        let State { sharers, given, .. } = self.state();
        let mut nodes = sharers.with(given).named(label);
        let mut files = Vec::new();
        for name in self.member_names()? {
            match self.load_member(&name) {
                Ok(known) => {
                    let mut one = Nodes::new();
                    one.insert(NodeMark::of(&known.identity.parent), name.as_str());
                    let found = one.named(label);
                    files.extend((!found.is_empty()).then(|| member::file_name(&name)));
                    nodes.extend(found);
                }
                // One that is damaged goes as well, and it alone: which node it was is not known any more.
                Err(_) if name.as_str() == label => {
                    nodes.clear();
                    files = vec![member::file_name(&name)];
                    break;
                }
                Err(_) => {}
            }
        }
        if nodes.is_empty() && files.is_empty() {
            return Err(KeeperError::UnknownMember(label.to_owned()));
        }
        if nodes.len() > 1 {
            return Err(KeeperError::SeveralNodes(nodes.into_values().collect::<Vec<_>>().join(", ")));
        }
        let marks: Vec<NodeMark> = nodes.into_keys().collect();
        // First, or the same command would not know of it after a cut.
        self.forget_nodes(&marks)?;
        for file in files {
            self.books.folder()?.destroy(&file).map_err(KeeperError::Store)?;
        }
        emit(&Event::MemberRemoved { node: label });
        self.member_rows()
    }

    fn forget_nodes(&mut self, marks: &[NodeMark]) -> Result<(), KeeperError> {
        let mut next = self.state().clone();
        for mark in marks {
            next.sharers.remove(mark);
            next.given.remove(mark);
        }
        if next == *self.state() { Ok(()) } else { self.change(Change::of_memory(next)).map(drop) }
    }

    pub(super) fn member_rows(&self) -> Result<Vec<MemberRow>, KeeperError> {
        let row = |known: Known| MemberRow {
            name: known.identity.name.to_string(),
            fingerprint: known.fingerprint(),
            owes_receipt: self.owes_receipt(&known),
        };
        Ok(self.members()?.into_iter().map(row).collect())
    }

    /// It was given the KEK in pre-activation, and nobody has shown that it has it.
    fn owes_receipt(&self, known: &Known) -> bool {
        known.given.is_some() && known.given == self.ring().pending().map(|entry| entry.id)
    }

    /// All, by their names. One that is damaged is not left out: its node would be forgotten.
    fn members(&self) -> Result<Vec<Known>, KeeperError> {
        self.member_names()?.iter().map(|name| self.load_member(name)).collect()
    }

    fn member_names(&self) -> Result<Vec<MemberName>, KeeperError> {
        let dir = &self.books.home.root;
        let mut names: Vec<MemberName> = match dir.list(DIR, SUFFIX) {
            Ok(stems) => stems.iter().filter_map(|stem| stem.parse().ok()).collect(),
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => return Err(KeeperError::Store(error)),
        };
        names.sort();
        Ok(names)
    }

    fn load_member(&self, name: &MemberName) -> Result<Known, KeeperError> {
        let mac_key = self.books.mac_key().copy();
        let (cluster, root) = (&self.settings.cluster, self.books.root_id());
        let read = |_, bytes: &[u8]| Known::decode(bytes, cluster, &root, &mac_key);
        match self.books.home.root.load(&member::file_name(name), Kind::Member, read) {
            Ok(loaded) if loaded.value.identity.name == *name => Ok(loaded.value),
            Ok(_) => Err(KeeperError::MemberFile { name: name.to_string(), source: BundleError::Tag }),
            Err(LoadError::Content(source)) => Err(KeeperError::MemberFile { name: name.to_string(), source }),
            Err(LoadError::Store(error)) if error.is_missing() => Err(KeeperError::UnknownMember(name.to_string())),
            Err(LoadError::Store(error)) => Err(KeeperError::Store(error)),
        }
    }

    fn save_member(&mut self, known: &Known) -> Result<(), KeeperError> {
        let mac_key = self.books.mac_key().copy();
        let bytes = known.encode(&self.books.root_id(), &mac_key);
        let file = member::file_name(&known.identity.name);
        self.books.folder()?.replace_both(&file, Kind::Member, &bytes).map_err(KeeperError::Store)
    }

    /// All members again, for a folder of another root.
    pub(super) fn members_under(&self, root: &crate::types::RootId, mac_key: &Key) -> Result<Vec<Under>, KeeperError> {
        let under = |known: Known| (member::file_name(&known.identity.name), known.encode(root, mac_key));
        Ok(self.members()?.into_iter().map(under).collect())
    }

    /// Encrypts all keys to a member. It has to show that it has them before this node turns to one that is pending.
    pub(super) fn bundle_for(&mut self, name: &MemberName) -> Result<Vec<u8>, KeeperError> {
        if self.state().awaits_bundle {
            return Err(KeeperError::AwaitsBundle);
        }
        let members = self.members()?;
        let known = members.iter().find(|known| known.identity.name == *name).cloned();
        let known = known.ok_or_else(|| KeeperError::UnknownMember(name.to_string()))?;
        let parent = known.identity.check(&self.settings.cluster).map_err(KeeperError::Bundle)?;
        let active = self.ring().active();
        if !active.shared {
            bundle::check_uses(active.uses_reserved, hard_limit(true)).map_err(KeeperError::Bundle)?;
        }
        let next = self.given_to(NodeMark::of(&known.identity.parent), name.as_str())?;
        let keys = self.member_keys()?;
        let drawn = Drawn {
            transport: Key::random().map_err(KeeperError::Random)?,
            secret: Key::random().map_err(KeeperError::Random)?,
            nonce: random::array().map_err(KeeperError::Random)?,
        };
        let auth = Standing::auth_of(&known.identity.maker, &drawn).map_err(KeeperError::Bundle)?;
        let random = Randomness::fresh().map_err(KeeperError::Random)?;
        let duplicate = duplicate(&parent, &drawn.transport, &auth, &random).map_err(KeeperError::Duplicate)?;
        // First that it is given, then that it may be shared: nobody turns to it in between.
        let given = self.ring().pending().map(|entry| entry.id);
        self.save_member(&Known { given, ..known.clone() })?;
        if next != *self.state() {
            self.change(Change::of_keys(next))?;
            self.publish();
        }
        let export = self.export(self.state());
        let expires = (self.settings.now)() + STANDING_VALID_SECONDS;
        let file = Standing::seal(&known.identity, &keys, duplicate.encode(), &drawn, expires, &export);
        emit(&Event::KeysGiven { keys: export.keys.len(), node: name.as_str() });
        file.map_err(KeeperError::Bundle)
    }

    /// Asks the device to open it; the answer is taken in as that of a bundle that was asked for.
    pub(super) fn accept_from_member(&mut self, file: &[u8], reply: Reply<KeyTable>) -> bool {
        let answer = reply.clone();
        let asked = self.check_standing(file).and_then(|(standing, keys)| {
            self.ask_device(Holder::Operator, move |question, sealer| {
                let transport = sealer.import(standing.duplicate.clone(), standing.auth(), Some(question.blob()));
                let root = question.open(sealer);
                let opener = Opener::Member(standing, keys);
                Arrival::BundleImported(answer, Box::new(Imported { opener, transport, root }))
            })
        });
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    fn check_standing(&self, file: &[u8]) -> Result<(Standing, MemberKeys), KeeperError> {
        let standing = Standing::decode(file).map_err(KeeperError::Bundle)?;
        let keys = self.member_keys()?;
        self.member_of(&standing.from)?;
        let now = (self.settings.now)();
        standing.check(&self.settings.cluster, &keys.maker(), now).map_err(KeeperError::Bundle)?;
        Ok((standing, keys))
    }

    /// Who has signed.
    pub(super) fn member_of(&self, maker: &Maker) -> Result<Known, KeeperError> {
        let known = self.members()?.into_iter().find(|known| known.identity.maker == *maker);
        known.ok_or_else(|| KeeperError::Bundle(BundleError::NoMember(maker.fingerprint())))
    }

    /// That this node has the KEK in pre-activation, or else the active one.
    pub(super) fn receipt(&self) -> Result<Vec<u8>, KeeperError> {
        if self.state().awaits_bundle {
            return Err(KeeperError::AwaitsBundle);
        }
        let id = self.ring().pending().unwrap_or_else(|| self.ring().active()).id;
        let kek = self.keys.get(&id).ok_or(KeeperError::NotOpened(id))?;
        Ok(Receipt::sign(&self.settings.cluster, &id, kek.check(), &self.member_keys()?))
    }

    /// Whether these are the receipts of the KEK that is active: what they were for was done.
    pub(super) fn has_turned(&self, receipts: &[Vec<u8>]) -> bool {
        let active = self.ring().active().id;
        let is_of_active = |file: &Vec<u8>| Receipt::decode(file).is_ok_and(|receipt| receipt.kek == active);
        !receipts.is_empty() && receipts.iter().all(is_of_active)
    }

    /// Whether every member that was given this KEK has shown that it has it. None is forgotten of a KEK that was made here, or where
    /// receipts are shown: they may be of another KEK, whose rotation has crossed with this one.
    pub(super) fn check_receipts(&self, id: &KekId, activation: &Activation) -> Result<(), KeeperError> {
        let Activation { receipts, when_all_have, .. } = activation;
        let check = self.keys.get(id).ok_or(KeeperError::NotOpened(*id))?.check();
        let receipts = receipts.iter().map(|file| Receipt::decode(file).map_err(KeeperError::Bundle));
        let receipts = receipts.collect::<Result<Vec<_>, _>>()?;
        let are_all_meant = self.state().pending_is_own || *when_all_have || !receipts.is_empty();
        let has = |known: &Known| {
            let says = |receipt: &Receipt| receipt.says(&self.settings.cluster, &known.identity.maker, id, check);
            receipts.iter().any(says)
        };
        let lacking: Vec<String> = self
            .members()?
            .iter()
            .filter(|known| (are_all_meant || known.given == Some(*id)) && !has(known))
            .map(|known| known.identity.name.to_string())
            .collect();
        if lacking.is_empty() { Ok(()) } else { Err(KeeperError::NoReceipt(lacking.join(", "))) }
    }
}

/// A member's file under another root: its name and its payload.
pub(super) type Under = (String, Vec<u8>);
