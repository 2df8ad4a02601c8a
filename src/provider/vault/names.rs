//! Names in Vault's paths, each parsed once, so that no other place has to encode or to check one.

use crate::types::checked_text;

/// Not a name that goes into a path as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is 1 to {max} characters of A-Z, a-z, 0-9, '-', '_' and '.'{1}", max = MAX_BYTES)]
pub struct NameError(&'static str, &'static str);

/// Bytes: a path in an identity stays far below the identity's limit.
const MAX_BYTES: usize = 128;

fn part(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.bytes().all(plain) && text.bytes().any(|byte| byte != b'.')
}

fn name(fits: bool, text: &str, what: &'static str, may: &'static str) -> Result<(), NameError> {
    if fits && text.len() <= MAX_BYTES { Ok(()) } else { Err(NameError(what, may)) }
}

checked_text! {
    /// A key or a role.
    Name, NameError, |text| name(part(text), text, "a name", "")
}

checked_text! {
    /// A mount or a namespace: names with `/` between them, none at either end.
    MountPath, NameError, |text| {
        name(text.split('/').all(part), text, "a mount or namespace", ", with '/' between parts and not at the ends")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        for good in ["kubernetes", "a.b-C_9", "..."] {
            assert_eq!(good.parse::<Name>().is_ok(), good != "...", "{good}");
        }
        for bad in ["", "a/b", "..", "a b", "a?b", "ü", "a%2fb", &"a".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        for (text, good) in
            [("transit", true), ("team/a/transit", true), ("/a", false), ("a/", false), ("a/../b", false)]
        {
            assert_eq!(text.parse::<MountPath>().is_ok(), good, "{text}");
        }
    }
}
