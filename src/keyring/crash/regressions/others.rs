//! What the tests of several nodes do again and again: the other node's half of it.

use super::operations::{MEMBER, meet_a_member, member_keys, other_parent};
use super::{Node, Running, boot};
use crate::keyring::KeeperError;
use crate::keyring::attached::Check;
use crate::keyring::bundle::{BundleRequest, fingerprint};
use crate::keyring::keeper::Activation;
use crate::keyring::member::Receipt;
use crate::keyring::ring::Entry;
use crate::types::KekId;

/// A request for a bundle of a node of this name, whose storage key follows from the byte.
pub(super) fn request(file: &[u8], name: &str, byte: u8) -> Vec<u8> {
    let mut request = BundleRequest::decode(file).unwrap();
    name.clone_into(&mut request.node);
    request.parent = other_parent(byte);
    request.encode()
}

/// The identity of a node of this name, whose root and storage key follow from the byte.
pub(super) fn identity(name: &str, byte: u8) -> Vec<u8> {
    member_keys(byte).identity(&"c1".parse().unwrap(), name.parse().unwrap(), other_parent(byte)).unwrap()
}

/// The operator has compared it.
pub(super) fn add(running: &Running, file: &[u8]) {
    running.ask(|keeper| keeper.add_member(file.to_vec(), fingerprint(file))).unwrap();
}

/// What the node of this byte says of a KEK, whose check is as this one shows it.
pub(super) fn receipt(running: &Running, id: &KekId, byte: u8) -> Vec<u8> {
    let check = running.table().keys.into_iter().find(|row| row.id == id.to_string()).unwrap().check;
    Receipt::sign(&"c1".parse().unwrap(), id, Check::from_hex(&check), &member_keys(byte))
}

/// As `--when-all-have` brings them.
pub(super) fn with(receipts: &[Vec<u8>]) -> Activation {
    Activation { receipts: receipts.to_vec(), ..Activation::default() }
}

/// A KEK that both have.
pub(super) fn entry(id: KekId) -> Entry {
    Entry { id, created: 1, uses_reserved: 2, shared: true }
}

pub(super) fn id(byte: u8) -> KekId {
    KekId::from_bytes([byte; 16])
}

/// This node and the member share the active KEK; no other is pending. With the identity of this node.
pub(super) fn pair(node: &mut Node) -> (Running, Vec<u8>) {
    meet_a_member(node);
    let file = node.file.to_vec();
    let running = boot(node);
    let own = meet(&running, &file);
    (running, own)
}

/// The member is known, and is given all keys. With the identity of this node.
pub(super) fn meet(running: &Running, file: &[u8]) -> Vec<u8> {
    add(running, file);
    give(running);
    running.ask(|keeper| keeper.identity("cp-1".parse().unwrap())).unwrap()
}

pub(super) fn give(running: &Running) {
    running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).unwrap();
}

pub(super) fn accept(running: &Running, bundle: &[u8]) -> Result<(), KeeperError> {
    running.ask(|keeper| keeper.bundle_accept(bundle.to_vec(), None)).map(drop)
}
