//! The questions of `nodeseal etcd scan`, after the line that asks for them: frames one way, one byte the other
//! ([`crate::etcd::question`]). One connection at a time, so that a scan takes one object's memory and one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::etcd::question::{QUESTION_MAX_BYTES, Question, Verdict};

/// Between two questions: the tool waits for etcd meanwhile.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A frame that has begun, piece by piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are taken before their length is believed.
const PIECE_BYTES: usize = 64 * 1024;

/// Answers until the tool closes. The outer error: it has broken off, or speaks something else.
pub(super) fn serve(stream: &UnixStream, answer: impl Fn(&Question<'_>) -> Verdict) -> io::Result<()> {
    let mut stream = stream;
    let mut frame = Vec::new();
    stream.set_write_timeout(Some(PIECE_TIMEOUT))?;
    loop {
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
        stream.write_all(&[answer(&question) as u8])?;
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
