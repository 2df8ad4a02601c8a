//! Who is at the other end of a connection, by SO_PEERCRED (unix(7)): asked before a byte of it is read. Whoever may not come in leaves an
//! event, and what cannot be asked is refused.

use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use crate::audit::{Event, emit};
use crate::telemetry::{self, Refused};

/// Whether this user id may, at the socket that he came by.
pub(crate) fn is_allowed(stream: &impl AsFd, socket: &Path, may: impl FnOnce(u32) -> bool) -> bool {
    let Ok(peer) = getsockopt(stream, sockopt::PeerCredentials) else { return false };
    let is_allowed = may(peer.uid());
    if !is_allowed {
        telemetry::refused(Refused::Peer);
        emit(&Event::PeerRefused { peer_uid: peer.uid(), peer_pid: peer.pid(), socket });
    }
    is_allowed
}

/// Root, and the user that this process runs as.
pub(crate) fn is_own(stream: &impl AsFd, socket: &Path) -> bool {
    is_allowed(stream, socket, |uid| uid == 0 || uid == geteuid().as_raw())
}
