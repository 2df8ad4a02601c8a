//! Every bound of the API with its source. Limits of the stored formats are in `envelope`.

use std::time::Duration;

/// Bytes of one message. The longest that kube-apiserver sends is a v2 Decrypt: 1 kB text, 32 kB annotations, 1 kB key_id (kmsv2/envelope.go).
pub const MESSAGE_MAX_BYTES: usize = 128 * 1024;

/// Calls in flight on all connections. Above, a call is answered with RESOURCE_EXHAUSTED at once. kube-apiserver's own
/// concurrency is bounded by its `--max-requests-inflight` (400) and `--max-mutating-requests-inflight` (200).
pub const CALLS_IN_FLIGHT_MAX: usize = 1024;

/// Streams of one connection (RFC 9113 §5.1.2); grpc-go queues above it. Half of all calls, so that no single connection takes all.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 512;

/// Calls that wait for providers. Above, such a call is answered with RESOURCE_EXHAUSTED at once.
pub const WAITING_FOR_PROVIDERS_MAX: usize = crate::keyring::WAITING_MAX;

// However long they wait, one connection still has streams for Status and for texts under the keys of this node.
const _: () = assert!(WAITING_FOR_PROVIDERS_MAX + 128 <= STREAMS_PER_CONNECTION_MAX as usize);

/// Connections. More than that, and the longest idle one is closed; fewer if the descriptor limit is lower.
pub const CONNECTIONS_MAX: usize = 1024;

/// Descriptors kept free for the state directory, the sealer, the log, and the sockets of operators and monitors.
pub const DESCRIPTORS_RESERVED: u64 = 80;

/// A call that has not arrived whole by then is ended. kube-apiserver's own limit is 3 s (`timeout` of a KMS provider).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What has begun is finished within this time after a stop is asked for; then connections are cut.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request's header list (RFC 9113 §6.5.2). grpc-go sends about 200.
pub const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;

/// Bytes of an error text, so that it fits into any header list.
pub const ERROR_TEXT_MAX_BYTES: usize = 400;

// What a peer can make us hold that takes nothing of what we say. A connection whose socket is full is not read, so that it holds what
// came of READ_AHEAD_BYTES at most, below STREAMS_PER_CONNECTION_MAX answers of some 100 bytes (or fewer long ones: they need long
// calls); one that reads and gives no window holds answers in its streams. Both are bounded over all connections.

/// Bytes that are read of a connection before the calls in them have their turn, and other connections theirs.
pub const READ_AHEAD_BYTES: usize = 8 * 1024;

/// Connections whose socket is full. Above, the one that has been so for longest is closed.
pub const BLOCKED_CONNECTIONS_MAX: usize = 16;

/// Answers that are ready and for which there is no window. Above, the connection with the most is closed. As many as calls in flight:
/// an honest client takes each within the time of a call.
pub const ANSWERS_UNTAKEN_MAX: usize = CALLS_IN_FLIGHT_MAX;
