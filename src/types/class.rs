//! The closed set of failure classes. A class alone decides the gRPC code, whether to retry, the metric label and health.

use std::fmt;

/// What kind of failure it is, from the point of view of whoever has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The bytes fail to parse or to authenticate. Never retried.
    Corrupt,
    /// Somebody (the TPM, a peer check, an operator's rule) said no. Never retried.
    Denied,
    /// A defect of ours.
    Internal,
    /// The operator must change something. Never retried.
    Misconfigured,
    /// A name or key that nobody here knows.
    NotFound,
    /// Too much at once. Retried later.
    Throttled,
    /// A device, file or process is away for the moment. Retried.
    Unavailable,
}

impl Class {
    /// In the order of their labels.
    pub const ALL: [Self; 7] = [
        Self::Corrupt,
        Self::Denied,
        Self::Internal,
        Self::Misconfigured,
        Self::NotFound,
        Self::Throttled,
        Self::Unavailable,
    ];

    /// Whether asking again later can help.
    pub const fn is_retried(self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable => true,
            Self::Corrupt | Self::Denied | Self::Internal | Self::Misconfigured | Self::NotFound => false,
        }
    }

    /// Log field and metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Denied => "denied",
            Self::Internal => "internal",
            Self::Misconfigured => "misconfigured",
            Self::NotFound => "not_found",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
        }
    }

    /// Exit code of our programs (sysexits.h).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Corrupt => 65,       // EX_DATAERR
            Self::Denied => 77,        // EX_NOPERM
            Self::Internal => 70,      // EX_SOFTWARE
            Self::Misconfigured => 78, // EX_CONFIG
            Self::NotFound => 66,      // EX_NOINPUT
            Self::Throttled => 75,     // EX_TEMPFAIL
            Self::Unavailable => 69,   // EX_UNAVAILABLE
        }
    }

    /// The mirror of [`Class::label`].
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.label() == label)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
