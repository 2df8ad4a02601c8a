//! From what the TPM or its library answered to the fault that names the remedy, and to what is worth another try.
//!
//! A response code alone is not enough: 0x9A2 is a wrong host secret at TPM2_Unseal and an owner's password at
//! TPM2_CreatePrimary. So every call is made at a [`Step`].

use std::fmt;

use crate::seal::fault::{Fault, FaultCode};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// TPM2_NV_Increment of the counter.
    AdvanceCounter,
    /// Loading the TCTI library and opening the device.
    Connect,
    /// TPM2_Create of the sealed object.
    Create,
    /// TPM2_NV_DefineSpace of the counter.
    DefineCounter,
    /// TPM2_NV_ReadPublic of the counter.
    FindCounter,
    /// TPM2_Import of a duplicate.
    Import,
    /// Reading properties: TPM2_GetCapability.
    Inquire,
    /// TPM2_Load of the sealed object.
    Load,
    /// TPM2_CreatePrimary of the storage root key.
    MakeSrk,
    /// Building the policy in a session.
    Policy,
    /// TPM2_EvictControl of the storage root key.
    PersistSrk,
    /// TPM2_NV_Read of the counter.
    ReadCounter,
    /// TPM2_PCR_Read.
    ReadPcrs,
    /// TPM2_ReadPublic of the storage root key.
    ReadSrk,
    /// TPM2_StartAuthSession, salted to the storage root key.
    StartSession,
    /// TPM2_NV_UndefineSpace of the counter.
    UndefineCounter,
    /// TPM2_Unseal.
    Unseal,
}

impl Step {
    const fn label(self) -> &'static str {
        match self {
            Self::AdvanceCounter => "TPM2_NV_Increment",
            Self::Connect => "opening the TPM",
            Self::Create => "TPM2_Create",
            Self::DefineCounter => "TPM2_NV_DefineSpace",
            Self::FindCounter => "TPM2_NV_ReadPublic",
            Self::Import => "TPM2_Import",
            Self::Inquire => "TPM2_GetCapability",
            Self::Load => "TPM2_Load",
            Self::MakeSrk => "TPM2_CreatePrimary",
            Self::Policy => "TPM2_Policy…",
            Self::PersistSrk => "TPM2_EvictControl",
            Self::ReadCounter => "TPM2_NV_Read",
            Self::ReadPcrs => "TPM2_PCR_Read",
            Self::ReadSrk => "TPM2_ReadPublic",
            Self::StartSession => "TPM2_StartAuthSession",
            Self::UndefineCounter => "TPM2_NV_UndefineSpace",
            Self::Unseal => "TPM2_Unseal",
        }
    }
}

/// A TSS2_RC: the layer in the third byte, below it the layer's own code (TSS 2.0 Overview and Common Structures §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rc(pub(super) u32);

const LAYER_TPM: u32 = 0;
const LAYER_ESYS: u32 = 7;
const LAYER_TCTI: u32 = 10;
/// The kernel's resource manager, speaking for the TPM.
const LAYER_RESMGR_TPM: u32 = 11;

// TPM_RC of format 0, Part 2 §6.6.3.
const INITIALIZE: u32 = 0x100;
const FAILURE: u32 = 0x101;
const PCR_CHANGED: u32 = 0x128;
const UPGRADE: u32 = 0x12D;
const REBOOT: u32 = 0x130;
const NV_UNINITIALIZED: u32 = 0x14A;
const NV_SPACE: u32 = 0x14B;
const NV_DEFINED: u32 = 0x14C;
const SENSITIVE: u32 = 0x155;
const LOCKOUT: u32 = 0x921;

/// TPM_RC_CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES, YIELDED, CANCELED, TESTING,
/// NV_RATE, RETRY, NV_UNAVAILABLE: warnings that the same command need not meet again.
const PASSING: [u32; 12] = [0x901, 0x902, 0x903, 0x904, 0x905, 0x906, 0x908, 0x909, 0x90A, 0x920, 0x922, 0x923];

/// The error number of a format 1 code, Part 2 §6.6.2: what is wrong, without the handle, parameter or session it is wrong with.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FormatOne {
    number: u32,
    /// Where: 0 a parameter, otherwise a handle (1 to 7) or a session (9 and up).
    place: u32,
}

const ASYMMETRIC: u32 = 0x01;
const VALUE: u32 = 0x04;
const HIERARCHY: u32 = 0x05;
const TYPE: u32 = 0x0A;
const HANDLE: u32 = 0x0B;
const AUTH_FAIL: u32 = 0x0E;
const SIZE: u32 = 0x15;
const KEY: u32 = 0x1C;
const INSUFFICIENT: u32 = 0x1A;
const POLICY_FAIL: u32 = 0x1D;
const INTEGRITY: u32 = 0x1F;
const BAD_AUTH: u32 = 0x22;
const BINDING: u32 = 0x25;
const CURVE: u32 = 0x26;
const ECC_POINT: u32 = 0x27;
/// Set in `place` for a session; the rest of it is the session's number.
const SESSION: u32 = 8;
const FIRST_SESSION: u32 = SESSION + 1;

// TSS2_BASE_RC.
const NO_CONNECTION: u32 = 8;
const IO_ERROR: u32 = 10;
const RSP_AUTH_FAILED: u32 = 27;

impl Rc {
    /// The number that tss-esapi 7.7 keeps to itself but shows. `None` for an error of its own.
    pub(super) fn of(error: &tss_esapi::Error) -> Option<Self> {
        use tss_esapi::constants::response_code::Tss2ResponseCode;
        let shown = match error {
            tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.to_string(),
            tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.to_string(),
            tss_esapi::Error::Tss2Error(Tss2ResponseCode::Success) | tss_esapi::Error::WrapperError(_) => return None,
        };
        let (_, digits) = shown.rsplit_once("0x")?;
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    const fn layer(self) -> u32 {
        self.0 >> 16 & 0xFF
    }

    const fn code(self) -> u32 {
        self.0 & 0xFFFF
    }

    /// The TPM's own code, if it is one.
    fn tpm(self) -> Option<u32> {
        matches!(self.layer(), LAYER_TPM | LAYER_RESMGR_TPM).then_some(self.code())
    }

    fn format_one(self) -> Option<FormatOne> {
        let code = self.tpm()?;
        let parameter = code >> 6 & 1 == 1;
        (code >> 7 & 1 == 1)
            .then_some(FormatOne { number: code & 0x3F, place: if parameter { 0 } else { code >> 8 & 0xF } })
    }

    /// Nothing is at the handle that was asked for.
    pub(super) fn is_absent(self) -> bool {
        self.format_one().is_some_and(|rc| rc.number == HANDLE)
    }

    /// This TPM has not the algorithm or the curve.
    pub(super) fn is_unsupported(self) -> bool {
        self.format_one().is_some_and(|rc| matches!(rc.number, ASYMMETRIC | TYPE | CURVE))
    }

    /// An authorisation was refused.
    pub(super) fn is_denied(self) -> bool {
        self.format_one().is_some_and(|rc| matches!(rc.number, AUTH_FAIL | BAD_AUTH))
    }

    /// A counter that was defined and never counted.
    pub(super) fn is_uninitialised(self) -> bool {
        self.tpm() == Some(NV_UNINITIALIZED)
    }

    /// Another made the object first.
    pub(super) fn is_defined(self) -> bool {
        self.tpm() == Some(NV_DEFINED)
    }
}

/// Why one attempt did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The TPM or its library said no.
    Answer {
        /// At which step.
        step: Step,
        /// With which code; `None` if the library's wrapper refused by itself.
        rc: Option<Rc>,
    },
    /// We said no.
    Refused(Fault),
}

/// Whether another attempt, from a fresh context on, may fare better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// It would end the same.
    None,
    /// The connection broke: once more, at once.
    Reconnect,
    /// The TPM asked for it: again, after a pause.
    Wait,
}

impl Failure {
    /// Refuses with a fault of our own.
    pub(super) fn refused(code: FaultCode, detail: impl Into<String>) -> Self {
        Self::Refused(Fault::new(code, detail))
    }

    /// The response code, if there was one.
    pub(super) fn rc(&self) -> Option<Rc> {
        match self {
            Self::Answer { rc, .. } => *rc,
            Self::Refused(_) => None,
        }
    }

    /// Whether to try again.
    pub(super) fn prospect(&self) -> Prospect {
        let Some(rc) = self.rc() else { return Prospect::None };
        match (rc.layer(), rc.tpm()) {
            (LAYER_TCTI, _) if matches!(rc.code(), IO_ERROR | NO_CONNECTION) => Prospect::Reconnect,
            (_, Some(code)) if code == PCR_CHANGED || PASSING.contains(&code) => Prospect::Wait,
            _ => Prospect::None,
        }
    }

    /// What the operator is told.
    pub(super) fn into_fault(self) -> Fault {
        match self {
            Self::Answer { step, rc: Some(rc) } => Fault::new(code(step, rc), format!("{}: {rc}", step.label())),
            Self::Answer { step, rc: None } => {
                Fault::new(FaultCode::Internal, format!("{}: refused by the TPM library", step.label()))
            }
            Self::Refused(fault) => fault,
        }
    }
}

impl fmt::Display for Rc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The table. Rows are those of docs/operations/faults.md, "Where the codes come from".
fn code(step: Step, rc: Rc) -> FaultCode {
    match (rc.layer(), rc.code()) {
        (LAYER_TCTI, IO_ERROR | NO_CONNECTION) => return FaultCode::NoDevice,
        (LAYER_TCTI, _) if step == Step::Connect => return FaultCode::Tcti,
        (LAYER_TCTI, _) => return FaultCode::NoDevice,
        (LAYER_ESYS, RSP_AUTH_FAILED) => return FaultCode::Forged,
        _ => {}
    }
    if let Some(one) = rc.format_one() {
        return format_one_code(step, one);
    }
    match rc.tpm() {
        Some(INITIALIZE) => FaultCode::Uninitialised,
        Some(FAILURE | UPGRADE | REBOOT) => FaultCode::TpmFailed,
        Some(PCR_CHANGED) => FaultCode::PcrRace,
        Some(LOCKOUT) => FaultCode::Lockout,
        Some(SENSITIVE) if step == Step::Load => FaultCode::Foreign,
        Some(NV_SPACE | NV_DEFINED) if step == Step::DefineCounter => FaultCode::CounterSpace,
        Some(warning) if PASSING.contains(&warning) => FaultCode::Busy,
        Some(_) | None => FaultCode::Internal,
    }
}

fn format_one_code(step: Step, rc: FormatOne) -> FaultCode {
    let denied = matches!(rc.number, AUTH_FAIL | BAD_AUTH);
    // Of every object and index of the owner, whatever is done with it.
    if rc.number == HIERARCHY {
        return FaultCode::HierarchyOff;
    }
    match step {
        Step::DefineCounter | Step::MakeSrk | Step::PersistSrk | Step::UndefineCounter if denied => {
            FaultCode::OwnerAuth
        }
        // It has our attributes and not our authValue.
        Step::AdvanceCounter | Step::ReadCounter if denied => FaultCode::CounterSpace,
        // The session has no authValue here: the Name that we were told is not the one that the TPM has.
        Step::FindCounter if denied => FaultCode::Forged,
        // It was undefined a moment ago.
        Step::AdvanceCounter | Step::FindCounter | Step::ReadCounter if rc.number == HANDLE => FaultCode::CounterGone,
        // An authValue, or a key that cannot be a parent or take a salt: both are of the key at the handle.
        Step::Create | Step::Import | Step::Load | Step::StartSession if denied || (1..SESSION).contains(&rc.place) => {
            FaultCode::SrkUnfit
        }
        Step::Load if matches!(rc.number, INTEGRITY | SIZE | INSUFFICIENT | BINDING | VALUE) => FaultCode::Foreign,
        Step::Import if matches!(rc.number, INTEGRITY | SIZE | INSUFFICIENT | BINDING | VALUE | KEY | ECC_POINT) => {
            FaultCode::ForeignBundle
        }
        // Of the second session it would be a broken transport, not a wrong host secret.
        Step::Unseal if denied && rc.place == FIRST_SESSION => FaultCode::Auth,
        Step::Unseal if rc.number == POLICY_FAIL => FaultCode::Policy,
        // No such bank, or no such register in it.
        Step::ReadPcrs if !denied => FaultCode::PcrBank,
        Step::Policy if !denied => FaultCode::Policy,
        Step::AdvanceCounter
        | Step::Connect
        | Step::Create
        | Step::DefineCounter
        | Step::FindCounter
        | Step::Import
        | Step::Inquire
        | Step::Load
        | Step::MakeSrk
        | Step::Policy
        | Step::PersistSrk
        | Step::ReadCounter
        | Step::ReadPcrs
        | Step::ReadSrk
        | Step::StartSession
        | Step::UndefineCounter
        | Step::Unseal => FaultCode::Internal,
    }
}

/// Names the step at which a call of the library failed.
pub(super) trait At<T> {
    /// The failure at that step.
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T> At<T> for tss_esapi::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|error| Failure::Answer { step, rc: Rc::of(&error) })
    }
}

#[cfg(test)]
mod tests;
