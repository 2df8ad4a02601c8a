//! Asks a running daemon.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::{Answer, Refusal};
use super::{LINE_MAX_BYTES, Request};
use crate::types::Class;

/// A rotation asks the sealing device twice, and each answer may take a minute (`seal::client`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The daemon said no.
    #[error("{}", .0.error)]
    Refused(Refusal),
    /// Not an answer to what was asked.
    #[error("the daemon gave an answer that does not fit the question")]
    Protocol,
    /// The daemon is away.
    #[error("cannot talk to nodeseald on {path}", path = path.display())]
    Unreachable {
        /// The control socket.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl ControlError {
    /// Decides the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(refusal) => Class::from_label(&refusal.class).unwrap_or(Class::Internal),
            Self::Protocol => Class::Internal,
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Denied,
            Self::Unreachable { .. } => Class::Unavailable,
        }
    }

    /// What the operator does next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.hint,
            Self::Protocol => "nodeseal and nodeseald must be of one release",
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "run it as root",
            Self::Unreachable { .. } => "start nodeseald, and see that --config names its configuration",
        }
    }

    /// Nobody listens: offline work may be possible.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// One question, one answer.
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ControlError> {
    let line =
        exchange(socket, request).map_err(|source| ControlError::Unreachable { path: socket.to_owned(), source })?;
    match serde_json::from_str(&line) {
        Ok(Answer::Refused(refusal)) => Err(ControlError::Refused(refusal)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(ControlError::Protocol),
    }
}

fn exchange(socket: &Path, request: &Request) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(&super::server::to_line(request)?)?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX_BYTES)).read_line(&mut line)?;
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}
