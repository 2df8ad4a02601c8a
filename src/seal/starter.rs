//! The way to a sealer without a supervisor: a process that starts one for each question, and that was itself started before
//! `nodeseald` confined itself.
//!
//! Over a socket of whole messages goes one end of a socket pair and how long its answer may take; the starter gives that end to a new
//! sealer as standard input, and ends it when its time is over. Question and answer go between asker and sealer alone. The starter ends
//! when the last asker does.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::TimeVal;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// The TPM library logs whole buffers at its finest level; nobody's environment may turn that on.
const TSS2_QUIET: (&str, &str) = ("TSS2_LOG", "all+NONE");

/// Between two looks at sealers that run.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The asker's side.
#[derive(Clone, Debug)]
pub struct Starter {
    way: Arc<OwnedFd>,
    /// Kept, so that its number is nobody else's for as long as we are there.
    _process: Arc<Mutex<Child>>,
}

impl Starter {
    /// Starts the starter. Call before the confinement.
    pub fn start(program: &Path, config: &Path) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let process = sealer(program, config, theirs).spawn()?;
        Ok(Self { way: Arc::new(ours), _process: Arc::new(Mutex::new(process)) })
    }

    /// A connection to a new sealer, which has this long.
    pub(super) fn connect(&self, within: Duration) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let message = millis.to_le_bytes();
        rustix::net::sendmsg(&self.way, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(ours)
    }
}

/// A sealer that answers what stands on this socket. It sees nothing of our environment.
pub(super) fn sealer(program: &Path, config: &Path, socket: OwnedFd) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).env_clear().env(TSS2_QUIET.0, TSS2_QUIET.1);
    command.stdin(Stdio::from(socket)).stdout(Stdio::null());
    command
}

/// The starter's loop: until the last asker is gone.
pub fn serve(way: &OwnedFd, program: &Path, config: &Path) -> io::Result<()> {
    let mut running: Vec<(Child, Instant)> = Vec::new();
    let result = loop {
        running.retain_mut(|(child, end)| {
            if Instant::now() > *end {
                // It may have ended on its own.
                let _ = child.kill();
            }
            matches!(child.try_wait(), Ok(None))
        });
        // 0 is for ever.
        let patience = if running.is_empty() { 0 } else { i64::try_from(LOOK_EVERY.as_micros()).unwrap_or(0) };
        setsockopt(way, sockopt::ReceiveTimeout, &TimeVal::new(0, patience))?;
        match receive(way) {
            Ok(None) => break Ok(()),
            Ok(Some((socket, within))) => {
                // A sealer that cannot be started is an end of file for its asker.
                if let Ok(child) = sealer(program, config, socket).spawn() {
                    running.push((child, Instant::now() + within));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => break Err(error),
        }
    };
    for (child, _) in &mut running {
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn receive(way: &OwnedFd) -> io::Result<Option<(OwnedFd, Duration)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut message = [0; 8];
    let received =
        rustix::net::recvmsg(way, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    match (received.bytes, sockets.next().and_then(|mut fds| fds.next())) {
        (0, _) => Ok(None),
        (_, Some(socket)) => Ok(Some((socket, Duration::from_millis(u64::from_le_bytes(message))))),
        (_, None) => Err(io::ErrorKind::InvalidData.into()),
    }
}
