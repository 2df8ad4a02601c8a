//! Asks a running daemon.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::{Answer, Refusal};
use super::{LINE_MAX_BYTES, Request};
use crate::types::{Class, Explained};

/// A rotation asks the sealing device twice, and each answer may take a minute (`seal::client`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// The status waits for nobody, not even for a keeper that hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// The daemon said no.
    #[error("{}", .0.error)]
    Refused(Refusal),
    /// Not an answer to what was asked.
    #[error("the daemon's answer does not match the request")]
    Protocol,
    /// The daemon is away: nobody listens.
    #[error("cannot talk to nodeseald on {path}", path = path.display())]
    Unreachable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Somebody may listen, and we did not get through to him.
    #[error("cannot connect to nodeseald on {path}", path = path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// He listened, and closed.
    #[error("nodeseald on {path} closed the connection without an answer", path = path.display())]
    Closed {
        path: PathBuf,
        /// The kernel's reason, if the connection did not simply end.
        #[source]
        source: Option<io::Error>,
    },
    /// He listens, and says nothing.
    #[error("nodeseald on {path} has not answered within {} s", limit.as_secs(), path = path.display())]
    Silent {
        path: PathBuf,
        /// For as long as this verb may take.
        limit: Duration,
    },
}

impl ControlError {
    /// Nobody listens: offline work may be possible.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Nobody answers, as far as can be known without asking for longer.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. })
    }
}

impl Explained for ControlError {
    fn class(&self) -> Class {
        match self {
            Self::Refused(refusal) => Class::from_label(&refusal.class).unwrap_or(Class::Internal),
            Self::Protocol => Class::Internal,
            Self::Connect { source, .. } if source.kind() == ErrorKind::PermissionDenied => Class::Denied,
            Self::Connect { source, .. } if source.kind() == ErrorKind::WouldBlock => Class::Throttled,
            Self::Connect { .. } | Self::Unreachable { .. } | Self::Closed { .. } | Self::Silent { .. } => {
                Class::Unavailable
            }
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.hint,
            Self::Protocol => {
                "nodeseal and nodeseald must be from the same release: after an upgrade restart nodeseald"
            }
            Self::Connect { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                "run it as root; `status` and `metrics` also answer members of the group of control.status_socket"
            }
            Self::Connect { .. } => "try again in a few seconds; if it fails again, see the log of nodeseald",
            Self::Unreachable { .. } => "start nodeseald, and check that --config names its configuration",
            Self::Closed { .. } => {
                "see its log: it refuses users other than root and its own, and closes when it ends; after an upgrade restart it: nodeseal and nodeseald must be from the same release"
            }
            Self::Silent { .. } => "it may still be working: see its log, and try again",
        }
    }
}

/// The status or the metrics, by the control socket or, for those who may not open that one, by the status socket.
pub(crate) fn ask_either(control: &Path, status: &Path, request: &Request) -> Result<Answer, ControlError> {
    let error = match ask(control, request) {
        Err(error @ (ControlError::Unreachable { .. } | ControlError::Connect { .. })) => error,
        other => return other,
    };
    match (ask(status, request), error) {
        // Whoever may look at the one and finds nobody there knows more than by the other, which is closed to him.
        (Err(away @ ControlError::Unreachable { .. }), ControlError::Connect { .. }) => Err(away),
        (Err(ControlError::Unreachable { .. } | ControlError::Connect { .. }), error) => Err(error),
        (other, _) => other,
    }
}

/// One question, one answer.
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<Answer, ControlError> {
    let line = exchange(socket, request)?;
    match serde_json::from_str(&line) {
        Ok(Answer::Refused(refusal)) => Err(ControlError::Refused(refusal)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(ControlError::Protocol),
    }
}

/// A connection whose reads and writes end by themselves.
pub(super) fn connect(socket: &Path, limit: Duration) -> Result<UnixStream, ControlError> {
    let path = || socket.to_owned();
    let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ControlError::Unreachable { path: path(), source },
        _ => ControlError::Connect { path: path(), source },
    })?;
    let limited = stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)));
    limited.map_err(|source| failed(socket, limit, source))?;
    Ok(stream)
}

/// What broke off after the connection was there.
pub(super) fn failed(socket: &Path, limit: Duration, source: io::Error) -> ControlError {
    let path = socket.to_owned();
    match source.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ControlError::Silent { path, limit },
        _ => ControlError::Closed { path, source: Some(source) },
    }
}

fn exchange(socket: &Path, request: &Request) -> Result<String, ControlError> {
    let limit = if request.only_looks() { STATUS_TIMEOUT } else { ANSWER_TIMEOUT };
    let mut stream = connect(socket, limit)?;
    let failed = |source: io::Error| failed(socket, limit, source);
    let question = super::server::to_line(request).map_err(failed)?;
    // Who is busy answers before he has read, and closes.
    let asked = stream.write_all(&question).map_err(failed);
    let mut line = String::new();
    match BufReader::new(stream.take(LINE_MAX_BYTES)).read_line(&mut line) {
        Ok(_) if line.ends_with('\n') => Ok(line),
        Ok(_) => asked.and(Err(ControlError::Closed { path: socket.to_owned(), source: None })),
        Err(error) => asked.and(Err(failed(error))),
    }
}
