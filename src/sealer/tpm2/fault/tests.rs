//! The table of response codes, row by row.

use super::*;

#[test]
fn every_response_code_has_the_remedy_of_its_step() {
    use FaultCode::*;
    let table = [
        (Step::Connect, 0xA_000A, NoDevice),
        (Step::Connect, 0xA_0008, NoDevice),
        (Step::Connect, 0xA_0015, Tcti),
        (Step::Connect, 0xA_0001, Tcti),
        (Step::Unseal, 0xA_000A, NoDevice),
        (Step::Unseal, 0xA_0001, NoDevice),
        (Step::ReadSrk, 0x100, Uninitialised),
        (Step::ReadSrk, 0x101, TpmFailed),
        (Step::ReadSrk, 0x12D, TpmFailed),
        (Step::ReadSrk, 0x130, TpmFailed),
        (Step::MakeSrk, 0x9A2, OwnerAuth),
        (Step::MakeSrk, 0x98E, OwnerAuth),
        (Step::PersistSrk, 0x9A2, OwnerAuth),
        (Step::MakeSrk, 0x902, Busy),
        (Step::StartSession, 0x903, Busy),
        (Step::StartSession, 0x901, Busy),
        (Step::StartSession, 0xB_0901, Busy),
        (Step::StartSession, 0x19C, SrkUnfit),
        (Step::StartSession, 0x182, SrkUnfit),
        (Step::Create, 0x98E, SrkUnfit),
        (Step::Create, 0x18A, SrkUnfit),
        (Step::Create, 0x2D5, Internal),
        (Step::Load, 0x9A2, SrkUnfit),
        (Step::Load, 0x1DF, Foreign),
        (Step::Load, 0x1D5, Foreign),
        (Step::Load, 0x2E5, Foreign),
        (Step::Load, 0x155, Foreign),
        (Step::ReadPcrs, 0x1C3, PcrBank),
        (Step::ReadPcrs, 0x98E, Internal),
        (Step::Policy, 0x2C3, Policy),
        (Step::Policy, 0x98E, Internal),
        (Step::Unseal, 0x9A2, Auth),
        (Step::Unseal, 0x98E, Auth),
        (Step::Unseal, 0xA8E, Internal),
        (Step::Unseal, 0x99D, Policy),
        (Step::Unseal, 0x128, PcrRace),
        (Step::Unseal, 0x922, Busy),
        (Step::Unseal, 0x908, Busy),
        (Step::Unseal, 0x90A, Busy),
        (Step::Unseal, 0x920, Busy),
        (Step::Unseal, 0x921, Lockout),
        (Step::Load, 0x921, Lockout),
        (Step::Unseal, 0x7_001B, Forged),
        (Step::Unseal, 0x7_0001, Internal),
        (Step::Unseal, 0x143, Internal),
        (Step::Import, 0x3DF, ForeignBundle),
        (Step::Import, 0x4E7, ForeignBundle),
        (Step::Import, 0x9A2, SrkUnfit),
        (Step::Import, 0x182, SrkUnfit),
        (Step::Import, 0x2C2, Internal),
        (Step::DefineCounter, 0x9A2, OwnerAuth),
        (Step::UndefineCounter, 0x9A2, OwnerAuth),
        (Step::DefineCounter, 0x14B, CounterSpace),
        (Step::DefineCounter, 0x14C, CounterSpace),
        (Step::PersistSrk, 0x14B, Internal),
        (Step::ReadCounter, 0x9A2, CounterSpace),
        (Step::AdvanceCounter, 0x98E, CounterSpace),
        (Step::AdvanceCounter, 0x920, Busy),
        (Step::FindCounter, 0x98E, Forged),
        (Step::FindCounter, 0x18B, CounterGone),
        (Step::ReadCounter, 0x28B, CounterGone),
        (Step::ReadCounter, 0x148, Internal),
    ];
    for (step, rc, expected) in table {
        let fault = Failure::Answer { step, rc: Some(Rc(rc)) }.into_fault();
        assert_eq!(fault.code, expected, "{rc:#x} at {step:?}");
        assert!(fault.detail.contains(&format!("{rc:#x}")), "{}", fault.detail);
    }
    assert_eq!(Failure::Answer { step: Step::Load, rc: None }.into_fault().code, Internal);
}

#[test]
fn every_code_has_a_row_at_every_step() {
    let steps = [
        Step::AdvanceCounter,
        Step::Connect,
        Step::Create,
        Step::DefineCounter,
        Step::FindCounter,
        Step::Import,
        Step::Inquire,
        Step::Load,
        Step::MakeSrk,
        Step::Policy,
        Step::PersistSrk,
        Step::ReadCounter,
        Step::ReadPcrs,
        Step::ReadSrk,
        Step::StartSession,
        Step::UndefineCounter,
        Step::Unseal,
    ];
    for step in steps {
        for rc in (0..0x1000).flat_map(|code| [0, 7, 8, 9, 10, 11, 255].map(|layer| layer << 16 | code)) {
            let failure = Failure::Answer { step, rc: Some(Rc(rc)) };
            let waits = failure.prospect() == Prospect::Wait;
            let code = failure.into_fault().code;
            assert!(!waits || matches!(code, FaultCode::Busy | FaultCode::PcrRace), "{rc:#x} at {step:?}: {code:?}");
        }
    }
}

#[test]
fn only_an_absent_handle_is_absent_and_only_a_missing_algorithm_unsupported() {
    assert!(Rc(0x18B).is_absent() && !Rc(0x184).is_absent() && !Rc(0xA_008B).is_absent());
    assert!(Rc(0x2E6).is_unsupported() && Rc(0x2CA).is_unsupported() && !Rc(0x9A2).is_unsupported());
    assert!(Rc(0x14C).is_defined() && !Rc(0x14B).is_defined());
    assert!(Rc(0x14A).is_uninitialised() && !Rc(0x14B).is_uninitialised());
}
