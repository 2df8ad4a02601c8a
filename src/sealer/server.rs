//! The sealer's loop: one connection at a time, one question each; nothing of it is kept for the next.
//!
//! Refuses peers that are neither root nor our own user before it reads a byte of theirs.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::Devices;
use crate::audit::{Event, emit};
use crate::sandbox::{Confined, Needs};
use crate::seal::frame;
use crate::seal::protocol::Request;
use crate::types::Secret;
use crate::types::stack::{self, KEEPER_BYTES};

/// A client has its question ready when it connects.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until the listener fails, or until something is there that the confinement would have been given had it been there before:
/// a device that came late. The supervisor then starts the next one.
pub fn serve(
    listener: &UnixListener,
    socket: &Path,
    devices: &mut Devices,
    confined: &Confined,
    needs: &Needs,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        if is_allowed(&stream, socket) {
            // A client that went away in the middle is its own affair.
            let _ = answer(stream, devices, confined);
        }
        if confined.lacks(needs).is_some() {
            return Ok(());
        }
    }
}

/// Answers the question of one connection. The proof is asked for and not looked at.
pub fn answer(mut stream: UnixStream, devices: &mut Devices, _confined: &Confined) -> io::Result<()> {
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    stream.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    let Some(message) = frame::read(&mut stream)? else { return Ok(()) };
    // What the device's library leaves on the stack goes with it.
    let reply = stack::wiped::<KEEPER_BYTES, _>(|| reply(&message, devices))?;
    frame::write(&mut stream, &reply)
}

fn reply(message: &Secret, devices: &mut Devices) -> io::Result<Secret> {
    let request =
        Request::decode(message.expose()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(devices.answer(request).encode())
}

fn is_allowed(stream: &UnixStream, socket: &Path) -> bool {
    match getsockopt(stream, sockopt::PeerCredentials) {
        Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => true,
        Ok(peer) => {
            emit(&Event::PeerRefused { peer_uid: peer.uid(), peer_pid: peer.pid(), socket });
            false
        }
        Err(_) => false,
    }
}
