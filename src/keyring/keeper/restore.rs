//! KEKs of a recovery file for a node whose own keys open: those that it lacks are sealed here, and decrypt from then on.
//!
//! What the node has stays as it is, its active KEK among it, and nothing that it has destroyed comes back. For a node that lost
//! some of its KEKs, that was recovered from an old file, or that was set up anew before anybody thought of the file.

use super::Keeper;
use super::arrival::Arrival;
use super::books::{Change, NewKek};
use super::errands::Holder;
use super::request::Reply;
use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::kek_file::KekLabel;
use crate::keyring::ring::{Entry, KekState, RetireTo};
use crate::keyring::state_file::State;
use crate::keyring::uses::RESERVED_BLOCK_USES;
use crate::seal::root::{NodeRoot, RootError};
use crate::store::Disk;
use crate::types::{KekId, Key};

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device for the root; [`Keeper::opened_to_restore`] goes on.
    pub(super) fn restore(&mut self, export: Export, reply: Reply<Vec<KekId>>) -> bool {
        let answer = reply.clone();
        let asked = self.ask_device(Holder::Operator, move |question, sealer| {
            Arrival::OpenedToRestore(Box::new(export), answer, question.open(sealer))
        });
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    /// Which KEKs came back; none if there was nothing to restore.
    pub(super) fn opened_to_restore(
        &mut self,
        export: Export,
        root: Result<NodeRoot, RootError>,
    ) -> Result<Vec<KekId>, KeeperError> {
        let root = root.map_err(KeeperError::Root)?;
        self.check_root(&root)?;
        if export.cluster != self.settings.cluster {
            return Err(KeeperError::OtherCluster(export.cluster.to_string()));
        }
        let now = (self.settings.now)();
        let mut ring = self.ring().clone();
        let theirs: Vec<(Entry, KekState)> =
            export.ring.usable().map(|(entry, state)| (entry.clone(), state)).collect();
        let mut back: Vec<(KekLabel, Key)> = Vec::new();
        for (id, key) in export.keys {
            let Some((entry, state)) = theirs.iter().find(|(entry, _)| entry.id == id) else { continue };
            if self.keys.has(&id) || ring.is_destroyed(&id) {
                continue;
            }
            if !ring.entries().any(|(known, _)| known.id == id) {
                // Another copy of this node may have encrypted with it after the file was written, as one in pre-activation then.
                let uses_reserved = entry.uses_reserved.max(RESERVED_BLOCK_USES);
                ring = ring.with_found(Entry { uses_reserved, ..entry.clone() }, now);
                if *state == KekState::Compromised {
                    ring = ring.retire(&id, RetireTo::Compromised, now).map_err(KeeperError::Move)?;
                }
            }
            let created = ring.entries().find(|(known, _)| known.id == id).map_or(0, |(known, _)| known.created);
            back.push((KekLabel { id, created }, key));
        }
        if back.is_empty() {
            return Ok(Vec::new());
        }
        self.keys.take_in_all(&back, &ring)?;
        let ids: Vec<KekId> = back.iter().map(|(label, _)| label.id).collect();
        let new = back.iter().map(|(label, key)| NewKek { label: *label, key }).collect();
        let next = State { ring, ..self.state().clone() };
        if let Err(error) = self.change(Change { next, new: Some((&root, new)), is_of_keys: true }) {
            ids.iter().for_each(|id| self.keys.drop_key(id));
            return Err(error);
        }
        self.publish();
        emit(&Event::KeysRecovered { keys: ids.len(), kek: &self.ring().active().id });
        Ok(ids)
    }
}
