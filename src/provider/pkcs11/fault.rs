//! From a fault of the sealer to what it means for a provider. The code (docs/operations/faults.md) stays in the detail.

use crate::provider::{ErrorKind, ProviderError};
use crate::seal::client::SealerError;
use crate::seal::fault::{Fault, FaultCode};

pub(super) fn from_sealer(error: SealerError) -> ProviderError {
    match error {
        SealerError::Device(fault) => from_fault(&fault),
        error @ SealerError::Protocol(_) => ProviderError::new(ErrorKind::Protocol, "the sealer").because(error),
        error @ SealerError::Unreachable { .. } => ProviderError::new(ErrorKind::Away, "the sealer").because(error),
    }
}

fn from_fault(fault: &Fault) -> ProviderError {
    ProviderError::new(kind(fault.code), format!("{}: {}", fault.code.code(), fault.detail))
}

const fn kind(code: FaultCode) -> ErrorKind {
    use FaultCode as F;
    match code {
        F::Auth | F::Format | F::HsmForeign => ErrorKind::Text,
        F::Busy | F::HsmGone | F::Stuck => ErrorKind::Down,
        F::HsmKey => ErrorKind::NoKey,
        F::HsmPin => ErrorKind::Login,
        F::HsmMechanism | F::HsmModule | F::HsmToken | F::NotCompiledIn => ErrorKind::Unfit,
        F::Verify => ErrorKind::Lied,
        // HsmAnswer and Internal; the rest are faults of a TPM, which was not asked.
        _ => ErrorKind::Protocol,
    }
}
