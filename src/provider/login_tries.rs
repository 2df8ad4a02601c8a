//! Which credential a login may have used up: some serve only once, and do not say so (a secret id with `secret_id_num_uses`, a wrapping
//! token). In memory, and in a file that outlives this process within one boot, where there is one.
//!
//! It is written down before the provider is asked. So neither an answer that is lost, nor the end of this process, makes us try a
//! credential again and again that is used up: when it is refused after an answer was lost, it is not tried again before another one
//! is sealed. While answers are lost it is tried ever more slowly, and so is one that has logged in once and is refused: refused logins add
//! up, and Vault locks a role out after five in a quarter of an hour, for all nodes. One that has logged in twice serves more than
//! once, and nothing is noted of it any more.
//!
//! A credential is known by its [`Mark`], which tells nothing of what was sealed. What cannot be read in the file counts as nothing,
//! and what cannot be written is left out: memory then remembers alone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::Mark;
use crate::store::RunFile;
use crate::types::wire::{Reader, WireError, Writer};

/// First and last pause after an answer that was lost.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The same after a refusal of one that has logged in once.
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
    /// It has logged in once, and was refused since. Not before this long.
    WaitRefused(Duration),
    /// It was refused after an answer was lost.
    Spent,
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
    /// Of the last one, since the machine was started.
    at: Duration,
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
        if spent {
            Verdict::Spent
        } else if lost > 0 {
            left(PAUSE_MIN, PAUSE_MAX, lost).map_or(Verdict::Give, Verdict::Wait)
        } else if granted > 0 && refused > 0 {
            left(REFUSED_PAUSE_MIN, REFUSED_PAUSE_MAX, refused).map_or(Verdict::Give, Verdict::WaitRefused)
        } else {
            Verdict::Give
        }
    }

    /// It is given to the provider now. What was known before is given back, for what comes of it.
    pub(super) fn begin(&self, mark: Mark, now: Duration) -> Record {
        let new = Record { mark, granted: 0, lost: 0, refused: 0, spent: false, at: now };
        self.change(new, |record| {
            if record.granted < PROVEN {
                (record.lost, record.at) = (record.lost.saturating_add(1), now);
            }
        })
    }

    /// The provider has granted a login, or what the credential was for.
    pub(super) fn granted(&self, before: Record) {
        if before.granted < PROVEN {
            self.set(Record { granted: before.granted + 1, lost: 0, refused: 0, ..before });
        }
    }

    /// The provider was not asked, or has said that it did not look. Of others that were begun meanwhile it says nothing.
    pub(super) fn not_asked(&self, before: Record) {
        self.change(before, |record| {
            let lost = record.lost.saturating_sub(1);
            *record = if lost == before.lost { before } else { Record { lost, ..*record } };
        });
    }

    /// The provider has refused it. Whether an answer was lost before, so that it is most likely spent.
    pub(super) fn refused(&self, before: Record, now: Duration) -> bool {
        let spent = before.lost > 0;
        if before.granted < PROVEN {
            self.change(before, |record| {
                record.lost = record.lost.saturating_sub(1);
                record.refused = record.refused.saturating_add(1);
                record.spent |= spent;
                record.at = now;
            });
        }
        spent
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, mark: Mark) -> Option<Record> {
        self.records().iter().find(|record| record.mark == mark).copied()
    }

    fn set(&self, record: Record) {
        self.change(record, |known| *known = record);
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
        if let Some(file) = &self.file {
            file.write(&encode(&records));
        }
        before
    }
}

/// Also while the machine slept.
pub(super) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(MAGIC);
    for Record { mark, granted, lost, refused, spent, at } in records {
        w.raw(mark.as_bytes()).u8(*granted).u8(*lost).u8(*refused).u8(u8::from(*spent)).u64(at.as_secs());
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
        records.push(Record { mark, granted, lost, refused, spent, at: Duration::from_secs(r.u64("time")?) });
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
        tries.begin(MARK, at(0));
        tries.not_asked(first);
        assert_eq!(tries.verdict(MARK, at(0)), Verdict::Wait(PAUSE_MIN), "the other one's answer may be lost");
        let begun = tries.begin(MARK, at(9));
        assert!(tries.refused(begun, at(9)));
        assert_eq!(tries.verdict(MARK, at(9)), Verdict::Spent);
    }

    #[test]
    fn a_refusal_after_a_lost_answer_is_the_last_and_one_without_is_not() {
        let tries = LoginTries::default();
        let begun = tries.begin(MARK, at(0));
        assert!(!tries.refused(begun, at(0)));
        assert_eq!(tries.verdict(MARK, at(0)), Verdict::Give);
        tries.begin(MARK, at(0));
        let begun = tries.begin(MARK, at(9));
        assert!(tries.refused(begun, at(9)));
        assert_eq!(tries.verdict(MARK, at(1_000_000)), Verdict::Spent);
        assert_eq!(tries.verdict(OTHER, at(9)), Verdict::Give);
    }

    #[test]
    fn while_answers_are_lost_it_is_tried_ever_more_slowly() {
        let tries = LoginTries::default();
        let mut now = at(100);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            tries.begin(MARK, now);
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
    fn what_has_logged_in_twice_serves_more_than_once() {
        let tries = LoginTries::default();
        for _ in 0..PROVEN {
            let begun = tries.begin(MARK, at(0));
            tries.granted(begun);
        }
        for _ in 0..10 {
            let begun = tries.begin(MARK, at(0));
            assert_eq!(tries.verdict(MARK, at(0)), Verdict::Give);
            assert!(!tries.refused(begun, at(0)));
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
        std::fs::write(&path, encode(&[Record { mark: MARK, granted: 1, lost: 1, refused: 1, spent: true, at: now }]))
            .unwrap();
        assert_eq!(open().verdict(MARK, now), Verdict::Spent);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(open().verdict(MARK, now), Verdict::Give, "{len}");
        }
        // Of an earlier boot.
        let late = Record { mark: MARK, granted: 0, lost: 1, refused: 1, spent: true, at: now + at(1000) };
        std::fs::write(&path, encode(&[late])).unwrap();
        assert_eq!(open().verdict(MARK, now), Verdict::Give);
    }
}
