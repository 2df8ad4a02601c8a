//! Which of the two generations of the KMS API.

/// A generation of the API. The number is stored and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Api {
    /// `v1beta1.KeyManagementService`, which Kubernetes calls KMS v1.
    V1 = 1,
    /// `v2.KeyManagementService`.
    V2 = 2,
}

impl Api {
    /// As written in the configuration and on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V1 => "v1beta1",
            Self::V2 => "v2",
        }
    }

    /// From its stored number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}
