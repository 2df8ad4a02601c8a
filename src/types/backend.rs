//! Which kind of device seals, and what a new seal is made under.

use std::fmt;
use std::str::FromStr;

use super::SealPolicy;

/// A kind of sealing device. The number is its place in the sealer protocol and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Backend {
    /// A TPM 2.0.
    Tpm2 = 1,
    /// A token behind a PKCS#11 module.
    Pkcs11 = 2,
}

impl Backend {
    /// As written in the configuration and on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tpm2 => "tpm2",
            Self::Pkcs11 => "pkcs11",
        }
    }

    /// From its place in the protocol.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Tpm2),
            2 => Some(Self::Pkcs11),
            _ => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// No kind of sealing device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealing device is \"tpm2\" or \"pkcs11\"")]
pub struct BackendError;

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        match text {
            "tpm2" => Ok(Self::Tpm2),
            "pkcs11" => Ok(Self::Pkcs11),
            _ => Err(BackendError),
        }
    }
}

/// What a new seal is made by, and bound to. Only a TPM has policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealTo {
    /// The TPM, under this policy.
    Tpm2(SealPolicy),
    /// The PKCS#11 token.
    Pkcs11,
}

impl SealTo {
    /// The device.
    pub const fn backend(self) -> Backend {
        match self {
            Self::Tpm2(_) => Backend::Tpm2,
            Self::Pkcs11 => Backend::Pkcs11,
        }
    }

    /// What it is bound to beside the device.
    pub const fn policy(self) -> SealPolicy {
        match self {
            Self::Tpm2(policy) => policy,
            Self::Pkcs11 => SealPolicy::None,
        }
    }
}
