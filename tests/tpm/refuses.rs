//! Another TPM, another state, another secret, another file: each has a fault of its own, and none destroys anything.

use nodeseal::seal::fault::FaultCode;
use nodeseal::seal::protocol::DeviceBlob;
use nodeseal::sealer::Sealer;
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::types::{PcrBank, SealPolicy};
use sha2::{Digest, Sha256};
use test_support::swtpm::Swtpm;

use crate::support::{
    SECRET, another_auth, assert_fault, assert_nothing_left, assert_opens, auth, engine, expect_fault, extend, pcr,
    seal, secret, settings, try_seal,
};

/// Bytes of the blob before and behind the fields that only help: see docs/formats.md, "TPM blob".
const PARENT_HANDLE_AND_TEMPLATE: std::ops::Range<usize> = 11..16;
const CHECKSUM_BYTES: usize = 32;

#[test]
fn another_tpm_is_told_by_its_storage_root_key() {
    let (tpm, other) = (Swtpm::start(), Swtpm::start());
    let blob = seal(&tpm, &SealPolicy::None);
    assert_fault(&other, &blob, FaultCode::SrkMissing);
    assert_eq!(other.tool("tpm2_getcap handles-persistent").trim(), "", "asking changed the other TPM");
    seal(&other, &SealPolicy::None);
    let detail = assert_fault(&other, &blob, FaultCode::SrkChanged);
    assert!(detail.contains(&engine(&other).describe().unwrap().root_key_name), "{detail}");
    assert!(detail.contains(&engine(&tpm).describe().unwrap().root_key_name), "{detail}");
    assert_nothing_left(&other);
    assert_opens(&tpm, &blob);
}

#[test]
fn a_cleared_tpm_is_told_from_a_replaced_one() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    tpm.tool("tpm2_clear -c p");
    assert_fault(&tpm, &blob, FaultCode::SrkMissing);
    assert_nothing_left(&tpm);
    // Whoever sets it up again has another key.
    seal(&tpm, &SealPolicy::None);
    assert_fault(&tpm, &blob, FaultCode::SrkChanged);
}

#[test]
fn a_blob_under_the_right_key_that_the_tpm_did_not_make_is_foreign() {
    let (tpm, other) = (Swtpm::start(), Swtpm::start());
    let (ours, theirs) = (seal(&tpm, &SealPolicy::None), seal(&other, &SealPolicy::None));
    // Their object under our key's Name.
    let mut bytes = theirs.as_bytes().to_vec();
    bytes[16..50].copy_from_slice(&ours.as_bytes()[16..50]);
    assert_fault(&tpm, &resealed(bytes), FaultCode::Foreign);
    assert_nothing_left(&tpm);
    assert_opens(&tpm, &ours);
}

#[test]
fn a_broken_pcr_policy_names_each_register_and_opens_again_after_the_right_boot() {
    let mut tpm = Swtpm::start();
    extend(&tpm, 4, 0x44);
    extend(&tpm, 7, 0x11);
    let blob = seal(&tpm, &pcr(PcrBank::Sha256, &[4, 7, 11]));
    extend(&tpm, 7, 0x66);
    extend(&tpm, 11, 0x99);
    let detail = assert_fault(&tpm, &blob, FaultCode::Policy);
    for text in ["PCR 7 (sha256): sealed 8878b15a", "PCR 11 (sha256): sealed 00000000", "unchanged: 4"] {
        assert!(detail.contains(text), "{text} is not in {detail}");
    }
    let now = tpm.tool("tpm2_pcrread sha256:7").to_lowercase();
    let now = now.split("0x").nth(1).unwrap().trim().to_owned();
    assert!(detail.contains(&format!("now {now}")), "{detail}");
    assert_nothing_left(&tpm);
    tpm.restart();
    extend(&tpm, 4, 0x44);
    extend(&tpm, 7, 0x11);
    assert_opens(&tpm, &blob);
}

#[test]
fn a_changed_host_secret_is_told_and_harms_nothing() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    for policy in [SealPolicy::None, pcr(PcrBank::Sha256, &[7])] {
        let blob = seal(&tpm, &policy);
        expect_fault(engine(&tpm).unseal(&blob, &another_auth()), FaultCode::Auth);
        assert_nothing_left(&tpm);
        assert_opens(&tpm, &blob);
    }
}

#[test]
fn every_flipped_bit_of_a_blob_is_a_damaged_file() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    for policy in [SealPolicy::None, pcr(PcrBank::Sha384, &[7, 8])] {
        let blob = seal(&tpm, &policy);
        for bit in 0..blob.as_bytes().len() * 8 {
            let mut bytes = blob.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_fault(&tpm, &DeviceBlob::new(bytes).unwrap(), FaultCode::Format);
        }
        assert_opens(&tpm, &blob);
    }
}

#[test]
fn an_edited_blob_with_a_right_checksum_opens_to_nothing_else() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let blob = seal(&tpm, &pcr(PcrBank::Sha256, &[7]));
    let body = blob.as_bytes().len() - CHECKSUM_BYTES;
    let texts = body - (2 + "IBM".len() + 2 + engine(&tpm).describe().unwrap().firmware.len());
    for index in (0..body).filter(|index| index % 3 == 0 || *index < 64) {
        let mut bytes = blob.as_bytes().to_vec();
        bytes[index] ^= 1 << (index % 8);
        match engine(&tpm).unseal(&resealed(bytes), &auth()) {
            // What only helps to find the key, or the operator, cannot make it open to anything else.
            Ok(key) => {
                assert!(PARENT_HANDLE_AND_TEMPLATE.contains(&index) || index >= texts, "byte {index}");
                assert!(key.expose() == &SECRET);
            }
            Err(fault) => assert!(
                matches!(
                    fault.code,
                    FaultCode::Format | FaultCode::Foreign | FaultCode::SrkChanged | FaultCode::SrkMissing
                ),
                "byte {index}: {fault}"
            ),
        }
    }
    assert_nothing_left(&tpm);
    assert_opens(&tpm, &blob);
}

/// The bytes with a checksum that fits.
fn resealed(mut bytes: Vec<u8>) -> DeviceBlob {
    let body = bytes.len() - CHECKSUM_BYTES;
    let checksum = Sha256::digest(&bytes[..body]);
    bytes[body..].copy_from_slice(&checksum);
    DeviceBlob::new(bytes).unwrap()
}

#[test]
fn a_signing_key_at_the_handle_is_unfit_and_stays() {
    let tpm = Swtpm::start();
    tpm.tool("tpm2_createprimary -Q -C o -G ecc256:ecdsa-sha256 -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign -c theirs.ctx");
    assert_unfit_and_not_evicted(&tpm, "attributes");
}

#[test]
fn a_storage_key_under_dictionary_attack_protection_is_unfit_and_stays() {
    let tpm = Swtpm::start();
    tpm.tool("tpm2_createprimary -Q -C o -G ecc -c theirs.ctx");
    assert_unfit_and_not_evicted(&tpm, "noDA");
}

#[test]
fn a_storage_key_with_a_password_is_unfit_and_stays() {
    let tpm = Swtpm::start();
    tpm.tool("tpm2_createprimary -Q -C o -G ecc -p theirs -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt -c theirs.ctx");
    assert_unfit_and_not_evicted(&tpm, "0x9");
}

fn assert_unfit_and_not_evicted(tpm: &Swtpm, why: &str) {
    tpm.tool("tpm2_evictcontrol -Q -C o -c theirs.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
    let before = tpm.tool("tpm2_readpublic -c 0x81000001");
    let detail = expect_fault(try_seal(tpm, &SealPolicy::None), FaultCode::SrkUnfit);
    assert!(detail.contains(why), "{detail}");
    assert_eq!(tpm.tool("tpm2_readpublic -c 0x81000001"), before);
    assert_nothing_left(tpm);
}

#[test]
fn an_owner_password_without_a_storage_root_key_needs_the_owner() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    tpm.tool("tpm2_changeauth -Q -c o somebodys-password");
    expect_fault(try_seal(&tpm, &SealPolicy::None), FaultCode::OwnerAuth);
    assert_fault(&tpm, &blob, FaultCode::OwnerAuth);
    assert_nothing_left(&tpm);
    // The owner does what the hint says.
    assert!(
        FaultCode::OwnerAuth
            .hint()
            .contains("-a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt'")
    );
    tpm.tool("tpm2_createprimary -Q -C o -P somebodys-password -G ecc -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt -c srk.ctx");
    tpm.tool("tpm2_evictcontrol -Q -C o -P somebodys-password -c srk.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
    assert_opens(&tpm, &blob);
    assert_opens(&tpm, &seal(&tpm, &SealPolicy::None));
}

#[test]
fn registers_that_say_nothing_are_not_sealed_to() {
    let tpm = Swtpm::start();
    for (numbers, why) in [(vec![7, 11], "00"), (vec![17, 18], "FF")] {
        let detail = expect_fault(try_seal(&tpm, &pcr(PcrBank::Sha256, &numbers)), FaultCode::PcrBank);
        assert!(detail.contains(why), "{detail}");
    }
    // One measured register among them is enough.
    extend(&tpm, 7, 0x11);
    assert_opens(&tpm, &seal(&tpm, &pcr(PcrBank::Sha256, &[7, 11])));
    assert_nothing_left(&tpm);
}

#[test]
fn a_bank_that_is_absent_is_not_sealed_to_and_its_loss_is_a_broken_policy() {
    let mut tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    let blob = seal(&tpm, &pcr(PcrBank::Sha384, &[7]));
    tpm.tool("tpm2_pcrallocate -Q sha256:all+sha384:none");
    tpm.tool("tpm2_shutdown -c");
    tpm.restart();
    extend_sha256(&tpm, 7);
    let detail = expect_fault(try_seal(&tpm, &pcr(PcrBank::Sha384, &[7])), FaultCode::PcrBank);
    assert!(detail.contains("absent"), "{detail}");
    let detail = assert_fault(&tpm, &blob, FaultCode::Policy);
    assert!(detail.contains("now absent"), "{detail}");
    assert_nothing_left(&tpm);
}

fn extend_sha256(tpm: &Swtpm, number: u8) {
    tpm.tool(&format!("tpm2_pcrextend {number}:sha256={}", "11".repeat(32)));
}

#[test]
fn a_software_tpm_must_be_allowed_but_may_be_looked_at() {
    let tpm = Swtpm::start();
    let blob = seal(&tpm, &SealPolicy::None);
    let mut strict = settings(tpm.port());
    strict.allow_software_tpm = false;
    let mut engine = Tpm2::new(strict);
    expect_fault(engine.seal(&secret(), &auth(), &SealPolicy::None, None), FaultCode::SoftwareTpm);
    expect_fault(engine.unseal(&blob, &auth()), FaultCode::SoftwareTpm);
    assert!(engine.describe().unwrap().software);
}
