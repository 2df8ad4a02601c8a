//! What others can make us log as often as they like: of one kind, a line a second with the number of times that it stands for.
//!
//! The first of a kind is written at once. Those of the second after it are counted, and the next line of the kind says how many they
//! were; it comes with the next one that happens, or when the second is over.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::event::Event;
use super::line::write;
use crate::types::{Class, lock};

/// Between two lines of a kind.
const WINDOW: Duration = Duration::from_secs(1);

/// Kinds that are told apart. Only users who are strangers can be more than the calls and classes that there are; those above share a
/// kind.
const KINDS_MAX: usize = 64;

static ROWS: Mutex<Rows> = Mutex::new(Rows(Vec::new()));

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Refused(&'static str, Class),
    Peer(u32, PathBuf),
    Evicted(&'static str),
    Others,
}

/// The first event of those that are not written yet.
#[derive(Debug, PartialEq, Eq)]
enum Owned {
    Refused { op: &'static str, uid: String, class: Class, error: String },
    Peer { peer_uid: u32, peer_pid: i32, socket: PathBuf },
    Evicted { open: usize, reason: &'static str },
}

#[derive(Debug)]
struct Row {
    kind: Kind,
    /// When the last line was written.
    since: Instant,
    first: Option<Owned>,
    count: u64,
}

#[derive(Debug)]
struct Rows(Vec<Row>);

/// Whether the event is of those that come in numbers; then it was taken care of.
pub(super) fn takes(event: &Event<'_>) -> bool {
    let Some(owned) = owned(event) else { return false };
    // Written under the lock, so that lines of a kind are in order; nobody waits for the log (`ring`).
    if let Some((owned, count)) = rows().note(owned, Instant::now()) {
        write(&owned.as_event(), count);
    }
    true
}

/// Writes what has waited for a second, or all of it. Says whether something is left to come back for.
pub(super) fn tell(all: bool) -> bool {
    let mut rows = rows();
    for (owned, count) in rows.due(Instant::now(), all) {
        write(&owned.as_event(), count);
    }
    !rows.0.is_empty()
}

impl Rows {
    /// What is to be written now.
    fn note(&mut self, event: Owned, now: Instant) -> Option<(Owned, u64)> {
        let kind = event.kind();
        let kind =
            if self.0.len() < KINDS_MAX || self.0.iter().any(|row| row.kind == kind) { kind } else { Kind::Others };
        let Some(row) = self.0.iter_mut().find(|row| row.kind == kind) else {
            self.0.push(Row { kind, since: now, first: None, count: 0 });
            return Some((event, 1));
        };
        row.count += 1;
        if now.duration_since(row.since) < WINDOW {
            row.first.get_or_insert(event);
            return None;
        }
        (row.since, row.first) = (now, None);
        Some((event, std::mem::take(&mut row.count)))
    }

    /// What has waited for long enough. A kind of which nothing came for as long is forgotten.
    fn due(&mut self, now: Instant, all: bool) -> Vec<(Owned, u64)> {
        let mut due = Vec::new();
        self.0.retain_mut(|row| {
            if !all && now.duration_since(row.since) < WINDOW {
                return true;
            }
            row.since = now;
            match row.first.take() {
                Some(first) => {
                    due.push((first, std::mem::take(&mut row.count)));
                    true
                }
                None => false,
            }
        });
        due
    }
}

impl Owned {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { op, class, .. } => Kind::Refused(op, *class),
            Self::Peer { peer_uid, socket, .. } => Kind::Peer(*peer_uid, socket.clone()),
            Self::Evicted { reason, .. } => Kind::Evicted(reason),
        }
    }

    fn as_event(&self) -> Event<'_> {
        match self {
            Self::Refused { op, uid, class, error } => Event::RequestRefused { op, uid, class: *class, error },
            Self::Peer { peer_uid, peer_pid, socket } => {
                Event::PeerRefused { peer_uid: *peer_uid, peer_pid: *peer_pid, socket }
            }
            Self::Evicted { open, reason } => Event::ConnectionEvicted { open: *open, reason },
        }
    }
}

fn owned(event: &Event<'_>) -> Option<Owned> {
    let path = |path: &Path| path.to_owned();
    match event {
        Event::RequestRefused { op, uid, class, error } => {
            Some(Owned::Refused { op, uid: (*uid).to_owned(), class: *class, error: error.to_string() })
        }
        Event::PeerRefused { peer_uid, peer_pid, socket } => {
            Some(Owned::Peer { peer_uid: *peer_uid, peer_pid: *peer_pid, socket: path(socket) })
        }
        Event::ConnectionEvicted { open, reason } => Some(Owned::Evicted { open: *open, reason }),
        _ => None,
    }
}

fn rows() -> MutexGuard<'static, Rows> {
    // Whole after every step.
    lock::lock(&ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(peer_uid: u32) -> Owned {
        Owned::Peer { peer_uid, peer_pid: 1, socket: "/s".into() }
    }

    #[test]
    fn the_first_is_written_at_once_and_the_others_are_counted_until_the_second_is_over() {
        let (mut rows, start) = (Rows(Vec::new()), Instant::now());
        assert_eq!(rows.note(peer(7), start), Some((peer(7), 1)));
        assert_eq!((0..9).filter_map(|_| rows.note(peer(7), start)).count(), 0);
        assert_eq!(rows.note(peer(8), start), Some((peer(8), 1)), "of another kind");
        assert!(rows.due(start, false).is_empty());
        assert_eq!(rows.due(start + WINDOW, false), [(peer(7), 9)]);
        // The one with nothing to say is forgotten, the other one has its line behind it.
        assert_eq!(rows.0.len(), 1);
        assert_eq!(rows.note(peer(7), start + WINDOW), None);
        assert_eq!(rows.note(peer(7), start + WINDOW * 2), Some((peer(7), 2)), "this one and the one before");
        assert!(rows.due(start + WINDOW * 3, false).is_empty() && rows.0.is_empty());
    }

    #[test]
    fn at_the_end_nothing_is_left_untold() {
        let (mut rows, start) = (Rows(Vec::new()), Instant::now());
        rows.note(peer(7), start);
        rows.note(peer(7), start);
        assert_eq!(rows.due(start, true), [(peer(7), 1)]);
    }

    #[test]
    fn strangers_of_many_names_share_a_line_and_take_no_memory() {
        let (mut rows, start) = (Rows(Vec::new()), Instant::now());
        let written: u64 = (0..10_000).filter_map(|uid| rows.note(peer(uid), start)).map(|(_, count)| count).sum();
        assert_eq!((rows.0.len(), written), (KINDS_MAX + 1, KINDS_MAX as u64 + 1));
        let counted: u64 = rows.due(start, true).iter().map(|(_, count)| count).sum();
        assert_eq!(written + counted, 10_000);
    }
}
