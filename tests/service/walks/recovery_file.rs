//! What opens a recovery file, and who made it.

use std::fs;

use nodeseal::keyring::maker::MakerKey;
use nodeseal::keyring::recovery::{self, Identity};
use nodeseal::keyring::ring::Entry;
use nodeseal::types::{KekId, Key, Secret};
use test_support::swtpm::Swtpm;

use super::{By, Ground, MAKE_DIRECTORY};

#[test]
fn a_printed_code_opens_the_recovery_file_and_so_does_age_without_us() {
    let ground = Ground::new(By::Oneself);
    let tpm = Swtpm::start();
    let mut alone = ground.machine(&tpm);
    assert_eq!(ground.shell(MAKE_DIRECTORY, &alone).code, 0);
    let set_up = alone.tool(&["init", "--recovery-code", "--json"]);
    let code = set_up.json()["recovery_code"].as_str().unwrap().to_owned();
    assert_eq!(code.split(' ').count(), 9, "a prefix and eight groups");
    let store = |text: &str| fs::write(ground.safe.path().join("recovery.key"), text).unwrap();
    let verify = "nodeseal recover --verify < /media/safe/recovery.key";
    for typed in [code.clone(), code.to_lowercase().replace(' ', "-")] {
        store(&typed);
        assert_eq!(ground.shell(verify, &alone).code, 0);
    }
    store(&code.replace(' ', ""));
    // docs/formats.md, "Recovery file": 15 bytes of container before the file of age, 32 behind it.
    let age =
        "tail -c +16 /var/lib/nodeseal/recovery.age | head -c -32 | age -d -i /media/safe/recovery.key | head -c 8";
    assert_eq!(ground.shell(age, &alone).out, "NSEALEXP");
    alone.start();
    assert!(!alone.log().contains(code.split(' ').nth(1).unwrap()), "the code is in the log");
    let refused = ground.machine(&tpm).tool(&["init"]);
    assert!(refused.assert_refused(78).err.contains("--no-recovery"), "{refused:?}");
}

#[test]
fn a_recovery_file_of_somebody_else_is_told_from_this_nodes() {
    let ground = Ground::new(By::Oneself);
    let safe = ground.safe.path();
    let tpm = Swtpm::start();
    let (alone, _) = ground.set_up(&tpm);
    let verify = "nodeseal recover --verify --json --file /media/safe/recovery.age --identity /media/safe/recovery.key";
    let maker = alone.tool(&["status", "--json"]).json()["recovery_maker"].as_str().unwrap().to_owned();
    let good = ground.shell(&format!("{verify} --made-by {maker}"), &alone);
    assert_eq!((good.code, good.json()["made_by_this_node"].as_bool()), (0, Some(true)), "{good:?}");
    // Whoever knows the recipient makes a file for it, with a key of his own under the id of ours and one more.
    let identity = fs::read(safe.join("recovery.key")).unwrap();
    let identity = Identity::parse(&Secret::copy_of(&identity)).unwrap();
    let (mut export, _) = recovery::decrypt(&identity, &fs::read(safe.join("recovery.age")).unwrap()).unwrap();
    let his = |byte| Key::copy_of(&[byte; 32]).unwrap();
    export.keys[0].1 = his(1);
    let more = Entry { id: KekId::from_bytes([2; 16]), created: 1, uses_reserved: 0, shared: false };
    export.keys.push((more.id, his(2)));
    export.ring = export.ring.with_pending(more).unwrap();
    let forged = recovery::encrypt(&[identity.recipient()], &export, &MakerKey::new(&his(3))).unwrap();
    fs::write(safe.join("recovery.age"), forged).unwrap();
    let told = ground.shell(verify, &alone);
    assert_eq!(told.code, 65, "{told:?}");
    let said = told.json();
    assert_eq!(said["made_by_this_node"], false, "{said}");
    assert_eq!((said["other_key"].as_array().unwrap().len(), &said["unknown"][0]), (1, &"02".repeat(16).into()));
    ground.shell(&format!("{verify} --made-by {maker}"), &alone).assert_refused(77);
    assert!(ground.shell(&verify.replace("--json ", ""), &alone).out.contains("not this node"));
}
