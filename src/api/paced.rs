//! No more is read of a peer than it takes of our answers, so that what waits for it is bounded.
//!
//! HTTP/2 queues frames for a peer that does not read: answers, resets, acknowledgements. So a connection whose socket takes nothing
//! more is not read until it does, and nobody's calls are taken in faster than answers go out. A peer that reads is never held up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::Slot;

/// See the module.
pub(super) struct Paced<S> {
    stream: S,
    slot: Arc<Slot>,
    /// The socket takes nothing more.
    is_blocked: bool,
    /// Who wants to read meanwhile.
    reader: Option<Waker>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, slot: Arc<Slot>) -> Self {
        Self { stream, slot, is_blocked: false, reader: None }
    }

    fn written<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let is_blocked = result.is_pending();
        if is_blocked != self.is_blocked {
            self.is_blocked = is_blocked;
            self.slot.note_blocked(is_blocked);
        }
        if !is_blocked {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_blocked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.slot.has_read_enough() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.slot.note_read(buf.filled().len() - before);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S> Drop for Paced<S> {
    fn drop(&mut self) {
        self.slot.note_blocked(false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::super::connections::Connections;
    use super::super::limits::READ_AHEAD_BYTES;
    use super::*;

    #[tokio::test]
    async fn who_takes_no_answer_is_not_read_until_he_does() {
        const MOMENT: Duration = Duration::from_millis(50);
        let all = Connections::new(4);
        let (registered, _) = all.add();
        let (ours, mut theirs) = duplex(1024);
        let (mut reader, mut writer) = tokio::io::split(Paced::new(ours, Arc::clone(&registered.0)));
        theirs.write_all(&[1; 512]).await.unwrap();
        let answer = tokio::spawn(async move { writer.write_all(&[2; 1500]).await.map(|()| writer) });
        let mut all_that_came = [0; 512];
        let read = tokio::spawn(async move {
            tokio::task::yield_now().await;
            reader.read_exact(&mut all_that_came).await.map(|read| (read, reader))
        });
        tokio::pin!(read);
        assert!(timeout(MOMENT, read.as_mut()).await.is_err(), "1,500 bytes do not fit into 1,024");
        assert_eq!(all.blocked(), 1);
        theirs.read_exact(&mut [0; 1500]).await.unwrap();
        assert_eq!(timeout(MOMENT, read).await.unwrap().unwrap().unwrap().0, 512);
        assert!(answer.await.unwrap().is_ok() && all.blocked() == 0);
    }

    #[tokio::test]
    async fn between_two_pieces_of_a_long_stream_others_have_their_turn() {
        let all = Connections::new(4);
        let (registered, _) = all.add();
        let (ours, mut theirs) = duplex(READ_AHEAD_BYTES * 4);
        let mut paced = Paced::new(ours, Arc::clone(&registered.0));
        theirs.write_all(&vec![1; READ_AHEAD_BYTES * 2]).await.unwrap();
        let mut taken = vec![0; READ_AHEAD_BYTES];
        paced.read_exact(&mut taken).await.unwrap();
        let mut more = [0; 1];
        assert!(timeout(Duration::from_millis(20), paced.read_exact(&mut more)).await.is_err());
        registered.0.begin_turn();
        paced.read_exact(&mut more).await.unwrap();
    }
}
