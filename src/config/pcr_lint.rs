//! What an operator's choice of PCRs means. Pure.
//!
//! Sources: TCG PC Client Platform Firmware Profile §3.3.4 (use of PCRs), Linux TPM PCR Registry of the UAPI group, NEWS of systemd.

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

/// The first systemd whose initrd measures into registers that firmware and boot loader alone had before, on measured systems.
const SYSTEMD_THAT_MEASURES: u32 = 261;

/// Those: 0 to 7, 9, 12 to 14.
const MEASURED_BY_SYSTEMD: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14];

/// What is to be said of a set of PCRs.
pub(super) struct Lint {
    /// Must not be used.
    pub(super) refused: Vec<u8>,
    /// May be used, with these warnings.
    pub(super) warnings: Vec<String>,
}

/// `systemd`: the version that this machine has, as far as it is known.
pub(super) fn lint(pcrs: PcrSet, systemd: Option<u32>) -> Lint {
    let known =
        WARNED.iter().filter(|(number, _)| pcrs.numbers().any(|n| n == *number)).map(|(_, why)| (*why).to_owned());
    Lint {
        refused: pcrs.numbers().filter(|number| REFUSED.contains(number)).collect(),
        warnings: known.chain(of_systemd(pcrs, systemd)).collect(),
    }
}

/// A seal from before that update does not open after it, and then it is too late for a `reseal`.
fn of_systemd(pcrs: PcrSet, systemd: Option<u32>) -> Option<String> {
    let measured: Vec<_> = pcrs.numbers().filter(|number| MEASURED_BY_SYSTEMD.contains(number)).collect();
    let numbers: Vec<_> = measured.iter().map(ToString::to_string).collect();
    let numbers = numbers.join(", ");
    let what = match systemd {
        _ if measured.is_empty() => return None,
        Some(version) if version >= SYSTEMD_THAT_MEASURES => format!(
            "this machine has systemd {version}, and since systemd {SYSTEMD_THAT_MEASURES} the initrd of a measured system \
             extends PCR {numbers}: a seal that was made under an older one does not open at the next boot"
        ),
        Some(_) | None => format!(
            "from systemd {SYSTEMD_THAT_MEASURES} on the initrd of a measured system extends PCR {numbers}: this seal stops to \
             open at that upgrade"
        ),
    };
    Some(format!(
        "{what}. Before the boot into it set policy = \"none\", restart nodeseald and run `nodeseal reseal`; after it set the \
         policy again and reseal"
    ))
}
