//! Names of objects that a finding may be about, in bounded memory: findings are made after the last object was seen.

use std::collections::HashMap;

use super::source::Notice;
use crate::etcd::Stored;
use crate::etcd::count::{Counted, Group};
use crate::etcd::findings::Finding;
use crate::etcd::question::Verdict;
use crate::types::is_shown;

/// Of one group and verdict.
const EACH_MAX: usize = 100;
/// Of all.
const ALL_MAX: usize = 20_000;
/// Bytes of one: a key of kube-apiserver is below 1 kB. etcd takes keys of 1.5 MiB.
const NAME_MAX_BYTES: usize = 1024;
/// Bytes of all.
pub(super) const ALL_MAX_BYTES: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Names {
    by_place: HashMap<(usize, Verdict), Vec<String>>,
    kept: usize,
    bytes: usize,
}

impl Notice for Names {
    fn take(&mut self, counted: Counted, _: &Group, stored: Stored<'_>) {
        self.note(counted, stored.key);
    }

    fn begin_again(&mut self) {
        *self = Self::default();
    }
}

impl Names {
    fn note(&mut self, counted: Counted, key: &[u8]) {
        if self.kept >= ALL_MAX || self.bytes >= ALL_MAX_BYTES {
            return;
        }
        let names = self.by_place.entry((counted.group, counted.verdict)).or_default();
        if names.len() < EACH_MAX {
            let name = shown(key);
            self.kept += 1;
            self.bytes += name.len();
            names.push(name);
        }
    }

    /// Of one finding, and how many more there are.
    pub(super) fn of(&self, finding: &Finding) -> (Vec<&str>, u64) {
        let is_about = |verdict: Verdict| finding.verdict.is_none_or(|about| about == verdict);
        let mut names: Vec<&str> = self
            .by_place
            .iter()
            .filter(|((group, verdict), _)| finding.groups.contains(group) && is_about(*verdict))
            .flat_map(|(_, names)| names.iter().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.truncate(EACH_MAX);
        let left_off = finding.objects.saturating_sub(names.len() as u64);
        (names, left_off)
    }
}

/// Whoever writes to etcd chooses it.
pub(super) fn shown(key: &[u8]) -> String {
    let part = &key[..key.len().min(NAME_MAX_BYTES)];
    let sign = |sign| if is_shown(sign) { sign } else { '?' };
    let mut name: String = String::from_utf8_lossy(part).chars().map(sign).collect();
    if part.len() < key.len() {
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_as_long_as_etcd_allows_take_bounded_memory() {
        let mut names = Names::default();
        let key = vec![b'a'; 1 << 20];
        for group in 0..200 {
            names.note(Counted { group, verdict: Verdict::Opens }, &key);
        }
        let kept: usize = names.by_place.values().flatten().map(String::len).sum();
        assert!(kept <= 16 << 20, "{} MiB are kept", kept >> 20);
    }

    #[test]
    fn only_the_objects_that_a_finding_is_about_are_named() {
        let mut names = Names::default();
        for (verdict, key) in [
            (Verdict::Opens, "healthy"),
            (Verdict::BadText, "broken"),
            (Verdict::UnknownKek, "lost"),
            (Verdict::NotAsked, "unasked"),
        ] {
            names.note(Counted { group: 0, verdict }, key.as_bytes());
        }
        let (resource, text) = ("secrets".to_owned(), String::new());
        let finding = Finding {
            id: "damaged",
            resource,
            objects: 1,
            text,
            next: "restore them",
            groups: vec![0],
            verdict: Some(Verdict::BadText),
        };
        for (verdict, expected) in
            [(Verdict::UnknownKek, "lost"), (Verdict::BadText, "broken"), (Verdict::NotAsked, "unasked")]
        {
            assert_eq!(names.of(&Finding { verdict: Some(verdict), ..finding.clone() }), (vec![expected], 0));
        }
        // Of what cannot be read nobody is asked, and all of the group is meant.
        assert_eq!(names.of(&Finding { verdict: None, objects: 4, ..finding }).0.len(), 4);
    }

    #[test]
    fn no_name_turns_or_breaks_the_line_that_it_is_shown_in() {
        assert_eq!(shown("/a/\u{202E}b\u{2066}\u{1b}[2J\n\u{2028}".as_bytes()), "/a/?b??[2J??");
        assert_eq!(shown(b"/a/\xFFb"), "/a/\u{FFFD}b");
        assert!(shown(&[b'a'; 5000]).ends_with("a…"));
    }
}
