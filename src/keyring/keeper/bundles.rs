//! Giving the keyring to another node, and taking it from one. The formats and their checks are in `keyring::bundle`.
//!
//! A node that gives marks all its KEKs as shared before the bundle leaves: from then on each node counts its own encryptions
//! against its part of the limit, and none replaces the active KEK on its own. A node that takes gives up none of its own.

use super::arrival::{Arrival, Imported, Opener};
use super::books::{Change, NewKek};
use super::errands::Holder;
use super::request::Reply;
use super::{Keeper, KeyTable, trouble};
use crate::audit::{Event, emit};
use crate::keyring::bundle::{
    self, Bundle, BundleError, BundleRequest, Drawn, OpenRequest, REQUEST_FILE, VALID_SECONDS,
};
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::kek_file::KekLabel;
use crate::keyring::member::{Known, Standing};
use crate::keyring::state_file::{NodeMark, Nodes, State};
use crate::keyring::uses::hard_limit;
use crate::seal::agree;
use crate::seal::client::SealerError;
use crate::seal::duplicate::{ParentPublic, Randomness, duplicate};
use crate::store::{Disk, Kind, LoadError};
use crate::types::{KekId, Key, random};

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device for its storage key; [`Keeper::bundle_requested`] goes on.
    pub(super) fn bundle_request(&mut self, node: String, reply: Reply<Vec<u8>>) -> bool {
        let answer = reply.clone();
        let asked = self.ask_parent(move |parent| Arrival::BundleRequested(node, answer, parent));
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    /// Stores the request, in place of an older one, and gives the file.
    pub(super) fn bundle_requested(
        &mut self,
        node: String,
        parent: Result<Vec<u8>, SealerError>,
    ) -> Result<Vec<u8>, KeeperError> {
        let parent = parent.map_err(KeeperError::Device)?;
        // Before anybody carries it to another machine.
        ParentPublic::parse(&parent).map_err(KeeperError::Parent)?;
        let secret = Key::random().map_err(KeeperError::Random)?;
        let request = BundleRequest {
            cluster: self.settings.cluster.clone(),
            nonce: random::array().map_err(KeeperError::Random)?,
            expires: (self.settings.now)() + VALID_SECONDS,
            node,
            half: agree::public_half(&secret).map_err(KeeperError::Duplicate)?,
            parent,
        };
        let file = request.encode();
        // Both generations: the secret half of an older request must not stay.
        let kept = OpenRequest::encode(&file, &secret);
        self.books
            .folder()?
            .replace_both(REQUEST_FILE, Kind::BundleRequest, kept.expose())
            .map_err(KeeperError::Store)?;
        Ok(file)
    }

    /// Encrypts all keys to the TPM of the request.
    pub(super) fn bundle_make(&mut self, file: &[u8], fingerprint: &str) -> Result<Vec<u8>, KeeperError> {
        let request = BundleRequest::decode(file).map_err(KeeperError::Bundle)?;
        bundle::check_fingerprint(file, fingerprint).map_err(KeeperError::Bundle)?;
        request.check(&self.settings.cluster, (self.settings.now)()).map_err(KeeperError::Bundle)?;
        if self.state().awaits_bundle {
            return Err(KeeperError::AwaitsBundle);
        }
        let active = self.ring().active();
        if !active.shared {
            bundle::check_uses(active.uses_reserved, hard_limit(true)).map_err(KeeperError::Bundle)?;
        }
        let next = self.given_to(NodeMark::of(&request.parent), &request.node)?;
        let parent = ParentPublic::parse(&request.parent).map_err(KeeperError::Parent)?;
        let digest = bundle::digest(file);
        let drawn = Drawn {
            transport: Key::random().map_err(KeeperError::Random)?,
            secret: Key::random().map_err(KeeperError::Random)?,
            nonce: random::array().map_err(KeeperError::Random)?,
        };
        let random = Randomness::fresh().map_err(KeeperError::Random)?;
        let duplicate =
            duplicate(&parent, &drawn.transport, &bundle::auth(&digest), &random).map_err(KeeperError::Duplicate)?;
        self.change(Change::of_keys(next))?;
        self.publish();
        let export = self.export(self.state());
        let bundle = Bundle::seal(&request, digest, duplicate.encode(), &drawn, &export);
        emit(&Event::KeysGiven { keys: export.keys.len(), node: &request.node });
        bundle.map(|bundle| bundle.encode()).map_err(KeeperError::Bundle)
    }

    /// The state in which this node has all keys of this one.
    pub(super) fn given_to(&self, mark: NodeMark, name: &str) -> Result<State, KeeperError> {
        let mut next = State { ring: self.ring().all_shared(), ..self.state().clone() };
        match next.ring.pending().is_some() && next.pending_is_own {
            true => next.sharers.insert_partner(mark, name),
            false => next.sharers.insert(mark, name),
        }
        if next.ring.pending().is_some() {
            next.given.insert(mark, name);
        }
        // This node counts as well.
        let nodes = u8::try_from(next.sharers.with(&next.given).len() + 1).unwrap_or(u8::MAX);
        bundle::check_sharers(nodes).map_err(KeeperError::Bundle)?;
        Ok(next)
    }

    /// Asks the device to open it; [`Keeper::bundle_imported`] goes on.
    pub(super) fn bundle_accept(&mut self, file: &[u8], fingerprint: Option<&str>, reply: Reply<KeyTable>) -> bool {
        if Standing::is_one(file) {
            return self.accept_from_member(file, reply);
        }
        let answer = reply.clone();
        let asked = self.check_bundle(file, fingerprint).and_then(|(bundle, request)| {
            self.ask_device(Holder::Operator, move |question, sealer| {
                let auth = bundle::auth(&bundle.request);
                let transport = sealer.import(bundle.duplicate.clone(), auth, Some(question.blob()));
                let root = question.open(sealer);
                let opener = Opener::Request(bundle, request);
                Arrival::BundleImported(answer, Box::new(Imported { opener, transport, root }))
            })
        });
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    fn check_bundle(&self, file: &[u8], fingerprint: Option<&str>) -> Result<(Bundle, OpenRequest), KeeperError> {
        let bundle = Bundle::decode(file).map_err(KeeperError::Bundle)?;
        let fingerprint = fingerprint.ok_or(KeeperError::Bundle(BundleError::NoFingerprint))?;
        bundle::check_fingerprint(file, fingerprint).map_err(KeeperError::Bundle)?;
        let read = |_, bytes: &[u8]| OpenRequest::decode(bytes);
        let request = match self.books.home.root.load(REQUEST_FILE, Kind::BundleRequest, read) {
            Ok(loaded) => loaded.value,
            Err(LoadError::Store(error)) if error.is_missing() => {
                return Err(KeeperError::Bundle(BundleError::NoRequest));
            }
            Err(LoadError::Store(error)) => return Err(KeeperError::Store(error)),
            Err(LoadError::Content(error)) => return Err(KeeperError::Bundle(error)),
        };
        bundle.check(&self.settings.cluster, &request.digest, (self.settings.now)()).map_err(KeeperError::Bundle)?;
        Ok((bundle, request))
    }

    /// The device has answered: every key gets a sealed copy of its own here, then the ring takes them in.
    pub(super) fn bundle_imported(&mut self, imported: Imported) -> Result<KeyTable, KeeperError> {
        let Imported { opener, transport, root } = imported;
        let (transport, root) = (transport.map_err(KeeperError::Device)?, root.map_err(KeeperError::Root)?);
        self.check_root(&root)?;
        let (export, giver) = match &opener {
            Opener::Member(standing, keys) => (standing.open(&transport, keys), Some(self.member_of(&standing.from)?)),
            Opener::Request(bundle, request) => (bundle.open(&transport, request), None),
        };
        let Export { ring: theirs, keys, .. } = export.map_err(KeeperError::Bundle)?;
        let theirs = theirs.without_keyless(|id| keys.iter().any(|(known, _)| known == id));
        if !keys.iter().any(|(id, _)| *id == theirs.active().id) {
            return Err(KeeperError::NotOpened(theirs.active().id));
        }
        let now = (self.settings.now)();
        let ring = match self.state().awaits_bundle {
            true => theirs.taken_whole(now),
            false => match self.ring().adopt(&theirs, now) {
                Ok(ring) => ring,
                // It was accepted before, and this node has turned to what it brought: the answer may have been lost.
                Err(_) if theirs.pending().is_some_and(|entry| entry.id == self.ring().active().id) => {
                    return Ok(self.table());
                }
                Err(error) => return Err(KeeperError::Stale(error)),
            },
        };
        let usable = |id: &KekId| ring.usable().find(|(entry, _)| entry.id == *id).map(|(entry, _)| entry.created);
        let news: Vec<(KekLabel, Key)> = keys
            .into_iter()
            .filter(|(id, _)| !self.keys.has(id))
            .filter_map(|(id, key)| usable(&id).map(|created| (KekLabel { id, created }, key)))
            .collect();
        self.keys.take_in_all(&news, &ring)?;
        let used = ring.active().uses_reserved;
        let ring = ring.with_reservation(used.saturating_add(self.blocks.first()));
        let mut sharers = self.state().sharers.clone();
        match &giver {
            Some(Known { identity, .. }) => {
                sharers.insert_partner(NodeMark::of(&identity.parent), identity.name.as_str())
            }
            None if sharers.is_empty() => sharers = Nodes::some(),
            None => {}
        }
        let is_own = self.state().pending_is_own && ring.pending() == self.ring().pending();
        let given = if is_own { self.state().given.clone() } else { Nodes::new() };
        let awaits_bundle = false;
        let next = State { ring, sharers, given, pending_is_own: is_own, awaits_bundle, ..self.state().clone() };
        let new = news.iter().map(|(label, key)| NewKek { label: *label, key }).collect();
        if let Err(error) = self.change(Change { next, new: Some((&root, new)), is_of_keys: true }) {
            news.iter().for_each(|(label, _)| self.keys.drop_key(&label.id));
            return Err(error);
        }
        let new = news.len();
        self.publish();
        // Last: a bundle that was not taken in whole can be accepted again. One that was is no failure over this.
        if giver.is_none()
            && let Err(error) = self.books.home.root.destroy(REQUEST_FILE).map_err(KeeperError::Store)
        {
            trouble("remove the request whose bundle was accepted", &error);
        }
        emit(&Event::KeysAccepted { keys: new, kek: &self.ring().active().id });
        Ok(self.table())
    }
}
