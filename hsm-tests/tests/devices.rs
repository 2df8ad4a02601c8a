//! The suite on real devices of software: swtpm, SoftHSM with two of the mechanisms, NSS's softoken with the third. And every
//! fault of a token, had for real.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and leaves files as a crash would"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use support::{Engine, PIN, SoftHsm, assert_passed, library};
use test_support::swtpm::Swtpm;

const HSM_TEST: &str = env!("CARGO_BIN_EXE_hsm-test");

/// Those of the TCG's template.
const SRK_ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";

/// For `slots.mechanisms` of softhsm2.conf(5).
const RSA: &str = "CKM_RSA_PKCS_KEY_PAIR_GEN,CKM_RSA_PKCS_OAEP";
const CBC_AND_HMAC: &str = "CKM_AES_KEY_GEN,CKM_AES_CBC_PAD,CKM_GENERIC_SECRET_KEY_GEN,CKM_SHA256_HMAC";

#[test]
fn a_tpm_passes_and_keeps_neither_a_handle_nor_a_storage_root_key_that_it_did_not_have() {
    let tpm = Swtpm::start();
    let run = |more: &[&str]| {
        let mut command = Command::new(HSM_TEST);
        command.arg("tpm2").arg("--device").arg(format!("swtpm:port={}", tpm.port())).args(more);
        command.env("TSS2_LOG", "all+NONE").output().unwrap()
    };
    let refused = run(&[]);
    assert!(
        refused.status.code() == Some(70) && String::from_utf8_lossy(&refused.stdout).contains("E-SWTPM"),
        "{refused:?}"
    );
    assert!(assert_passed(&run(&["--allow-software"])).contains("made for this, and is evicted"));
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "");
    tpm.tool(&format!("tpm2_createprimary -C o -G ecc -a {SRK_ATTRIBUTES} -c srk.ctx"));
    tpm.tool("tpm2_evictcontrol -C o -c srk.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
    assert!(assert_passed(&run(&["--allow-software"])).contains("was there before"));
    assert!(tpm.tool("tpm2_getcap handles-persistent").contains("0x81000001"));
}

#[test]
fn softhsm_passes_with_aes_gcm_and_keeps_no_object() {
    let soft = SoftHsm::new();
    let report = assert_passed(&soft.suite(&[]));
    assert!(report.contains("1 key objects destroyed") && report.contains("SoftHSM project"), "{report}");
    assert!(report.contains("1 key objects of its own destroyed"), "{report}");
    assert!(assert_passed(&soft.suite(&["--mechanism", "aes-gcm"])).contains("1 key objects"));
}

#[test]
fn softhsm_without_gcm_passes_with_cbc_and_hmac_since_its_oaep_is_sha_1_only() {
    let soft = SoftHsm::without_token(&format!("slots.mechanisms = {RSA},{CBC_AND_HMAC}"));
    soft.init("t");
    let report = assert_passed(&soft.suite(&[]));
    assert!(report.contains("2 key objects destroyed") && report.contains("2 key objects of its own"), "{report}");
    assert!(assert_passed(&soft.suite(&["--mechanism", "aes-cbc-hmac"])).contains("2 key objects destroyed"));
}

/// p11-kit's proxy gives softoken its parameters, which it takes in C_Initialize alone. It reads a user's configuration for
/// ordinary users only.
#[test]
fn nss_passes_with_rsa_oaep_sha_256() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    fs::create_dir_all(path("config/pkcs11/modules")).unwrap();
    fs::write(path("pin"), format!("{PIN}\n")).unwrap();
    fs::set_permissions(path("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let database = format!("sql:{}", home.path().display());
    let made = Command::new("certutil").args(["-N", "-d", &database, "-f"]).arg(path("pin")).output();
    assert!(made.expect("libnss3-tools are installed").status.success());
    fs::write(path("config/pkcs11/pkcs11.conf"), "user-config: only\n").unwrap();
    let module = library(&["libsoftokn3.so", "nss/libsoftokn3.so"]);
    let parameters = format!("configdir='{database}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=");
    let text = format!("module: {}\nx-init-reserved: {parameters}\n", module.display());
    fs::write(path("config/pkcs11/modules/nss.module"), text).unwrap();
    // Out of reach for others if the folder of what is built is.
    fs::copy(HSM_TEST, path("hsm-test")).unwrap();
    let mut command = Command::new("env");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        const NOBODY: &str = "65534";
        let owner = format!("{NOBODY}:{NOBODY}");
        assert!(Command::new("chown").args(["-R", &owner]).arg(home.path()).status().unwrap().success());
        command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "env"]);
    }
    command.arg(format!("XDG_CONFIG_HOME={}", path("config").display())).arg(path("hsm-test")).arg("pkcs11");
    command.arg("--module").arg(library(&["p11-kit-proxy.so", "libp11-kit.so.0"]));
    command.args(["--token", "NSS Certificate DB", "--mechanism", "rsa-oaep-sha256", "--pin-file"]).arg(path("pin"));
    let report = assert_passed(&command.output().unwrap());
    assert!(report.contains("Mozilla") && report.contains("2 key objects destroyed"), "{report}");
}

#[test]
fn a_device_that_is_not_there_is_called_that_and_is_no_success() {
    let soft = SoftHsm::new();
    let output = soft.suite(&["--serial", "0000000000000000"]);
    assert!(
        output.status.code() == Some(69) && String::from_utf8_lossy(&output.stderr).contains("hint:"),
        "{output:?}"
    );
}

#[test]
fn the_key_that_is_there_is_found_again_by_the_next_process() {
    let soft = SoftHsm::new();
    let (one, two) = (soft.file("one"), soft.file("two"));
    soft.engine(&[]).assert(&format!("seal {one}"), "ok");
    let mut next = soft.engine(&["--no-make-key"]);
    next.assert(&format!("unseal {one}"), "ok");
    next.assert(&format!("seal {two}"), "ok");
    soft.engine(&[]).assert(&format!("unseal {two}"), "ok");
    assert!(next.ask("describe").contains("root_key_name: \"k "));
}

#[test]
fn a_wrong_pin_is_tried_once_and_the_next_one_when_the_file_changes() {
    let soft = SoftHsm::new();
    // A module between us and the token that writes down every call.
    let calls = soft.file("calls");
    let logins = || {
        let calls = fs::read(&calls).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        calls.matches("C_Login").count()
    };
    let spied = |more: &[&str]| {
        let mut command = soft.command("answer", &library(&["pkcs11-spy.so", "pkcs11/pkcs11-spy.so"]));
        command
            .args(["--key-label", "k"])
            .args(more)
            .env("PKCS11SPY", SoftHsm::module())
            .env("PKCS11SPY_OUTPUT", &calls);
        Engine::start(&mut command)
    };
    let blob = soft.file("blob");
    let seal = format!("seal {blob}");
    soft.engine(&[]).assert(&seal, "ok");
    soft.put_pin("wrong");
    let mut engine = spied(&[]);
    assert!(engine.assert(&seal, "E-HSM-PIN").contains("CKR_PIN_INCORRECT"));
    for question in [seal.clone(), format!("unseal {blob}"), "describe".to_owned()] {
        assert!(engine.assert(&question, "E-HSM-PIN").contains("not retried"));
    }
    assert_eq!(logins(), 1);
    soft.put_pin("wrong too");
    engine.assert(&seal, "E-HSM-PIN");
    engine.assert(&seal, "E-HSM-PIN");
    assert_eq!(logins(), 2);
    // Processes that answer one question spend no try at all after that.
    for _ in 0..3 {
        assert!(spied(&["--one-question"]).assert(&seal, "E-HSM-PIN").contains("log in once"));
    }
    assert_eq!(logins(), 2);
    soft.put_pin(PIN);
    engine.assert(&format!("unseal {blob}"), "ok");
    assert_eq!(logins(), 3);
    // The right one has taken the token's flag away.
    spied(&["--one-question"]).assert(&format!("unseal {blob}"), "ok");
    let said = fs::read(&calls).unwrap();
    assert!(!said.windows(5).any(|five| five == b"\nerror"), "the spy itself failed");
}

#[test]
fn a_pin_file_that_others_can_read_is_not_read() {
    let soft = SoftHsm::new();
    fs::set_permissions(soft.pin_file(), fs::Permissions::from_mode(0o644)).unwrap();
    let told = soft.engine(&[]).assert("describe", "E-HSM-PIN");
    assert!(told.contains("chmod"), "{told}");
}

#[test]
fn a_token_that_goes_away_is_gone_and_is_found_again_when_it_comes_back() {
    let soft = SoftHsm::new();
    let blob = soft.file("blob");
    let mut engine = soft.engine(&[]);
    engine.assert(&format!("seal {blob}"), "ok");
    let away = soft.home.path().join("away");
    for _ in 0..3 {
        fs::rename(soft.tokens(), &away).unwrap();
        engine.assert(&format!("unseal {blob}"), "E-HSM-GONE");
        engine.assert(&format!("seal {blob}.2"), "E-HSM-GONE");
        fs::rename(&away, soft.tokens()).unwrap();
        engine.assert(&format!("unseal {blob}"), "ok");
    }
    // Another token in its place, as after a reader was plugged in anew.
    fs::rename(soft.tokens(), &away).unwrap();
    fs::create_dir(soft.tokens()).unwrap();
    engine.assert(&format!("unseal {blob}"), "E-HSM-GONE");
    soft.init("t");
    engine.assert(&format!("unseal {blob}"), "E-HSM-KEY");
    fs::remove_dir_all(soft.tokens()).unwrap();
    fs::rename(&away, soft.tokens()).unwrap();
    engine.assert(&format!("unseal {blob}"), "ok");
}

#[test]
fn two_tokens_of_one_label_are_told_apart_by_serial_number_or_refused() {
    let soft = SoftHsm::new();
    let blob = soft.file("blob");
    let mut engine = soft.engine(&[]);
    engine.assert(&format!("seal {blob}"), "ok");
    drop(engine);
    // The blob names the token that sealed it.
    let text = fs::read(&blob).unwrap();
    let serial = text.windows(16).find(|part| part.iter().all(u8::is_ascii_hexdigit)).unwrap();
    let serial = String::from_utf8(serial.to_vec()).unwrap();
    soft.init("t");
    let told = soft.engine(&[]).assert(&format!("unseal {blob}"), "E-HSM-TOKEN");
    assert!(told.contains("2 tokens") && told.contains(&serial), "{told}");
    soft.engine(&["--serial", &serial]).assert(&format!("unseal {blob}"), "ok");
    let told = soft.engine(&["--serial", "0123456789abcdef"]).assert("describe", "E-HSM-TOKEN");
    assert!(told.contains(&serial), "{told}");
}

#[test]
fn a_key_that_is_missing_doubled_or_readable_is_refused() {
    let soft = SoftHsm::new();
    let seal = format!("seal {}", soft.file("blob"));
    soft.engine(&["--no-make-key"]).assert(&seal, "E-HSM-KEY");
    // One that is named by its id is never made.
    soft.engine(&["--key-id", "0a"]).assert(&seal, "E-HSM-KEY");
    soft.keygen(&["--key-type", "AES:32", "--id", "01", "--extractable"]);
    assert!(soft.engine(&[]).assert(&seal, "E-HSM-KEY").contains("read out"));
    soft.keygen(&["--key-type", "AES:32", "--id", "02", "--sensitive"]);
    assert!(soft.engine(&[]).assert(&seal, "E-HSM-KEY").contains("2 keys"));
    soft.engine(&["--key-id", "02"]).assert(&seal, "ok");
    soft.keygen(&["--key-type", "AES:32", "--id", "02", "--sensitive"]);
    soft.engine(&["--key-id", "02"]).assert(&seal, "E-HSM-KEY");
}

#[test]
fn an_hmac_key_whose_aes_key_was_never_made_gets_one() {
    let soft = SoftHsm::new();
    soft.keygen(&["--key-type", "GENERIC:32", "--id", "07", "--sensitive"]);
    let blob = soft.file("blob");
    let mut engine = soft.engine(&["--mechanism", "aes-cbc-hmac"]);
    engine.assert(&format!("seal {blob}"), "ok");
    engine.assert(&format!("unseal {blob}"), "ok");
    // It is half of a pair and is not used for GCM.
    soft.engine(&["--mechanism", "aes-gcm", "--no-make-key"]).assert(&format!("seal {blob}"), "E-HSM-KEY");
}

#[test]
fn a_token_without_any_of_our_mechanisms_is_refused_with_the_reason_for_each() {
    let soft = SoftHsm::without_token(&format!("slots.mechanisms = {RSA},CKM_AES_KEY_GEN"));
    soft.init("t");
    let mut engine = soft.engine(&[]);
    let told = engine.assert(&format!("seal {}", soft.file("blob")), "E-HSM-MECH");
    assert!(["aes-gcm: ", "rsa-oaep-sha256: ", "aes-cbc-hmac: "].iter().all(|reason| told.contains(reason)), "{told}");
    // What was made for the trials is gone again.
    assert!(engine.ask("describe").contains("root_key_name: \"\""));
}

#[test]
fn an_unsafe_module_or_one_that_is_none_is_not_loaded() {
    let soft = SoftHsm::new();
    let copy = soft.home.path().join("p11.so");
    fs::copy(SoftHsm::module(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o666)).unwrap();
    let told = Engine::start(&mut soft.command("answer", &copy)).assert("describe", "E-HSM-MODULE");
    assert!(told.contains("written to by others"), "{told}");
    let told = Engine::start(&mut soft.command("answer", &library(&["libm.so.6"]))).assert("describe", "E-HSM-MODULE");
    assert!(told.contains("C_GetFunctionList"), "{told}");
}

#[test]
fn a_text_of_a_destroyed_or_exchanged_key_is_foreign_and_the_token_stays_well() {
    let soft = SoftHsm::new();
    let (blob, again) = (soft.file("blob"), soft.file("again"));
    soft.keygen(&["--key-type", "AES:32", "--id", "02", "--sensitive"]);
    soft.engine(&[]).assert(&format!("seal {blob}"), "ok");
    // Another token with another key of the same label and id.
    fs::remove_dir_all(soft.tokens()).unwrap();
    fs::create_dir(soft.tokens()).unwrap();
    soft.init("t");
    soft.keygen(&["--key-type", "AES:32", "--id", "02", "--sensitive"]);
    let mut engine = soft.engine(&[]);
    assert!(engine.assert(&format!("unseal {blob}"), "E-HSM-FOREIGN").contains("the token is healthy"));
    engine.assert(&format!("seal {again}"), "ok");
    engine.assert(&format!("unseal {again}"), "ok");
}
