//! What the world outside was told by a node, and must hold whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::node::cluster;
use super::running::Running;
use crate::keyring::{Encrypted, KeyringError};
use crate::types::{KekId, KeyId};

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    texts: Vec<Arc<Encrypted>>,
    /// Those of them that were given out while no provider answered, and have no copy of their KEK.
    alone: BTreeSet<usize>,
    /// Every key_id that was reported, the present one last.
    key_ids: Vec<KeyId>,
    /// By key_id: encryptions that were handed out.
    uses: BTreeMap<String, u64>,
    /// The KEK that the operator has ordered to be destroyed: it may be gone.
    pub(super) condemned: Option<KekId>,
    /// The operator was told that it is.
    pub(super) is_gone: bool,
}

impl Ledger {
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The present key_id.
    pub(super) fn key_id(&self) -> Option<&KeyId> {
        self.key_ids.last()
    }

    /// Adds what tells two ledgers apart.
    pub(super) fn digest(&self, sum: &mut Sha256) {
        let Self { texts, alone, key_ids, uses, condemned, is_gone } = self;
        for text in texts {
            sum.update(text.text.len().to_le_bytes());
            sum.update(&text.text);
            sum.update(format!("{:?}{:?}", text.key_id, text.attached.iter().collect::<Vec<_>>()));
        }
        sum.update(format!("{alone:?}{key_ids:?}{uses:?}{condemned:?}{is_gone}"));
    }

    /// Takes down what the node reports now, without asking it for anything new.
    pub(super) fn observe(&mut self, running: &Running) {
        let Some(key_id) = running.keyring.key_id_now() else { return };
        self.reported(&key_id);
        let uses = self.uses.entry(key_id.to_string()).or_default();
        *uses = (*uses).max(running.keyring.uses().unwrap());
    }

    /// One more text.
    pub(super) fn encrypt(&mut self, running: &Running) {
        let text = running.encrypt().unwrap_or_else(|error| panic!("Encrypt is refused: {error}"));
        self.reported(&text.key_id);
        self.texts.push(Arc::new(text));
        self.observe(running);
    }

    /// The same, where the disk may have taken no reservation.
    pub(super) fn encrypt_if_reserved(&mut self, running: &Running) {
        match running.encrypt() {
            Ok(text) => {
                self.reported(&text.key_id);
                self.take(text);
                self.observe(running);
            }
            Err(KeyringError::Reservation) => {}
            Err(error) => panic!("Encrypt is refused: {error}"),
        }
    }

    fn reported(&mut self, key_id: &KeyId) {
        if self.key_ids.last() != Some(key_id) {
            assert!(!self.key_ids.contains(key_id), "a key_id that was left is reported again");
            self.key_ids.push(key_id.clone());
        }
    }

    /// One more text while no provider answers.
    pub(super) fn encrypt_alone(&mut self, running: &Running) {
        self.encrypt(running);
        let last = self.texts.len() - 1;
        if self.texts[last].attached.iter().count() == 0 {
            self.alone.insert(last);
        }
    }

    /// Reads everything as a caller does who looks no further.
    pub(super) fn read_all(&self, running: &Running) {
        self.texts.iter().for_each(|text| drop(running.decrypt(text)));
    }

    /// A text that was given out, here or by another node.
    pub(super) fn take(&mut self, text: Encrypted) {
        self.texts.push(Arc::new(text));
    }

    /// A node that has nothing but the provider reads everything.
    pub(super) fn assert_opens_elsewhere(&self, other: &Running) {
        for (at, text) in self.texts.iter().enumerate().filter(|(at, _)| !self.alone.contains(at)) {
            let copies = text.attached.iter().count();
            match other.decrypt(text) {
                Ok(is_same) => assert!(is_same, "text {at} decrypts to something else"),
                Err(error) => panic!("another node cannot read text {at}, which has {copies} annotations: {error}"),
            }
        }
    }

    /// Everything that was ever answered still holds.
    pub(super) fn assert_holds(&self, running: &Running) {
        self.assert_holds_for(running, false);
    }

    /// The same; a process that could not read both copies of a KEK may lack it until the next start.
    pub(super) fn assert_holds_for(&self, running: &Running, may_lack: bool) {
        let table = running.table();
        let condemned = self.condemned.map(|kek| KeyId::of_local_kek(&cluster(), &kek));
        for text in &self.texts {
            let is_condemned = condemned.as_ref() == Some(&text.key_id);
            match running.decrypt(text) {
                // A key_id of providers names no KEK.
                Err(KeyringError::UnknownKek(kek)) if self.condemned == Some(kek) => {}
                Ok(is_same) => {
                    assert!(is_same, "a text decrypts to something else");
                    assert!(!(is_condemned && self.is_gone), "a KEK that was destroyed decrypts");
                }
                Err(KeyringError::UnknownKek(_)) if is_condemned || may_lack => {}
                Err(error) => panic!("a text of {} cannot be read: {error}; {table:?}", text.key_id),
            }
        }
        assert_eq!(table.keys.iter().filter(|row| row.state == "active").count(), 1);
        // A key_id of providers names no KEK.
        for key_id in self.key_ids.iter().filter(|_| !running.has_provider()) {
            let row = table.keys.iter().find(|row| row.key_id == key_id.as_str());
            let row = row.unwrap_or_else(|| panic!("a KEK was forgotten: {table:?}"));
            let uses = self.uses.get(key_id.as_str()).copied().unwrap_or_default();
            assert!(row.uses >= uses, "{uses} uses were handed out: {row:?}");
        }
    }
}
