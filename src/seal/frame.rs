//! Frames on the sealer's socket: a u32 length, big-endian, and as many bytes. Blocking, with the stream's own time limits.

use std::io::{self, Read, Write};

use super::protocol::FRAME_MAX_BYTES;
use crate::types::Secret;

/// Reads one frame; `None` if the peer closed the stream before it.
pub fn read(stream: &mut impl Read) -> io::Result<Option<Secret>> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > FRAME_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame longer than the protocol allows"));
    }
    let mut bytes = zeroize::Zeroizing::new(vec![0; len]);
    stream.read_exact(&mut bytes)?;
    Ok(Some(Secret::new(std::mem::take(&mut bytes))))
}

/// Writes one frame.
pub fn write(stream: &mut impl Write, message: &Secret) -> io::Result<()> {
    let bytes = message.expose();
    let len = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    stream.write_all(&len.to_be_bytes())?;
    stream.write_all(bytes)?;
    stream.flush()
}
