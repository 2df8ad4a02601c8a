//! The tool's side of [`super::frames`]: one connection for a whole scan, and another one if nodeseald has closed it meanwhile. A scan may
//! have nothing to ask for minutes, and its place is then given to whoever asks for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::report::Answer;
use super::{ControlError, Request};
use crate::etcd::count::Opener;
use crate::etcd::question::{Question, Verdict};
use crate::types::Class;

/// A question may wait for a provider, whose calls end within 3 s (`api::limits`), and for its turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the first answer, which is a line.
const LINE_MAX_BYTES: u64 = 64 * 1024;
/// Before a question is asked again whose provider has not answered: it may have been too busy for a moment.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// Questions that are asked again in vain, one after the other, before no more are: a provider that is away stays away.
const AGAIN_MAX: u32 = 8;
/// For the place of a scan that has it now, before the connection is given up: one try a second.
const PLACE_TRIES: u32 = 60;
const PLACE_PAUSE: Duration = Duration::from_secs(1);

/// A daemon that answers questions about objects.
pub(crate) struct Asking {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    /// How often a question is still asked again.
    again: u32,
}

impl Asking {
    /// Connects, and is let in.
    pub(crate) fn begin(socket: &Path) -> Result<Self, ControlError> {
        let stream = BufReader::new(super::client::connect(socket, ANSWER_TIMEOUT)?);
        let mut asking = Self { stream, path: socket.to_owned(), again: AGAIN_MAX };
        let line = super::server::to_line(&Request::EtcdOpen {}).map_err(|source| asking.failed(source))?;
        asking.stream.get_mut().write_all(&line).map_err(|source| asking.failed(source))?;
        let mut line = String::new();
        let read = (&mut asking.stream).take(LINE_MAX_BYTES).read_line(&mut line);
        read.map_err(|source| asking.failed(source))?;
        match serde_json::from_str(&line) {
            Ok(Answer::EtcdOpening {}) => Ok(asking),
            Ok(Answer::Refused(refusal)) => Err(ControlError::Refused(refusal)),
            Ok(_) => Err(ControlError::Protocol),
            Err(_) if line.is_empty() => Err(ControlError::Closed { path: asking.path, source: None }),
            Err(_) => Err(ControlError::Protocol),
        }
    }

    fn failed(&self, source: std::io::Error) -> ControlError {
        super::client::failed(&self.path, ANSWER_TIMEOUT, source)
    }

    /// As often as a place may be taken by another scan.
    fn begin_again(&mut self) -> Result<(), ControlError> {
        for _ in 1..PLACE_TRIES {
            match Self::begin(&self.path) {
                Err(ControlError::Refused(refusal)) if refusal.class == Class::Throttled.label() => {
                    thread::sleep(PLACE_PAUSE);
                }
                begun => return begun.map(|begun| *self = Self { again: self.again, ..begun }),
            }
        }
        *self = Self { again: self.again, ..Self::begin(&self.path)? };
        Ok(())
    }

    fn ask(&mut self, frame: &[u8]) -> Result<Verdict, ControlError> {
        match self.exchange(frame) {
            Err(ControlError::Closed { .. }) => {
                self.begin_again()?;
                self.exchange(frame)
            }
            other => other,
        }
    }

    fn exchange(&mut self, frame: &[u8]) -> Result<Verdict, ControlError> {
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut verdict = [0];
        let stream = self.stream.get_mut();
        let sent = stream.write_all(&len).and_then(|()| stream.write_all(frame));
        sent.and_then(|()| self.stream.read_exact(&mut verdict)).map_err(|source| self.failed(source))?;
        Verdict::from_byte(verdict[0]).ok_or(ControlError::Protocol)
    }
}

impl Opener for Asking {
    type Error = ControlError;

    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, ControlError> {
        // A key of etcd that is longer than any of kube-apiserver's is no reason to say anything of the object's seed.
        let Some(frame) = question.encode() else { return Ok(Verdict::NotAsked) };
        let verdict = self.ask(&frame)?;
        if verdict != Verdict::ProviderAway || self.again == 0 {
            return Ok(verdict);
        }
        thread::sleep(AGAIN_PAUSE);
        let verdict = self.ask(&frame)?;
        self.again = if verdict == Verdict::ProviderAway { self.again - 1 } else { AGAIN_MAX };
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::envelope::Api;
    use crate::etcd::object::SourceKind;

    /// A daemon that gives these answers, and closes behind each line of them.
    fn asking(answers: &'static [&'static [Verdict]]) -> (tempfile::TempDir, Asking) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for line in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(&stream);
                reader.read_line(&mut String::new()).unwrap();
                (&stream).write_all(&super::super::server::to_line(&Answer::EtcdOpening {}).unwrap()).unwrap();
                for answer in *line {
                    let mut len = [0; 4];
                    reader.read_exact(&mut len).unwrap();
                    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
                    reader.read_exact(&mut frame).unwrap();
                    (&stream).write_all(&[*answer as u8]).unwrap();
                }
            }
        });
        let asking = Asking::begin(&path).unwrap();
        (folder, asking)
    }

    fn question(key: &[u8]) -> Question<'_> {
        Question {
            api: Api::V2,
            kind: SourceKind::Seed,
            key_id: "ns1-a",
            source: b"seed",
            annotations: Vec::new(),
            object: Some((key, b"data")),
        }
    }

    #[test]
    fn a_provider_that_was_too_busy_for_a_moment_is_asked_again_once() {
        let (_folder, mut asking) =
            asking(&[&[Verdict::ProviderAway, Verdict::Opens, Verdict::ProviderAway, Verdict::ProviderAway]]);
        assert_eq!(asking.open(&question(b"a")).unwrap(), Verdict::Opens);
        assert_eq!(asking.open(&question(b"b")).unwrap(), Verdict::ProviderAway);
    }

    #[test]
    fn a_key_of_etcd_that_is_too_long_is_not_asked_for_and_says_nothing_of_the_next_object() {
        let (_folder, mut asking) = asking(&[&[Verdict::Opens]]);
        assert_eq!(asking.open(&question(&[b'a'; 1 << 17])).unwrap(), Verdict::NotAsked);
        assert_eq!(asking.open(&question(b"a")).unwrap(), Verdict::Opens);
    }

    #[test]
    fn a_scan_whose_place_was_given_away_while_it_had_nothing_to_ask_takes_another_one() {
        let (_folder, mut asking) = asking(&[&[Verdict::Opens], &[Verdict::UnknownKek]]);
        assert_eq!(asking.open(&question(b"a")).unwrap(), Verdict::Opens);
        assert_eq!(asking.open(&question(b"b")).unwrap(), Verdict::UnknownKek);
    }
}
