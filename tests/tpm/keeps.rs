//! What was sealed goes on opening.

use nodeseal::sealer::Sealer;
use nodeseal::types::{Key, PcrBank, SealPolicy, hex};
use test_support::swtpm::Swtpm;

use crate::interposer::{CREATE_PRIMARY, EVICT_CONTROL, Interposer, response};
use crate::support::{
    assert_nothing_left, assert_opens, assert_opens_at, auth, engine, engine_at, extend, pcr, seal, secret,
};

#[test]
fn a_seal_survives_a_restart_and_a_power_cut_of_the_tpm() {
    let mut tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    tpm.tool("tpm2_shutdown -c");
    tpm.restart();
    assert_opens(&tpm, &blob);
    tpm.restart();
    assert_opens(&tpm, &blob);
    assert_nothing_left(&tpm);
}

#[test]
fn each_seal_of_the_same_secret_is_a_blob_of_its_own_and_all_open() {
    let tpm = Swtpm::start();
    let blobs: Vec<_> = (0..3).map(|_| seal(&tpm, &SealPolicy::None)).collect();
    assert!(blobs[0] != blobs[1] && blobs[1] != blobs[2]);
    blobs.iter().for_each(|blob| assert_opens(&tpm, blob));
    assert_nothing_left(&tpm);
}

#[test]
fn the_first_seal_leaves_the_shared_storage_root_key_that_tpm2_tools_would_make() {
    let tpm = Swtpm::start();
    assert_eq!(engine(&tpm).describe().unwrap().root_key_name, "");
    seal(&tpm, &SealPolicy::None);
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tpm.tool(&format!("tpm2_createprimary -Q -C o -G ecc -a {attributes} -c theirs.ctx"));
    tpm.tool("tpm2_readpublic -Q -c theirs.ctx -n theirs.name");
    let theirs = std::fs::read(tpm.file("theirs.name")).unwrap();
    assert_eq!(engine(&tpm).describe().unwrap().root_key_name, hex::encode(theirs));
}

#[test]
fn an_existing_storage_root_key_is_used_and_needs_no_owner_password() {
    let tpm = Swtpm::start();
    let before = seal(&tpm, &SealPolicy::None);
    let name = engine(&tpm).describe().unwrap().root_key_name;
    tpm.tool("tpm2_changeauth -Q -c o somebodys-password");
    assert_opens(&tpm, &before);
    assert_opens(&tpm, &seal(&tpm, &SealPolicy::None));
    assert_eq!(engine(&tpm).describe().unwrap().root_key_name, name);
}

#[test]
fn a_storage_root_key_of_another_program_is_used_and_pinned() {
    let tpm = Swtpm::start();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tpm.tool(&format!("tpm2_createprimary -Q -C o -G rsa2048 -a {attributes} -c theirs.ctx"));
    tpm.tool("tpm2_evictcontrol -Q -C o -c theirs.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
    let blob = seal(&tpm, &SealPolicy::None);
    assert_opens(&tpm, &blob);
    // And its template is known, so that its loss from the handle loses nothing.
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    assert_opens(&tpm, &blob);
    assert_nothing_left(&tpm);
}

#[test]
fn a_storage_root_key_lost_from_its_handle_is_made_again_for_the_moment() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    assert_opens(&tpm, &blob);
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "", "opening persists nothing");
    assert_nothing_left(&tpm);
}

#[test]
fn a_tpm_without_room_for_a_persistent_key_seals_under_a_transient_one() {
    let tpm = Swtpm::start();
    let full = Interposer::answering(&tpm, EVICT_CONTROL, 0x14B, usize::MAX);
    let blob = engine_at(full.port()).seal(&secret(), &auth(), &SealPolicy::None, None).unwrap();
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "");
    assert_opens_at(full.port(), &blob);
    assert_opens(&tpm, &blob);
    // Once there is room the shared key appears, and it is the same one.
    seal(&tpm, &SealPolicy::None);
    assert_opens(&tpm, &blob);
    assert_nothing_left(&tpm);
}

#[test]
fn a_race_for_the_handle_ends_with_the_key_that_is_there() {
    let tpm = Swtpm::start();
    // The TPM makes the key persistent and says that another was faster.
    let late = Interposer::before(&tpm, |code, bytes, tpm| {
        let answer = tpm(bytes);
        if code == EVICT_CONTROL { response(0x14C) } else { answer }
    });
    let blob = engine_at(late.port()).seal(&secret(), &auth(), &SealPolicy::None, None).unwrap();
    assert_opens(&tpm, &blob);
    assert_nothing_left(&tpm);
}

#[test]
fn a_tpm_without_the_curve_seals_under_an_rsa_key() {
    let tpm = Swtpm::start();
    let no_ecc = Interposer::before(&tpm, |code, bytes, tpm| {
        // The type in the template: behind header, handle, one password session and an empty TPM2B_SENSITIVE_CREATE.
        let ecc = code == CREATE_PRIMARY && bytes.windows(6).any(|six| six == [0x00, 0x23, 0x00, 0x0B, 0x00, 0x03]);
        if ecc { response(0x2CA) } else { tpm(bytes) }
    });
    let blob = engine_at(no_ecc.port()).seal(&secret(), &auth(), &SealPolicy::None, None).unwrap();
    assert_opens(&tpm, &blob);
    assert!(tpm.tool("tpm2_readpublic -c 0x81000001").contains("value: rsa"));
    assert_nothing_left(&tpm);
}

#[test]
fn a_pcr_policy_opens_while_the_registers_are_the_same() {
    let mut tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let all: Vec<u8> = (0..24).collect();
    let policies = [
        pcr(PcrBank::Sha256, &[7]),
        pcr(PcrBank::Sha256, &[0, 2, 4, 7, 11]),
        pcr(PcrBank::Sha384, &[7, 11]),
        pcr(PcrBank::Sha256, &all),
        pcr(PcrBank::Sha384, &all),
    ];
    let blobs: Vec<_> = policies.iter().map(|policy| seal(&tpm, policy)).collect();
    blobs.iter().for_each(|blob| assert_opens(&tpm, blob));
    assert!(blobs.iter().all(|blob| blob.as_bytes().len() < 2048));
    tpm.restart();
    extend(&tpm, 7, 0x11);
    blobs.iter().for_each(|blob| assert_opens(&tpm, blob));
    assert_nothing_left(&tpm);
}

#[test]
fn any_secret_and_any_auth_value_are_kept() {
    let tpm = Swtpm::start();
    for byte in [0x00, 0x01, 0xFF] {
        let key = Key::copy_of(&[byte; 32]).unwrap();
        let auth = || nodeseal::seal::protocol::Auth::new(Key::copy_of(&[byte; 32]).unwrap());
        let blob = engine(&tpm).seal(&key, &auth(), &SealPolicy::None, None).unwrap();
        assert!(engine(&tpm).unseal(&blob, &auth()).unwrap().expose() == key.expose());
    }
}
