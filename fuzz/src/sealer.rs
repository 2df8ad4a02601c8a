//! What a client and the sealer say to each other (docs/formats.md, "Sealer protocol").

use std::io::Cursor;

use nodeseal::seal::frame;
use nodeseal::seal::protocol::{FRAME_MAX_BYTES, Request, Response};
use nodeseal::types::Secret;

/// Requests, answers and frames: what is read is written again byte for byte.
pub fn sealer(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        0 => {
            if let Ok(request) = Request::decode(rest) {
                assert!(request.encode().same_as(rest), "a request has a second encoding");
            }
        }
        1 => {
            if let Ok(response) = Response::decode(rest) {
                assert!(response.encode().same_as(rest), "an answer has a second encoding");
            }
        }
        2 => frames(rest),
        _ => {}
    }
}

fn frames(stream: &[u8]) {
    let (mut from, mut written) = (Cursor::new(stream), Vec::new());
    let mut whole = 0;
    while let Ok(Some(message)) = frame::read(&mut from) {
        assert!(message.expose().len() <= FRAME_MAX_BYTES);
        frame::write(&mut written, &Secret::copy_of(message.expose())).expect("a vector takes everything");
        whole = from.position();
    }
    assert!(written == stream[..usize::try_from(whole).expect("no longer than the stream")]);
}
