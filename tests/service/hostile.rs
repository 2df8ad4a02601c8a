//! Too many calls and too many connections.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use test_support::client::{Answer, Client, Refusal, code, finish, framed, limited};
use test_support::node::Node;
use test_support::process::{descriptors, raise_descriptor_limit, until};
use test_support::runtime;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::raw::{greeting, is_closed, silent};

#[test]
fn many_calls_at_once_on_one_connection_all_succeed() {
    let node = Node::start();
    let client = node.client();
    for at_once in [256, 400] {
        let mut calls = JoinSet::new();
        for n in 0..at_once {
            let client = client.clone();
            calls.spawn_on(
                async move {
                    let plaintext = vec![u8::try_from(n % 251).unwrap() + 1; 32];
                    let answer = client.clone().encrypting(plaintext.clone()).await?;
                    let request = test_support::client::request(&answer.ciphertext, &answer.key_id);
                    Ok::<_, Refusal>(client.decrypting(request).await? == plaintext)
                },
                runtime::shared(),
            );
        }
        let answers = limited(async { Ok(calls.join_all().await) }).unwrap();
        let good = answers.iter().filter(|answer| **answer == Ok(true)).count();
        assert_eq!(good, at_once, "{:?}", answers.iter().find(|answer| **answer != Ok(true)));
    }
}

/// Calls whose bodies never come, all on one connection of their own.
struct Stalled {
    calls: Vec<(h2::client::ResponseFuture, h2::SendStream<Bytes>)>,
}

impl Stalled {
    /// `held` of them; waits until all were sent.
    fn open(socket: &Path, held: usize) -> Self {
        limited(async {
            let broken = |error: h2::Error| Refusal::Broken(error.to_string());
            let stream = UnixStream::connect(socket).await.unwrap();
            let (mut send, connection) = h2::client::handshake(stream).await.map_err(broken)?;
            tokio::spawn(connection);
            let mut calls = Vec::new();
            for _ in 0..held {
                send = send.ready().await.map_err(broken)?;
                let request = Request::post("http://localhost/v2.KeyManagementService/Encrypt")
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap();
                let (response, mut body) = send.send_request(request, false).map_err(broken)?;
                // A message of 100 bytes, of which three come.
                body.send_data(Bytes::from_static(&[0, 0, 0, 0, 100, 1, 2, 3]), false).map_err(broken)?;
                calls.push((response, body));
            }
            Ok(Self { calls })
        })
        .unwrap()
    }

    /// How each ended.
    fn answers(self) -> Vec<Answer<Vec<u8>>> {
        limited(async {
            let mut answers = Vec::new();
            for (response, _body) in self.calls {
                answers.push(finish(response).await);
            }
            Ok(answers)
        })
        .unwrap()
    }
}

#[test]
fn above_the_bound_of_calls_one_is_refused_at_once_and_when_the_stalled_ones_end_service_goes_on() {
    let node = Node::start_with("log.level = \"error\"\n");
    let pid = node.pid("nodeseald");
    let before = descriptors(pid);
    let client = node.client();
    let stored = client.store().unwrap();
    let started = Instant::now();
    let stalled: Vec<_> = [400, 400, 224].map(|held| Stalled::open(&node.socket(), held)).into();
    // Some are refused once 1,024 are in flight; the ones before them wait for their bodies.
    let exhausted = until(Duration::from_secs(3), "a call above the bound is refused", || {
        let asked = Instant::now();
        client.store().err().map(|refusal| (refusal, asked.elapsed()))
    });
    assert_eq!(exhausted.0.code(), Some(code::RESOURCE_EXHAUSTED), "{exhausted:?}");
    // Not after a deadline of any kind: the shortest of them is a second.
    assert!(exhausted.1 < Duration::from_secs(1), "refused after {:?}", exhausted.1);
    let another = Client::connect(&node.socket());
    assert_eq!(another.status().unwrap_err().code(), Some(code::RESOURCE_EXHAUSTED), "new clients too");

    let answers: Vec<_> = stalled.into_iter().flat_map(Stalled::answers).collect();
    let took = started.elapsed();
    let timed_out =
        |answer: &&Answer<Vec<u8>>| matches!(answer, Err(refusal) if refusal.code() == Some(code::DEADLINE_EXCEEDED));
    assert_eq!(answers.iter().filter(timed_out).count(), 1024, "{:?}", answers.iter().find(|a| !timed_out(a)));
    assert!((4..8).contains(&took.as_secs()), "the stalled calls ended after {took:?}");
    until(Duration::from_secs(1), "service goes on", || client.store().ok());
    client.assert_opens(&stored);
    drop((client, another));
    until(Duration::from_secs(5), "every descriptor is back", || (descriptors(pid) <= before).then_some(()));
}

#[test]
fn a_body_that_comes_slowly_but_in_time_is_answered() {
    let node = Node::start();
    let message = framed(&[&[0x0A, 32][..], &[5; 32], &[0x12, 3], b"uid"].concat());
    let answer = limited(async {
        let stream = UnixStream::connect(node.socket()).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        let request = Request::post("http://localhost/v2.KeyManagementService/Encrypt")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (response, mut body) = send.send_request(request, false).unwrap();
        for (index, byte) in message.iter().enumerate() {
            body.send_data(Bytes::copy_from_slice(&[*byte]), index + 1 == message.len()).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        finish(response).await
    });
    assert!(answer.is_ok(), "{answer:?}");
}

/// Idle connections of three kinds while an active client and new ones go on.
fn assert_idle_connections_lock_nobody_out(node: &Node, most: usize) {
    raise_descriptor_limit();
    let pid = node.pid("nodeseald");
    let active = node.client();
    let stored = active.store().unwrap();
    let mut idle = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..2000 {
        let stream = silent(&node.socket()).unwrap_or_else(|error| panic!("connection {n}: {error}"));
        if n % 2 == 0 {
            // It may be the one that was closed in the meantime.
            let _ = std::io::Write::write_all(&mut &stream, &greeting(&[]));
        }
        idle.push(stream);
        if n % 100 == 99 {
            let started = Instant::now();
            Client::connect(&node.socket()).assert_opens(&stored);
            slowest = slowest.max(started.elapsed());
            active.assert_opens(&stored);
        }
    }
    let open = descriptors(pid);
    let alive = idle.iter().filter(|stream| !is_closed(stream)).count();
    eprintln!("2,000 idle connections: {alive} live, {open} descriptors, slowest new client {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "a new client waited {slowest:?}");
    assert!(open <= most, "{open} descriptors");
    assert!(idle.iter().take(500).all(is_closed), "the longest idle went first");
    active.assert_opens(&stored);
    drop(idle);
    active.assert_opens(&stored);
    until(Duration::from_secs(5), "the descriptors are back", || (descriptors(pid) < 60).then_some(()));
}

#[test]
fn two_thousand_idle_connections_lock_nobody_out() {
    let node = Node::start_with("log.level = \"error\"\n");
    assert_idle_connections_lock_nobody_out(&node, 1024 + 64);
}

#[test]
fn nor_under_a_hard_limit_of_256_descriptors() {
    let node = Node::start_under("ulimit -n 256;", "log.level = \"error\"\n");
    assert_idle_connections_lock_nobody_out(&node, 256);
    // The descriptors that are kept free are enough for a rotation in the middle of it.
    let _idle: Vec<_> = (0..400).map(|_| silent(&node.socket())).collect();
    node.rotate_and_activate();
    assert!(node.client().store().is_ok());
}

#[test]
fn clients_that_called_once_do_not_push_out_one_that_goes_on_calling() {
    raise_descriptor_limit();
    let node = Node::start_under("ulimit -n 256;", "log.level = \"error\"\n");
    let active = node.client();
    let stored = active.store().unwrap();
    let mut others = Vec::new();
    for n in 0..400 {
        let other = node.client();
        assert!(other.status().is_ok(), "client {n}");
        others.push(other);
        if n % 10 == 0 {
            active.assert_opens(&stored);
        }
    }
    active.assert_opens(&stored);
    assert!(others[0].status().is_err(), "the longest idle was closed");
}
