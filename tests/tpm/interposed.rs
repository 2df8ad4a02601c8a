//! Somebody on the bus, who wants the secret: gets no salt, opens nothing in our place, and cannot make us believe him.

use nodeseal::seal::fault::FaultCode;
use nodeseal::sealer::Sealer;
use nodeseal::types::{PcrBank, SealPolicy, hex};
use sha2::{Digest, Sha256};
use test_support::swtpm::Swtpm;

use crate::interposer::{
    CREATE, CREATE_PRIMARY, Interposer, LOAD, PCR_READ, POLICY_GET_DIGEST, READ_PUBLIC, START_AUTH_SESSION, UNSEAL,
    response,
};
use crate::support::{
    assert_fault_at, assert_nothing_left, assert_opens, auth, engine_at, expect_fault, extend, pcr, seal, secret,
};

/// The base point of P-256 (FIPS 186-4 D.1.2.3): the public key of the private key 1, which anybody can use.
pub const THEIR_KEY: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

/// In the answer to TPM2_ReadPublic: header, size of the public area, the area of an ECC key with both coordinates, Name.
const PUBLIC: std::ops::Range<usize> = 12..12 + 90;
const X: std::ops::Range<usize> = 12 + 24..12 + 24 + 32;
const Y: std::ops::Range<usize> = 12 + 58..12 + 58 + 32;
const NAME_DIGEST: std::ops::Range<usize> = 12 + 90 + 4..12 + 90 + 4 + 32;

/// Puts his own key into the answer, with or without the Name that goes with it.
pub fn swapped(mut answer: Vec<u8>, name_too: bool) -> Vec<u8> {
    let key = hex::decode(THEIR_KEY).unwrap();
    assert_eq!(answer[10..12], [0, 90]);
    answer[X].copy_from_slice(&key[..32]);
    answer[Y].copy_from_slice(&key[32..]);
    if name_too {
        let digest = Sha256::digest(&answer[PUBLIC]);
        answer[NAME_DIGEST].copy_from_slice(&digest);
    }
    answer
}

#[test]
fn a_swapped_storage_root_key_is_refused_before_any_salt_is_sent() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for name_too in [true, false] {
        let evil = Interposer::before(&tpm, move |code, bytes, tpm| match code {
            READ_PUBLIC => swapped(tpm(bytes), name_too),
            // Nor can the pinned key be made anew.
            CREATE_PRIMARY => response(0x9A2),
            _ => tpm(bytes),
        });
        assert_fault_at(evil.port(), &blob, FaultCode::SrkChanged);
        assert_eq!(evil.count(START_AUTH_SESSION), 0, "a salt was sent");
        assert_eq!(evil.count(LOAD), 0, "the object was sent");
    }
    assert_nothing_left(&tpm);
    assert_opens(&tpm, &blob);
}

#[test]
fn a_key_swapped_in_one_of_two_answers_is_refused_at_sealing() {
    let tpm = Swtpm::start();
    seal(&tpm, &SealPolicy::None);
    for swap in [1, 2] {
        let mut asked = 0;
        let evil = Interposer::before(&tpm, move |code, bytes, tpm| {
            let answer = tpm(bytes);
            if code != READ_PUBLIC {
                return answer;
            }
            asked += 1;
            if asked == swap { swapped(answer, true) } else { answer }
        });
        expect_fault(engine_at(evil.port()).seal(&secret(), &auth(), &SealPolicy::None, None), FaultCode::SrkChanged);
        assert_eq!(evil.count(START_AUTH_SESSION), 0, "a salt was sent");
    }
}

#[test]
fn whoever_replays_load_and_unseal_for_himself_lacks_the_auth_value() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let blob = seal(&tpm, &pcr(PcrBank::Sha256, &[7]));
    // He has the object's two halves (here: from the file), the right registers and the TPM; what tpm2-tools do, he can do.
    let bytes = blob.as_bytes();
    let public = at(bytes, &[0, 78, 0x00, 0x08]);
    let private = public + 2 + 78;
    let private_size = usize::from(u16::from_be_bytes([bytes[private], bytes[private + 1]]));
    tpm.put("ours.pub", &bytes[public..private]);
    tpm.put("ours.priv", &bytes[private..private + 2 + private_size]);
    tpm.tool("tpm2_load -Q -C 0x81000001 -u ours.pub -r ours.priv -c ours.ctx");
    tpm.tool("tpm2_startauthsession -S session.ctx --policy-session");
    tpm.tool("tpm2_policypcr -Q -S session.ctx -l sha256:7");
    tpm.tool("tpm2_policyauthvalue -Q -S session.ctx");
    let output = tpm.try_tool("tpm2_unseal -c ours.ctx -p session:session.ctx");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("0x9"), "refused by the TPM");
    // Nor without the policy.
    assert!(!tpm.try_tool("tpm2_unseal -c ours.ctx").status.success());
}

fn at(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).unwrap()
}

#[test]
fn registers_that_somebody_invents_are_not_sealed_to() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let liar = Interposer::before(&tpm, |code, bytes, tpm| {
        let mut answer = tpm(bytes);
        if code == PCR_READ {
            // A byte of the value: header, size of the parameters, counter, selection, count, size.
            answer[14 + 4 + 10 + 4 + 2] ^= 1;
        }
        answer
    });
    let result = engine_at(liar.port()).seal(&secret(), &auth(), &pcr(PcrBank::Sha256, &[7]), None);
    expect_fault(result, FaultCode::Forged);
    assert_eq!(liar.count(CREATE), 0, "something was sealed");
}

#[test]
fn every_flipped_bit_of_a_protected_answer_is_noticed() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    for step in [LOAD, POLICY_GET_DIGEST, UNSEAL] {
        // Behind the header and the size of the parameters, and the handle that TPM2_Load gives.
        let first = if step == LOAD { 18 } else { 14 };
        for offset in [0, 1, 2, 9, 20, 33, 40, 60, 70] {
            let liar = Interposer::before(&tpm, move |code, bytes, tpm| {
                let mut answer = tpm(bytes);
                if code == step
                    && let Some(byte) = answer.get_mut(first + offset)
                {
                    *byte ^= 0x10;
                }
                answer
            });
            let Err(fault) = engine_at(liar.port()).unseal(&blob, &auth()) else {
                panic!("{step:#x} with byte {offset} flipped was believed")
            };
            assert!(matches!(fault.code, FaultCode::Forged | FaultCode::Internal), "{step:#x}, byte {offset}: {fault}");
            // The library forgets an object whose answer it did not believe, and a session that the answer says is closed; a
            // resource manager would flush both.
            tpm.tool("tpm2_flushcontext -t");
            tpm.tool("tpm2_flushcontext -l");
        }
    }
    assert_opens(&tpm, &blob);
}

#[test]
fn another_object_or_session_in_our_command_opens_nothing() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    // Any byte of the command that carries the object, or that opens it.
    for step in [LOAD, UNSEAL] {
        for offset in [30, 50, 80, 100, 120] {
            let liar = Interposer::before(&tpm, move |code, bytes, tpm| {
                let mut bytes = bytes.to_vec();
                if code == step {
                    let last = bytes.len() - 1;
                    bytes[offset.min(last)] ^= 1;
                }
                tpm(&bytes)
            });
            assert!(engine_at(liar.port()).unseal(&blob, &auth()).is_err(), "{step:#x}, byte {offset}");
        }
    }
    assert_nothing_left(&tpm);
    assert_opens(&tpm, &blob);
}
