//! The system's clock, for the few places where a wall time is stored. Logic takes the time as a parameter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = u64;

/// 2026-01-01 UTC. A clock that says less is known to be wrong: no release of this program is older.
pub const EARLIEST: UnixSeconds = 1_767_225_600;

/// The last second of the year 9999, which RFC 3339 still writes. No clock of a machine gets there.
pub const LAST: UnixSeconds = 253_402_300_799;

/// There once the clock is set: systemd-timesyncd.service(8).
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// UTC, to the second. What lies behind the year 9999 is shown as its end.
pub fn text(unix_seconds: UnixSeconds) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST))).to_string()
}

/// Now. A clock before 1970 reads as 0, which makes every key young and none old.
pub fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether systemd-timesyncd, or what stands in for it, has set the clock since the machine started. The kernel's own word
/// (adjtimex(2)) cannot be had: the sandbox and the unit's `ProtectClock=` forbid the call, which sets the clock as well.
/// Looking at a file is no read, so no rule of Landlock is needed for it.
pub fn is_synchronised() -> bool {
    std::fs::metadata(TIMESYNCD).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_clock_shows_is_printed_all_the_same() {
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
