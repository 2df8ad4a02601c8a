//! A key made in software for one TPM opens in that TPM and nowhere else, and the TPM takes it for what we say it is.

use nodeseal::seal::duplicate::{Duplicate, ParentError, ParentPublic, Randomness, duplicate};
use nodeseal::seal::fault::{Fault, FaultCode};
use nodeseal::seal::protocol::Auth;
use nodeseal::sealer::Sealer;
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::types::{Explained, hex};
use nodeseal::types::{Key, SealPolicy};
use sha2::{Digest, Sha256};
use test_support::swtpm::Swtpm;

use crate::interposed::swapped;
use crate::interposer::{IMPORT, Interposer, LOAD, READ_PUBLIC, START_AUTH_SESSION, UNSEAL};
use crate::support::{
    AUTH, SECRET, another_auth, assert_nothing_left, auth, engine, engine_at, expect_fault, seal, secret, settings,
};
use crate::wire::{commands, leaks};

fn parent_at(port: u16) -> Result<Vec<u8>, Fault> {
    engine_at(port).importer().unwrap().parent(None)
}

fn parent(tpm: &Swtpm) -> ParentPublic {
    ParentPublic::parse(&parent_at(tpm.port()).unwrap()).unwrap()
}

/// [`SECRET`] under [`AUTH`] for this TPM.
fn made_for(tpm: &Swtpm) -> Duplicate {
    duplicate(&parent(tpm), &secret(), &auth(), &Randomness::fresh().unwrap()).unwrap()
}

fn import_at(port: u16, bytes: &[u8], auth: &Auth) -> Result<Key, Fault> {
    engine_at(port).importer().unwrap().import(bytes, auth, None)
}

fn assert_imports(tpm: &Swtpm, duplicate: &Duplicate) {
    let key = import_at(tpm.port(), &duplicate.encode(), &auth()).unwrap();
    assert!(key.expose() == &SECRET, "other bytes came back");
}

fn assert_foreign(tpm: &Swtpm, bytes: &[u8]) -> String {
    expect_fault(import_at(tpm.port(), bytes, &auth()), FaultCode::ForeignBundle)
}

/// With a checksum that fits, as an editor of the file would put there.
fn edited(duplicate: &Duplicate, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = duplicate.encode();
    bytes.truncate(bytes.len() - 32);
    edit(&mut bytes);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Where fields of the encoded duplicate lie (docs/formats.md, "Duplicate"); [`AUTH`] ends in two zero bytes.
const PARENT_NAME: std::ops::Range<usize> = 11..45;
const UNIQUE: std::ops::Range<usize> = 93..125;
const PRIVATE: std::ops::Range<usize> = 127..127 + 138;
const SEED: std::ops::Range<usize> = 267..267 + 68;

#[test]
fn what_is_made_for_a_tpm_opens_there_and_leaves_nothing_in_it() {
    let mut tpm = Swtpm::start();
    let duplicate = made_for(&tpm);
    assert_imports(&tpm, &duplicate);
    assert_nothing_left(&tpm);
    // Any time again, also after a power cut: that a bundle is used once is not the TPM's affair.
    tpm.restart();
    assert_imports(&tpm, &duplicate);
    for byte in [0x00, 0x01, 0xFF] {
        let key = || Key::copy_of(&[byte; 32]).unwrap();
        let parent = parent(&tpm);
        let one =
            nodeseal::seal::duplicate::duplicate(&parent, &key(), &Auth::new(key()), &Randomness::fresh().unwrap());
        let back = import_at(tpm.port(), &one.unwrap().encode(), &Auth::new(key())).unwrap();
        assert!(back.expose() == key().expose());
    }
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent").trim(), "- 0x81000001");
    assert_nothing_left(&tpm);
}

#[test]
fn the_parent_is_the_key_that_seals_are_made_under() {
    let tpm = Swtpm::start();
    let name = hex::encode(parent(&tpm).name());
    assert_eq!(engine(&tpm).describe().unwrap().root_key_name, name);
    seal(&tpm, &SealPolicy::None);
    assert_eq!(hex::encode(parent(&tpm).name()), name);
    assert_nothing_left(&tpm);
}

#[test]
fn it_opens_in_no_other_tpm_which_names_both_keys() {
    let (here, there) = (Swtpm::start(), Swtpm::start());
    let duplicate = made_for(&there);
    let other = parent(&here).name();
    let watched = Interposer::before(&here, |_, bytes, tpm| tpm(bytes));
    let result = import_at(watched.port(), &duplicate.encode(), &auth());
    let detail = expect_fault(result, FaultCode::ForeignBundle);
    for name in [other, *duplicate.parent_name()] {
        assert!(detail.contains(&hex::encode(name)), "{detail}");
    }
    assert_eq!((watched.count(START_AUTH_SESSION), watched.count(IMPORT)), (0, 0));
    // Nor when it claims to be for that one: then the TPM itself objects.
    let claimed = edited(&duplicate, |bytes| bytes[PARENT_NAME].copy_from_slice(&other));
    let detail = assert_foreign(&here, &claimed);
    assert!(detail.contains("TPM2_Import: 0x"), "{detail}");
    assert_nothing_left(&here);
    assert_imports(&there, &duplicate);
}

#[test]
fn a_cleared_tpm_opens_nothing_that_was_made_for_it_before() {
    let tpm = Swtpm::start();
    let duplicate = made_for(&tpm);
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    assert_imports(&tpm, &duplicate);
    tpm.tool("tpm2_clear -Q -c p");
    assert_foreign(&tpm, &duplicate.encode());
    assert_nothing_left(&tpm);
}

#[test]
fn edited_or_mixed_duplicates_are_refused() {
    let tpm = Swtpm::start();
    let (one, other) = (made_for(&tpm), made_for(&tpm));
    let foreign = other.encode();
    for at in UNIQUE.chain(PRIVATE).step_by(7) {
        let result = import_at(tpm.port(), &edited(&one, |bytes| bytes[at] ^= 0x10), &auth());
        expect_fault(result, FaultCode::ForeignBundle);
    }
    for field in [UNIQUE, PRIVATE, SEED] {
        let mixed = edited(&one, |bytes| bytes[field.clone()].copy_from_slice(&foreign[field]));
        assert_foreign(&tpm, &mixed);
    }
    for bytes in [&[][..], b"NSEALDUP", &one.encode()[1..]] {
        assert_foreign(&tpm, bytes);
    }
    assert_nothing_left(&tpm);
    assert_imports(&tpm, &one);
}

#[test]
fn a_wrong_auth_value_opens_nothing_and_does_not_count_towards_lockout() {
    let tpm = Swtpm::start();
    let bytes = made_for(&tpm).encode();
    for _ in 0..5 {
        let detail = expect_fault(import_at(tpm.port(), &bytes, &another_auth()), FaultCode::ForeignBundle);
        assert!(detail.contains("TPM2_Unseal: 0x9a2"), "{detail}");
    }
    let info = engine(&tpm).describe().unwrap();
    assert_eq!((info.lockout_counter, info.in_lockout), (0, false));
    assert_nothing_left(&tpm);
}

#[test]
fn an_rsa_key_is_no_parent_and_the_hint_helps() {
    let tpm = Swtpm::start();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tpm.tool(&format!("tpm2_createprimary -Q -C o -G rsa2048 -a {attributes} -c theirs.ctx"));
    tpm.tool("tpm2_evictcontrol -Q -C o -c theirs.ctx 0x81000001");
    tpm.tool("tpm2_flushcontext -t");
    let error = ParentPublic::parse(&parent_at(tpm.port()).unwrap()).unwrap_err();
    assert_eq!(error, ParentError::Rsa);
    assert!(error.hint().contains("parent_handle under [seal.tpm2]"));
    let mut settings = settings(tpm.port());
    settings.parent_handle = 0x8100_0010;
    let mut engine = Tpm2::new(settings);
    let importer = engine.importer().unwrap();
    let parent = ParentPublic::parse(&importer.parent(None).unwrap()).unwrap();
    let duplicate = duplicate(&parent, &secret(), &auth(), &Randomness::fresh().unwrap()).unwrap();
    assert!(importer.import(&duplicate.encode(), &auth(), None).unwrap().expose() == &SECRET);
    assert_nothing_left(&tpm);
}

#[test]
fn the_tpms_own_tools_take_it_for_a_sealed_object_that_cannot_be_duplicated_again() {
    let tpm = Swtpm::start();
    let duplicate = made_for(&tpm);
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    tpm.put("dup.pub", sized(duplicate.public()));
    tpm.put("dup.dup", sized(duplicate.private()));
    tpm.put("dup.seed", sized(duplicate.encrypted_seed()));
    tpm.tool("tpm2_import -Q -C 0x81000001 -u dup.pub -i dup.dup -s dup.seed -r dup.priv");
    tpm.tool("tpm2_load -Q -C 0x81000001 -u dup.pub -r dup.priv -c dup.ctx -n dup.name");
    tpm.tool("tpm2_flushcontext -t");
    let name = [&[0x00, 0x0B][..], &Sha256::digest(duplicate.public())].concat();
    assert_eq!(std::fs::read(tpm.file("dup.name")).unwrap(), name);
    // Opens by its policy and authValue alone.
    let right = format!("hex:{}", hex::encode(&AUTH[..30]));
    let session = |auth: &str| {
        tpm.tool("tpm2_startauthsession -S session.ctx --policy-session");
        tpm.tool("tpm2_policyauthvalue -Q -S session.ctx");
        let output = tpm.try_tool(&format!("tpm2_unseal -c dup.ctx -p session:session.ctx+{auth} -o opened"));
        tpm.try_tool("tpm2_flushcontext session.ctx");
        tpm.try_tool("tpm2_flushcontext -t");
        output.status.success()
    };
    assert!(session(&right));
    assert_eq!(std::fs::read(tpm.file("opened")).unwrap(), SECRET);
    assert!(!session("hex:00112233"));
    assert!(!tpm.try_tool(&format!("tpm2_unseal -c dup.ctx -p {right}")).status.success(), "without the policy");
    tpm.try_tool("tpm2_flushcontext -t");
    // To duplicate needs the role DUP: a policy with that command's code, which it has not.
    tpm.tool("tpm2_createprimary -Q -C o -G ecc -c theirs.ctx");
    tpm.tool("tpm2_flushcontext -t");
    for policy in
        ["tpm2_policyauthvalue -Q -S session.ctx", "tpm2_policycommandcode -Q -S session.ctx TPM2_CC_Duplicate"]
    {
        tpm.tool("tpm2_startauthsession -S session.ctx --policy-session");
        tpm.tool(policy);
        let command = format!(
            "tpm2_duplicate -C theirs.ctx -c dup.ctx -G null -p session:session.ctx+{right} -u out.pub -r out.dup -s out.seed"
        );
        let output = tpm.try_tool(&command);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !tpm.file("out.dup").exists());
        assert!(error.contains("0x99D"), "{policy}: {error}");
        tpm.try_tool("tpm2_flushcontext session.ctx");
        tpm.try_tool("tpm2_flushcontext -t");
    }
    assert_nothing_left(&tpm);
}

#[test]
fn no_byte_of_a_secret_is_on_the_wire() {
    let tpm = Swtpm::start();
    let duplicate = made_for(&tpm);
    assert_imports(&tpm, &duplicate);
    assert!(import_at(tpm.port(), &duplicate.encode(), &another_auth()).is_err());
    let log = tpm.log();
    let ours: Vec<_> = commands(&log).into_iter().map(|(code, _)| code).collect();
    for code in [IMPORT, LOAD, UNSEAL] {
        assert_eq!(ours.iter().filter(|seen| **seen == code).count(), 2, "{code:#x}: is the log read right?");
    }
    assert_eq!(leaks(&log), Vec::<String>::new());
}

#[test]
fn a_key_swapped_on_the_bus_is_refused_before_any_salt_is_sent() {
    let tpm = Swtpm::start();
    let duplicate = made_for(&tpm);
    let evil = Interposer::before(&tpm, |code, bytes, tpm| {
        let answer = tpm(bytes);
        if code == READ_PUBLIC { swapped(answer, true) } else { answer }
    });
    let result = import_at(evil.port(), &duplicate.encode(), &auth());
    expect_fault(result, FaultCode::ForeignBundle);
    assert_eq!(evil.count(START_AUTH_SESSION), 0, "a salt was sent");
    // In one of the answers from which the parent comes.
    for swap in [1, 2, 3] {
        let mut asked = 0;
        let evil = Interposer::before(&tpm, move |code, bytes, tpm| {
            let answer = tpm(bytes);
            asked += u32::from(code == READ_PUBLIC);
            if code == READ_PUBLIC && asked == swap { swapped(answer, true) } else { answer }
        });
        expect_fault(parent_at(evil.port()), FaultCode::SrkChanged);
    }
}

#[test]
fn every_changed_byte_of_import_is_noticed() {
    let tpm = Swtpm::start();
    let bytes = made_for(&tpm).encode();
    for offset in [14, 16, 30, 60, 100, 160, 180, 200, 220] {
        let liar = Interposer::before(&tpm, move |code, bytes, tpm| {
            let mut answer = tpm(bytes);
            if code == IMPORT
                && let Some(byte) = answer.get_mut(offset)
            {
                *byte ^= 0x10;
            }
            answer
        });
        let Err(fault) = import_at(liar.port(), &bytes, &auth()) else { panic!("byte {offset} was believed") };
        assert!(matches!(fault.code, FaultCode::Forged | FaultCode::Internal), "byte {offset}: {fault}");
        tpm.try_tool("tpm2_flushcontext -t");
        tpm.try_tool("tpm2_flushcontext -l");
    }
    for offset in [14, 30, 50, 90, 120, 180, 250, 300, 380] {
        let liar = Interposer::before(&tpm, move |code, bytes, tpm| {
            let mut bytes = bytes.to_vec();
            if code == IMPORT {
                let last = bytes.len() - 1;
                bytes[offset.min(last)] ^= 1;
            }
            tpm(&bytes)
        });
        assert!(import_at(liar.port(), &bytes, &auth()).is_err(), "byte {offset}");
    }
    assert_nothing_left(&tpm);
}

#[test]
fn a_busy_tpm_is_waited_for() {
    let tpm = Swtpm::start();
    let bytes = made_for(&tpm).encode();
    for rc in [0x922, 0x902] {
        let busy = Interposer::answering(&tpm, IMPORT, rc, 7);
        assert!(import_at(busy.port(), &bytes, &auth()).unwrap().expose() == &SECRET);
    }
    assert_nothing_left(&tpm);
}
