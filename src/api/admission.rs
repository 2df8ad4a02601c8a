//! Bounds the calls in flight and the time that each may take to arrive, around the two services.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Response};
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

/// What the client says that it waits for (gRPC over HTTP/2, "Timeout": up to eight digits and a unit).
pub(super) fn limit_of(headers: &HeaderMap) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let (unit, digits) = headers.get("grpc-timeout")?.as_bytes().split_last()?;
    let is_number = (1..=DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let count: u64 = std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A call that was admitted. Most are answered at the first poll and never see a timer.
pub(super) struct Admitted {
    call: Call,
    /// Of the client, if it is below ours.
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Admitted {
    /// With the client's own limit, if it has said one.
    pub(super) fn new(call: Call, permit: OwnedSemaphorePermit, limit: Option<Duration>) -> Self {
        let limit = limit.map_or(CALL_TIMEOUT, |limit| limit.min(CALL_TIMEOUT));
        Self { call, limit, deadline: None, _permit: permit }
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
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        deadline.as_mut().poll(cx).map(|()| {
            let late = if limit < CALL_TIMEOUT { status::past_deadline() } else { status::too_slow() };
            late.into_http()
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_limit_is_what_grpc_calls_one_and_anything_else_is_none() {
        let of = |text: &'static str| {
            limit_of(&HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(of("3S"), Some(Duration::from_secs(3)));
        assert_eq!(of("2999871u"), Some(Duration::from_micros(2_999_871)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for none in ["", "S", "3", "3s", "-3S", "+3S", "999999999S", "3 S"] {
            assert_eq!(of(none), None, "{none:?}");
        }
        assert_eq!(limit_of(&HeaderMap::new()), None);
    }
}
