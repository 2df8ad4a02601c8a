//! Which PINs the token may have counted against us: in memory, and in a file that outlives this process within one boot, where there is
//! one.
//!
//! It is written down before the token is asked, so that neither an answer that says nothing, nor one that never comes, nor the end of
//! this process makes us give the same PIN again and again. A token has 3 to 15 tries, and is locked for good after them.
//!
//! The file holds nothing of the PIN, and nothing that was computed from it: a PIN of few digits is found by any digest. This process knows a
//! PIN again by a digest that it keeps to itself. The next one goes by the file that the PIN came from: the same file has the same PIN,
//! another file may have another one, and of a file that every start makes anew (a systemd credential) it cannot be told, so that
//! such a PIN is not given where one was refused. What cannot be read there counts as nothing, and what cannot be written is left
//! out: memory then remembers alone.
//!
//! PINs that can be told apart have a record each, so that two programs that keep writing the file of the PIN, each with a PIN of its
//! own, spend one try for each of the two and no more.

use std::time::Duration;

use hmac::Mac;

use super::pin::{FileId, Pin};
use crate::store::RunFile;
use crate::types::mac::hmac_sha256;
use crate::types::random;
use crate::types::wire::{Reader, WireError, Writer};

/// Until the one further try of a PIN about which the token said nothing: some say a general error while they are busy.
pub(super) const PAUSE: Duration = Duration::from_secs(120);

/// Tries of such a PIN in all.
const TRIES_MAX: u8 = 2;

const MAGIC: &[u8; 8] = b"NSEALTRY";
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// Beyond it the oldest goes. A token with more tries than this is rare, and its own flags are heeded beside.
const RECORDS_MAX: usize = 8;
const RECORD_BYTES: usize = 51;
/// One byte more shows that it is none of ours.
const FILE_MAX: u64 = (RECORDS_MAX * RECORD_BYTES + 1) as u64;

/// What may be done with a PIN; the later, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Nothing is known against it.
    Give,
    /// It was given once, and nobody knows whether that was counted. Once more, unless the token has counted something.
    GiveOnceMore,
    /// As [`Verdict::GiveOnceMore`], and not before this long.
    Wait(Duration),
    /// It was given as often as it may be, and nobody knows.
    Doubtful,
    /// The token has refused one, or as many as may be, and this may be the same.
    Unclear,
    /// The token has refused it.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Never in the file: salt and digest of the PIN, if this process has given it.
    given: Option<([u8; SALT_BYTES], [u8; DIGEST_BYTES])>,
    /// Where it came from.
    file: Option<FileId>,
    refused: bool,
    /// Of this PIN, and of those that could not be told from it for certain.
    tries: u8,
    /// Of the last one, since the machine was started.
    at: Duration,
}

/// Whether a PIN is that of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Same {
    Yes,
    No,
    /// Another file.
    Hardly,
    Unknown,
}

/// The PINs of which something is known, the oldest first.
#[derive(Default)]
pub(super) struct Tries {
    records: Vec<Record>,
    file: Option<RunFile>,
}

impl Tries {
    /// With what was written there in this boot.
    pub(super) fn in_file(file: RunFile, now: Duration) -> Self {
        let mut records = decode(&file.read(FILE_MAX)).unwrap_or_default();
        // One of the future is of an earlier boot.
        records.retain(|record| record.at <= now);
        Self { records, file: Some(file) }
    }

    pub(super) const fn file(&self) -> Option<&RunFile> {
        self.file.as_ref()
    }

    /// Another process goes on where this one ends.
    pub(super) const fn outlive(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn verdict(&self, pin: &Pin, now: Duration) -> Verdict {
        let of = |which: &'static [Same]| self.records.iter().filter(move |record| which.contains(&record.is_of(pin)));
        let apart = match tries(of(&[Same::Hardly])) {
            TRIES_MAX.. => Verdict::Unclear,
            _ => Verdict::Give,
        };
        let as_often = match tries(of(&[Same::Yes, Same::Unknown])) {
            TRIES_MAX.. => Verdict::Doubtful,
            _ => Verdict::Give,
        };
        let own = of(&[Same::Yes]).map(|record| record.verdict(Verdict::Refused, now));
        let maybe = of(&[Same::Unknown]).map(|record| record.verdict(Verdict::Unclear, now));
        own.chain(maybe).chain([apart, as_often]).max().unwrap_or(Verdict::Give)
    }

    /// It is given to the token now. What was known before is given back, for an answer that proves that nothing was counted.
    pub(super) fn begin(&mut self, pin: &Pin, now: Duration) -> Vec<Record> {
        let before = self.records.clone();
        let (mut records, earlier): (Vec<_>, Vec<_>) =
            before.iter().cloned().partition(|record| record.is_of(pin) == Same::No);
        let tries = tries(earlier.iter()).saturating_add(1);
        // Without randomness an unsalted digest, which is better than a second try.
        let salt = random::array().unwrap_or_default();
        let given = Some((salt, digest(&salt, pin)));
        if records.len() >= RECORDS_MAX {
            records.remove(0);
        }
        records.push(Record { given, file: pin.file(), refused: false, tries, at: now });
        self.set(records);
        before
    }

    /// The token said that the one that was given last is not its PIN.
    pub(super) fn refused(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        if let Some(last) = records.last_mut() {
            last.refused = true;
        }
        self.set(records);
    }

    /// See [`Tries::begin`]; nothing, after a login that succeeded.
    pub(super) fn set(&mut self, records: Vec<Record>) {
        self.records = records;
        if let Some(file) = &self.file {
            file.write(&self.records.iter().flat_map(Record::encode).collect::<Vec<_>>());
        }
    }
}

fn tries<'a>(records: impl Iterator<Item = &'a Record>) -> u8 {
    records.fold(0, |tries, record| tries.saturating_add(record.tries))
}

/// All, or nothing.
fn decode(bytes: &[u8]) -> Result<Vec<Record>, WireError> {
    bytes.chunks(RECORD_BYTES).map(Record::decode).collect()
}

impl Record {
    fn is_of(&self, pin: &Pin) -> Same {
        match (&self.given, self.file, pin.file()) {
            (Some((salt, known)), ..) if digest(salt, pin) == *known => Same::Yes,
            (Some(_), ..) => Same::No,
            (None, Some(before), Some(now)) if before == now => Same::Yes,
            (None, Some(_), Some(_)) => Same::Hardly,
            (None, ..) => Same::Unknown,
        }
    }

    /// Of a PIN that is, or may be, the one of this record.
    fn verdict(&self, refused: Verdict, now: Duration) -> Verdict {
        match (self.at + PAUSE).checked_sub(now) {
            _ if self.refused => refused,
            None | Some(Duration::ZERO) => Verdict::GiveOnceMore,
            Some(left) => Verdict::Wait(left),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let FileId(device, inode, seconds, nanoseconds) = self.file.unwrap_or(FileId(0, 0, 0, 0));
        let mut w = Writer::new();
        w.raw(MAGIC).u8(u8::from(self.refused)).u8(self.tries).u64(self.at.as_secs());
        w.u8(u8::from(self.file.is_some())).u64(device).u64(inode);
        w.u64(seconds.cast_unsigned()).u64(nanoseconds.cast_unsigned()).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array("magic")? != *MAGIC {
            return Err(WireError::BadValue("magic"));
        }
        let (refused, tries) = (r.u8("refused")? != 0, r.u8("tries")?);
        let at = Duration::from_secs(r.u64("time")?);
        let is_known = r.u8("whether the file is known")? != 0;
        let (device, inode) = (r.u64("device")?, r.u64("inode")?);
        let (seconds, nanoseconds) = (r.u64("seconds")?.cast_signed(), r.u64("nanoseconds")?.cast_signed());
        r.end()?;
        let file = is_known.then_some(FileId(device, inode, seconds, nanoseconds));
        Ok(Self { given: None, file, refused, tries, at })
    }
}

fn digest(salt: &[u8; SALT_BYTES], pin: &Pin) -> [u8; DIGEST_BYTES] {
    let mac = hmac_sha256(salt);
    mac.chain_update(pin.bytes()).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn in_file(path: &Path, now: Duration) -> Tries {
        Tries::in_file(RunFile::open(path).unwrap(), now)
    }

    #[test]
    fn a_pin_that_may_have_been_counted_is_given_once_more_after_a_pause_and_then_never() {
        let (pin, other) = (Pin::of(b"1234"), Pin::of(b"4321"));
        let mut tries = Tries::default();
        assert_eq!(tries.verdict(&pin, NOW), Verdict::Give);
        tries.begin(&pin, NOW);
        assert_eq!(tries.verdict(&pin, NOW), Verdict::Wait(PAUSE));
        assert_eq!(tries.verdict(&other, NOW), Verdict::Give);
        assert_eq!(tries.verdict(&pin, NOW + PAUSE), Verdict::GiveOnceMore);
        tries.begin(&pin, NOW + PAUSE);
        assert_eq!(tries.verdict(&pin, NOW + PAUSE * 1000), Verdict::Doubtful);
    }

    #[test]
    fn a_refused_pin_is_never_given_again_and_a_right_one_leaves_nothing_behind() {
        let pin = Pin::of(b"1234");
        let mut tries = Tries::default();
        tries.begin(&pin, NOW);
        tries.refused();
        assert_eq!(tries.verdict(&pin, NOW + PAUSE * 1000), Verdict::Refused);
        tries.set(Vec::new());
        assert_eq!(tries.verdict(&pin, NOW), Verdict::Give);
    }

    #[test]
    fn an_answer_that_proves_that_nothing_was_counted_leaves_what_was_known() {
        let pin = Pin::of(b"1234");
        let mut tries = Tries::default();
        let before = tries.begin(&pin, NOW);
        tries.set(before);
        assert_eq!(tries.verdict(&pin, NOW), Verdict::Give);
        tries.begin(&pin, NOW);
        let before = tries.begin(&pin, NOW + PAUSE);
        tries.set(before);
        assert_eq!(tries.verdict(&pin, NOW), Verdict::Wait(PAUSE));
    }

    #[test]
    fn the_next_process_knows_the_file_of_the_pin_again_and_this_one_the_pin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tries");
        let (pin, moved, other) = (Pin::of(b"1234"), Pin::in_file(b"1234", 2), Pin::in_file(b"4321", 2));
        in_file(&path, NOW).begin(&pin, NOW);
        let mut next = in_file(&path, NOW);
        assert!(next.outlive());
        assert_eq!(next.verdict(&pin, NOW), Verdict::Wait(PAUSE));
        assert_eq!(next.verdict(&other, NOW), Verdict::Give);
        next.refused();
        let mut next = in_file(&path, NOW);
        assert_eq!((next.verdict(&pin, NOW), next.verdict(&other, NOW)), (Verdict::Refused, Verdict::Give));
        // A file that was written anew: as likely the same PIN as another one, so only once.
        next.begin(&moved, NOW);
        next.refused();
        assert_eq!((next.verdict(&moved, NOW), next.verdict(&other, NOW)), (Verdict::Refused, Verdict::Give));
        let next = in_file(&path, NOW);
        assert_eq!(next.verdict(&Pin::in_file(b"4321", 3), NOW), Verdict::Unclear);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // It was written in another boot.
        assert_eq!(in_file(&path, Duration::from_secs(1)).verdict(&pin, NOW), Verdict::Give);
        in_file(&path, NOW).set(Vec::new());
        assert_eq!(in_file(&path, NOW).verdict(&pin, NOW), Verdict::Give);
    }

    #[test]
    fn a_pin_in_a_file_that_each_start_makes_anew_is_not_given_where_one_was_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tries");
        let pin = Pin::in_no_lasting_file(b"1234");
        in_file(&path, NOW).begin(&pin, NOW);
        let mut next = in_file(&path, NOW);
        assert_eq!(next.verdict(&pin, NOW), Verdict::Wait(PAUSE));
        next.begin(&pin, NOW + PAUSE);
        assert_eq!(in_file(&path, NOW + PAUSE).verdict(&pin, NOW + PAUSE * 9), Verdict::Doubtful);
        next.refused();
        assert_eq!(in_file(&path, NOW + PAUSE).verdict(&pin, NOW + PAUSE * 9), Verdict::Unclear);
        // Within one process it can be told.
        assert_eq!(next.verdict(&Pin::in_no_lasting_file(b"4321"), NOW + PAUSE), Verdict::Give);
    }

    #[test]
    fn the_file_is_the_same_whatever_the_pin() {
        let dir = tempfile::tempdir().unwrap();
        let of = |pin: &[u8]| {
            let path = dir.path().join("tries");
            let mut tries = in_file(&path, NOW);
            tries.set(Vec::new());
            tries.begin(&Pin::of(pin), NOW);
            let begun = std::fs::read(&path).unwrap();
            tries.refused();
            (begun, std::fs::read(&path).unwrap())
        };
        assert_eq!(of(b"1234"), of(b"a much longer PIN than that"));
    }

    #[test]
    fn a_file_that_is_cut_off_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tries");
        let pin = Pin::of(b"1234");
        in_file(&path, NOW).begin(&pin, NOW);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(in_file(&path, NOW).verdict(&pin, NOW), Verdict::Give, "{len}");
        }
    }

    #[test]
    fn a_refused_pin_is_not_given_again_after_another_one_was_refused_too() {
        // Two programs keep the file of the PIN, each with a PIN of its own.
        let (one, other) = (Pin::in_file(b"1234", 2), Pin::in_file(b"4321", 3));
        let mut tries = Tries::default();
        for pin in [&one, &other] {
            assert_eq!(tries.verdict(pin, NOW), Verdict::Give);
            tries.begin(pin, NOW);
            tries.refused();
        }
        let anew = [Pin::in_file(b"1234", 4), Pin::in_file(b"4321", 5)];
        assert_eq!(anew.map(|pin| tries.verdict(&pin, NOW)), [Verdict::Refused; 2]);
        assert_eq!(tries.verdict(&Pin::of(b"right"), NOW), Verdict::Give);
    }

    #[test]
    fn the_next_process_gives_no_third_pin_where_two_were_refused_and_the_file_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tries");
        let pins: Vec<Pin> = (0..40).map(|number: u8| Pin::in_file(&[number], u64::from(number))).collect();
        let mut tries = in_file(&path, NOW);
        for pin in &pins[..2] {
            tries.begin(pin, NOW);
            tries.refused();
        }
        let mut next = in_file(&path, NOW);
        let verdicts = [&pins[0], &pins[1], &pins[2]].map(|pin| next.verdict(pin, NOW));
        assert_eq!(verdicts, [Verdict::Refused, Verdict::Refused, Verdict::Unclear]);
        next.set(Vec::new());
        for pin in &pins {
            next.begin(pin, NOW);
            next.refused();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (RECORDS_MAX * RECORD_BYTES) as u64);
        assert_eq!(in_file(&path, NOW).records.len(), RECORDS_MAX);
    }
}
