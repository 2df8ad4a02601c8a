//! Giving the keyring to another node, and taking it from one. The formats and their checks are in `keyring::bundle`.
//!
//! A node that gives marks all its KEKs as shared before the bundle leaves: from then on each node counts its own encryptions
//! against its part of the limit, and none replaces the active KEK on its own. A node that takes gives up none of its own.

use super::handle::{Command, Reply};
use super::{Keeper, KeyTable, trouble};
use crate::audit::{Event, emit};
use crate::keyring::bundle::{
    self, Bundle, BundleError, BundleRequest, Drawn, OpenRequest, REQUEST_FILE, VALID_SECONDS,
};
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::kek_file::KekLabel;
use crate::keyring::open;
use crate::keyring::ring::KekState;
use crate::seal::agree;
use crate::seal::client::SealerError;
use crate::seal::duplicate::{ParentPublic, Randomness, duplicate};
use crate::seal::root::{NodeRoot, RootError};
use crate::store::{Disk, Kind, LoadError};
use crate::types::{Key, random};

/// What the device gave for a bundle.
pub(super) struct Imported {
    bundle: Bundle,
    request: OpenRequest,
    transport: Result<Key, SealerError>,
    root: Result<NodeRoot, RootError>,
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device for its storage key; [`Keeper::bundle_requested`] goes on.
    pub(super) fn bundle_request(&mut self, node: String, reply: Reply<Vec<u8>>) -> bool {
        let answer = reply.clone();
        let asked = self.on_device(move |sealer| Command::BundleRequested(node, answer, sealer.parent()));
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    /// Stores the request, in place of an older one, and gives the file.
    pub(super) fn bundle_requested(
        &mut self,
        node: String,
        parent: Result<Vec<u8>, SealerError>,
    ) -> Result<Vec<u8>, KeeperError> {
        self.device_is_asked = false;
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
        self.dir.replace_both(REQUEST_FILE, Kind::BundleRequest, kept.expose()).map_err(KeeperError::Store)?;
        Ok(file)
    }

    /// Encrypts all keys to the TPM of the request.
    pub(super) fn bundle_make(&mut self, file: &[u8], fingerprint: &str) -> Result<Vec<u8>, KeeperError> {
        let request = BundleRequest::decode(file).map_err(KeeperError::Bundle)?;
        bundle::check_fingerprint(file, fingerprint).map_err(KeeperError::Bundle)?;
        request.check(&self.settings.cluster, (self.settings.now)()).map_err(KeeperError::Bundle)?;
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
        self.change(self.state.ring.all_shared())?;
        self.publish();
        let export = self.export(&self.state);
        let bundle = Bundle::seal(&request, digest, duplicate.encode(), &drawn, &export);
        emit(&Event::KeysGiven { keys: export.keys.len(), node: &request.node });
        bundle.map(|bundle| bundle.encode()).map_err(KeeperError::Bundle)
    }

    /// Asks the device to open it; [`Keeper::bundle_imported`] goes on.
    pub(super) fn bundle_accept(&mut self, file: &[u8], fingerprint: &str, reply: Reply<KeyTable>) -> bool {
        let answer = reply.clone();
        let asked = self.check_bundle(file, fingerprint).and_then(|(bundle, request)| {
            self.ask_device(move |question, sealer| {
                let transport = sealer.import(bundle.duplicate.clone(), bundle::auth(&bundle.request));
                let root = question.open(sealer);
                Command::BundleImported(answer, Box::new(Imported { bundle, request, transport, root }))
            })
        });
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    fn check_bundle(&self, file: &[u8], fingerprint: &str) -> Result<(Bundle, OpenRequest), KeeperError> {
        let bundle = Bundle::decode(file).map_err(KeeperError::Bundle)?;
        bundle::check_fingerprint(file, fingerprint).map_err(KeeperError::Bundle)?;
        let read = |_, bytes: &[u8]| OpenRequest::decode(bytes);
        let request = match self.dir.load(REQUEST_FILE, Kind::BundleRequest, read) {
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
        self.device_is_asked = false;
        let Imported { bundle, request, transport, root } = imported;
        let (transport, root) = (transport.map_err(KeeperError::Device)?, root.map_err(KeeperError::Root)?);
        self.check_root(&root)?;
        let Export { ring: theirs, keys, .. } = bundle.open(&transport, &request).map_err(KeeperError::Bundle)?;
        let theirs = theirs.without_keyless(|id| keys.iter().any(|(known, _)| known == id));
        if !keys.iter().any(|(id, _)| *id == theirs.active().id) {
            return Err(KeeperError::NotOpened(theirs.active().id));
        }
        let ring = self.state.ring.adopt(&theirs, (self.settings.now)()).map_err(KeeperError::Stale)?;
        let mut new = 0;
        for (id, key) in keys {
            let entry = ring.entries().find(|(entry, state)| entry.id == id && *state != KekState::Destroyed);
            let Some(label) = entry.map(|(entry, _)| KekLabel { id, created: entry.created }) else { continue };
            if !self.keks.contains_key(&id) {
                open::save_kek(&self.dir, &self.settings.cluster, &root, &label, &key)?;
                self.take_in(id, key)?;
                new += 1;
            }
        }
        let used = ring.active().uses_reserved;
        self.change(ring.with_reservation(used + crate::keyring::RESERVED_BLOCK_USES))?;
        self.publish();
        // Last: a bundle that was not taken in whole can be accepted again. One that was is no failure over this.
        if let Err(error) = self.dir.destroy(REQUEST_FILE).map_err(KeeperError::Store) {
            trouble("remove the request whose bundle was accepted", &error);
        }
        emit(&Event::KeysAccepted { keys: new, kek: &self.state.ring.active().id });
        Ok(self.table())
    }
}
