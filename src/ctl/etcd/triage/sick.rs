//! The objects that triage tells of, in bounded memory, while all that is read streams past.

use std::collections::{BTreeSet, HashSet};

use super::named::Named;
use super::why::{Known, Reason, why};
use crate::ctl::etcd::names::{ALL_MAX_BYTES, shown};
use crate::ctl::etcd::source::Notice;
use crate::etcd::Stored;
use crate::etcd::count::{Counted, Group};
use crate::etcd::findings::{Current, is_for_another_plugin, is_readable};
use crate::etcd::question::Verdict;
use crate::etcd::wanted::Wanted;

/// Objects that are told of.
const OBJECTS_MAX: usize = 10_000;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Sick {
    /// As it is shown.
    pub(super) key: String,
    /// That is all of the key, and nothing of it was replaced.
    pub(super) is_exact: bool,
    /// Its place among the groups.
    pub(super) group: usize,
    pub(super) verdict: Verdict,
    pub(super) revision: i64,
}

/// What is looked at, and what was found.
pub(super) struct Ward<'a> {
    named: Option<&'a Named>,
    wanted: Option<&'a Wanted>,
    current: &'a Current,
    known: &'a Known,
    pub(super) objects: Vec<Sick>,
    bytes: usize,
    /// That were to be told of, beyond what is kept.
    pub(super) left_off: u64,
    pub(super) looked_at: u64,
    /// Places of groups that another plugin is to open.
    pub(super) of_others: HashSet<usize>,
}

impl<'a> Ward<'a> {
    pub(super) fn new(
        named: Option<&'a Named>,
        wanted: Option<&'a Wanted>,
        current: &'a Current,
        known: &'a Known,
    ) -> Self {
        let (objects, of_others) = (Vec::new(), HashSet::new());
        Self { named, wanted, current, known, objects, bytes: 0, left_off: 0, looked_at: 0, of_others }
    }

    /// Names of which nothing lies in etcd.
    pub(super) fn gone(&self) -> BTreeSet<&'a str> {
        let there: HashSet<&str> = self.objects.iter().map(|object| object.key.as_str()).collect();
        let named = self.named.iter().flat_map(|named| &named.keys).map(String::as_str);
        named.filter(|key| !there.contains(key)).collect()
    }

    fn is_told(&mut self, counted: Counted, group: &Group) -> bool {
        if self.named.is_some() {
            return true;
        }
        if is_for_another_plugin(group, self.wanted, self.current) {
            self.of_others.insert(counted.group);
            return false;
        }
        let reason = why(group, counted.verdict, is_readable(group, self.wanted), self.known).reason;
        let is_beside = crate::etcd::resource::is_beside(&group.resource);
        reason.is_wrong() && !(is_beside && reason == Reason::Unknown)
    }
}

impl Notice for Ward<'_> {
    fn below(&self) -> Option<String> {
        self.named.map(|named| named.common().to_owned())
    }

    fn wants(&self, key: &[u8]) -> bool {
        self.named.is_none_or(|named| std::str::from_utf8(key).is_ok_and(|key| named.keys.contains(key)))
    }

    fn take(&mut self, counted: Counted, group: &Group, stored: Stored<'_>) {
        self.looked_at += 1;
        if !self.is_told(counted, group) {
            return;
        }
        if self.objects.len() >= OBJECTS_MAX || self.bytes >= ALL_MAX_BYTES {
            self.left_off += 1;
            return;
        }
        let key = shown(stored.key);
        self.bytes += key.len();
        let is_exact = key.as_bytes() == stored.key;
        let (group, verdict) = (counted.group, counted.verdict);
        self.objects.push(Sick { key, is_exact, group, verdict, revision: stored.mod_revision });
    }

    fn begin_again(&mut self) {
        let Self { named, wanted, current, known, .. } = *self;
        *self = Self::new(named, wanted, current, known);
    }
}
