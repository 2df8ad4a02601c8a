//! The system's clock, for the few places where a wall time is stored. Logic takes the time as a parameter.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = u64;

/// 2026-01-01 UTC. A clock that says less is known to be wrong: no release of this program is older.
pub const EARLIEST: UnixSeconds = 1_767_225_600;

/// The last second of the year 9999, which RFC 3339 still writes. No clock of a machine gets there.
pub const LAST: UnixSeconds = 253_402_300_799;

/// Now. A clock before 1970 reads as 0, which makes every key young and none old.
pub fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
