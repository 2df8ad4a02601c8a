//! A TPM that other users keep busy: waited for, but not for ever.

use std::thread;
use std::time::{Duration, Instant};

use nodeseal::seal::fault::FaultCode;
use nodeseal::sealer::Sealer;
use nodeseal::types::{PcrBank, SealPolicy};
use test_support::swtpm::Swtpm;

use crate::interposer::{CREATE, CREATE_PRIMARY, Interposer, LOAD, READ_PUBLIC, START_AUTH_SESSION, UNSEAL};
use crate::support::{
    assert_fault, assert_fault_at, assert_nothing_left, assert_opens, assert_opens_at, auth, engine, engine_at, extend,
    pcr, seal, secret,
};

/// Of one operation: so many attempts, so much waiting, and after it the last attempt.
const TRIES: usize = 30;
const WAITING: Duration = Duration::from_secs(9);
const BOUND: Duration = Duration::from_secs(12);

#[test]
fn passing_codes_at_any_step_are_waited_out() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    // The library itself asks again five times after these three, so more than that; an attempt of ours is longer.
    let codes = [(0x922, 7), (0x908, 7), (0x90A, 7), (0x920, 2), (0x902, 2), (0x903, 2), (0x901, 2)];
    for (rc, times) in codes {
        for step in [READ_PUBLIC, START_AUTH_SESSION, LOAD, UNSEAL] {
            let busy = Interposer::answering(&tpm, step, rc, times);
            assert_opens_at(busy.port(), &blob);
            assert!(busy.count(step) > times, "{rc:#x} at {step:#x}");
        }
    }
    assert_nothing_left(&tpm);
}

#[test]
fn passing_codes_while_sealing_are_waited_out() {
    let tpm = Swtpm::start();
    for step in [CREATE_PRIMARY, CREATE] {
        let busy = Interposer::answering(&tpm, step, 0x922, 7);
        let blob = engine_at(busy.port()).seal(&secret(), &auth(), &SealPolicy::None, None).unwrap();
        assert_opens(&tpm, &blob);
    }
    assert_nothing_left(&tpm);
}

#[test]
fn an_endless_retry_ends_as_busy() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    let busy = Interposer::answering(&tpm, UNSEAL, 0x922, usize::MAX);
    let start = Instant::now();
    assert_fault_at(busy.port(), &blob, FaultCode::Busy);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_nothing_left(&tpm);
    assert_opens(&tpm, &blob);
}

#[test]
fn used_up_object_slots_end_as_busy_and_nothing_of_others_is_flushed() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    take_all_object_slots(&tpm);
    let start = Instant::now();
    assert_fault(&tpm, &blob, FaultCode::Busy);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_eq!(tpm.tool("tpm2_getcap handles-transient").lines().count(), 3, "theirs are still there");
    tpm.tool("tpm2_flushcontext -t");
    assert_opens(&tpm, &blob);
    assert_nothing_left(&tpm);
}

#[test]
fn object_slots_that_come_free_are_waited_for() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    take_all_object_slots(&tpm);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(400));
            tpm.tool("tpm2_flushcontext -t");
        });
        assert_opens(&tpm, &blob);
    });
    assert_nothing_left(&tpm);
}

/// Without a resource manager swtpm has three.
fn take_all_object_slots(tpm: &Swtpm) {
    for _ in 0..3 {
        tpm.tool("tpm2_createprimary -Q -C o -G ecc -c theirs.ctx");
    }
}

#[test]
fn a_register_that_is_extended_in_the_middle_is_met_with_fresh_sessions() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let blob = seal(&tpm, &pcr(PcrBank::Sha256, &[7]));
    let mut measurements = 3;
    let measuring = Interposer::before(&tpm, move |code, bytes, tpm| {
        // Between TPM2_PolicyPCR and TPM2_Unseal, into a register that is not in the policy.
        if code == UNSEAL && measurements > 0 {
            measurements -= 1;
            assert_eq!(tpm(&extend_pcr_8())[6..10], [0; 4]);
            let answer = tpm(bytes);
            assert_eq!(answer[6..10], [0, 0, 0x01, 0x28], "the TPM itself objects");
            return answer;
        }
        tpm(bytes)
    });
    assert_opens_at(measuring.port(), &blob);
    assert_eq!(measuring.count(UNSEAL), 4);
    assert_eq!(measuring.count(START_AUTH_SESSION), 8, "two fresh sessions for each attempt");
    assert_nothing_left(&tpm);
}

/// TPM2_PCR_Extend of PCR 8 in the SHA-256 bank, with the empty password.
fn extend_pcr_8() -> Vec<u8> {
    let mut command = vec![0x80, 0x02, 0, 0, 0, 0, 0x00, 0x00, 0x01, 0x82, 0, 0, 0, 8];
    command.extend_from_slice(&[0, 0, 0, 9, 0x40, 0x00, 0x00, 0x09, 0, 0, 0, 0, 0]);
    command.extend_from_slice(&[0, 0, 0, 1, 0x00, 0x0B]);
    command.extend_from_slice(&[0x88; 32]);
    let size = u8::try_from(command.len()).unwrap();
    command[5] = size;
    command
}

#[test]
fn registers_that_never_stand_still_end_as_a_race() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let blob = seal(&tpm, &pcr(PcrBank::Sha256, &[7]));
    let restless = Interposer::answering(&tpm, UNSEAL, 0x128, usize::MAX);
    let start = Instant::now();
    assert_fault_at(restless.port(), &blob, FaultCode::PcrRace);
    let (tries, took) = (restless.count(UNSEAL), start.elapsed());
    assert!(took < BOUND, "{took:?}");
    // All tries, or on a slow machine all the time.
    assert!(tries == TRIES || (tries > 1 && took > WAITING), "{tries} tries in {took:?}");
    assert_nothing_left(&tpm);
}

#[test]
fn a_register_that_moves_between_sealing_and_proving_is_a_race_and_not_a_seal() {
    let tpm = Swtpm::start();
    extend(&tpm, 8, 0x11);
    let mut moved = false;
    let restless = Interposer::before(&tpm, move |code, bytes, tpm| {
        let answer = tpm(bytes);
        if code == CREATE && !std::mem::replace(&mut moved, true) {
            tpm(&extend_pcr_8());
        }
        answer
    });
    let result = engine_at(restless.port()).seal(&secret(), &auth(), &pcr(PcrBank::Sha256, &[8]), None);
    assert_eq!(result.unwrap_err().code, FaultCode::PcrRace);
    assert_opens(&tpm, &engine(&tpm).seal(&secret(), &auth(), &pcr(PcrBank::Sha256, &[8]), None).unwrap());
    assert_nothing_left(&tpm);
}
