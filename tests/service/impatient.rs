//! One connection of a client in a slow moment: many calls at once, some of them cancelled or past their deadline, as kube-apiserver
//! makes them when its own callers go away. Only those that were cancelled may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use test_support::client::{Refusal, code, finish, framed, limited, next_uid, v2};
use test_support::node::Node;
use test_support::runtime;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

const CALLS: usize = 10_000;
const AT_ONCE: usize = 250;

/// What a caller does with his call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Waits for the answer.
    Waits,
    /// Gives up before a byte has left.
    Cancels,
    /// Gives up a moment later.
    CancelsAfter(Duration),
    /// A deadline that has passed as soon as it is read.
    Hurries,
}

impl Fate {
    fn of(n: usize) -> Self {
        match n % 10 {
            3 => Self::Cancels,
            7 => Self::CancelsAfter(Duration::from_micros(u64::try_from(n * 37 % 2000).unwrap())),
            9 => Self::Hurries,
            _ => Self::Waits,
        }
    }
}

async fn call(send: SendRequest<Bytes>, fate: Fate) -> Result<(), Refusal> {
    let broken = |error: h2::Error| Refusal::Broken(error.to_string());
    let mut send = send.ready().await.map_err(broken)?;
    let request = v2::EncryptRequest { plaintext: vec![7; 32], uid: next_uid() }.encode_to_vec();
    let mut head = Request::post("http://localhost/v2.KeyManagementService/Encrypt")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if fate == Fate::Hurries {
        head = head.header("grpc-timeout", "1n");
    }
    let (response, mut body) = send.send_request(head.body(()).unwrap(), false).map_err(broken)?;
    let _ = body.send_data(framed(&request).into(), true);
    match fate {
        Fate::Waits => {}
        Fate::Cancels => {
            body.send_reset(Reason::CANCEL);
            return Ok(());
        }
        Fate::CancelsAfter(pause) => {
            tokio::time::sleep(pause).await;
            body.send_reset(Reason::CANCEL);
            return Ok(());
        }
        Fate::Hurries => {
            return match finish(response).await {
                Ok(_) | Err(Refusal::Status { code: code::DEADLINE_EXCEEDED, .. }) => Ok(()),
                Err(refusal) => Err(refusal),
            };
        }
    }
    finish(response).await.map(drop)
}

#[test]
fn ten_thousand_calls_on_one_connection_of_which_some_are_cancelled_cost_no_other_call() {
    let node = Node::start();
    let failed = limited(async {
        let stream = UnixStream::connect(node.socket()).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let builder = builder.initial_connection_window_size(8 * 1024 * 1024).max_concurrent_reset_streams(CALLS);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let next = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (send, next) = (send.clone(), Arc::clone(&next));
            let caller = async move {
                let mut failed = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return failed;
                    }
                    if let Err(refusal) = call(send.clone(), Fate::of(n)).await {
                        failed.push((Fate::of(n), refusal));
                    }
                }
            };
            callers.spawn_on(caller, runtime::shared());
        }
        Ok(callers.join_all().await.concat())
    })
    .unwrap();
    assert!(failed.is_empty(), "{} calls failed, such as {:?}", failed.len(), failed[0]);
}
