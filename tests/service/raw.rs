//! HTTP/2 byte by byte (RFC 9113 §4 and §6), for what no honest client does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_HEADERS: u8 = 4;

/// SETTINGS_INITIAL_WINDOW_SIZE
pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Preface and SETTINGS.
pub fn greeting(settings: &[(u16, u32)]) -> Vec<u8> {
    let pairs: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    [PREFACE, &frame(SETTINGS, 0, 0, &pairs)].concat()
}

/// A header block of a gRPC call, all literals without indexing (RFC 7541 §6.2.2), so that it means the same on every stream.
pub fn block(path: &str) -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .iter()
    .flat_map(|(name, value)| literal(name, value))
    .collect()
}

/// A literal without indexing, up to 126 bytes each.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// A connection that has greeted and can be written to without end: whatever comes back is read and forgotten.
pub fn greeted(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = silent(socket)?;
    stream.write_all(&greeting(&[]))?;
    let mut reader = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while matches!(reader.read(&mut buffer), Ok(1..)) {}
    });
    Ok(stream)
}

/// A connection on which nothing was said, with time limits.
pub fn silent(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    Ok(stream)
}

/// Whether the other side has closed it. Reads what has come.
pub fn is_closed(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match (&mut &*stream).read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}
