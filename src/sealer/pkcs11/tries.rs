//! Which PIN the token may have counted against us: in memory, and in a file that outlives this process within one boot, where there is
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

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::login::Pin;
use crate::store::RunFile;
use crate::types::random;
use crate::types::wire::{Reader, WireError, Writer};

/// Until the one further try of a PIN about which the token said nothing: some say a general error while they are busy.
pub(super) const PAUSE: Duration = Duration::from_secs(120);

/// Tries of such a PIN in all.
const TRIES_MAX: u8 = 2;

const MAGIC: &[u8; 8] = b"NSEALTRY";
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// Longer than any record.
const FILE_MAX: u64 = 64;

/// What may be done with a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is known against it.
    Give,
    /// It was given once, and nobody knows whether that was counted. Once more, unless the token has counted something.
    GiveOnceMore,
    /// As [`Verdict::GiveOnceMore`], and not before this long.
    Wait(Duration),
    /// It was given as often as it may be, and nobody knows.
    Doubtful,
    /// The token has refused it.
    Refused,
    /// The token has refused one, or as many as may be, and this may be the same.
    Unclear,
}

/// Tells the file of a PIN from the one before and the next: device, inode, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64, i64, i64);

impl FileId {
    /// `None` for a file that every start makes anew, whatever is in it.
    pub(super) fn of(path: &Path, meta: &Metadata) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let own = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let folders = [Some(Path::new("/run/credentials")), own.as_deref()];
        let is_made_anew = folders.into_iter().flatten().any(|folder| path.starts_with(folder));
        (!is_made_anew).then(|| Self(meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
    }

    #[cfg(test)]
    pub(super) const fn numbered(inode: u64) -> Self {
        Self(1, inode, 1, 0)
    }
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

/// The PIN of which something is known.
#[derive(Default)]
pub(super) struct Tries {
    record: Option<Record>,
    file: Option<RunFile>,
}

impl Tries {
    /// With what was written there in this boot.
    pub(super) fn in_file(file: RunFile, now: Duration) -> Self {
        // One of the future is of an earlier boot.
        let record = Record::decode(&file.read(FILE_MAX)).ok().filter(|record| record.at <= now);
        Self { record, file: Some(file) }
    }

    pub(super) const fn file(&self) -> Option<&RunFile> {
        self.file.as_ref()
    }

    /// Another process goes on where this one ends.
    pub(super) const fn outlive(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn verdict(&self, pin: &Pin, now: Duration) -> Verdict {
        let Some(record) = &self.record else { return Verdict::Give };
        let same = record.is_of(pin);
        match record.tries {
            0 => Verdict::Give,
            _ if same == Same::No => Verdict::Give,
            TRIES_MAX.. if same == Same::Hardly => Verdict::Unclear,
            _ if same == Same::Hardly => Verdict::Give,
            _ if record.refused => {
                if same == Same::Yes {
                    Verdict::Refused
                } else {
                    Verdict::Unclear
                }
            }
            TRIES_MAX.. => Verdict::Doubtful,
            _ => match (record.at + PAUSE).checked_sub(now) {
                None | Some(Duration::ZERO) => Verdict::GiveOnceMore,
                Some(left) => Verdict::Wait(left),
            },
        }
    }

    /// It is given to the token now. What was known before is given back, for an answer that proves that nothing was counted.
    pub(super) fn begin(&mut self, pin: &Pin, now: Duration) -> Option<Record> {
        let before = self.record.clone();
        let earlier = self.record.as_ref().filter(|record| record.is_of(pin) != Same::No);
        let tries = earlier.map_or(0, |record| record.tries).saturating_add(1);
        // Without randomness an unsalted digest, which is better than a second try.
        let salt = random::array().unwrap_or_default();
        let given = Some((salt, digest(&salt, pin)));
        self.set(Some(Record { given, file: pin.file(), refused: false, tries, at: now }));
        before
    }

    /// The token said that this is not its PIN.
    pub(super) fn refused(&mut self) {
        let refused = self.record.take().map(|record| Record { refused: true, ..record });
        self.set(refused);
    }

    /// See [`Tries::begin`]; nothing, after a login that succeeded.
    pub(super) fn set(&mut self, record: Option<Record>) {
        self.record = record;
        if let Some(file) = &self.file {
            file.write(&self.record.as_ref().map(Record::encode).unwrap_or_default());
        }
    }
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
    // HMAC takes a key of any length (RFC 2104 §2).
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(salt) else { unreachable!("HMAC takes any key") };
    mac.chain_update(pin.bytes()).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
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
        tries.set(None);
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
        in_file(&path, NOW).set(None);
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
            tries.set(None);
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
}
