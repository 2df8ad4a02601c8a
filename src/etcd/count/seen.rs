//! What of an object decides its group.

use super::group::{COPIES_MAX, CopyOf, Group, Kek, Means};
use crate::envelope;
use crate::etcd::object::{Encryption, KmsV1, KmsV2};
use crate::provider::{Form, Wrapped};
use crate::types::KekId;

/// What of an object decides its group.
pub(super) struct Seen<'a> {
    pub(super) means: Means,
    pub(super) provider: Option<&'a str>,
    pub(super) key_id: Option<&'a str>,
    pub(super) kek: Kek,
    wraps: Vec<Wrapped>,
}

impl<'a> Seen<'a> {
    pub(super) fn of(encryption: &Encryption<'a>) -> Self {
        let plain = |means| Self { means, provider: None, key_id: None, kek: Kek::None, wraps: Vec::new() };
        match encryption {
            Encryption::KmsV2(v2) => Self::of_v2(v2),
            Encryption::KmsV1(v1) => Self::of_v1(v1),
            Encryption::Local { kind, key } => Self { provider: Some(key), ..plain(Means::Local(*kind)) },
            Encryption::Plain(form) => plain(Means::Plain(*form)),
            Encryption::Unknown => plain(Means::Unknown),
            Encryption::Damaged(damage) => plain(Means::Damaged(*damage)),
        }
    }

    fn of_v2(v2: &KmsV2<'a>) -> Self {
        let (kek, wraps) = match v2.kek() {
            Some(id) => brought(id, v2.annotations.iter().map(|(name, value)| (*name, *value))),
            None => (unnamed(v2.source, Some(v2.key_id)), Vec::new()),
        };
        Self { means: Means::KmsV2, provider: Some(v2.provider), key_id: Some(v2.key_id), kek, wraps }
    }

    fn of_v1(v1: &KmsV1<'a>) -> Self {
        let inside = envelope::inside_v1(v1.source);
        let (kek, wraps) = match (v1.kek(), &inside) {
            (Some(id), Some((_, wraps))) => brought(id, wraps.iter()),
            (Some(id), None) => (Kek::Local(id), Vec::new()),
            (None, _) => (unnamed(v1.source, None), Vec::new()),
        };
        let key_id = inside.map(|(key_id, _)| key_id);
        Self { means: Means::KmsV1, provider: Some(v1.provider), key_id, kek, wraps }
    }

    pub(super) fn key(&self, resource: &str, into: &mut Vec<u8>) {
        into.extend_from_slice(resource.as_bytes());
        into.extend_from_slice(self.means.label().as_bytes());
        match self.means {
            Means::Plain(form) => into.push(form as u8),
            Means::Damaged(damage) => into.push(damage as u8),
            Means::KmsV2 | Means::KmsV1 | Means::Local(_) | Means::Unknown | Means::Mixed => {}
        }
        for part in [self.provider, self.key_id] {
            let part = part.unwrap_or_default().as_bytes();
            into.extend_from_slice(&(part.len() as u64).to_be_bytes());
            into.extend_from_slice(part);
        }
        match self.kek {
            Kek::None => {}
            Kek::Once => into.push(1),
            Kek::Unread => into.push(2),
            Kek::Local(id) => into.extend_from_slice(id.as_bytes()),
        }
    }

    pub(super) fn copies(self, group: &mut Group) {
        if matches!(self.kek, Kek::None | Kek::Unread) {
            return;
        }
        let count = self.wraps.len();
        group.fewest_copies = Some(group.fewest_copies.map_or(count, |fewest| fewest.min(count)));
        for Wrapped { kind, identity, version, .. } in self.wraps {
            let copy = CopyOf { kind, identity, version };
            if group.copies.len() < COPIES_MAX || group.copies.contains_key(&copy) {
                *group.copies.entry(copy).or_default() += 1;
            }
        }
    }
}

/// A text that names no KEK: of another plugin, unless something of it is as Nodeseal writes it.
fn unnamed(source: &[u8], key_id: Option<&str>) -> Kek {
    if envelope::is_like_ours(source, key_id) { Kek::Unread } else { Kek::None }
}

/// Which KEK it is, and the copies of it.
fn brought<'a>(id: KekId, pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> (Kek, Vec<Wrapped>) {
    match Wrapped::all_in(pairs) {
        (Form::Once, wraps) => (Kek::Once, wraps),
        (Form::Local, wraps) => (Kek::Local(id), wraps),
    }
}
