//! The questions of `nodeseal etcd scan`, after the line that asks for them: frames one way, one byte the other
//! ([`crate::etcd::question`]). One connection at a time, so that a scan takes one object's memory and one thread. Whoever has asked
//! nothing for a while gives way to the next scan ([`Seat`]): a tool that still wants something connects again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::etcd::question::{QUESTION_MAX_BYTES, Question, Verdict};
use crate::types::lock;

/// Between two questions: the tool waits for etcd meanwhile, or reads what nobody has encrypted.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Since the last answer, after which a scan gives way to another one.
const GIVE_WAY_AFTER: Duration = Duration::from_secs(10);
/// For the thread of a scan that gives way to end. It waits for nothing then.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
const LEAVE_PAUSE: Duration = Duration::from_millis(5);
/// A frame that has begun, piece by piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are taken before their length is believed.
const PIECE_BYTES: usize = 64 * 1024;

/// The place of the one scan.
#[derive(Default)]
pub(super) struct Seat(Mutex<Option<Sitting>>);

struct Sitting {
    stream: Arc<UnixStream>,
    /// Since when no answer is under way.
    idle: Option<Instant>,
}

/// A place that was taken, and is given back when it drops.
pub(super) struct Seated<'a> {
    seat: &'a Seat,
    stream: &'a Arc<UnixStream>,
}

impl Seat {
    /// For this connection. `None`: another scan has it and is using it.
    pub(super) fn take<'a>(&'a self, stream: &'a Arc<UnixStream>) -> Option<Seated<'a>> {
        let give_up = Instant::now() + LEAVE_TIMEOUT;
        loop {
            {
                let mut sitting = self.sitting();
                match &*sitting {
                    None => {
                        *sitting = Some(Sitting { stream: Arc::clone(stream), idle: Some(Instant::now()) });
                        return Some(Seated { seat: self, stream });
                    }
                    Some(sitting) if sitting.idle.is_none_or(|idle| idle.elapsed() < GIVE_WAY_AFTER) => return None,
                    // Its thread reads the end of the stream, and gives the place back.
                    Some(sitting) => {
                        // It fails only for one that has ended already.
                        let _ = sitting.stream.shutdown(Shutdown::Both);
                    }
                }
            }
            if Instant::now() >= give_up {
                return None;
            }
            thread::sleep(LEAVE_PAUSE);
        }
    }

    fn sitting(&self) -> MutexGuard<'_, Option<Sitting>> {
        lock::lock(&self.0)
    }
}

impl Seated<'_> {
    fn mark(&self, idle: Option<Instant>) {
        if let Some(sitting) = &mut *self.seat.sitting() {
            sitting.idle = idle;
        }
    }

    /// Answers until the tool closes. The outer error: it has broken off, or speaks something else.
    pub(super) fn serve(&self, answer: impl Fn(&Question<'_>) -> Verdict) -> io::Result<()> {
        let mut stream = &**self.stream;
        let mut frame = Vec::new();
        stream.set_write_timeout(Some(PIECE_TIMEOUT))?;
        loop {
            self.mark(Some(Instant::now()));
            stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
            let mut len = [0; 4];
            match stream.read_exact(&mut len) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            stream.set_read_timeout(Some(PIECE_TIMEOUT))?;
            read(&mut stream, u32::from_be_bytes(len), &mut frame)?;
            // A tool of another release: an answer would be taken for one about the object.
            let question = Question::decode(&frame).map_err(|_| ErrorKind::InvalidData)?;
            // Before, a frame may have come byte by byte.
            self.mark(None);
            stream.write_all(&[answer(&question) as u8])?;
        }
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        *self.seat.sitting() = None;
    }
}

/// Room is made as the bytes come.
fn read(stream: &mut &UnixStream, len: u32, frame: &mut Vec<u8>) -> io::Result<()> {
    let len = usize::try_from(len).ok().filter(|len| *len <= QUESTION_MAX_BYTES).ok_or(ErrorKind::InvalidData)?;
    frame.clear();
    while frame.len() < len {
        let (at, piece) = (frame.len(), PIECE_BYTES.min(len - frame.len()));
        frame.resize(at + piece, 0);
        stream.read_exact(&mut frame[at..])?;
    }
    // One long object does not take its room for the rest of the scan.
    frame.shrink_to(PIECE_BYTES.max(len));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Arc<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(ours), theirs)
    }

    #[test]
    fn a_scan_that_asks_nothing_gives_way_to_the_next_one_and_one_that_asks_does_not() {
        let seat = Seat::default();
        let ((first, mut tool), (second, _other)) = (pair(), pair());
        let seated = seat.take(&first).unwrap();
        assert!(seat.take(&second).is_none(), "it has only begun");
        thread::scope(|scope| {
            scope.spawn(|| {
                let seated = seated;
                seated.serve(|_| Verdict::Opens)
            });
            // A frame that has begun, and of which a byte comes now and then.
            tool.write_all(&[0, 0, 1]).unwrap();
            let since = Instant::now().checked_sub(GIVE_WAY_AFTER);
            thread::sleep(Duration::from_millis(50));
            if let Some(sitting) = &mut *seat.sitting() {
                sitting.idle = since;
            }
            let seated = seat.take(&second);
            assert!(seated.is_some());
            assert_eq!(tool.read(&mut [0]).unwrap(), 0, "the first one sees the end of its connection");
            // An answer is under way.
            seated.as_ref().unwrap().mark(None);
            assert!(seat.take(&first).is_none());
        });
    }
}
