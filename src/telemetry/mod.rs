//! What this process has done since its start, in numbers: calls of the API, Decrypts by the source of their KEK, calls to providers and
//! questions to the device. `control` makes metrics of them.
//!
//! A call of the API costs two looks at the clock and a few atomic additions: no lock, no allocation, no text. Every table has a bound
//! that is known when it is compiled, since a label that callers could fill would fill the memory of whoever collects it: what is above
//! it is counted under [`OTHER`], so that sums stay true. No label holds anything that a caller or a server has said.

mod calls;
mod sets;
mod times;

use std::sync::atomic::{AtomicU64, Ordering};

pub use calls::{Call, Calls, Method, Served};
pub use sets::{Named, Sets};
pub use times::{Spread, Times};

/// What stands for all that has no place of its own, as the conventions of OpenTelemetry have it.
pub const OTHER: &str = "_OTHER";

/// Milliseconds. Of calls to providers: one within a data centre, one across a continent, the 800 ms after which another provider is
/// asked too, the 2.5 s of a whole question, and the 10 s of what nobody waits for (docs/architecture.md, "Limits").
const PROVIDER_MILLIS: [u64; 6] = [10, 50, 200, 800, 2500, 10_000];

/// Milliseconds. Of questions to the device: a token, a fast TPM, slow ones, and the 55 s after which the sealer gives up.
const DEVICE_MILLIS: [u64; 6] = [20, 100, 500, 2500, 10_000, 55_000];

/// Sets of labels of calls to providers: two providers with four operations each, half of which fail in one way.
pub const PROVIDER_SETS_MAX: usize = 12;

/// Sets of labels of questions to the device: what a node asks in its life, and two ways to fail.
pub const DEVICE_SETS_MAX: usize = 6;

/// Calls of the API.
pub static CALLS: Calls = Calls::new();

/// Calls to providers, by name, operation and class.
pub static PROVIDERS: Sets = Sets::new(&PROVIDER_MILLIS, PROVIDER_SETS_MAX);

/// Questions to the sealing device, by operation and class.
pub static DEVICE: Sets = Sets::new(&DEVICE_MILLIS, DEVICE_SETS_MAX);

/// The class of what went well.
pub const WELL: &str = "ok";

/// Why something was turned away before or instead of being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A field breaks the contract of the API.
    BadField,
    /// The client's own time was over.
    ClientDeadline,
    /// A connection was closed to make room, or because nobody read its answers.
    Connection,
    /// The bytes are no message of the API.
    NotAMessage,
    /// Longer than a message may be.
    MessageTooLong,
    /// A peer that may not come in, at any socket.
    Peer,
    /// It did not arrive whole in time.
    TooSlow,
    /// More calls at once than are admitted.
    TooManyCalls,
    /// More calls at once than may wait for providers.
    TooManyWaiting,
    /// A method that is not served.
    UnknownMethod,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::BadField,
        Self::ClientDeadline,
        Self::Connection,
        Self::NotAMessage,
        Self::MessageTooLong,
        Self::Peer,
        Self::TooSlow,
        Self::TooManyCalls,
        Self::TooManyWaiting,
        Self::UnknownMethod,
    ];

    /// For a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadField => "bad_field",
            Self::ClientDeadline => "client_deadline",
            Self::Connection => "connection",
            Self::NotAMessage => "not_a_message",
            Self::MessageTooLong => "message_too_long",
            Self::Peer => "peer",
            Self::TooSlow => "too_slow",
            Self::TooManyCalls => "too_many_calls",
            Self::TooManyWaiting => "too_many_waiting",
            Self::UnknownMethod => "unknown_method",
        }
    }
}

/// Where the KEK of a Decrypt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The plugin that has made the ciphertext, which Nodeseal has not (`opens_foreign`).
    Foreign,
    /// In memory alone: a provider has opened it since the start, and it has no sealed copy (yet).
    Memory,
    /// A provider was asked for it.
    Provider,
    /// In memory, and sealed on the disk of this node: the next start needs no provider for it.
    SealedCopy,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Foreign, Self::Memory, Self::Provider, Self::SealedCopy];

    /// For a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Memory => "memory",
            Self::Provider => "provider",
            Self::SealedCopy => "sealed_copy",
        }
    }
}

static REFUSED: [AtomicU64; Refused::ALL.len()] = [const { AtomicU64::new(0) }; Refused::ALL.len()];
static DECRYPTED: [AtomicU64; Source::ALL.len()] = [const { AtomicU64::new(0) }; Source::ALL.len()];

/// One more.
pub fn refused(why: Refused) {
    REFUSED[why as usize].fetch_add(1, Ordering::Relaxed);
}

/// Since the start.
pub fn refused_so_far(why: Refused) -> u64 {
    REFUSED[why as usize].load(Ordering::Relaxed)
}

/// A Decrypt of the API went well.
pub fn decrypted(by: Source) {
    DECRYPTED[by as usize].fetch_add(1, Ordering::Relaxed);
}

/// Since the start.
pub fn decrypted_so_far(by: Source) -> u64 {
    DECRYPTED[by as usize].load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_has_a_place_and_a_name_of_its_own() {
        for (place, why) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
            assert!(Refused::ALL.iter().filter(|other| other.label() == why.label()).count() == 1, "{why:?}");
        }
        for (place, source) in Source::ALL.into_iter().enumerate() {
            assert_eq!(source as usize, place);
        }
    }
}
