//! An answer on its way: counted until its reader has taken it, so that those who take none cost a bounded number of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::connections::Slot;

/// The body of an answer. One without content is taken with its head.
pub(super) struct Answer {
    body: Body,
    untaken: Option<Untaken>,
}

impl Answer {
    pub(super) fn of(response: Response<Body>, slot: &Arc<Slot>) -> Response<Self> {
        response.map(|body| {
            let untaken = (!body.is_end_stream()).then(|| Untaken::new(slot));
            Self { body, untaken }
        })
    }
}

impl hyper::body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.untaken = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Untaken(Arc<Slot>);

impl Untaken {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.note_answer();
        Self(Arc::clone(slot))
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.0.note_taken();
    }
}
