//! The sealer's loop: one connection at a time, one question each; nothing of it is kept for the next.
//!
//! A question that a device does not answer ends the process (`watch`), so that no later one waits behind it.
//! Before each question it is seen what the configuration says by now, and the question is taken only after that.
//!
//! Refuses peers that are neither root nor our own user before it reads a byte of theirs.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Devices;
use super::watch::Watch;
use crate::audit::{Event, emit};
use crate::sandbox::{Confined, Needs};
use crate::seal::fault::Fault;
use crate::seal::frame;
use crate::seal::protocol::{Request, Response};
use crate::socket::peer;
use crate::types::Secret;
use crate::types::stack::{self, KEEPER_BYTES};

/// A client has its question ready when it connects.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The engines that answer, and what they need of the machine.
pub struct Engines {
    /// The engines.
    pub devices: Devices,
    /// For as long as they serve.
    pub needs: Needs,
}

/// What the configuration says of the engines, before a question is taken.
pub enum Anew {
    /// The same as before, or nothing that can be used.
    Same,
    /// Something else, which the confinement has room for.
    Others(Engines),
    /// Something else, which takes another confinement.
    NextProcess,
}

/// Serves until the listener fails, or until a process with another confinement is needed: for another configuration, or for a device
/// that came late. The supervisor then starts the next one, which finds the question still there if the socket is the supervisor's.
pub fn serve(
    listener: &UnixListener,
    socket: &Path,
    engines: Engines,
    confined: &Confined,
    anew: impl FnMut() -> Anew,
) -> io::Result<()> {
    let watch = watch_after(confined)?;
    let result = serve_watched(listener, socket, engines, confined, anew, &watch);
    // What the process closes at its end may take for ever too.
    watch.ask(THE_END, None).to_the_end();
    result
}

fn serve_watched(
    listener: &UnixListener,
    socket: &Path,
    mut engines: Engines,
    confined: &Confined,
    mut anew: impl FnMut() -> Anew,
    watch: &Watch,
) -> io::Result<()> {
    let result = loop {
        wait_for_question(listener)?;
        match anew() {
            Anew::Same => {}
            Anew::Others(others) => {
                let _closing = watch.ask(THE_END, None);
                engines = others;
            }
            Anew::NextProcess => break Ok(()),
        }
        let (stream, _) = listener.accept()?;
        if peer::is_own(&stream, socket) {
            // A client that went away in the middle is its own affair.
            let _ = answer_watched(stream, &mut engines.devices, watch, log_refusal);
        }
        if confined.lacks(&engines.needs).is_some() {
            break Ok(());
        }
    };
    let _closing = watch.ask(THE_END, None);
    drop(engines);
    result
}

/// Of a device that is let go.
const THE_END: &str = "close";

/// Answers the question of one connection.
pub fn answer(stream: UnixStream, devices: &mut Devices, confined: &Confined) -> io::Result<()> {
    let watch = watch_after(confined)?;
    // Its log is that of whoever asks, who says the same himself.
    let result = answer_watched(stream, devices, &watch, |_, _| {});
    watch.ask(THE_END, None).to_the_end();
    result
}

/// The proof is asked for and not looked at.
fn watch_after(_confined: &Confined) -> io::Result<Watch> {
    Watch::start()
}

fn wait_for_question(listener: &UnixListener) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

type Note = fn(&'static str, &Fault);

fn log_refusal(question: &'static str, fault: &Fault) {
    emit(&Event::DeviceRefused { question, error: fault, hint: fault.code.hint() });
}

fn answer_watched(mut stream: UnixStream, devices: &mut Devices, watch: &Watch, note: Note) -> io::Result<()> {
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    stream.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    let Some(message) = frame::read(&mut stream)? else { return Ok(()) };
    // What the device's library leaves on the stack goes with it.
    let reply = stack::wiped::<KEEPER_BYTES, _>(|| reply(&message, devices, watch, &stream, note))?;
    frame::write(&mut stream, &reply)
}

fn reply(message: &Secret, devices: &mut Devices, watch: &Watch, asker: &UnixStream, note: Note) -> io::Result<Secret> {
    let request =
        Request::decode(message.expose()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let question = request.label();
    let asked = watch.ask(question, Some(asker));
    let answer = devices.answer(request);
    drop(asked);
    if let Response::Fault(fault) = &answer {
        note(question, fault);
    }
    Ok(answer.encode())
}
