//! Which credential a login may have used up: some serve only once, and do not say so (a secret id with `secret_id_num_uses`, a wrapping
//! token). In memory, and in a file that outlives this process within one boot, where there is one.
//!
//! It is written down before the provider is asked. So neither an answer that is lost, nor the end of this process, makes us try a
//! credential again and again that is used up: when it is refused after an answer was lost, it is tried once an hour. While answers are
//! lost it is tried ever more slowly. One that has logged in twice serves more than once, and no answer of it is missed.
//!
//! Whatever is known of it, a credential that is refused is tried again at once the first time, if it has never served, and then ever more
//! seldom: at most three times in a quarter of an hour. Refused logins add up, and Vault locks a role out after five in that time
//! (user lockout, on by default for AppRole), for all nodes. Another one that is sealed is tried at once.
//!
//! A credential is known by its [`Mark`], which tells nothing of what was sealed. What cannot be read in the file counts as nothing,
//! and what cannot be written is left out: memory then remembers alone.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::Mark;
use crate::store::RunFile;
use crate::types::lock;
use crate::types::wire::{Reader, WireError, Writer};

/// First and last pause after an answer that was lost.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The same after a refusal.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(5 * 60);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Logins after which a credential is known to serve more than once.
const PROVEN: u8 = 2;
/// Credentials that are remembered; the one that was used longest ago goes first.
const RECORDS_MAX: usize = 32;

const MAGIC: &[u8; 8] = b"NSEALLOG";
const RECORD_BYTES: usize = Mark::BYTES + 4 + 8;
const FILE_MAX_BYTES: u64 = (MAGIC.len() + RECORDS_MAX * RECORD_BYTES) as u64;

/// What may be done with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Give,
    /// An answer was lost. Not before this long.
    Wait(Duration),
    /// It was refused. Not before this long.
    WaitRefused(Duration),
    /// It was refused after an answer was lost. Not before this long.
    Spent(Duration),
}

/// A login by a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    mark: Mark,
    /// Logins that were granted, up to [`PROVEN`].
    granted: u8,
    /// Logins since then of which nobody knows what came.
    lost: u8,
    /// Refusals since then.
    refused: u8,
    spent: bool,
    /// Of the last one that was lost or refused, since the machine was started.
    at: Duration,
    /// Logins that have no answer yet. In the file they count as lost, for the process after this one.
    under_way: u8,
    /// When the last of them was begun.
    begun: Duration,
}

impl Record {
    /// Whether it has logged in before.
    pub(super) const fn has_served(&self) -> bool {
        self.granted > 0
    }
}

/// Of all providers of a process.
#[derive(Debug, Default)]
pub struct LoginTries {
    records: Mutex<Vec<Record>>,
    file: Option<RunFile>,
}

impl LoginTries {
    /// With what was written there in this boot. Without a file memory remembers alone.
    pub fn new(file: Option<RunFile>) -> Self {
        let bytes = file.as_ref().map(|file| file.read(FILE_MAX_BYTES + 1)).unwrap_or_default();
        let now = since_boot();
        // One of the future is of an earlier boot.
        let of_now = |records: Vec<Record>| records.into_iter().filter(|record| record.at <= now).collect();
        Self { records: Mutex::new(decode(&bytes).map(of_now).unwrap_or_default()), file }
    }

    pub(super) fn verdict(&self, mark: Mark, now: Duration) -> Verdict {
        let Some(Record { granted, lost, refused, spent, at, .. }) = self.of(mark) else { return Verdict::Give };
        let left = |min: Duration, max: Duration, tries: u8| {
            let pause = min.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(max);
            (at + pause).checked_sub(now).filter(|left| !left.is_zero())
        };
        // One that has never served may have been sealed a moment before its role was there.
        let refusals = if granted > 0 { refused } else { refused.saturating_sub(1) };
        if spent {
            left(REFUSED_PAUSE_MAX, REFUSED_PAUSE_MAX, 1).map_or(Verdict::Give, Verdict::Spent)
        } else if lost > 0 {
            left(PAUSE_MIN, PAUSE_MAX, lost).map_or(Verdict::Give, Verdict::Wait)
        } else if refusals > 0 {
            left(REFUSED_PAUSE_MIN, REFUSED_PAUSE_MAX, refusals + u8::from(granted == 0))
                .map_or(Verdict::Give, Verdict::WaitRefused)
        } else {
            Verdict::Give
        }
    }

    /// It is given to the provider now. What was known before is given back, for what comes of it.
    pub(super) fn begin(&self, mark: Mark, now: Duration) -> Record {
        let new = Record { mark, granted: 0, lost: 0, refused: 0, spent: false, at: now, under_way: 0, begun: now };
        self.change(new, |record| {
            (record.under_way, record.begun) = (record.under_way.saturating_add(1), now);
        })
    }

    /// The provider has granted a login, or what the credential was for.
    pub(super) fn granted(&self, before: Record) {
        self.change(before, |record| {
            record.granted = record.granted.saturating_add(1).min(PROVEN);
            (record.lost, record.refused, record.spent) = (0, 0, false);
            record.under_way = record.under_way.saturating_sub(1);
        });
    }

    /// The provider was not asked, or has said that it did not look. Of others that were begun meanwhile it says nothing.
    pub(super) fn not_asked(&self, before: Record) {
        self.change(before, |record| record.under_way = record.under_way.saturating_sub(1));
    }

    /// Nobody knows what came of it.
    pub(super) fn lost(&self, before: Record, now: Duration) {
        self.change(before, |record| {
            record.under_way = record.under_way.saturating_sub(1);
            if record.granted < PROVEN {
                (record.lost, record.at) = (record.lost.saturating_add(1), now);
            }
        });
    }

    /// The provider has refused it. Whether an answer was lost before, so that it is most likely spent.
    pub(super) fn refused(&self, before: Record, now: Duration) -> bool {
        let mut is_spent = false;
        self.change(before, |record| {
            record.under_way = record.under_way.saturating_sub(1);
            record.refused = record.refused.saturating_add(1);
            record.spent |= record.lost > 0;
            (record.lost, record.at) = (0, now);
            is_spent = record.spent;
        });
        is_spent
    }

    /// The same secret lies under another mark from now on.
    pub(super) fn moved(&self, from: Mark, to: Mark) {
        let mut records = self.records();
        if let Some(at) = records.iter().position(|record| record.mark == from) {
            let moved = Record { mark: to, ..records.remove(at) };
            records.retain(|record| record.mark != to);
            records.push(moved);
            self.save(&records);
        }
    }

    /// Whether it has logged in before.
    pub(super) fn has_served(&self, mark: Mark) -> bool {
        self.of(mark).is_some_and(|record| record.has_served())
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        lock::lock(&self.records)
    }

    fn of(&self, mark: Mark) -> Option<Record> {
        self.records().iter().find(|record| record.mark == mark).copied()
    }

    /// As one step, since logins of two that share a credential may be under way at once. What was known before.
    fn change(&self, new: Record, change: impl FnOnce(&mut Record)) -> Record {
        let mut records = self.records();
        let at = records.iter().position(|record| record.mark == new.mark);
        let before = at.map_or(new, |at| records.remove(at));
        let mut record = before;
        change(&mut record);
        if records.len() >= RECORDS_MAX {
            records.remove(0);
        }
        records.push(record);
        self.save(&records);
        before
    }

    fn save(&self, records: &[Record]) {
        if let Some(file) = &self.file {
            file.write(&encode(records));
        }
    }
}

/// Also while the machine slept.
pub(super) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(MAGIC);
    for Record { mark, granted, lost, refused, spent, at, under_way, begun } in records {
        let at = if *under_way > 0 { begun } else { at };
        // One that serves more than once costs nothing when its answer is lost.
        let lost = if *granted < PROVEN { lost.saturating_add(*under_way) } else { 0 };
        w.raw(mark.as_bytes()).u8(*granted).u8(lost).u8(*refused).u8(u8::from(*spent)).u64(at.as_secs());
    }
    w.finish()
}

fn decode(bytes: &[u8]) -> Result<Vec<Record>, WireError> {
    let mut r = Reader::new(bytes);
    if r.array("magic")? != *MAGIC {
        return Err(WireError::BadValue("magic"));
    }
    let number = (bytes.len() - MAGIC.len()) / RECORD_BYTES;
    let mut records = Vec::new();
    for _ in 0..number.min(RECORDS_MAX) {
        let mark = Mark::new(r.array("mark")?);
        let (granted, lost, refused, spent) = (r.u8("granted")?, r.u8("lost")?, r.u8("refused")?, r.u8("spent")? != 0);
        let at = Duration::from_secs(r.u64("time")?);
        records.push(Record { mark, granted, lost, refused, spent, at, under_way: 0, begun: at });
    }
    r.end().map(|()| records)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark::new([7; Mark::BYTES]);
    const OTHER: Mark = Mark::new([8; Mark::BYTES]);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_that_was_not_asked_says_nothing_of_another_whose_answer_is_lost_meanwhile() {
        let tries = LoginTries::default();
        let first = tries.begin(MARK, at(0));
        let other = tries.begin(MARK, at(0));
        tries.not_asked(first);
        tries.lost(other, at(0));
        assert_eq!(tries.verdict(MARK, at(0)), Verdict::Wait(PAUSE_MIN), "the other one's answer may be lost");
        let begun = tries.begin(MARK, at(9));
        assert!(tries.refused(begun, at(9)));
        assert_eq!(tries.verdict(MARK, at(9)), Verdict::Spent(REFUSED_PAUSE_MAX));
    }

    #[test]
    fn after_a_lost_answer_a_refusal_is_the_last_within_an_hour_and_without_one_it_is_not() {
        let tries = LoginTries::default();
        let begun = tries.begin(MARK, at(0));
        assert!(!tries.refused(begun, at(0)));
        assert_eq!(tries.verdict(MARK, at(0)), Verdict::Give);
        let begun = tries.begin(MARK, at(0));
        tries.lost(begun, at(0));
        let begun = tries.begin(MARK, at(9));
        assert!(tries.refused(begun, at(9)));
        assert_eq!(tries.verdict(MARK, at(9 + 3599)), Verdict::Spent(at(1)));
        assert_eq!(tries.verdict(MARK, at(9 + 3600)), Verdict::Give, "whoever is wrong about it finds out");
        assert_eq!(tries.verdict(OTHER, at(9)), Verdict::Give);
    }

    #[test]
    fn while_answers_are_lost_it_is_tried_ever_more_slowly() {
        let tries = LoginTries::default();
        let mut now = at(100);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let begun = tries.begin(MARK, now);
            tries.lost(begun, now);
            assert_eq!(tries.verdict(MARK, now), Verdict::Wait(at(pause)));
            now += at(pause);
            assert_eq!(tries.verdict(MARK, now), Verdict::Give);
        }
        let begun = tries.begin(MARK, now);
        tries.not_asked(begun);
        assert_eq!(tries.verdict(MARK, now), Verdict::Give, "one that was not asked costs nothing");
    }

    #[test]
    fn one_that_has_served_once_and_is_refused_locks_no_role_out_and_is_tried_again_within_the_hour() {
        let tries = LoginTries::default();
        let begun = tries.begin(MARK, at(0));
        tries.granted(begun);
        let mut refusals = Vec::new();
        for minute in 0..24 * 60 {
            if tries.verdict(MARK, at(60 * minute)) == Verdict::Give {
                let begun = tries.begin(MARK, at(60 * minute));
                assert!(!tries.refused(begun, at(60 * minute)));
                refusals.push(minute);
            }
        }
        assert!(refusals.windows(4).all(|four| four[3] - four[0] > 15), "{refusals:?}");
        assert!(refusals.windows(2).all(|two| two[1] - two[0] <= 60), "{refusals:?}");
    }

    #[test]
    fn of_one_that_has_logged_in_twice_no_answer_is_missed() {
        let tries = LoginTries::default();
        for _ in 0..PROVEN {
            let begun = tries.begin(MARK, at(0));
            tries.granted(begun);
        }
        for _ in 0..10 {
            let begun = tries.begin(MARK, at(0));
            tries.lost(begun, at(0));
            assert_eq!(tries.verdict(MARK, at(0)), Verdict::Give);
        }
    }

    #[test]
    fn the_next_process_of_the_boot_knows_it_and_a_file_that_is_damaged_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("login-tries");
        let open = || LoginTries::new(RunFile::open(&path));
        let now = since_boot();
        open().begin(MARK, now);
        assert!(matches!(open().verdict(MARK, now), Verdict::Wait(_)));
        let next = open();
        let begun = next.begin(MARK, now);
        assert!(next.refused(begun, now));
        for number in 0..=255 {
            next.begin(Mark::new([number; Mark::BYTES]), now);
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= FILE_MAX_BYTES);
        std::fs::write(
            &path,
            encode(&[Record {
                mark: MARK,
                granted: 1,
                lost: 1,
                refused: 1,
                spent: true,
                at: now,
                under_way: 0,
                begun: now,
            }]),
        )
        .unwrap();
        assert!(matches!(open().verdict(MARK, now), Verdict::Spent(_)));
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(open().verdict(MARK, now), Verdict::Give, "{len}");
        }
        // Of an earlier boot.
        let late = Record {
            mark: MARK,
            granted: 0,
            lost: 1,
            refused: 1,
            spent: true,
            at: now + at(1000),
            under_way: 0,
            begun: now,
        };
        std::fs::write(&path, encode(&[late])).unwrap();
        assert_eq!(open().verdict(MARK, now), Verdict::Give);
    }

    #[test]
    fn two_logins_at_once_that_are_both_refused_have_lost_no_answer() {
        // Two tables of one Vault cluster that share an AppRole, or a reload beside the login that runs.
        let tries = LoginTries::default();
        let first = tries.begin(MARK, at(0));
        let second = tries.begin(MARK, at(0));
        assert!(!tries.refused(first, at(1)));
        assert!(!tries.refused(second, at(1)), "each of both has its answer: nothing may have been spent");
        assert!(!matches!(tries.verdict(MARK, at(2)), Verdict::Spent(_)));
    }

    #[test]
    fn a_login_that_is_refused_beside_one_that_is_granted_has_lost_no_answer() {
        let tries = LoginTries::default();
        let first = tries.begin(MARK, at(0));
        let second = tries.begin(MARK, at(0));
        tries.granted(first);
        assert!(!tries.refused(second, at(1)));
        assert!(!matches!(tries.verdict(MARK, at(2)), Verdict::Spent(_)), "it has logged in");
    }

    #[test]
    fn one_that_never_served_or_has_served_often_and_is_refused_locks_no_role_out_either() {
        // A secret id with a mistake in it, on one node; and one that has ended.
        for served in [0, 2, 100] {
            let tries = LoginTries::default();
            for _ in 0..served {
                let begun = tries.begin(MARK, at(0));
                tries.granted(begun);
            }
            // As the lease asks: its longest pause after a refusal is a minute.
            let mut refusals = Vec::new();
            for minute in 1..24 * 60 {
                if tries.verdict(MARK, at(60 * minute)) == Verdict::Give {
                    let begun = tries.begin(MARK, at(60 * minute));
                    assert!(!tries.refused(begun, at(60 * minute)));
                    refusals.push(minute);
                }
            }
            let is_slow = refusals.windows(4).all(|four| four[3] - four[0] > 15);
            assert!(is_slow, "served {served} times: {} refusals in a day", refusals.len());
        }
    }
}
