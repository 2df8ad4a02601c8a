//! The accept loop and what happens on one connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tower_service::Service;

use super::Settings;
use super::admission::{Admission, Admitted, limit_of};
use super::answer::Answer;
use super::authority::AuthorityFix;
use super::connections::{Connections, Heard, Registered, Slot};
use super::limits::{
    CALLS_IN_FLIGHT_MAX, CONNECTIONS_MAX, DESCRIPTORS_RESERVED, DRAIN_TIMEOUT, HEADER_LIST_MAX_BYTES,
    MESSAGE_MAX_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use super::paced::Paced;
use super::pb::v1beta1::key_management_service_server::KeyManagementServiceServer as V1Server;
use super::pb::v2::key_management_service_server::KeyManagementServiceServer as V2Server;
use super::status;
use super::v1::V1;
use super::v2::V2;
use crate::audit::{Event, emit};
use crate::envelope::Api;
use crate::keyring::Keyring;
use crate::sandbox::Confined;
use crate::socket::peer;
use crate::telemetry::{self, CALLS, Method, Refused};

/// After accept(2) failed (no descriptors, no memory): long enough for something to be closed, short enough to go unnoticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// HTTP/2 DATA in flight, bytes: one message of the longest kind and its frames on a stream, a few of them on a connection.
const STREAM_WINDOW_BYTES: u32 = 192 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Becomes true when the service stops.
pub type Shutdown = watch::Receiver<bool>;

/// The KMS API on a listening socket.
pub struct Server {
    socket: PathBuf,
    allow_uids: Vec<u32>,
    connections: Arc<Connections>,
    services: Services,
}

#[derive(Clone)]
struct Services {
    admission: Admission,
    v1: Option<V1Server<V1>>,
    v2: Option<V2Server<V2>>,
}

impl Server {
    /// `descriptors` is the limit of open files of this process. The proof is asked for and not looked at.
    pub fn new(settings: &Settings, keyring: &Arc<Keyring>, descriptors: u64, _confined: &Confined) -> Self {
        let capacity = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(CONNECTIONS_MAX);
        let serves = |api| settings.apis.contains(&api);
        let v2 = V2 { keyring: Arc::clone(keyring), version: settings.v2_version };
        let v1 = serves(Api::V1)
            .then(|| V1Server::new(V1(Arc::clone(keyring))).max_decoding_message_size(MESSAGE_MAX_BYTES));
        let v2 = serves(Api::V2).then(|| V2Server::new(v2).max_decoding_message_size(MESSAGE_MAX_BYTES));
        Self {
            socket: settings.socket.clone(),
            allow_uids: settings.allow_uids.clone(),
            connections: Connections::new(capacity.clamp(1, CONNECTIONS_MAX)),
            services: Services { admission: Admission::new(), v1, v2 },
        }
    }

    /// Serves until `shutdown`, then lets what has begun finish.
    pub async fn run(self, listener: UnixListener, mut shutdown: Shutdown) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
                _ = shutdown.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) if peer::is_allowed(&stream, &self.socket, |uid| self.allow_uids.contains(&uid)) => {
                    let (registered, evicted) = self.connections.add();
                    if let Some(slot) = evicted {
                        let open = self.connections.count();
                        telemetry::refused(Refused::Connection);
                        emit(&Event::ConnectionEvicted { open, reason: "too many connections" });
                        slot.close.notify_one();
                    }
                    tasks.spawn(serve_connection(stream, registered, self.services.clone(), shutdown.clone()));
                    // Those that are open go first: a flood of connections that come and go would otherwise be taken in faster
                    // than it is seen to have gone, and push out a client that has not been heard yet.
                    yield_now().await;
                }
                Ok(_) => {}
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
        // Connections that do not drain in time are cut with the set.
        let _ = timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
    }
}

async fn serve_connection(stream: UnixStream, registered: Registered, services: Services, mut shutdown: Shutdown) {
    let slot = Arc::clone(&registered.0);
    let io = TokioIo::new(AuthorityFix::new(Paced::new(Heard::new(stream, Arc::clone(&slot)), Arc::clone(&slot))));
    let calls = Arc::clone(&slot);
    let service = service_fn(move |request| call(services.clone(), Arc::clone(&calls), request));
    let mut connection = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .max_header_list_size(HEADER_LIST_MAX_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            // h2 counts what an honest client does in a slow moment as an attack: 20 calls that were cancelled before they were begun,
            // and 1,024 resets of ours in the life of a connection, which is weeks. `Paced` bounds the memory of both, and what
            // remains is less work than a call.
            .max_pending_accept_reset_streams(CALLS_IN_FLIGHT_MAX)
            .max_local_error_reset_streams(None)
            .serve_connection(io, service)
    );
    let turns = poll_fn(|cx| {
        slot.begin_turn();
        connection.as_mut().poll(cx)
    });
    tokio::select! {
        // The peer's own end of the connection: nothing that anybody has to act on.
        _ = turns => return,
        () = slot.close.notified() => return,
        _ = shutdown.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let turns = poll_fn(|cx| {
        slot.begin_turn();
        connection.as_mut().poll(cx)
    });
    let _ = turns.await;
}

async fn call(
    mut services: Services,
    slot: Arc<Slot>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    slot.note_call();
    let measured = CALLS.begin(Method::of(request.uri().path()));
    let answer = |response| {
        measured.ends(status::code_of(&response));
        Ok(Answer::of(response, &slot))
    };
    let Some(permit) = services.admission.admit() else {
        return answer(status::too_many_calls().into_http());
    };
    let limit = limit_of(request.headers());
    let path = request.uri().path();
    let call = match (&mut services.v2, &mut services.v1) {
        (Some(v2), _) if path.starts_with("/v2.KeyManagementService/") => v2.call(request),
        (_, Some(v1)) if path.starts_with("/v1beta1.KeyManagementService/") => v1.call(request),
        _ => return answer(status::unknown_method().into_http()),
    };
    answer(Admitted::new(call, permit, limit).await)
}
