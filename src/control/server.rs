//! The daemon's side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

use super::report::Answer;
use super::{LINE_MAX_BYTES, Request};
use crate::audit::{Event, emit};

/// The tool writes its question at once.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions at once: a few people and a monitor. One more is closed.
const AT_ONCE_MAX: usize = 8;

/// Answers until the process ends, each question on a thread of its own: one may wait for the sealing device.
pub fn serve(listener: &UnixListener, socket: &Path, answer: impl Fn(Request) -> Answer + Sync) {
    let at_once = AtomicUsize::new(0);
    thread::scope(|scope| {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) if is_allowed(&stream, socket) && at_once.load(Ordering::Acquire) < AT_ONCE_MAX => {
                    at_once.fetch_add(1, Ordering::AcqRel);
                    scope.spawn(|| {
                        // A tool that went away is its own affair.
                        let _ = serve_one(stream, &answer);
                        at_once.fetch_sub(1, Ordering::AcqRel);
                    });
                }
                Ok(_) => {}
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    });
}

/// After accept(2) failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

fn serve_one(stream: UnixStream, answer: &impl Fn(Request) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    stream.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LINE_MAX_BYTES)).read_line(&mut line)?;
    let request = serde_json::from_str(&line).map_err(io::Error::from)?;
    (&stream).write_all(&to_line(&answer(request))?)
}

pub(super) fn to_line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(line)
}

fn is_allowed(stream: &UnixStream, socket: &Path) -> bool {
    match getsockopt(stream, sockopt::PeerCredentials) {
        Ok(peer) if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() => true,
        Ok(peer) => {
            emit(&Event::PeerRefused { peer_uid: peer.uid(), peer_pid: peer.pid(), socket });
            false
        }
        Err(_) => false,
    }
}
