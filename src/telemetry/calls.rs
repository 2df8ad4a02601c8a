//! Calls of the KMS API: how long each took, by method and status code, and how many are under way.
//!
//! All pairs of method and code are counted. [`SHOWN_MAX`] of them are shown by themselves, in the order in which they occurred first,
//! and the others together: so no series ever falls, and an allowed user who provokes every code there is makes no more of them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use super::OTHER;
use super::times::{Spread, Times};

/// Bounds of buckets: 0.1 ms × 2^n, as those of kube-apiserver's own `apiserver_envelope_encryption_kms_operations_latency_seconds`
/// (k8s.io/apiserver, pkg/storage/value/metrics.go: `ExponentialBuckets(0.0001, 2, 14)`).
const BUCKETS: usize = 14;
const BOUNDS: [u64; BUCKETS] = {
    let (mut bounds, mut at) = ([100_000; BUCKETS], 1);
    while at < BUCKETS {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// Pairs of method and code that are shown by themselves. KMS v2 has three methods, and a bad day some six ways to fail.
const SHOWN_MAX: u8 = 10;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// KMS v2.
    V2Status,
    /// KMS v2.
    V2Encrypt,
    /// KMS v2.
    V2Decrypt,
    /// KMS v1beta1.
    V1Version,
    /// KMS v1beta1.
    V1Encrypt,
    /// KMS v1beta1.
    V1Decrypt,
    /// None of ours.
    Other,
}

impl Method {
    const ALL: [Self; 7] = [
        Self::V2Status,
        Self::V2Encrypt,
        Self::V2Decrypt,
        Self::V1Version,
        Self::V1Encrypt,
        Self::V1Decrypt,
        Self::Other,
    ];

    /// As gRPC names it, without the slash before it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V2Status => "v2.KeyManagementService/Status",
            Self::V2Encrypt => "v2.KeyManagementService/Encrypt",
            Self::V2Decrypt => "v2.KeyManagementService/Decrypt",
            Self::V1Version => "v1beta1.KeyManagementService/Version",
            Self::V1Encrypt => "v1beta1.KeyManagementService/Encrypt",
            Self::V1Decrypt => "v1beta1.KeyManagementService/Decrypt",
            Self::Other => OTHER,
        }
    }

    /// Of the path of a request.
    pub fn of(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or_default();
        Self::ALL.into_iter().find(|method| method.label() == name).unwrap_or(Self::Other)
    }
}

/// Names of status codes by their number (grpc/grpc, doc/statuscodes.md).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const OK: u8 = 0;
const CANCELLED: u8 = 1;
const UNKNOWN: u8 = 2;

/// One method and one code.
struct Pair {
    times: Times<BUCKETS>,
    /// Which one it was to occur, from 1; 0 before.
    rank: AtomicU8,
}

/// See the module.
pub struct Calls {
    pairs: [[Pair; CODES.len()]; Method::ALL.len()],
    /// How many pairs have occurred.
    ranks: AtomicU8,
    in_flight: AtomicU64,
}

/// What was read of one method and code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// [`Method::label`], or [`OTHER`] for all that are not shown by themselves.
    pub method: &'static str,
    /// Name of the code, or [`OTHER`].
    pub code: &'static str,
    /// How long they took.
    pub spread: Spread,
}

impl Calls {
    /// None yet.
    pub const fn new() -> Self {
        let pairs = [const { [const { Pair { times: Times::new(), rank: AtomicU8::new(0) } }; CODES.len()] };
            Method::ALL.len()];
        Self { pairs, ranks: AtomicU8::new(0), in_flight: AtomicU64::new(0) }
    }

    /// A call begins. One that is dropped before it is ended was given up by its client.
    pub fn begin(&self, method: Method) -> Call<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Call { calls: self, method, begun: Instant::now(), code: CANCELLED }
    }

    /// Begun and not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What there is by now, in a fixed order.
    pub fn read(&self) -> Vec<Served> {
        let (mut shown, mut others) = (Vec::new(), None::<Spread>);
        for (method, pairs) in Method::ALL.iter().zip(&self.pairs) {
            for (code, pair) in CODES.iter().zip(pairs) {
                match pair.rank.load(Ordering::Acquire) {
                    0 => {}
                    1..=SHOWN_MAX => {
                        shown.push(Served { method: method.label(), code, spread: pair.times.read(&BOUNDS) });
                    }
                    _ => others = Some(others.unwrap_or_default().and(&pair.times.read(&BOUNDS))),
                }
            }
        }
        shown.extend(others.map(|spread| Served { method: OTHER, code: OTHER, spread }));
        shown
    }

    fn note(&self, call: &Call<'_>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let pair = self.pairs.get(call.method as usize).and_then(|pairs| pairs.get(usize::from(call.code)));
        // The code was checked when it was given.
        let Some(pair) = pair else { return };
        pair.times.note(&BOUNDS, call.begun.elapsed());
        if pair.rank.load(Ordering::Relaxed) == 0 {
            // Of two threads one is in vain, and its rank is nobody's. There are 119 pairs.
            let rank = self.ranks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let _ = pair.rank.compare_exchange(0, rank, Ordering::Release, Ordering::Relaxed);
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self::new()
    }
}

/// A call under way.
pub struct Call<'a> {
    calls: &'a Calls,
    method: Method,
    begun: Instant,
    code: u8,
}

impl Call<'_> {
    /// It is answered with this code; absent: with what it asked for.
    pub fn ends(mut self, code: Option<i32>) {
        let known = |code: i32| u8::try_from(code).ok().filter(|code| usize::from(*code) < CODES.len());
        self.code = code.map_or(OK, |code| known(code).unwrap_or(UNKNOWN));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.calls.note(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(calls: &Calls) -> Vec<(&'static str, &'static str, u64)> {
        calls.read().into_iter().map(|served| (served.method, served.code, served.spread.count())).collect()
    }

    #[test]
    fn a_call_counts_under_its_method_and_the_code_that_it_ended_with() {
        let calls = Calls::new();
        let call = calls.begin(Method::of("/v2.KeyManagementService/Encrypt"));
        assert_eq!((calls.in_flight(), counts(&calls)), (1, vec![]));
        call.ends(None);
        calls.begin(Method::of("/v2.KeyManagementService/Decrypt")).ends(Some(5));
        calls.begin(Method::of("/v2.KeyManagementService/Decrypt/")).ends(Some(99));
        drop(calls.begin(Method::of("/v1beta1.KeyManagementService/Version")));
        let expected = [
            ("v2.KeyManagementService/Encrypt", "OK", 1),
            ("v2.KeyManagementService/Decrypt", "NOT_FOUND", 1),
            ("v1beta1.KeyManagementService/Version", "CANCELLED", 1),
            (OTHER, "UNKNOWN", 1),
        ];
        assert_eq!((calls.in_flight(), counts(&calls)), (0, expected.to_vec()));
    }

    #[test]
    fn who_provokes_every_code_makes_no_more_series_and_all_are_counted() {
        let calls = Calls::new();
        for _ in 0..2 {
            for method in Method::ALL {
                (0..17).for_each(|code| calls.begin(method).ends(Some(code)));
            }
        }
        let counts = counts(&calls);
        assert_eq!(counts.len(), usize::from(SHOWN_MAX) + 1);
        assert_eq!(counts.last().copied(), Some((OTHER, OTHER, 2 * (7 * 17 - u64::from(SHOWN_MAX)))));
        assert!(counts[..10].iter().all(|(_, _, count)| *count == 2), "{counts:?}");
    }

    #[test]
    fn the_bounds_are_those_of_kube_apiserver() {
        assert_eq!((BOUNDS[0], BOUNDS[1], BOUNDS[13]), (100_000, 200_000, 819_200_000));
    }
}
