//! `[seal]` and `[seal.tpm2]`: which device seals the node root, and to what.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::pcr_lint::lint;
use super::pkcs11::{self, Pkcs11};
use super::problems::{Checked, Problems};
use super::sockets;
use crate::sealer::settings::{
    DEFAULT_COUNTER_INDEX, DEFAULT_PARENT_HANDLE, OWNER_NV_INDICES, OWNER_PERSISTENT_HANDLES, Pkcs11Settings,
    TpmDevice, TpmSettings,
};
use crate::types::{Backend, PcrBank, PcrSet, SealPolicy, SealTo};

/// In-kernel resource manager; /dev/tpm0 has one user at a time.
const TPM_DEVICE: &str = "/dev/tpmrm0";
const TPM_DEVICES: &str = "/dev/tpmrm";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Seal")]
pub(super) struct SealTable {
    backend: Option<String>,
    socket: Option<String>,
    #[serde(default)]
    tpm2: Tpm2,
    #[serde(default)]
    pkcs11: Pkcs11,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tpm2 {
    device: Option<String>,
    parent_handle: Option<i64>,
    allow_software_tpm: Option<bool>,
    policy: Option<String>,
    pcr_bank: Option<String>,
    pcrs: Option<Vec<i64>>,
    rollback: Option<String>,
    counter_index: Option<i64>,
}

/// The sealing device.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Where a supervisor listens for the sealer; absent: the sealer is started for each question.
    pub socket: Option<PathBuf>,
    /// Which device seals what is sealed from now on; what was sealed names its own.
    pub backend: Backend,
    /// The TPM.
    pub tpm2: TpmSettings,
    /// The PKCS#11 token; there whenever it is the backend, and beside a TPM where the node root moves between both.
    pub pkcs11: Option<Pkcs11Settings>,
    /// What the node root is bound to beside the TPM.
    pub policy: SealPolicy,
    /// NV index of the TPM's counter that tells an old copy of the state directory.
    pub guard: Option<u32>,
}

impl Seal {
    /// The PIN that each question gives to the token, where the sealer is started for each and remembers none that was
    /// refused.
    pub fn own_pin_file(&self) -> Option<PathBuf> {
        let token = self.pkcs11.as_ref().filter(|_| self.socket.is_none())?;
        Some(token.pin_file.clone())
    }

    /// Where new seals go.
    pub const fn to(&self) -> SealTo {
        self.to_backend(self.backend)
    }

    /// A new seal by this device, whatever the configuration prefers.
    pub const fn to_backend(&self, backend: Backend) -> SealTo {
        match backend {
            Backend::Tpm2 => SealTo::Tpm2(self.policy),
            Backend::Pkcs11 => SealTo::Pkcs11,
        }
    }
}

/// `systemd`: the version that this machine has, as far as it is known.
pub(super) fn check(
    problems: &mut Problems,
    warnings: &mut Problems,
    seal: SealTable,
    systemd: Option<u32>,
) -> Checked<Seal> {
    let SealTable { backend, socket, tpm2, pkcs11 } = seal;
    let backend = match backend {
        None => Ok(Backend::Tpm2),
        Some(name) => problems.keep("seal.backend", name.parse().map_err(|error| format!("{name:?}: {error}"))),
    };
    let is_pkcs11 = matches!(backend, Ok(Backend::Pkcs11));
    let pkcs11 = pkcs11::check(problems, warnings, pkcs11, is_pkcs11, socket.is_some());
    let socket = socket.map(|path| sockets::own(problems, "seal.socket", Some(path), "")).transpose()?;
    let policy = check_policy(problems, warnings, &tpm2, systemd);
    if tpm2.device.as_deref().is_some_and(|device| device.starts_with("/dev/tpm") && !device.starts_with(TPM_DEVICES)) {
        warnings.add("seal.tpm2.device", "can be used by one program at a time: write \"/dev/tpmrm0\"");
    }
    let device = problems.keep("seal.tpm2.device", tpm2.device.as_deref().unwrap_or(TPM_DEVICE).parse::<TpmDevice>());
    let parent_handle = match tpm2.parent_handle {
        None => Ok(DEFAULT_PARENT_HANDLE),
        Some(handle) => {
            let owned = u32::try_from(handle).ok().filter(|handle| OWNER_PERSISTENT_HANDLES.contains(handle));
            problems.keep(
                "seal.tpm2.parent_handle",
                owned.ok_or("is a persistent handle of the owner, from 0x81000000 to 0x817fffff"),
            )
        }
    };
    let guard = check_rollback(problems, &tpm2);
    let allow_software_tpm = tpm2.allow_software_tpm.unwrap_or(false);
    if allow_software_tpm && !is_pkcs11 {
        warnings.add("seal.tpm2.allow_software_tpm", "a software TPM protects nothing: for tests only");
    }
    Ok(Seal {
        socket,
        backend: backend?,
        tpm2: TpmSettings { device: device?, parent_handle: parent_handle?, allow_software_tpm },
        pkcs11: pkcs11?,
        policy: policy?,
        guard: guard?,
    })
}

/// The NV index of the counter that the state directory is bound to, if any.
fn check_rollback(problems: &mut Problems, tpm2: &Tpm2) -> Checked<Option<u32>> {
    let index = match tpm2.counter_index {
        None => Ok(DEFAULT_COUNTER_INDEX),
        Some(index) => {
            let owned = u32::try_from(index).ok().filter(|index| OWNER_NV_INDICES.contains(index));
            problems.keep(
                "seal.tpm2.counter_index",
                owned.ok_or("is an NV index of the owner, from 0x01800000 to 0x01bfffff"),
            )
        }
    };
    match tpm2.rollback.as_deref() {
        None | Some("none") if tpm2.counter_index.is_none() => Ok(None),
        None | Some("none") => {
            problems.refuse("seal.tpm2.counter_index", "has no effect without rollback = \"tpm-counter\"")
        }
        Some("tpm-counter") => index.map(Some),
        Some(other) => {
            problems.refuse("seal.tpm2.rollback", format!("{other:?} is neither \"none\" nor \"tpm-counter\""))
        }
    }
}

fn check_policy(
    problems: &mut Problems,
    warnings: &mut Problems,
    tpm2: &Tpm2,
    systemd: Option<u32>,
) -> Checked<SealPolicy> {
    match (tpm2.policy.as_deref().unwrap_or("none"), &tpm2.pcrs) {
        ("none", None) if tpm2.pcr_bank.is_none() => Ok(SealPolicy::None),
        ("none", _) => problems.refuse("seal.tpm2.pcrs", "has no effect without policy = \"pcr\""),
        ("pcr", None) => problems.refuse("seal.tpm2.pcrs", "write the PCRs to bind to, such as pcrs = [0, 2, 4]"),
        ("pcr", Some(numbers)) => check_pcrs(problems, warnings, tpm2.pcr_bank.as_deref(), numbers, systemd),
        ("signed-pcr", _) => {
            problems.refuse("seal.tpm2.policy", "\"signed-pcr\" is not in this release: write \"none\" or \"pcr\"")
        }
        (other, _) => problems.refuse("seal.tpm2.policy", format!("{other:?} is neither \"none\" nor \"pcr\"")),
    }
}

fn check_pcrs(
    problems: &mut Problems,
    warnings: &mut Problems,
    bank: Option<&str>,
    numbers: &[i64],
    systemd: Option<u32>,
) -> Checked<SealPolicy> {
    let bank = match bank {
        None | Some("sha256") => PcrBank::Sha256,
        Some("sha384") => PcrBank::Sha384,
        Some(other) => {
            return problems.refuse("seal.tpm2.pcr_bank", format!("{other:?} is neither \"sha256\" nor \"sha384\""));
        }
    };
    let numbers: Vec<u8> = numbers.iter().map(|number| u8::try_from(*number).unwrap_or(u8::MAX)).collect();
    let pcrs = problems.keep("seal.tpm2.pcrs", PcrSet::from_numbers(&numbers))?;
    let lint = lint(pcrs, systemd);
    lint.warnings.iter().for_each(|why| warnings.add("seal.tpm2.pcrs", why.as_str()));
    // Each is told, and one is enough for there to be no policy.
    let mut policy = Ok(SealPolicy::Pcr { bank, pcrs });
    for number in &lint.refused {
        let why = format!("PCR {number} can be reset by software or is not measured at boot: remove it");
        policy = problems.refuse("seal.tpm2.pcrs", why);
    }
    policy
}
