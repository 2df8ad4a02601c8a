//! Another program's key at the handle of the storage root key, and a storage hierarchy that the firmware has switched off: neither is
//! another TPM.

use nodeseal::seal::fault::FaultCode;
use nodeseal::seal::protocol::CounterStep;
use nodeseal::sealer::Sealer;
use nodeseal::sealer::settings::TpmSettings;
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::types::{Class, SealPolicy};
use test_support::swtpm::Swtpm;

use crate::interposed::swapped;
use crate::interposer::{Interposer, READ_PUBLIC, START_AUTH_SESSION};
use crate::support::{
    assert_fault, assert_nothing_left, assert_opens, assert_opens_at, auth, engine, expect_fault, seal, secret,
    settings,
};

const INDEX: u32 = 0x0180_0001;

/// Puts a key of this kind where the storage root key was.
fn take_the_handle(tpm: &Swtpm, kind: &str) {
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    tpm.tool(&format!("tpm2_createprimary -Q -C o {kind} -c theirs.ctx"));
    tpm.tool("tpm2_evictcontrol -Q -C o -c theirs.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
}

#[test]
fn a_key_of_another_program_at_the_handle_locks_nobody_out_and_stays() {
    for kind in [
        "-G rsa2048",
        "-G ecc -p somebodys-password",
        "-G ecc256:ecdsa-sha256 -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign",
        "-g sha384 -G ecc384",
    ] {
        let tpm = Swtpm::start();
        let pin = seal(&tpm, &SealPolicy::None);
        let parent = engine(&tpm).importer().unwrap().parent(Some(&pin)).unwrap();
        let mut device = engine(&tpm);
        let counters = device.counters().unwrap();
        let value = counters.count(CounterStep::Make, INDEX, &auth(), Some(&pin)).unwrap();
        take_the_handle(&tpm, kind);
        let theirs = tpm.tool("tpm2_readpublic -c 0x81000001");
        assert_opens(&tpm, &pin);
        // Whatever is asked under the pin is asked of the same key.
        assert_eq!(engine(&tpm).importer().unwrap().parent(Some(&pin)).unwrap(), parent, "{kind}");
        assert_eq!(counters.count(CounterStep::Read, INDEX, &auth(), Some(&pin)).unwrap(), value, "{kind}");
        let again = engine(&tpm).seal(&secret(), &auth(), &SealPolicy::None, Some(&pin)).unwrap();
        assert_opens(&tpm, &again);
        assert_eq!(tpm.tool("tpm2_readpublic -c 0x81000001"), theirs, "{kind}");
        assert_nothing_left(&tpm);
        // With another handle in the configuration a new seal has a place of its own again.
        let settings = TpmSettings { parent_handle: 0x8100_0010, ..settings(tpm.port()) };
        let moved = Tpm2::new(settings).seal(&secret(), &auth(), &SealPolicy::None, Some(&again)).unwrap();
        assert!(tpm.tool("tpm2_getcap handles-persistent").contains("0x81000010"), "{kind}");
        assert_opens(&tpm, &moved);
    }
}

#[test]
fn a_key_at_the_handle_and_another_owner_seed_is_a_changed_key() {
    let tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    tpm.tool("tpm2_clear -Q -c p");
    tpm.tool("tpm2_createprimary -Q -C o -G rsa2048 -c theirs.ctx");
    tpm.tool("tpm2_evictcontrol -Q -C o -c theirs.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
    assert_fault(&tpm, &pin, FaultCode::SrkChanged);
    let sealed = engine(&tpm).seal(&secret(), &auth(), &SealPolicy::None, Some(&pin));
    expect_fault(sealed, FaultCode::SrkChanged);
    assert_nothing_left(&tpm);
}

#[test]
fn a_key_at_the_handle_of_an_owner_with_a_password_is_told_with_both_reasons() {
    let tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    take_the_handle(&tpm, "-G rsa2048");
    tpm.tool("tpm2_changeauth -Q -c o somebodys-password");
    let detail = assert_fault(&tpm, &pin, FaultCode::SrkChanged);
    assert!(detail.contains("found 000b") && detail.contains("TPM2_CreatePrimary"), "{detail}");
    assert_nothing_left(&tpm);
}

#[test]
fn somebody_on_the_bus_who_shows_another_key_at_the_handle_gets_no_salt_for_it() {
    let tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    let evil = Interposer::before(&tpm, |code, bytes, tpm| {
        let answer = tpm(bytes);
        if code == READ_PUBLIC { swapped(answer, true) } else { answer }
    });
    // The salt goes to the key that was made, whose Name is the pinned one.
    assert_opens_at(evil.port(), &pin);
    assert_eq!(evil.count(START_AUTH_SESSION), 2);
    assert_nothing_left(&tpm);
}

#[test]
fn a_storage_hierarchy_that_is_switched_off_is_called_that_and_opens_after_a_power_cycle() {
    let mut tpm = Swtpm::start();
    let pin = seal(&tpm, &SealPolicy::None);
    let mut device = engine(&tpm);
    device.counters().unwrap().count(CounterStep::Make, INDEX, &auth(), Some(&pin)).unwrap();
    tpm.tool("tpm2_hierarchycontrol -C p shEnable clear");
    for result in [
        device.unseal(&pin, &auth()).map(|_| ()),
        device.seal(&secret(), &auth(), &SealPolicy::None, None).map(|_| ()),
        device.seal(&secret(), &auth(), &SealPolicy::None, Some(&pin)).map(|_| ()),
        device.importer().unwrap().parent(None).map(|_| ()),
        device.counters().unwrap().count(CounterStep::Read, INDEX, &auth(), Some(&pin)).map(|_| ()),
    ] {
        expect_fault(result, FaultCode::HierarchyOff);
    }
    assert_eq!(FaultCode::HierarchyOff.class(), Class::Unavailable);
    tpm.restart();
    assert_opens(&tpm, &pin);
}
