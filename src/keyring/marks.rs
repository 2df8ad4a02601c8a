//! What keys at providers have done for this node, remembered for longer than what tells of it: the line `keys` of the file `state`
//! (docs/formats.md, "State"). Pure, and total over any bytes.
//!
//! ```text
//! keys = u16 count, each kind u8 | identity: u16 length, text | u8: 1 = direct, 2 = copies, 4 = given up, 8 = foreign; ascending
//! ```
//!
//! Of [`KEYS_MAX`] keys at most, the first ones: a server that tells another key at each look must not make the state one that no start reads.
//! Whoever is full says so ([`Marks::is_full`]): a key that has no mark there may have done anything.
//!
//! A mark stays for good. What an operator has given up counts again as soon as a provider has it: whoever puts it back needs it.

use std::collections::BTreeMap;

use super::epoch::ProviderMemory;
use crate::provider::{KeyIdentity, ProviderKind};
use crate::types::wire::{Reader, WireError, Writer};

/// With identities of 512 bytes they fill half of what a start reads of the file.
const KEYS_MAX: usize = 1024;

const DIRECT: u8 = 1;
const COPIES: u8 = 2;
const GIVEN_UP: u8 = 4;
const FOREIGN: u8 = 8;

/// A key at a provider, whatever its versions and names.
pub type ProviderKey = (ProviderKind, KeyIdentity);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<ProviderKey, u8>);

impl Marks {
    /// Of a node of which the keys are known and not what they have done: each may be the only one of something.
    pub fn of_unknown(roots: &ProviderMemory) -> Self {
        let keys = roots.records.iter().map(|record| (record.kind, record.identity().clone()));
        Self(keys.map(|key| (key, DIRECT)).collect())
    }

    /// A text that has a KEK of its own, as those of mode "direct", may have no wrap but by this key.
    pub fn put_direct(&mut self, key: ProviderKey) {
        self.put(key, DIRECT);
    }

    /// It has made a copy of a KEK that is or was here.
    pub fn put_copies(&mut self, key: ProviderKey) {
        self.put(key, COPIES);
    }

    /// It is handed what Nodeseal has not made, and there may be such texts.
    pub fn put_foreign(&mut self, key: ProviderKey) {
        self.put(key, FOREIGN);
    }

    /// Nothing that Nodeseal has not made is left of it, or the operator does without that.
    pub fn forget_foreign(&mut self, key: &ProviderKey) {
        if let Some(mark) = self.0.get_mut(key) {
            *mark &= !FOREIGN;
        }
        self.0.retain(|_, mark| *mark != 0);
    }

    /// See [`Marks::put_foreign`].
    pub fn foreign(&self) -> impl Iterator<Item = &ProviderKey> {
        self.0.iter().filter(|(_, mark)| **mark & FOREIGN != 0).map(|(key, _)| key)
    }

    /// The operator does without it.
    pub fn give_up(&mut self, key: ProviderKey) {
        self.put(key, GIVEN_UP);
    }

    /// A provider has it.
    pub fn take_back(&mut self, key: &ProviderKey) {
        if let Some(mark) = self.0.get_mut(key) {
            *mark &= !GIVEN_UP;
        }
        self.0.retain(|_, mark| *mark != 0);
    }

    /// Whether the operator does without it.
    pub fn is_given_up(&self, key: &ProviderKey) -> bool {
        self.has(key, GIVEN_UP)
    }

    /// See [`Marks::put_copies`].
    pub fn has_copies(&self, key: &ProviderKey) -> bool {
        self.has(key, COPIES)
    }

    /// See [`Marks::put_copies`].
    pub fn copies(&self) -> impl Iterator<Item = &ProviderKey> {
        self.0.iter().filter(|(_, mark)| **mark & COPIES != 0).map(|(key, _)| key)
    }

    /// See [`Marks::put_direct`].
    pub fn direct(&self) -> impl Iterator<Item = &ProviderKey> {
        self.0.iter().filter(|(_, mark)| **mark & DIRECT != 0).map(|(key, _)| key)
    }

    /// Nothing is remembered of further keys.
    pub fn is_full(&self) -> bool {
        self.0.len() >= KEYS_MAX
    }

    /// Whether anything is remembered of it.
    pub fn knows(&self, key: &ProviderKey) -> bool {
        self.0.contains_key(key)
    }

    fn put(&mut self, key: ProviderKey, mark: u8) {
        if self.0.len() < KEYS_MAX || self.0.contains_key(&key) {
            *self.0.entry(key).or_default() |= mark;
        }
    }

    fn has(&self, key: &ProviderKey, mark: u8) -> bool {
        self.0.get(key).is_some_and(|marks| marks & mark != 0)
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u16(u16::try_from(self.0.len()).unwrap_or(u16::MAX));
        for ((kind, identity), mark) in self.0.iter().take(usize::from(u16::MAX)) {
            w.u8(*kind as u8).bytes16(identity.as_str().as_bytes()).u8(*mark);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let bad = || WireError::BadValue("keys");
        let mut marks = BTreeMap::new();
        for _ in 0..r.u16("keys")? {
            let kind = ProviderKind::from_number(r.u8("kind")?).ok_or_else(bad)?;
            let identity = KeyIdentity::new(r.text16("identity")?).map_err(|_| bad())?;
            let mark = r.u8("keys")?;
            // One encoding of each.
            let is_next = marks.last_key_value().is_none_or(|(last, _)| *last < (kind, identity.clone()));
            if !is_next || mark == 0 || mark & !(DIRECT | COPIES | GIVEN_UP | FOREIGN) != 0 {
                return Err(bad());
            }
            marks.insert((kind, identity), mark);
        }
        Ok(Self(marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(identity: &str) -> ProviderKey {
        (ProviderKind::Vault, KeyIdentity::new(identity).unwrap())
    }

    fn read(bytes: &[u8]) -> Result<Marks, WireError> {
        Marks::read(&mut Reader::new(bytes))
    }

    #[test]
    fn beyond_the_bound_nothing_is_remembered_and_that_is_known() {
        let mut marks = Marks::default();
        for number in 0..KEYS_MAX {
            assert!(!marks.is_full());
            marks.put_direct(key(&number.to_string()));
        }
        marks.put_direct(key("one-too-many"));
        assert!(marks.is_full() && marks.knows(&key("0")) && !marks.knows(&key("one-too-many")));
    }

    #[test]
    fn what_was_given_up_counts_again_when_it_is_back_and_all_is_read_back() {
        let mut marks = Marks::default();
        marks.put_direct(key("k"));
        marks.put_copies(key("k"));
        marks.give_up(key("k"));
        marks.give_up(key("l"));
        let mut w = Writer::new();
        marks.write(&mut w);
        assert_eq!(read(w.as_bytes()).as_ref(), Ok(&marks));
        assert!(marks.is_given_up(&key("k")) && marks.has_copies(&key("k")));
        for identity in ["k", "l"] {
            marks.take_back(&key(identity));
        }
        let mut same = Marks::default();
        same.put_copies(key("k"));
        same.put_direct(key("k"));
        assert_eq!(marks, same);
    }

    #[test]
    fn a_second_encoding_is_refused() {
        let one = |identity: u8, mark: u8| vec![ProviderKind::Vault as u8, 0, 1, identity, mark];
        let all = |rows: &[Vec<u8>]| [&[0, u8::try_from(rows.len()).unwrap()], &rows.concat()[..]].concat();
        assert!(read(&all(&[one(b'k', 1), one(b'l', 15)])).is_ok());
        for rows in
            [&[one(b'l', 1), one(b'k', 1)][..], &[one(b'k', 1), one(b'k', 1)], &[one(b'k', 0)], &[one(b'k', 16)]]
        {
            assert_eq!(read(&all(rows)), Err(WireError::BadValue("keys")));
        }
    }
}
