//! The layer around a stream, and h2 behind it.

use super::super::AuthorityFix;
use super::model::{Framing, frame, framed, text};
use std::io::IoSlice;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::time::timeout;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const WHOLE: Framing = Framing { cuts: Vec::new(), padding: None, priority: false };

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// The block of a first request: `:authority` last, with indexing, in Huffman code or plain.
fn request(authority: &str, coded: bool) -> Vec<u8> {
    let mut block = b"\x83\x86\x45\x09/a.B/Call\x41".to_vec();
    text(coded, authority.as_bytes(), &mut block);
    block
}

/// A client that sends `authority` in its first request, and by index in its second; what h2 says to each of them.
async fn ask<S>(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    server: S,
    first: &[u8],
) -> Vec<Result<String, h2::Reason>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // SETTINGS, then two requests without a body (END_STREAM). Index 62 is the authority, 63 the path.
    let sent =
        [PREFACE, &frame(0x4, 0, 0, &[]), &framed(first, 1, &WHOLE), &framed(b"\x83\x86\xbf\xbe", 3, &WHOLE)].concat();
    client.write_all(&sent).await.unwrap();
    let mut connection = h2::server::handshake(server).await.unwrap();
    let (mut answers, mut unanswered) = (Vec::new(), Vec::new());
    // h2 gives what it accepts, and resets the rest by itself.
    while let Ok(Some(accepted)) = timeout(Duration::from_millis(20), connection.accept()).await {
        let (request, respond) = accepted.unwrap();
        unanswered.push(respond); // dropped, it would reset the stream
        assert_eq!(request.uri().path(), "/a.B/Call");
        answers.push(Ok(request.uri().authority().unwrap().to_string()));
    }
    let mut back = [0; 4096];
    let read = client.read(&mut back).await.unwrap();
    let mut rest = &back[..read];
    while let [_, _, len, kind, _, _, _, _, _, after @ ..] = rest {
        let (payload, next) = after.split_at(usize::from(*len));
        if *kind == 0x3 {
            answers.push(Err(u32::from_be_bytes(payload.try_into().unwrap()).into()));
        }
        rest = next;
    }
    answers
}

#[test]
fn h2_takes_what_it_would_reset() {
    let reset = || vec![Err(h2::Reason::PROTOCOL_ERROR); 2];
    runtime().block_on(async {
        for coded in [false, true] {
            for authority in ["%2Frun%2Fkms.sock", "/run/kms.sock", "/r u[n/#@kms<>.sock"] {
                let first = request(authority, coded);
                let (client, server) = duplex(1 << 16);
                assert_eq!(ask(client, server, &first).await, reset(), "{authority} without the layer");
                let (client, server) = duplex(1 << 16);
                let answers = ask(client, AuthorityFix::new(server), &first).await;
                let [Ok(one), Ok(two)] = &answers[..] else { unreachable!("{authority}: {answers:?}") };
                assert_eq!((one.len(), two), (authority.len(), one), "{authority}");
            }
        }
        // What the layer cannot write over is refused as before.
        let (client, server) = duplex(1 << 16);
        let first = request("\u{e9}\u{e9}\u{e9}", true);
        assert_eq!(ask(client, AuthorityFix::new(server), &first).await, reset());
    });
}

#[test]
fn small_pipes_and_small_reads() {
    let block = request("%2Frun%2Fkms.sock", false);
    let fixed = request("XXXXXXXXXXXXXXXXX", false);
    let around = |block: &[u8]| [PREFACE, &framed(block, 1, &WHOLE), &frame(0x0, 1, 1, &[7; 100])].concat();
    runtime().block_on(async {
        for pipe in [1, 10, 50, 1000] {
            for room in [1, 2, 9, 40, 1000] {
                let (mut client, server) = duplex(pipe);
                let (mut layer, sent) = (AuthorityFix::new(server), around(&block));
                let writer = async {
                    client.write_all(&sent).await.unwrap();
                    drop(client);
                };
                let reader = async {
                    let (mut all, mut buf) = (Vec::<u8>::new(), vec![0; room]);
                    loop {
                        let read = layer.read(&mut buf).await.unwrap();
                        all.extend(&buf[..read]);
                        if read == 0 {
                            return all;
                        }
                    }
                };
                let ((), all) = tokio::join!(writer, reader);
                assert_eq!(all, around(&fixed), "pipe of {pipe}, room for {room}");
            }
        }
    });
}

#[test]
fn held_bytes_are_not_the_end_and_come_out_at_the_end() {
    let sent = [PREFACE, &framed(&request("%2Frun", false), 1, &WHOLE)].concat();
    let short = &sent[..sent.len() - 3];
    runtime().block_on(async {
        let (mut client, server) = duplex(1000);
        let mut layer = AuthorityFix::new(server);
        client.write_all(short).await.unwrap();
        let mut buf = [0; 1000];
        assert_eq!(layer.read(&mut buf).await.unwrap(), PREFACE.len());
        timeout(Duration::from_millis(20), layer.read(&mut buf)).await.unwrap_err();
        drop(client);
        let mut rest = Vec::new();
        layer.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, &short[PREFACE.len()..]);
    });
}

#[test]
fn a_read_without_room_is_not_the_end() {
    let around = |block: &[u8]| [PREFACE, &framed(block, 1, &WHOLE)].concat();
    runtime().block_on(async {
        let (mut client, server) = duplex(1000);
        let mut layer = AuthorityFix::new(server);
        assert_eq!(layer.read(&mut []).await.unwrap(), 0);
        client.write_all(&around(&request("%2Frun", false))).await.unwrap();
        drop(client);
        let mut all = Vec::new();
        layer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, around(&request("XXXXXX", false)));
    });
}

#[test]
fn writes_pass() {
    runtime().block_on(async {
        let (mut client, server) = duplex(1000);
        let mut layer = AuthorityFix::new(server);
        assert!(layer.is_write_vectored());
        layer.write_all(b"one").await.unwrap();
        assert_eq!(layer.write_vectored(&[IoSlice::new(b"two"), IoSlice::new(b"three")]).await.unwrap(), 8);
        layer.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"onetwothree");
    });
}
