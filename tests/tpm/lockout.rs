//! The TPM's dictionary-attack protection: nothing of ours counts towards it, and its lockout does not close us out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nodeseal::seal::fault::FaultCode;
use nodeseal::sealer::Sealer;
use nodeseal::types::SealPolicy;
use test_support::swtpm::Swtpm;

use crate::support::{another_auth, assert_opens, auth, engine, engine_at, expect_fault, seal, secret};

#[test]
fn twenty_power_cuts_in_use_leave_the_lockout_counter_untouched() {
    let mut tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for round in 0..20 {
        let port = tpm.port();
        let (done, off) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !off.load(Ordering::Relaxed) {
                    let opened = engine_at(port).unseal(&blob, &auth()).is_ok();
                    let sealed = engine_at(port).seal(&secret(), &auth(), &SealPolicy::None, None).is_ok();
                    done.fetch_add(usize::from(opened) + usize::from(sealed), Ordering::Relaxed);
                }
            });
            let start = Instant::now();
            while done.load(Ordering::Relaxed) == 0 && start.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(1));
            }
            // Another place of the sequence each time: one round of it takes some 60 ms.
            thread::sleep(Duration::from_millis(7 * round));
            tpm.cut_power();
            off.store(true, Ordering::Relaxed);
        });
        assert!(done.load(Ordering::Relaxed) > 0, "round {round}: the TPM was not in use");
        tpm.power_on();
    }
    let info = engine(&tpm).describe().unwrap();
    assert_eq!((info.lockout_counter, info.in_lockout), (0, false));
    assert_opens(&tpm, &blob);
}

#[test]
fn wrong_host_secrets_leave_the_lockout_counter_untouched() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for _ in 0..10 {
        expect_fault(engine(&tpm).unseal(&blob, &another_auth()), FaultCode::Auth);
    }
    let info = engine(&tpm).describe().unwrap();
    assert_eq!((info.lockout_counter, info.lockout_max, info.in_lockout), (0, 3, false));
    assert_opens(&tpm, &blob);
}

#[test]
fn a_lockout_that_others_caused_is_shown_and_does_not_keep_us_out() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    tpm.put("theirs", b"theirs");
    tpm.tool("tpm2_create -Q -C 0x81000001 -i theirs -p right -u theirs.pub -r theirs.priv");
    tpm.tool("tpm2_load -Q -C 0x81000001 -u theirs.pub -r theirs.priv -c theirs.ctx");
    tpm.tool("tpm2_flushcontext -t");
    // The first attempt after a start is answered with TPM_RC_RETRY and does not count.
    for _ in 0..6 {
        assert!(!tpm.try_tool("tpm2_unseal -c theirs.ctx -p wrong").status.success());
        tpm.tool("tpm2_flushcontext -t");
    }
    let info = engine(&tpm).describe().unwrap();
    assert_eq!((info.lockout_counter, info.lockout_max, info.in_lockout), (3, 3, true));
    assert_opens(&tpm, &blob);
    assert_opens(&tpm, &seal(&tpm, &SealPolicy::None));
}
