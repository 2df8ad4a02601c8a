//! Names in Vault's paths, each parsed once, so that no other place has to encode or to check one.

use std::fmt;
use std::str::FromStr;

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

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $may:literal, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let fits: fn(&str) -> bool = $fits;
                if text.len() <= MAX_BYTES && fits(text) { Ok(Self(text.to_owned())) } else { Err(NameError($what, $may)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A key or a role.
    Name, "a name", "", part
}

name! {
    /// A mount or a namespace: names with `/` between them, none at either end.
    MountPath, "a mount or namespace", ", with '/' between parts and not at the ends", |text| text.split('/').all(part)
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
