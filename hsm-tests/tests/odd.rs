//! Tokens that behave oddly: that say of a wrong PIN what others say of a broken device, that make their own IV, that tell a time
//! which nobody can read.
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

use support::{PIN, SoftHsm};

/// What tokens say of a wrong PIN: CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_ARGUMENTS_BAD, CKR_DATA_LEN_RANGE, CKR_DEVICE_ERROR,
/// CKR_DEVICE_REMOVED, CKR_FUNCTION_CANCELED, and values of their own.
const SAID: [&str; 8] = ["0x5", "0x6", "0x7", "0x21", "0x30", "0x32", "0x50", "0x80000101"];

#[test]
fn a_wrong_pin_is_given_once_whatever_the_token_says_of_it() {
    let soft = SoftHsm::new();
    let blob = soft.file("blob");
    soft.engine(&[]).assert(&format!("seal {blob}"), "ok");
    let questions = [format!("unseal {blob}"), format!("seal {blob}"), "describe".to_owned()];
    for (number, said) in SAID.iter().enumerate() {
        soft.put_pin(&format!("wrong {number}"));
        let mut engine = soft.odd(&[("ODD_WRONG_PIN", said), ("ODD_MODE", "noflags")], &[]);
        let told = engine.assert(&questions[0], "E-HSM-PIN");
        assert!(told.contains("does not say whether"), "{said}: {told}");
        for question in questions.iter().chain(&questions) {
            assert!(engine.assert(question, "E-HSM-PIN").contains("once more in 1"), "{said}");
        }
        assert_eq!(soft.logins(), number + 1, "{said}");
        // The right one is given at once.
        soft.put_pin(PIN);
        soft.odd(&[("ODD_MODE", "noflags")], &[]).assert(&questions[0], "ok");
        std::fs::write(soft.file("calls"), "C_Login\n".repeat(number + 1)).unwrap();
    }
}

#[test]
fn the_next_process_of_this_boot_knows_which_pin_was_given() {
    let soft = SoftHsm::new();
    let (blob, tries) = (soft.file("blob"), soft.file("tries"));
    soft.engine(&[]).assert(&format!("seal {blob}"), "ok");
    let unseal = format!("unseal {blob}");
    for (number, said) in [(1, "0x5"), (2, "0xA0")] {
        soft.put_pin(&format!("wrong {number}"));
        for more in [&["--tries", &tries][..], &["--tries", &tries, "--one-question"]] {
            for _ in 0..3 {
                soft.odd(&[("ODD_WRONG_PIN", said), ("ODD_MODE", "noflags")], more).assert(&unseal, "E-HSM-PIN");
            }
        }
        assert_eq!(soft.logins(), number, "{said}");
    }
    // A file that is written anew and anew may have the same in it each time, and a token is locked after three.
    soft.put_pin(PIN);
    for more in [&["--tries", &tries][..], &["--tries", &tries, "--one-question"]] {
        let told = soft.odd(&[], more).assert(&unseal, "E-HSM-PIN");
        assert!(told.contains(&format!("empty {tries}")), "{told}");
    }
    assert_eq!(soft.logins(), 2);
    std::fs::write(&tries, "").unwrap();
    soft.odd(&[], &["--tries", &tries]).assert(&unseal, "ok");
    soft.odd(&[], &["--tries", &tries, "--one-question"]).assert(&unseal, "ok");
    assert_eq!(std::fs::read(&tries).unwrap(), [0; 0], "a right PIN leaves nothing behind");
}

#[test]
fn a_login_that_never_came_back_was_a_try_as_well() {
    let soft = SoftHsm::new();
    let (blob, tries, hang) = (soft.file("blob"), soft.file("tries"), soft.file("hang"));
    soft.engine(&[]).assert(&format!("seal {blob}"), "ok");
    std::fs::write(&hang, "").unwrap();
    let mut engine = soft.odd(&[("ODD_HANG", &hang)], &["--tries", &tries]);
    engine.ask_and_kill(&format!("unseal {blob}"), || soft.logins() == 1);
    std::fs::remove_file(&hang).unwrap();
    let told = soft.odd(&[], &["--tries", &tries]).assert(&format!("unseal {blob}"), "E-HSM-PIN");
    assert!(told.contains("once more in 1"), "{told}");
    assert_eq!(soft.logins(), 1);
}

#[test]
fn an_answer_that_was_given_before_the_pin_was_looked_at_is_no_try() {
    let soft = SoftHsm::new();
    let blob = soft.file("blob");
    soft.engine(&[]).assert(&format!("seal {blob}"), "ok");
    // CKR_TOKEN_NOT_PRESENT, CKR_SESSION_HANDLE_INVALID, CKR_CRYPTOKI_NOT_INITIALIZED.
    for said in ["0xE0", "0xB3", "0x190"] {
        let mut engine = soft.odd(&[("ODD_LOGIN", said)], &[]);
        let before = soft.logins();
        for _ in 0..2 {
            engine.assert(&format!("unseal {blob}"), "E-HSM-GONE");
        }
        assert_eq!(soft.logins(), before + 4, "each question asks twice");
    }
}

#[test]
fn a_token_that_makes_its_own_iv_is_used_and_each_text_has_another() {
    for mode in ["zeroiv", "nulliv"] {
        let soft = SoftHsm::new();
        let mut engine = soft.odd(&[("ODD_MODE", mode)], &["--mechanism", "aes-gcm"]);
        let blobs = ["one", "two", "three"].map(|name| soft.file(name));
        for blob in &blobs {
            engine.assert(&format!("seal {blob}"), "ok");
            engine.assert(&format!("unseal {blob}"), "ok");
        }
        drop(engine);
        let texts = blobs.clone().map(|blob| std::fs::read(blob).unwrap());
        assert!(texts[0] != texts[1] && texts[1] != texts[2], "{mode}");
        // The text is one like any other: IV, ciphertext, tag. A token that takes an IV opens it.
        for blob in &blobs {
            soft.engine(&["--no-make-key"]).assert(&format!("unseal {blob}"), "ok");
        }
        // And a key that another token made is found and used in the same way.
        let next = soft.file("next");
        soft.odd(&[("ODD_MODE", mode)], &["--no-make-key"]).assert(&format!("seal {next}"), "ok");
        soft.engine(&["--no-make-key"]).assert(&format!("unseal {next}"), "ok");
    }
}

#[test]
fn a_token_that_wants_no_source_of_a_label_for_oaep_is_used_and_opens_its_texts_without_a_trial_before() {
    for mode in ["oaep", "nosource"] {
        let soft = SoftHsm::new();
        let blob = soft.file("blob");
        let rsa = |mode, more: &[&str]| {
            let arguments = [&["--mechanism", "rsa-oaep-sha256"], more].concat();
            soft.odd(&[("ODD_MODE", mode)], &arguments)
        };
        let mut engine = rsa(mode, &[]);
        engine.assert(&format!("seal {blob}"), "ok");
        engine.assert(&format!("unseal {blob}"), "ok");
        drop(engine);
        // The text does not say in which form it was made: a token that wants the other one opens it, each by a process of its own.
        for mode in ["oaep", "nosource"] {
            rsa(mode, &["--no-make-key"]).assert(&format!("unseal {blob}"), "ok");
        }
    }
    // SHA-1 is never offered in their place.
    let soft = SoftHsm::new();
    let told =
        soft.engine(&["--mechanism", "rsa-oaep-sha256"]).assert(&format!("seal {}", soft.file("blob")), "E-HSM-MECH");
    assert!(told.contains("CKR_ARGUMENTS_BAD") || told.contains("CKR_MECHANISM_PARAM_INVALID"), "{told}");
}

#[test]
fn a_token_that_takes_zeros_for_an_iv_as_they_are_is_refused() {
    let soft = SoftHsm::new();
    let mut engine = soft.odd(&[("ODD_MODE", "keepszeros")], &["--mechanism", "aes-gcm"]);
    let told = engine.assert(&format!("seal {}", soft.file("blob")), "E-HSM-MECH");
    assert!(told.contains("CKR_MECHANISM_PARAM_INVALID"), "{told}");
}

#[test]
fn a_token_whose_info_cannot_be_read_is_named_with_the_labels_that_can() {
    let soft = SoftHsm::new();
    let told = soft.odd(&[("ODD_MODE", "clock")], &[]).assert("describe", "E-HSM-GONE");
    assert!(told.contains("no token of the label \"t\"") && told.contains("token's info cannot be read"), "{told}");
    let other = SoftHsm::without_token("");
    other.init("u");
    other.init("v");
    let told = other.engine(&[]).assert("describe", "E-HSM-GONE");
    assert!(told.contains("\"u\"") && told.contains("\"v\""), "{told}");
}
