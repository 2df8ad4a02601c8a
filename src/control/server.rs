//! The daemon's side of the control socket and of the status socket. Whoever may ask gets one line back, whatever he has sent and however busy we
//! are.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

#[cfg(feature = "etcd")]
use super::frames;
use super::report::{Answer, Refusal};
use super::{LINE_MAX_BYTES, Request};
#[cfg(feature = "etcd")]
use crate::etcd::question::{Question, Verdict};
use crate::socket::peer;
use crate::types::{Class, Explain};

/// For a whole question, from the connection to its last byte, and as long again for the answer: the tool writes its question and reads its answer at once.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Of a question for the status: `{"verb":"status"}`, and room for what a later release adds.
const STATUS_LINE_MAX_BYTES: u64 = 4096;

/// Of one question. The longest has a receipt of each member.
const VALUES_MAX: usize = 1024;

/// Connections at once: a few people and their monitors.
const CONNECTIONS_MAX: usize = 16;

/// Of these, questions that may wait for keys, device or providers. The others are for the status, which waits for nobody.
const SLOW_MAX: usize = 8;

/// Of these, reloads: one that is done and one that waits for it, which then reads what is there by then.
const RELOADS_MAX: usize = 2;

/// After accept(2) failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who comes in by a socket, and what he is answered. Each has places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Root and our own user: everything.
    Operator,
    /// Whomever the kernel lets connect: the status and the metrics.
    Status,
}

pub(crate) trait Answering: Sync {
    fn answer(&self, request: Request) -> Answer;

    /// Whether an object of etcd opens. Whoever has no keys has not tried.
    #[cfg(feature = "etcd")]
    fn opened(&self, _question: &Question<'_>) -> Verdict {
        Verdict::NotAsked
    }
}

impl<T: Answering + Send> Answering for Arc<T> {
    fn answer(&self, request: Request) -> Answer {
        (**self).answer(request)
    }

    #[cfg(feature = "etcd")]
    fn opened(&self, question: &Question<'_>) -> Verdict {
        (**self).opened(question)
    }
}

impl<F: Fn(Request) -> Answer + Sync> Answering for F {
    fn answer(&self, request: Request) -> Answer {
        self(request)
    }
}

/// Why a question is not answered with what it asks for.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("nodeseald is busy with other requests")]
    Busy,
    #[error("a reload is running, and another one is waiting")]
    Reloading,
    #[cfg(feature = "etcd")]
    #[error("another scan of etcd is running on this node")]
    Scanning,
    #[error("nodeseald is busy: the kernel gives it no thread for this request")]
    NoThread(#[source] io::Error),
    #[error("the status socket only shows the status; it neither uses a device nor changes anything")]
    StatusOnly,
    #[error("the request is longer than {LINE_MAX_BYTES} bytes")]
    Long,
    #[error("the request has more than {VALUES_MAX} values")]
    Crowded,
    #[error("no complete request arrived within {} s", QUESTION_TIMEOUT.as_secs())]
    Late,
    #[error("the request is not one line of JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("nodeseald {} does not know this request", env!("CARGO_PKG_VERSION"))]
    Unknown(#[source] serde_json::Error),
}

impl Unanswered {
    fn refusal(&self) -> Answer {
        let (class, hint) = match self {
            Self::Busy => (Class::Throttled, "try again in a few seconds; if it fails again, see its log"),
            Self::Reloading => (
                Class::Throttled,
                "the waiting reload reads the configuration as it is then; check `nodeseal status` afterwards",
            ),
            #[cfg(feature = "etcd")]
            Self::Scanning => (Class::Throttled, "wait until it is done"),
            Self::NoThread(_) => (Class::Throttled, "try again; if it fails again, raise TasksMax= of its unit"),
            Self::StatusOnly => (Class::Denied, "use the control socket, as root or as the user of nodeseald"),
            Self::Late => (Class::Unavailable, "use `nodeseal`, which sends its request at once"),
            Self::Long | Self::Crowded | Self::NotJson(_) => {
                (Class::Misconfigured, "use `nodeseal` of the same release")
            }
            Self::Unknown(_) => (
                Class::Misconfigured,
                "nodeseal and nodeseald must be from the same release: after an upgrade restart nodeseald",
            ),
        };
        Answer::Refused(Refusal::new(&Explain::new(self, class, hint)))
    }
}

/// Takes a place of some, and gives it back.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(taken);
        // Given back by the drop, also when it was one too many.
        (taken.fetch_add(1, Ordering::AcqRel) < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Questions of one door that may wait for keys, device or providers.
#[derive(Default)]
struct Slow {
    all: AtomicUsize,
    reloads: AtomicUsize,
    #[cfg(feature = "etcd")]
    seat: frames::Seat,
}

impl Slow {
    /// Places for this one, or why there are none.
    fn take(&self, request: &Request) -> Result<[Option<Place<'_>>; 2], Unanswered> {
        let own = match request {
            Request::Reload { .. } => Some(Place::take(&self.reloads, RELOADS_MAX).ok_or(Unanswered::Reloading)?),
            _ => None,
        };
        let any = Place::take(&self.all, SLOW_MAX).ok_or(Unanswered::Busy)?;
        Ok([Some(any), own])
    }
}

/// A connection that must be done with at a moment, however often its peer sends or takes a byte.
struct Until<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl<'a> Until<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        Self { stream, end: Instant::now() + QUESTION_TIMEOUT }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        // The kernel takes zero for no limit at all.
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        (&mut &*self.stream).read(buffer)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        (&mut &*self.stream).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers until the process ends, each question on a thread of its own: one may wait for the sealing device.
pub(crate) fn serve(listener: &UnixListener, socket: &Path, door: Door, answering: impl Answering) {
    let (connections, slow) = (AtomicUsize::new(0), Slow::default());
    thread::scope(|scope| {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if door == Door::Operator && !peer::is_own(&stream, socket) {
                continue;
            }
            let stream = Arc::new(stream);
            let Some(place) = Place::take(&connections, CONNECTIONS_MAX) else {
                say_at_once(&stream, &Unanswered::Busy);
                continue;
            };
            let (of_thread, slow, answering) = (Arc::clone(&stream), &slow, &answering);
            let work = move || {
                let _place = place;
                // A tool that went away is its own affair.
                let _ = serve_one(&of_thread, door, slow, answering);
            };
            if let Err(error) = thread::Builder::new().name("control".into()).spawn_scoped(scope, work) {
                say_at_once(&stream, &Unanswered::NoThread(error));
            }
        }
    });
}

/// On the thread that accepts, which waits for nobody: a fresh socket takes a line.
fn say_at_once(stream: &UnixStream, why: &Unanswered) {
    if stream.set_nonblocking(true).is_ok() {
        // A tool that went away is its own affair.
        let _ = to_line(&why.refusal()).and_then(|line| (&mut &*stream).write_all(&line));
    }
}

fn serve_one(stream: &Arc<UnixStream>, door: Door, slow: &Slow, answering: &impl Answering) -> io::Result<()> {
    let answer = match question(stream, door)? {
        Ok(request) if request.only_looks() => answering.answer(request),
        Ok(_) if door == Door::Status => Unanswered::StatusOnly.refusal(),
        Ok(request) => match slow.take(&request) {
            #[cfg(feature = "etcd")]
            Ok(_places) if request == (Request::EtcdOpen {}) => match slow.seat.take(stream) {
                Some(seated) => {
                    let answer = answering.answer(request);
                    Until::new(stream).write_all(&to_line(&answer)?)?;
                    return match answer {
                        Answer::EtcdOpening {} => seated.serve(|question| answering.opened(question)),
                        _ => Ok(()),
                    };
                }
                None => Unanswered::Scanning.refusal(),
            },
            Ok(_places) => answering.answer(request),
            Err(why) => why.refusal(),
        },
        Err(why) => why.refusal(),
    };
    Until::new(stream).write_all(&to_line(&answer)?)
}

/// The outer error: nobody is there to be answered.
fn question(stream: &UnixStream, door: Door) -> io::Result<Result<Request, Unanswered>> {
    let mut line = Vec::new();
    let max = match door {
        Door::Operator => LINE_MAX_BYTES,
        Door::Status => STATUS_LINE_MAX_BYTES,
    };
    match BufReader::new(Until::new(stream).take(max)).read_until(b'\n', &mut line) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Ok(Err(Unanswered::Late));
        }
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    if !line.ends_with(b"\n") && line.len() as u64 >= max {
        return Ok(Err(if door == Door::Status { Unanswered::StatusOnly } else { Unanswered::Long }));
    }
    if values(&line) > VALUES_MAX {
        return Ok(Err(Unanswered::Crowded));
    }
    Ok(match serde_json::from_slice::<serde_json::Value>(&line) {
        Err(error) => Err(Unanswered::NotJson(error)),
        Ok(value) => serde_json::from_value(value).map_err(Unanswered::Unknown),
    })
}

/// Signs between the values of a JSON text, as many as it has values at least: each costs the reader some hundred bytes. Inside of strings
/// they count for nothing (RFC 8259 §7).
fn values(json: &[u8]) -> usize {
    let (mut is_string, mut is_escaped, mut values) = (false, false, 0);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            b'[' | b'{' | b',' | b':' if !is_string => values += 1,
            _ => {}
        }
    }
    values
}

pub(super) fn to_line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests;
