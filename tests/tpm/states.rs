//! A TPM that is not there, not started, broken, or that answers nonsense.

use std::time::{Duration, Instant};

use nodeseal::seal::fault::FaultCode;
use nodeseal::sealer::Sealer;
use nodeseal::sealer::settings::{DEFAULT_PARENT_HANDLE, TpmDevice, TpmSettings};
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::types::SealPolicy;
use test_support::swtpm::Swtpm;

use crate::interposer::{CREATE, Interposer, LOAD, READ_PUBLIC, START_AUTH_SESSION, UNSEAL, response};
use crate::support::{
    SECRET, assert_fault, assert_fault_at, assert_nothing_left, assert_opens, assert_opens_at, auth, engine_at,
    expect_fault, seal, secret, settings, try_seal,
};

#[test]
fn a_tpm_that_the_firmware_did_not_start_is_reported_and_not_started_by_us() {
    let tpm = Swtpm::start_without_startup();
    expect_fault(try_seal(&tpm, &SealPolicy::None), FaultCode::Uninitialised);
    expect_fault(try_seal(&tpm, &SealPolicy::None), FaultCode::Uninitialised);
    tpm.tool("tpm2_startup -c");
    assert_opens(&tpm, &seal(&tpm, &SealPolicy::None));
}

#[test]
fn a_tpm_in_failure_mode_says_so_at_whatever_step_it_breaks() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for step in [READ_PUBLIC, START_AUTH_SESSION, LOAD, UNSEAL] {
        let broken = Interposer::answering(&tpm, step, 0x101, usize::MAX);
        assert_fault_at(broken.port(), &blob, FaultCode::TpmFailed);
        assert_eq!(broken.count(step), 1, "a broken TPM is asked once");
        assert_nothing_left(&tpm);
    }
    assert_opens(&tpm, &blob);
}

#[test]
fn an_absent_tpm_is_named_with_its_place() {
    let mut tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    tpm.cut_power();
    assert_fault(&tpm, &blob, FaultCode::NoDevice);
    let start = Instant::now();
    for (path, why) in
        [("/dev/nonexistent-tpm", "ENOENT"), ("/etc/hostname", "not a character device"), ("/dev/null", "")]
    {
        let device = TpmDevice::Path(path.into());
        let settings = TpmSettings { device, parent_handle: DEFAULT_PARENT_HANDLE, allow_software_tpm: false };
        let detail = expect_fault(Tpm2::new(settings).unseal(&blob, &auth()), FaultCode::NoDevice);
        assert!(detail.contains(why), "{path}: {detail}");
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    tpm.power_on();
    assert_opens(&tpm, &blob);
}

#[test]
fn a_handle_that_is_not_persistent_is_no_place_for_a_key() {
    let tpm = Swtpm::start();
    let mut settings = settings(tpm.port());
    for handle in [0, 0x4000_0001, 0x8000_0001, 0x8180_0000] {
        settings.parent_handle = handle;
        let result = Tpm2::new(settings.clone()).seal(&secret(), &auth(), &SealPolicy::None, None);
        expect_fault(result, FaultCode::SrkUnfit);
    }
    settings.parent_handle = 0x8100_0010;
    let blob = Tpm2::new(settings).seal(&secret(), &auth(), &SealPolicy::None, None).unwrap();
    // The blob knows where its key is, whatever the setting says by now.
    assert_opens(&tpm, &blob);
}

#[test]
fn a_connection_that_breaks_is_opened_once_more() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for breaks in [1, 2] {
        let mut left = breaks;
        let shaky = Interposer::before(&tpm, move |code, bytes, tpm| {
            if code == LOAD && left > 0 {
                left -= 1;
                Vec::new()
            } else {
                tpm(bytes)
            }
        });
        match breaks {
            1 => assert_opens_at(shaky.port(), &blob),
            _ => {
                assert_fault_at(shaky.port(), &blob, FaultCode::NoDevice);
            }
        }
        tpm.try_tool("tpm2_flushcontext -t");
        tpm.try_tool("tpm2_flushcontext -l");
    }
    assert_opens(&tpm, &blob);
}

#[test]
fn a_lockout_is_named_and_not_waited_for() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for step in [CREATE, LOAD, UNSEAL] {
        let locked = Interposer::answering(&tpm, step, 0x921, usize::MAX);
        match step {
            CREATE => {
                expect_fault(
                    engine_at(locked.port()).seal(&secret(), &auth(), &SealPolicy::None, None),
                    FaultCode::Lockout,
                );
            }
            _ => {
                assert_fault_at(locked.port(), &blob, FaultCode::Lockout);
            }
        }
        assert_eq!(locked.count(step), 1);
        assert_nothing_left(&tpm);
    }
    assert_opens(&tpm, &blob);
}

#[test]
fn answers_cut_short_or_endless_are_faults_and_never_a_panic() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    let nonsense: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |answer| resized(answer, 0),
        |answer| {
            let half = answer.len() / 2;
            resized(answer, half.max(10) - 10)
        },
        |mut answer| {
            answer[10..].fill(0xFF);
            answer
        },
        |answer| {
            let longer = answer.len() + 200;
            resized(answer, longer)
        },
    ];
    for step in [READ_PUBLIC, START_AUTH_SESSION, LOAD, UNSEAL] {
        for (kind, twist) in nonsense.into_iter().enumerate() {
            let liar = Interposer::before(&tpm, move |code, bytes, tpm| {
                let answer = tpm(bytes);
                if code == step && answer[6..10] == [0; 4] { twist(answer) } else { answer }
            });
            // What only goes on too long may be believed: its beginning is right, and authentic where it must be. And a key at the
            // handle that is none of ours is made anew.
            if let Ok(key) = engine_at(liar.port()).unseal(&blob, &auth()) {
                assert!(key.expose() == &SECRET && (kind == 3 || step == READ_PUBLIC), "{step:#x}, kind {kind}");
            }
            // What the liar hid from us cannot be flushed by us.
            tpm.try_tool("tpm2_flushcontext -t");
            tpm.try_tool("tpm2_flushcontext -l");
        }
    }
    assert_opens(&tpm, &blob);
}

/// The answer's header with a body of this length, zero beyond what there was.
fn resized(mut answer: Vec<u8>, body: usize) -> Vec<u8> {
    answer.resize(10 + body, 0);
    let size = u32::try_from(answer.len()).unwrap();
    answer[2..6].copy_from_slice(&size.to_be_bytes());
    answer
}

#[test]
fn a_plain_error_without_a_row_keeps_its_number_for_the_operator() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    let odd = Interposer::before(&tpm, |code, bytes, tpm| if code == LOAD { response(0x143) } else { tpm(bytes) });
    let detail = assert_fault_at(odd.port(), &blob, FaultCode::Internal);
    assert_eq!(detail, "TPM2_Load: 0x143");
}
