//! The system's clock, for the few places where a wall time is stored. Logic takes the time as a parameter.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = u64;

/// Now. A clock before 1970 reads as 0, which makes every key young and none old.
pub fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
