//! Names of objects that a finding may be about, in bounded memory: findings are made after the last object was seen.

use std::collections::HashMap;

use crate::etcd::count::Counted;
use crate::etcd::findings::Finding;
use crate::etcd::question::Verdict;

/// Of one group and verdict.
const EACH_MAX: usize = 100;
/// Of all.
const ALL_MAX: usize = 20_000;

#[derive(Default)]
pub(super) struct Names {
    by_place: HashMap<(usize, Verdict), Vec<String>>,
    kept: usize,
}

impl Names {
    pub(super) fn take(&mut self, counted: Counted, key: &[u8]) {
        let names = self.by_place.entry((counted.group, counted.verdict)).or_default();
        if names.len() < EACH_MAX && self.kept < ALL_MAX {
            names.push(
                String::from_utf8_lossy(key).chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect(),
            );
            self.kept += 1;
        }
    }

    /// Of one finding, and how many more there are.
    pub(super) fn of(&self, finding: &Finding) -> (Vec<&str>, u64) {
        let about = |verdict: Verdict| match finding.id {
            "opens-nowhere" => verdict == Verdict::UnknownKek,
            "moved" => verdict == Verdict::Moved,
            "provider-away" => verdict == Verdict::ProviderAway,
            _ => true,
        };
        let mut names: Vec<&str> = self
            .by_place
            .iter()
            .filter(|((group, verdict), _)| finding.groups.contains(group) && about(*verdict))
            .flat_map(|(_, names)| names.iter().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.truncate(EACH_MAX);
        let left_off = finding.objects.saturating_sub(names.len() as u64);
        (names, left_off)
    }
}
