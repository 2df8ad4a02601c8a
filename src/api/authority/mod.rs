//! Lets clients in that send an `:authority` which is none: a layer between the accepted stream and HTTP/2.
//!
//! grpc-go fills `:authority` with the socket's path, percent-encoded (`%2Frun%2Fnodeseal%2Fkms.sock`) or, in old
//! releases, plain. All KMS v1 clients do so, and those of KMS v2 up to Kubernetes 1.31. h2 resets such a request with
//! PROTOCOL_ERROR (RFC 9113 §8.3.1, RFC 3986 §3.2). Nothing here asks for the authority: the socket has one host. So
//! this layer writes a valid one over it before h2 reads it.
//!
//! **What it does.** Every value of `:authority` becomes a run of letters and digits that is as long as the value was,
//! on the wire and decoded. Nothing else changes, and never the number of bytes: frames, padding, flow control and the
//! dynamic tables of both sides (RFC 7541) stay as the client made them. Valid values are written over too: whether one
//! is valid would take decoding it, and its text is of no use here.
//!
//! **What it refuses.** Nothing: it has no answer of its own. Where the client breaks the protocol, or a header block
//! is longer than any that h2 takes, bytes go on as they are for the rest of the connection, and h2 gives its own
//! error. An empty authority stays, and so does one in Huffman code that is broken or longer than the plain text.
//!
//! **What it costs.** Frames without a header block, and header blocks without the value, pass without a copy. The
//! value itself comes once a connection: later requests name it by its index. Of an unfinished header block at most 32
//! KiB are held.
//!
//! It counts on two settings of the server that must stay at their defaults: SETTINGS_HEADER_TABLE_SIZE of at most
//! 4,096 and SETTINGS_MAX_FRAME_SIZE of 16,384.

mod hpack;
mod huffman;
mod rewrite;
#[cfg(test)]
mod tests;

pub use rewrite::{Fed, Rewriter};

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client's stream, with its `:authority` made valid. Reads are rewritten, writes are not touched.
#[derive(Debug)]
pub struct AuthorityFix<S> {
    io: S,
    rewriter: Rewriter,
    /// Rewritten bytes, of which the first `given` were read. No memory once all were.
    ready: Vec<u8>,
    given: usize,
}

impl<S> AuthorityFix<S> {
    /// Before the first byte of the client was read.
    pub const fn new(io: S) -> Self {
        Self { io, rewriter: Rewriter::new(), ready: Vec::new(), given: 0 }
    }

    /// Moves rewritten bytes to the reader, as many as it has room for.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.ready.get(self.given..).unwrap_or_default();
        let (now, later) = rest.split_at_checked(buf.remaining()).unwrap_or((rest, &[]));
        buf.put_slice(now);
        if later.is_empty() {
            (self.ready, self.given) = (Vec::new(), 0);
        } else {
            self.given += now.len();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityFix<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // `Ready` with nothing read means the end (tokio's contract), so it is not said while a header block is held.
        while this.ready.is_empty() && buf.remaining() > 0 {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            if read.is_empty() {
                this.rewriter.finish(&mut this.ready);
                break;
            }
            match this.rewriter.feed(read, &mut this.ready) {
                Fed::Same => return Poll::Ready(Ok(())),
                Fed::Changed => buf.set_filled(before),
            }
        }
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityFix<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
