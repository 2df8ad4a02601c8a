//! A connection to the first of several addresses that answers (RFC 8305): each is tried beside those before it, which have a head
//! start, and at once where the one before has failed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// RFC 8305 §5, "Connection Attempt Delay".
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried. A name with more is balanced by its name server, which gives others next time.
pub(super) const ADDRESSES_MAX: usize = 16;

/// The first that answers, and which one it is. All that failed before it, and the winner, are taken out of `left`; the others of which nothing is
/// known yet stay.
pub(super) async fn connect(left: &mut Vec<IpAddr>, port: u16) -> io::Result<(TcpStream, IpAddr)> {
    let mut waiting = left.clone().into_iter().take(ADDRESSES_MAX);
    let mut trying = JoinSet::new();
    let mut first_error = None;
    let mut next_at = Instant::now();
    let mut is_last = false;
    loop {
        if !is_last && Instant::now() >= next_at {
            match waiting.next() {
                Some(address) => {
                    trying.spawn(async move { (address, TcpStream::connect(SocketAddr::new(address, port)).await) });
                    next_at = Instant::now() + HEAD_START;
                }
                None => is_last = true,
            }
        }
        let ended = match (trying.is_empty(), is_last) {
            (true, true) => break,
            (true, false) => {
                sleep_until(next_at).await;
                continue;
            }
            (false, true) => trying.join_next().await,
            (false, false) => match timeout_at(next_at, trying.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok((address, Ok(stream)))) => {
                left.retain(|other| *other != address);
                return Ok((stream, address));
            }
            Some(Ok((address, Err(error)))) => {
                left.retain(|other| *other != address);
                first_error.get_or_insert(error);
                next_at = Instant::now();
            }
            // A task that was lost has answered nothing.
            Some(Err(_)) | None => next_at = Instant::now(),
        }
    }
    left.clear();
    Err(first_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "no address")))
}
