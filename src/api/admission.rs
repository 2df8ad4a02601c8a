//! Bounds the calls in flight and the time that each may take to arrive, around the two services.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;

use super::limits::{CALL_TIMEOUT, CALLS_IN_FLIGHT_MAX};
use super::status;

/// Permits for calls in flight.
#[derive(Clone)]
pub(super) struct Admission(Arc<Semaphore>);

impl Admission {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CALLS_IN_FLIGHT_MAX)))
    }

    /// A place for one call, or `None` at once.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

type Call = Pin<Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send>>;

/// A call that was admitted. Most are answered at the first poll and never see a timer.
pub(super) struct Admitted {
    call: Call,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Admitted {
    pub(super) fn new(call: Call, permit: OwnedSemaphorePermit) -> Self {
        Self { call, deadline: None, _permit: permit }
    }
}

impl Future for Admitted {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        if let Poll::Ready(result) = self.call.as_mut().poll(cx) {
            let mut response = result.unwrap_or_else(|never| match never {});
            status::mend(&mut response);
            return Poll::Ready(response);
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(CALL_TIMEOUT)));
        deadline.as_mut().poll(cx).map(|()| status::too_slow().into_http())
    }
}
