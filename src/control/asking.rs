//! The tool's side of [`super::frames`]: one connection for a whole scan.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::Answer;
use super::{ControlError, Request};
use crate::etcd::count::Opener;
use crate::etcd::question::{Question, Verdict};

/// A question may wait for a provider, whose calls end within 3 s (`api::limits`), and for its turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the first answer, which is a line.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// A daemon that answers questions about objects.
pub struct Asking {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Asking {
    /// Connects, and is let in.
    pub fn begin(socket: &Path) -> Result<Self, ControlError> {
        let mut asking =
            Self { stream: BufReader::new(super::client::connect(socket, ANSWER_TIMEOUT)?), path: socket.to_owned() };
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
}

impl Opener for Asking {
    type Error = ControlError;

    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, ControlError> {
        // A key of etcd that is longer than any of kube-apiserver's is of nobody's object.
        let Some(frame) = question.encode() else { return Ok(Verdict::BadText) };
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut verdict = [0];
        let stream = self.stream.get_mut();
        let sent = stream.write_all(&len).and_then(|()| stream.write_all(&frame));
        sent.and_then(|()| self.stream.read_exact(&mut verdict)).map_err(|source| self.failed(source))?;
        Verdict::from_byte(verdict[0]).ok_or(ControlError::Protocol)
    }
}
