//! What an operator's choice of PCRs means. Pure.
//!
//! Sources: TCG PC Client Platform Firmware Profile §3.3.4 (use of PCRs), Linux TPM PCR Registry of the UAPI group.

use crate::types::PcrSet;

/// Registers that software can reset or that no boot measures: a seal to them is none.
const REFUSED: [u8; 8] = [16, 17, 18, 19, 20, 21, 22, 23];

/// Registers that change without anybody's intent, each with the reason.
const WARNED: [(u8, &str); 5] = [
    (1, "PCR 1 changes with firmware settings and boot order"),
    (
        7,
        "PCR 7 changes with every Secure Boot revocation list (dbx) update: set policy = \"none\" and reseal before each",
    ),
    (10, "PCR 10 changes with every file that IMA measures"),
    (12, "PCR 12 changes with the kernel command line and credentials"),
    (14, "PCR 14 changes with shim's keys"),
];

/// What is to be said of a set of PCRs.
pub(super) struct Lint {
    /// Must not be used.
    pub(super) refused: Vec<u8>,
    /// May be used, with these warnings.
    pub(super) warnings: Vec<&'static str>,
}

pub(super) fn lint(pcrs: PcrSet) -> Lint {
    Lint {
        refused: pcrs.numbers().filter(|number| REFUSED.contains(number)).collect(),
        warnings: WARNED
            .iter()
            .filter(|(number, _)| pcrs.numbers().any(|n| n == *number))
            .map(|(_, why)| *why)
            .collect(),
    }
}
