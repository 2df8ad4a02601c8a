//! What an operator calls a fault that is being looked at, in the system where his team keeps them.
//!
//! It is written into the log for auditors, so it is one short word of plain characters: nothing that ends a line, a field or a terminal's
//! patience. Upper case is allowed, unlike in our own names: others have given it.

use super::text::checked_text;

/// A text that names no incident.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an incident is 1 to {max} characters of A-Z, a-z, 0-9, '-', '.', '_', '/', ':' and '#', beginning with a letter or digit",
    max = Incident::MAX_BYTES
)]
pub struct IncidentError;

checked_text! {
    /// Names an incident, as INC-2041 or ops/nodeseal#17.
    Incident, IncidentError, |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/' | b':' | b'#');
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let fits = starts_well && text.len() <= Self::MAX_BYTES && text.bytes().all(allowed);
        fits.then_some(()).ok_or(IncidentError)
    }
}

impl Incident {
    /// Bytes. As our own names: short enough for every line.
    pub const MAX_BYTES: usize = 63;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_one_short_word_as_trackers_write_them() {
        for good in ["INC-2041", "ops/nodeseal#17", "7", "a:b_c.d", &"a".repeat(63)] {
            assert_eq!(good.parse::<Incident>().unwrap().as_str(), good);
        }
        for bad in ["", "-x", "#1", "a b", "a\nb", "a\"b", "a=b", "ä", "\u{1b}[31m", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Incident>(), Err(IncidentError), "{bad:?}");
        }
    }
}
