//! Asks the sealer. Every question opens its own connection, so that a sealer that died and came back is no event at all.
//!
//! Blocking: a TPM takes its time (seconds), and only the keeper's thread, the thread of the token's provider and the operator tool ever ask.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use super::fault::Fault;
use super::frame;
use super::protocol::{Auth, CounterStep, DeviceBlob, DeviceInfo, Request, Response};
use super::starter::{self, Starter};
use super::token_key::TokenKey;
use crate::telemetry::{DEVICE, WELL};
use crate::types::wire::WireError;
use crate::types::{Backend, Class, Explained, Key, SealTo};

/// How long one answer may take, and what may stand before us. Kernel time limits of single TPM commands run to minutes; the engine gives
/// up after 10 s of retries, and the sealer ends itself after 55 s of one question (`sealer::watch`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A sealer that listens somewhere, or one that is started for each question.
#[derive(Clone, Debug)]
pub enum SealerClient {
    /// A socket that systemd or another supervisor holds.
    Socket(PathBuf),
    /// No supervisor: run this program with `--config FILE` and a socket pair as its standard input.
    Spawn {
        /// nodeseal-sealer.
        program: PathBuf,
        /// What it reads.
        config: PathBuf,
    },
    /// No supervisor, and we may start no program ourselves.
    Started(Starter),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SealerError {
    /// The device said no.
    #[error(transparent)]
    Device(Fault),
    /// Not an answer to what was asked.
    #[error("the sealer's answer does not match the request")]
    Protocol(#[source] Option<WireError>),
    /// The process is away.
    #[error("cannot talk to the sealer ({how})")]
    Unreachable {
        /// Socket or program.
        how: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
        /// What the operator does next.
        hint: &'static str,
    },
}

impl Explained for SealerError {
    fn class(&self) -> Class {
        match self {
            Self::Device(fault) => fault.code.class(),
            Self::Protocol(_) => Class::Internal,
            Self::Unreachable { .. } => Class::Unavailable,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Device(fault) => fault.code.hint(),
            Self::Protocol(_) => "nodeseald and nodeseal-sealer must be from the same release",
            Self::Unreachable { hint, .. } => hint,
        }
    }
}

impl SealerClient {
    /// The program in the folder of our own.
    pub fn spawning(config: PathBuf) -> Self {
        let program = std::env::current_exe().unwrap_or_default().with_file_name("nodeseal-sealer");
        Self::Spawn { program, config }
    }

    /// For a process that confines itself next: what it could start a program for afterwards is started now.
    pub fn before_confinement(self) -> Result<Self, SealerError> {
        match &self {
            Self::Spawn { program, config } => {
                Starter::start(program, config).map(Self::Started).map_err(|source| self.unreachable(source))
            }
            Self::Socket(_) | Self::Started(_) => Ok(self),
        }
    }

    /// See [`Request::Seal`].
    pub fn seal(
        &self,
        secret: Key,
        auth: Auth,
        to: SealTo,
        pin: Option<&DeviceBlob>,
    ) -> Result<DeviceBlob, SealerError> {
        match self.ask(&Request::Seal { to, auth, secret, pin: pin.cloned() })? {
            Response::Sealed(blob) => Ok(blob),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Unseal`].
    pub fn unseal(&self, blob: DeviceBlob, auth: Auth) -> Result<Key, SealerError> {
        match self.ask(&Request::Unseal { auth, blob })? {
            Response::Unsealed(key) => Ok(key),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Counter`].
    pub fn counter(
        &self,
        step: CounterStep,
        index: u32,
        auth: Auth,
        pin: Option<&DeviceBlob>,
    ) -> Result<u64, SealerError> {
        match self.ask(&Request::Counter { step, index, auth, pin: pin.cloned() })? {
            Response::Counted(value) => Ok(value),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Parent`].
    pub fn parent(&self, pin: Option<&DeviceBlob>) -> Result<Vec<u8>, SealerError> {
        match self.ask(&Request::Parent { pin: pin.cloned() })? {
            Response::Parent(public) => Ok(public),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Import`].
    pub fn import(&self, duplicate: Vec<u8>, auth: Auth, pin: Option<&DeviceBlob>) -> Result<Key, SealerError> {
        match self.ask(&Request::Import { auth, duplicate, pin: pin.cloned() })? {
            Response::Unsealed(key) => Ok(key),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Describe`].
    pub fn describe(&self, backend: Backend) -> Result<DeviceInfo, SealerError> {
        match self.ask(&Request::Describe(backend))? {
            Response::Described(info) => Ok(info),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::SharedKey`]. Waits no longer than this for each step of the answer.
    pub fn shared_key(&self, key: TokenKey, make: bool, within: Duration) -> Result<TokenKey, SealerError> {
        match self.ask_within(&Request::SharedKey { key, make }, within)? {
            Response::SharedKey(key) => Ok(key),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Wrap`]. As [`SealerClient::shared_key`].
    pub fn wrap(
        &self,
        key: TokenKey,
        auth: Auth,
        secret: Key,
        within: Duration,
    ) -> Result<(TokenKey, DeviceBlob), SealerError> {
        match self.ask_within(&Request::Wrap { key, auth, secret }, within)? {
            Response::Wrapped { key, blob } => Ok((key, blob)),
            other => Err(unfit(other)),
        }
    }

    /// See [`Request::Unwrap`]. As [`SealerClient::shared_key`].
    pub fn unwrap(&self, key: TokenKey, auth: Auth, blob: DeviceBlob, within: Duration) -> Result<Key, SealerError> {
        match self.ask_within(&Request::Unwrap { key, auth, blob }, within)? {
            Response::Unsealed(key) => Ok(key),
            other => Err(unfit(other)),
        }
    }

    /// A program that is missing or may not be started has a remedy of its own.
    fn unreachable(&self, source: io::Error) -> SealerError {
        let hint = match (self, source.kind()) {
            (Self::Spawn { .. }, io::ErrorKind::NotFound) => {
                "put nodeseal-sealer of the same release into the folder of nodeseald and nodeseal"
            }
            (Self::Spawn { .. }, io::ErrorKind::PermissionDenied) => {
                "let this user start nodeseal-sealer: chmod 0755, and no file system that is mounted noexec"
            }
            (Self::Socket(_), io::ErrorKind::PermissionDenied) => {
                "only root and the user of nodeseald may connect to the sealer's socket: run this as one of them"
            }
            _ => "check that nodeseal-sealer runs, and read its log",
        };
        SealerError::Unreachable { how: self.to_string(), source, hint }
    }

    fn ask(&self, request: &Request) -> Result<Response, SealerError> {
        self.ask_within(request, ANSWER_TIMEOUT)
    }

    fn ask_within(&self, request: &Request, within: Duration) -> Result<Response, SealerError> {
        let begun = Instant::now();
        let answer = self.answer_within(request, within);
        let class = answer.as_ref().map_or_else(|error| error.class().label(), |_| WELL);
        DEVICE.note("", request.label(), class, begun.elapsed());
        answer
    }

    fn answer_within(&self, request: &Request, within: Duration) -> Result<Response, SealerError> {
        let message = match self {
            Self::Socket(path) => connected(path, within).and_then(|stream| exchange(stream, request, within)),
            Self::Spawn { program, config } => spawn_and_exchange(program, config, request, within),
            Self::Started(starter) => starter.connect(within).and_then(|stream| exchange(stream, request, within)),
        };
        let message = message.map_err(|source| match source.kind() {
            // Longer than any answer: somebody else listens there.
            io::ErrorKind::InvalidData => SealerError::Protocol(None),
            _ => self.unreachable(told(source, within)),
        })?;
        match Response::decode(message.expose()) {
            Ok(Response::Fault(fault)) => Err(SealerError::Device(fault)),
            Ok(response) => Ok(response),
            Err(error) => Err(SealerError::Protocol(Some(error))),
        }
    }
}

impl std::fmt::Display for SealerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Spawn { program, .. } => write!(f, "program {}", program.display()),
            Self::Started(_) => f.write_str("a program for each request"),
        }
    }
}

/// What the kernel says of a limit of time (EAGAIN) and of an end of file is no help to anybody.
fn told(source: io::Error, within: Duration) -> io::Error {
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer from the sealer in {}", humantime::format_duration(within)),
        ),
        io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "the sealer ended before it answered"),
        _ => source,
    }
}

fn unfit(response: Response) -> SealerError {
    // Dropped, and with it wiped: it may hold a key that nobody asked for.
    drop(response);
    SealerError::Protocol(None)
}

/// Also a sealer whose backlog is full does not hold us for longer: connect(2) on a unix socket ends with SO_SNDTIMEO (socket(7)).
fn connected(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(seconds, i64::from(within.subsec_micros())))?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

fn exchange(mut stream: UnixStream, request: &Request, within: Duration) -> io::Result<crate::types::Secret> {
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    frame::write(&mut stream, &request.encode())?;
    stream.shutdown(Shutdown::Write)?;
    frame::read(&mut stream)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

fn spawn_and_exchange(
    program: &Path,
    config: &Path,
    request: &Request,
    within: Duration,
) -> io::Result<crate::types::Secret> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = starter::sealer(program, config, theirs.into()).spawn()?;
    let answer = exchange(ours, request, within);
    if answer.is_err() {
        child.kill()?;
    }
    child.wait()?;
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn a_sealer_that_does_not_answer_or_ends_is_called_that_and_no_number_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let told =
            |within| match SealerClient::Socket(path.clone()).ask_within(&Request::Describe(Backend::Tpm2), within) {
                Err(SealerError::Unreachable { source, .. }) => source.to_string(),
                _ => panic!("it answered"),
            };
        assert_eq!(told(Duration::from_millis(1500)), "no answer from the sealer in 1s 500ms");
        let ends = std::thread::spawn(move || {
            // The one that gave up, and the next.
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                frame::read(&mut stream).unwrap();
            }
        });
        assert_eq!(told(Duration::from_secs(20)), "the sealer ended before it answered");
        ends.join().unwrap();
    }

    #[test]
    fn a_sealer_that_takes_nobody_is_waited_for_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        // The kernel takes one more than it is told.
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let within = Duration::from_millis(200);
        let sealer = SealerClient::Socket(path.clone());
        let _taken = connected(&path, within).unwrap();
        let begun = Instant::now();
        let key = TokenKey::new("a", None).unwrap();
        let refused = sealer.shared_key(key, false, within);
        let Err(SealerError::Unreachable { source, .. }) = refused else { panic!("it answered") };
        assert_eq!(source.to_string(), "no answer from the sealer in 200ms");
        assert!((within..Duration::from_secs(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_sealer_that_is_not_there_or_may_not_be_started_is_named_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let (program, config) = (dir.path().join("nodeseal-sealer"), dir.path().join("config"));
        let refused = || {
            let client = SealerClient::Spawn { program: program.clone(), config: config.clone() };
            let Err(error) = client.before_confinement() else { panic!("it was started") };
            assert!(error.to_string().contains(&program.display().to_string()), "{error}");
            error.hint().to_owned()
        };
        assert!(refused().starts_with("put nodeseal-sealer"), "{}", refused());
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused().contains("chmod 0755"), "{}", refused());
    }
}
