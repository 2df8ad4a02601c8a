//! HTTP/2 as a client: one connection, and its TLS. What is asked, and how long that may take, is the
//! affair of those that use it.

#[cfg(feature = "etcd")]
mod tls;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

#[cfg(feature = "etcd")]
pub(crate) use tls::tls;

/// A connection, closed when it drops.
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Begins on a stream that is connected. `with` says what the peer may send.
    pub(crate) async fn begin(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        with: &mut Builder,
    ) -> Result<Self, h2::Error> {
        let (sender, connection) = with.enable_push(false).handshake(stream).await?;
        // Its failure shows in what is asked.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// For one question.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
