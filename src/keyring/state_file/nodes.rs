//! Other nodes, as a state knows them: by the storage key of their TPM, so that a node is one node under whatever name it is known,
//! and two nodes of one name are two.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::types::hex;
use crate::types::wire::{Reader, WireError, Writer};

/// Names a node: the first 16 bytes of the SHA-256 of the public area of its storage key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeMark([u8; NodeMark::LEN]);

impl NodeMark {
    /// Bytes.
    pub const LEN: usize = 16;

    /// Whoever has given this node its keys, and has not said who it is.
    const SOME: Self = Self([0; Self::LEN]);

    /// The name of this node, and what tells it from others of that name.
    pub fn label(&self, name: &str) -> String {
        match *self == Self::SOME {
            true if name == SOME_NODES => FELLOWS.to_owned(),
            true => GIVER.to_owned(),
            false => format!("{name}@{}", hex::encode(&self.0[..4])),
        }
    }

    /// Of the node whose requests and identity carry this public area.
    pub fn of(parent: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::new().chain_update(b"nodeseal node\0").chain_update(parent).finalize().into();
        let mut mark = [0; Self::LEN];
        mark.copy_from_slice(&hash[..Self::LEN]);
        Self(mark)
    }
}

/// Other nodes, and the names under which they were last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(BTreeMap<NodeMark, String>);

/// Stands for the name of the node that gave this one its keys, in files and in words.
const SOME_NODE: &str = "-";
const GIVER: &str = "the node that gave this one its keys";
/// The same of those that had the keys of this node before it was recovered, however many they are.
const SOME_NODES: &str = "*";
const FELLOWS: &str = "the nodes that had its keys before this one was recovered";

impl Nodes {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The one that has given this node its keys, whoever that is.
    pub fn some() -> Self {
        Self(BTreeMap::from([(NodeMark::SOME, SOME_NODE.to_owned())]))
    }

    /// Those that a node had before it was recovered, whoever they are.
    pub fn fellows() -> Self {
        Self(BTreeMap::from([(NodeMark::SOME, SOME_NODES.to_owned())]))
    }

    /// Under the name that it has now.
    pub fn insert(&mut self, mark: NodeMark, name: &str) {
        self.0.insert(mark, name.to_owned());
    }

    /// Is none of them from now on.
    pub fn remove(&mut self, mark: &NodeMark) {
        self.0.remove(mark);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Together, each once.
    pub fn with(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).map(|(mark, name)| (*mark, name.clone())).collect())
    }

    /// Under the name that it has now. The next KEK is given to it, or it gives keys: one that was not known is the one that gave the
    /// first ones, as far as this node can tell. It is not all of those that a recovery has forgotten.
    pub fn insert_partner(&mut self, mark: NodeMark, name: &str) {
        let are_several = self.0.get(&NodeMark::SOME).is_some_and(|some| some == SOME_NODES);
        if !self.0.contains_key(&mark) && !are_several {
            self.0.remove(&NodeMark::SOME);
        }
        self.insert(mark, name);
    }

    /// Those whose name this is, with or without their marks: more than one if several nodes have that name.
    pub fn named(&self, name: &str) -> BTreeMap<NodeMark, String> {
        let is_it = |mark: &NodeMark, own: &String| *own == name || mark.label(own) == name;
        self.0.iter().filter(|(mark, own)| is_it(mark, own)).map(|(mark, own)| (*mark, mark.label(own))).collect()
    }

    /// The labels of those that are not among `given`.
    pub fn not_among(&self, given: &Self) -> Vec<String> {
        let lacking = self.0.iter().filter(|(mark, _)| !given.0.contains_key(mark));
        lacking.map(|(mark, name)| self.label(mark, name)).collect()
    }

    /// The name, and what tells it from another node of that name.
    fn label(&self, mark: &NodeMark, name: &str) -> String {
        match self.0.values().filter(|other| *other == name).count() {
            0 | 1 if *mark == NodeMark::SOME => mark.label(name),
            0 | 1 => name.to_owned(),
            _ => mark.label(name),
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u8(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        for (mark, name) in self.0.iter().take(usize::from(u8::MAX)) {
            w.raw(&mark.0).bytes16(name.as_bytes());
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, WireError> {
        let count = r.u8(field)?;
        let one = |r: &mut Reader<'_>| Ok((NodeMark(r.array(field)?), r.text16(field)?.to_owned()));
        let nodes = (0..count).map(|_| one(r)).collect::<Result<Vec<_>, WireError>>()?;
        let marks = nodes.iter().map(|(mark, _)| *mark).collect();
        ascending(marks, field)?;
        Ok(Self(nodes.into_iter().collect()))
    }
}

/// One order and nothing twice, so that a set has one encoding.
pub(super) fn ascending<T: Ord>(all: Vec<T>, field: &'static str) -> Result<BTreeSet<T>, WireError> {
    match all.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(all.into_iter().collect()),
        false => Err(WireError::BadValue(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(all: &[(u8, &str)]) -> Nodes {
        let mut nodes = Nodes::new();
        all.iter().for_each(|(byte, name)| nodes.insert(NodeMark::of(&[*byte]), name));
        nodes
    }

    #[test]
    fn one_node_under_two_names_fills_no_other_place() {
        let sharers = nodes(&[(1, "host-1"), (2, "host-2")]);
        let mut given = nodes(&[(1, "cp-1")]);
        assert_eq!(sharers.not_among(&given), ["host-2"]);
        given.insert(NodeMark::of(&[1]), "another");
        assert_eq!((given.len(), sharers.not_among(&given)), (1, vec!["host-2".to_owned()]));
        given.insert(NodeMark::of(&[2]), "cp-2");
        assert_eq!(sharers.not_among(&given), [""; 0]);
    }

    #[test]
    fn two_nodes_of_one_name_are_two_and_told_apart() {
        let sharers = nodes(&[(1, "localhost"), (2, "localhost")]);
        let lacking = sharers.not_among(&nodes(&[(1, "localhost")]));
        assert_eq!(lacking.len(), 1);
        assert!(lacking[0].starts_with("localhost@"), "{lacking:?}");
        assert_eq!((sharers.named("localhost").len(), sharers.named(&lacking[0]).len()), (2, 1));
    }

    #[test]
    fn the_one_that_gave_the_keys_is_some_node_beyond_the_known_ones() {
        let mut sharers = Nodes::some();
        assert_eq!(sharers.not_among(&Nodes::new()), [GIVER]);
        assert_eq!(sharers.named(GIVER).len(), 1);
        sharers.insert(NodeMark::of(&[3]), "cp-3");
        sharers.insert_partner(NodeMark::of(&[3]), "cp-3");
        assert_eq!(sharers.not_among(&nodes(&[(3, "cp-3")])), [GIVER]);
        sharers.insert_partner(NodeMark::of(&[1]), "cp-1");
        assert_eq!(sharers.not_among(&nodes(&[(3, "cp-3")])), ["cp-1"]);
        assert_eq!(sharers.not_among(&nodes(&[(3, "cp-3"), (1, "cp-1")])), [""; 0]);
        let mut fellows = Nodes::fellows();
        fellows.insert_partner(NodeMark::of(&[1]), "cp-1");
        assert_eq!(fellows.not_among(&nodes(&[(1, "cp-1")])), [FELLOWS], "there may be more");
        assert_eq!(fellows.named(FELLOWS).len(), 1);
    }
}
