//! Windows of need, out of scans. Pure.

use crate::keyring::evidence::{Reach, Scan};
use crate::keyring::keeper::KekRow;
use crate::types::clock::UnixSeconds;

/// Whose window it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A local KEK, by its id.
    Kek(String),
    /// A version of a provider's key.
    Key { kind: String, identity: String, version: String },
}

impl Subject {
    /// For people.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Kek(id) => format!("KEK {id}"),
            Self::Key { kind, identity, version } => format!("{kind} {identity} {version}"),
        }
    }
}

/// From when until when objects needed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) subject: Subject,
    /// When the KEK was made, if that is known; otherwise when objects were first seen.
    pub(super) from: UnixSeconds,
    /// The first of the scans that have seen none since; `None`: the last scan has seen some.
    pub(super) until: Option<UnixSeconds>,
    /// In the last scan.
    pub(super) objects: u64,
}

/// Of everything that a scan has seen objects under: `scans` from the oldest on. The earliest window first.
pub(super) fn windows(keks: &[KekRow], scans: &[Scan]) -> Vec<Window> {
    // One that cannot speak for all of etcd has no end of a window, but objects that it has seen are there.
    let Some(last) = scans.iter().rfind(|scan| scan.reach == Reach::Whole) else { return Vec::new() };
    let mut subjects: Vec<Subject> = scans.iter().flat_map(seen).map(|(subject, _)| subject).collect();
    subjects.sort();
    subjects.dedup();
    let mut windows: Vec<Window> = subjects
        .into_iter()
        .map(|subject| {
            let under =
                |scan: &Scan| seen(scan).filter(|(of, _)| *of == subject).map(|(_, objects)| objects).sum::<u64>();
            let first = scans.iter().find(|scan| under(scan) > 0).map_or(last.at, |scan| scan.at);
            let made = match &subject {
                Subject::Kek(id) => keks.iter().find(|row| row.id == *id).map(|row| row.created),
                Subject::Key { .. } => None,
            };
            let without = scans.iter().rev().take_while(|scan| scan.reach != Reach::Unclear && under(scan) == 0);
            let without = without.filter(|scan| scan.reach == Reach::Whole).last();
            let from = made.map_or(first, |made| made.min(first));
            Window {
                from,
                until: without.map(|scan| scan.at),
                objects: scans.iter().filter(|scan| scan.at >= last.at).map(under).max().unwrap_or_default(),
                subject,
            }
        })
        .collect();
    windows.sort_by(|one, other| (one.from, &one.subject).cmp(&(other.from, &other.subject)));
    windows
}

/// What a scan has seen objects under.
fn seen(scan: &Scan) -> impl Iterator<Item = (Subject, u64)> + '_ {
    let keks = scan.keks.iter().map(|row| (Subject::Kek(row.kek.clone()), row.objects));
    let keys = scan.keys.iter().map(|row| {
        let (kind, identity, version) = (row.kind.clone(), row.identity.clone(), row.version.clone());
        (Subject::Key { kind, identity, version }, row.objects)
    });
    keks.chain(keys).filter(|(_, objects)| *objects > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::kek_ids::tests::row;
    use crate::keyring::evidence::{KekUse, KeyUse};

    fn scan(at: u64, first: u64, second: u64, version: &str) -> Scan {
        let kek = |kek: &str, objects| KekUse { kek: kek.repeat(16), objects };
        let key = KeyUse { kind: "vault".into(), identity: "transit/k@1".into(), version: version.into(), objects: 3 };
        Scan {
            at,
            revision: at,
            objects: 9,
            foreign: 0,
            reach: Reach::Whole,
            keks: vec![kek("01", first), kek("02", second)],
            keys: vec![key],
        }
    }

    #[test]
    fn a_window_ends_at_the_first_scan_since_which_nothing_was_seen_and_a_key_that_is_needed_has_no_end() {
        let scans = [scan(100, 5, 0, "1"), scan(200, 0, 2, "1"), scan(300, 1, 2, "2"), scan(400, 0, 4, "2")];
        let made = KekRow { created: 50, ..row(&"01".repeat(16)) };
        let key = |version: &str| Subject::Key {
            kind: "vault".into(),
            identity: "transit/k@1".into(),
            version: version.into(),
        };
        let window = |subject, from, until, objects| Window { subject, from, until, objects };
        assert_eq!(
            windows(&[made], &scans),
            [
                // It came back once, so the first gap was no end.
                window(Subject::Kek("01".repeat(16)), 50, Some(400), 0),
                window(key("1"), 100, Some(300), 0),
                window(Subject::Kek("02".repeat(16)), 200, None, 4),
                window(key("2"), 300, None, 3),
            ]
        );
    }

    #[test]
    fn without_a_scan_there_is_no_window() {
        assert_eq!(windows(&[row("ab")], &[]), []);
    }
}
