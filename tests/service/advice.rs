//! What an operator is told on a bad day and on the days around it: refusals that keep him from a loss, and the next step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use test_support::node::{Node, Output};
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use nodeseal::types::clock;

/// A file of this node's folder with a recovery code that it has printed.
fn code_of(alone: &Alone, name: &str, printed: &Output) -> String {
    assert_eq!(printed.code, 0, "{printed:?}");
    let path = alone.home().join(name);
    fs::write(&path, printed.json()["recovery_code"].as_str().unwrap()).unwrap();
    path.display().to_string()
}

/// A copy of the recovery file at another place.
fn copy_away(alone: &Alone) -> String {
    let copy = alone.home().join("copy.age");
    fs::copy(alone.state().join("recovery.age"), &copy).unwrap();
    copy.display().to_string()
}

/// A node without keys, which waits for a bundle.
fn joining(tpm: &Swtpm) -> Alone {
    let mut alone = Alone::prepare(tpm);
    assert_eq!(alone.tool(&["init", "--join", "--recovery-code"]).code, 0);
    alone.start_locked();
    until(Duration::from_secs(30), "the node root opens", || (alone.tool(&["keys", "list"]).code == 0).then_some(()));
    alone
}

/// Its own keys in a bundle for itself: from then on they are shared.
fn share(alone: &Alone) -> (String, String) {
    let path = |name: &str| alone.home().join(name).display().to_string();
    let (request, bundle) = (path("request"), path("bundle"));
    let asked = alone.tool(&["bundle", "request", "--out", &request, "--json"]).json();
    let mark = asked["fingerprint"].as_str().unwrap();
    let made = alone.tool(&["bundle", "make", &request, "--fingerprint", mark, "--out", &bundle, "--json"]);
    assert_eq!(made.code, 0, "{made:?}");
    (request, bundle)
}

#[test]
fn beside_a_daemon_that_has_its_keys_in_memory_no_other_keys_are_made() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let key = code_of(&alone, "code", &alone.tool(&["init", "--recovery-code", "--json"]));
    let stored = alone.start().store().unwrap();
    let copy = copy_away(&alone);
    fs::remove_dir_all(alone.state()).unwrap();
    let recover = ["recover", "--file", &copy, "--identity", &key];
    for verb in [&recover[..], &["init", "--no-recovery"], &["init", "--join", "--no-recovery"]] {
        let refused = alone.tool(verb);
        refused.assert_refused(77);
        assert!(refused.err.contains("has its keys in memory"), "{refused:?}");
        assert!(refused.err.contains("`nodeseal recover --verify`"), "{refused:?}");
        assert!(!alone.state().exists(), "{verb:?} made something");
    }
    let proved = alone.tool(&[&recover[..], &["--verify"]].concat());
    assert!(proved.code == 0 && proved.out.contains("every KEK"), "{proved:?}");
    alone.client().assert_opens(&stored);
    alone.kill();
    fs::create_dir(alone.state()).unwrap();
    fs::set_permissions(alone.state(), fs::Permissions::from_mode(0o700)).unwrap();
    let recovered = alone.tool(&recover);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    let next = ["next: start nodeseald", "copy recovery.age", "migrate"];
    assert!(next.iter().all(|step| recovered.out.contains(step)), "{recovered:?}");
    alone.start().assert_opens(&stored);
}

#[test]
fn verify_judges_the_recovery_file_of_the_state_directory_and_names_what_it_has_read() {
    let tpm = Swtpm::start();
    let alone = Alone::prepare(&tpm);
    let old = code_of(&alone, "old", &alone.tool(&["init", "--recovery-code", "--json"]));
    tpm.tool("tpm2_clear -c p");
    let new = code_of(&alone, "new", &alone.tool(&["recover", "--identity", &old, "--recovery-code", "--json"]));
    let own = alone.state().join("recovery.age").display().to_string();
    // An earlier file, for the old code, is kept with the old root. It is not the one that the next bad day needs.
    let refused = alone.tool(&["recover", "--verify", "--identity", &old]);
    refused.assert_refused(77);
    assert!(refused.err.contains(&own), "{refused:?}");
    let proved = alone.tool(&["recover", "--verify", "--identity", &new]);
    assert!(proved.code == 0 && proved.out.contains(&own), "{proved:?}");
    let json = alone.tool(&["recover", "--verify", "--identity", &new, "--json"]).json();
    assert_eq!(json["file"].as_str(), Some(&*own), "{json}");
}

#[test]
fn a_rehearsal_opens_the_file_in_memory_and_leaves_nothing_but_its_date() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let code = code_of(&alone, "code", &alone.tool(&["init", "--recovery-code", "--json"]));
    alone.start();
    let copy = alone.home().join("copy.age").display().to_string();
    fs::copy(alone.state().join("recovery.age"), &copy).unwrap();
    let rehearse = ["recover", "--rehearse", "--file", &copy, "--identity", &code, "--json"];
    let rehearsed = alone.tool(&rehearse);
    assert!(rehearsed.code == 0 && rehearsed.json()["recorded"] == true, "{rehearsed:?}");
    let at = alone.tool(&["status", "--json"]).json()["recovery_rehearsed"].clone();
    assert!(at.is_string(), "{at}");
    assert_eq!(alone.stop(), 0);
    alone.start();
    let status = alone.tool(&["status", "--json"]).json();
    assert_eq!(status["recovery_rehearsed"], at, "it outlives a restart");
    assert_eq!(status["rehearsal_lacks_kek"], false);
    let metrics = alone.tool(&["metrics"]).out;
    assert!(metrics.contains("nodeseal_recovery_rehearsed_timestamp_seconds 1"), "{metrics}");
    assert!(metrics.contains("nodeseal_recovery_rehearsal_lacks_kek 0"), "{metrics}");
    // A copy that lacks a key proves nothing of the next bad day. Times are whole seconds.
    let second = clock::now();
    until(Duration::from_secs(5), "the next second", || (clock::now() > second).then_some(()));
    assert_eq!(alone.tool(&["keys", "rotate"]).code, 0);
    let old = alone.tool(&rehearse);
    assert!(old.code == 0 && old.json()["recorded"] == false && old.err.contains("not the newest one"), "{old:?}");
    let status = alone.tool(&["status", "--json"]).json();
    assert_eq!((&status["recovery_rehearsed"], &status["rehearsal_lacks_kek"]), (&at, &true.into()));
    assert!(alone.tool(&["status"]).out.contains("before the newest KEK was made"));
    // Where the file is kept there is neither a node nor a configuration.
    let elsewhere = alone.tool(&[&rehearse[..], &["--config", "/nowhere/nodeseal.toml"]].concat());
    assert!(elsewhere.code == 0 && elsewhere.json()["recorded"] == false, "{elsewhere:?}");
    let missing = alone.tool(&[&rehearse[..], &["--snapshot", "/nowhere/snapshot.db"]].concat());
    assert!(missing.code != 0 && missing.err.contains("cannot be read"), "{missing:?}");
}

#[test]
fn a_node_that_waits_for_a_bundle_is_told_to_ask_for_one_by_every_verb() {
    let tpm = Swtpm::start();
    let alone = joining(&tpm);
    let ask = "`nodeseal bundle request";
    for verb in [&["keys", "activate"][..], &["keys", "rotate"], &["init", "--join", "--no-recovery"]] {
        let refused = alone.tool(verb);
        refused.assert_refused(77);
        assert!(refused.err.contains(ask) && !refused.err.contains("keys rotate"), "{verb:?}: {refused:?}");
    }
    for args in [&["status"][..], &["status", "--probe"]] {
        let status = alone.tool(args);
        assert!(status.code == 69 && status.err.contains(ask), "{status:?}");
        assert!(!status.err.contains("provider") && !status.err.contains("still sealed"), "{status:?}");
        assert!(status.out.contains("with the first keys, for 1 recipient"), "{status:?}");
        assert!(status.out.contains("none yet"), "{status:?}");
    }
    let json = alone.tool(&["status", "--json"]).json();
    assert_eq!((json["awaits_bundle"].as_bool(), json["keys"].as_u64()), (Some(true), Some(0)), "{json}");
    let refused = alone.client().store().unwrap_err();
    assert!(format!("{refused:?}").contains("waits for the keys of another node"), "{refused:?}");
}

#[test]
fn on_a_node_that_shares_its_keys_an_activation_of_nothing_points_at_the_bundle() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let single = alone.tool(&["keys", "activate"]);
    assert!(single.assert_refused(66).err.contains("nodeseal keys rotate"), "{single:?}");
    share(&alone);
    let refused = alone.tool(&["keys", "activate"]);
    refused.assert_refused(66);
    assert!(refused.err.contains("bundle from the node that has rotated"), "{refused:?}");
}

#[test]
fn what_is_not_known_while_the_keys_are_closed_is_called_unknown_and_the_refusal_is_shown() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let key = code_of(&alone, "code", &alone.tool(&["init", "--recovery-code", "--json"]));
    tpm.tool("tpm2_clear -c p");
    alone.start_locked();
    alone.await_event("seal.refused", "E-SRK-MISSING");
    for args in [&["status"][..], &["status", "--probe"]] {
        let status = alone.tool(args);
        assert_eq!(status.code, 69);
        for guess in ["no recovery file", "not guarded", "keys         0", "sealed by    none"] {
            assert!(!status.out.contains(guess), "{guess} in {status:?}");
        }
        for name in ["key_id", "keys", "sealed by", "seal policy", "rollback", "recovery"] {
            assert!(status.out.contains(&format!("{name:<12} unknown")), "{name} in {status:?}");
        }
        assert!(status.err.contains("E-SRK-MISSING") && status.err.contains("hint: "), "{status:?}");
    }
    let json = alone.tool(&["status", "--json"]).json();
    assert!(json["seal_error"].as_str().unwrap().contains("E-SRK-MISSING"), "{json}");
    assert!(json["seal_hint"].as_str().unwrap().contains("nodeseal recover"), "{json}");
    // A daemon whose keys are closed is in nobody's way, at most for the moment of an attempt.
    let recovered = until(Duration::from_secs(20), "it is recovered beside it", || {
        let output = alone.tool(&["recover", "--identity", &key, "--recovery-code"]);
        (output.code == 0 || !output.err.contains("in use by another")).then_some(output)
    });
    assert_eq!(recovered.code, 0, "{recovered:?}");
    alone.wait_until_ready();
    assert!(alone.tool(&["status", "--json"]).json()["seal_error"].is_null());
}

#[test]
fn a_bundle_says_what_is_left_of_this_nodes_own_kek_and_what_comes_next() {
    let (one, two) = (Swtpm::start(), Swtpm::start());
    let (mut first, mut second) = (Alone::set_up(&one), Alone::set_up(&two));
    first.start();
    second.start().store().unwrap();
    let own = second.tool(&["keys", "list", "--json"]).json()["keys"][0]["id"].as_str().unwrap().to_owned();
    let accepted = take_keys(&first, &second, "1");
    assert!(accepted.err.contains("is only on this node") && accepted.err.contains(&own), "{accepted:?}");
    assert!(
        accepted.out.contains("next: back up the state directory") && !accepted.out.contains("keys activate"),
        "{accepted:?}"
    );
    // With the next KEK in it; what was said once is not said again.
    assert_eq!(first.tool(&["keys", "rotate"]).code, 0);
    let accepted = take_keys(&first, &second, "2");
    assert!(accepted.out.contains("nodeseal keys activate") && accepted.err.is_empty(), "{accepted:?}");
}

/// A bundle of one node, accepted by the other.
fn take_keys(from: &Alone, to: &Alone, name: &str) -> Output {
    let path = |kind: &str| to.home().join(format!("{kind}.{name}")).display().to_string();
    let (request, bundle) = (path("request"), path("bundle"));
    let mark = |output: Output| output.json()["fingerprint"].as_str().unwrap().to_owned();
    let asked = mark(to.tool(&["bundle", "request", "--out", &request, "--json"]));
    let made = mark(from.tool(&["bundle", "make", &request, "--fingerprint", &asked, "--out", &bundle, "--json"]));
    let accepted = to.tool(&["bundle", "accept", &bundle, "--fingerprint", &made]);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    accepted
}

#[test]
fn reseal_says_what_it_has_changed_beside_the_seal() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    alone.extra = "seal.tpm2.rollback = \"tpm-counter\"".into();
    alone.write_config(&tpm);
    assert_eq!(alone.tool(&["init", "--recovery-code"]).code, 0);
    alone.start();
    let replaced = alone.tool(&["reseal", "--recovery-code"]);
    assert!(replaced.code == 0 && replaced.out.contains("recovery.age is now for 1 recipient"), "{replaced:?}");
    assert!(replaced.out.contains("former ones open only older copies"), "{replaced:?}");
    let removed = alone.tool(&["reseal", "--no-recovery"]);
    assert!(removed.code == 0 && removed.out.contains("recovery.age is removed"), "{removed:?}");
    let plain = alone.tool(&["reseal"]);
    assert!(plain.code == 0 && !plain.out.contains("recovery.age"), "{plain:?}");
    assert_eq!(alone.stop(), 0);
    let accept = ["reseal", "--accept-rollback"];
    let accepted = alone.tool(&accept);
    assert!(
        accepted.code == 0 && accepted.out.contains("stays active") && !accepted.out.contains("migrate"),
        "{accepted:?}"
    );
    let copy = alone.home().join("copy");
    let cp = Command::new("cp").arg("-a").args([&alone.state(), &copy]).status().unwrap();
    alone.start();
    assert!(cp.success() && alone.tool(&["keys", "rotate", "--activate"]).code == 0);
    assert_eq!(alone.stop(), 0);
    fs::rename(alone.state(), alone.home().join("newest")).unwrap();
    fs::rename(&copy, alone.state()).unwrap();
    let accepted = alone.tool(&accept);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    let key_id = alone.start().status().unwrap().key_id;
    for word in ["new KEK", "migrate", &key_id] {
        assert!(accepted.out.contains(word), "{word} in {accepted:?}");
    }
}

#[test]
fn a_dry_run_of_retire_refuses_what_the_real_one_refuses_and_says_which_kek_it_is() {
    let node = Node::start();
    let keys = node.ask(&["keys", "list"]);
    let first = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    let dry = |id: &str| node.tool(&["keys", "retire", id, "--dry-run", "--without-scan"]);
    for (id, code) in [(&*first, 77), (&*"0".repeat(32), 77), ("nonsense", 66)] {
        let (refused, real) = (dry(id), node.tool(&["keys", "retire", id, "--confirm", id, "--without-scan"]));
        refused.assert_refused(code);
        assert_eq!(refused.err, real.err, "{id}");
    }
    node.client().store().unwrap();
    node.rotate_and_activate();
    // Nothing was seen of etcd.
    let unproven = node.tool(&["keys", "retire", &first, "--dry-run"]);
    assert!(unproven.assert_refused(77).err.contains("no complete scan of etcd"), "{unproven:?}");
    assert_eq!(unproven.err, node.tool(&["keys", "retire", &first, "--confirm", &first]).err);
    let told = dry(&first);
    assert!(told.code == 0 && told.out.contains(&first) && told.out.contains("deactivated"), "{told:?}");
    assert!(told.out.contains("only this node has it") && told.out.contains("uses"), "{told:?}");
    let json = node.ask(&["keys", "retire", &first, "--dry-run", "--without-scan"]);
    assert_eq!((json["key"]["id"].as_str(), json["dry_run"].as_bool()), (Some(&*first), Some(true)));
    assert_eq!(node.tool(&["keys", "retire", &first, "--confirm", &first, "--without-scan"]).code, 0);
    let again = node.tool(&["keys", "retire", &first, "--confirm", &first, "--without-scan"]);
    assert!(again.assert_refused(77).err.contains("nothing to do"), "{again:?}");
    assert_eq!(again.err, dry(&first).err);
}

#[test]
fn a_file_of_another_kind_is_called_by_its_name() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let (request, bundle) = share(&alone);
    let path = |name: &str| alone.home().join(name).display().to_string();
    let (identity, receipt) = (path("identity"), path("receipt"));
    assert_eq!(alone.tool(&["members", "identity", "--name", "n", "--out", &identity]).code, 0);
    let mark = "1f0c8-77ab3-e92d4-05b6f-c3a18-d64e2-9b7f0-2ce51";
    let make = |file: &str| alone.tool(&["bundle", "make", file, "--fingerprint", mark, "--out", &path("out")]);
    let accept = |file: &str| alone.tool(&["bundle", "accept", file, "--fingerprint", mark]);
    let add = |file: &str| alone.tool(&["members", "add", file, "--fingerprint", mark]);
    let recover = |file: &str| alone.tool(&["recover", "--verify", "--file", file, "--identity", file]);
    fs::write(&receipt, [&b"NSEALRCP"[..], &[0; 40]].concat()).unwrap();
    let age = path("recovery");
    fs::write(&age, b"age-encryption.org/v1\n").unwrap();
    for (output, said) in [
        (make(&bundle), "this is a bundle, not a request"),
        (make(&identity), "this is the identity of a node, not a request"),
        (accept(&request), "this is a request, not a bundle"),
        (accept(&receipt), "this is a receipt, not a bundle"),
        (accept(&age), "this is a recovery file, not a bundle"),
        (add(&bundle), "this is a bundle, not the identity of a node"),
        (recover(&bundle), "this is a bundle, not a recovery file"),
    ] {
        assert_eq!((output.code, output.out.as_str()), (65, ""), "{output:?}");
        assert!(output.err.contains(said), "{said}: {output:?}");
    }
    assert!(!PathBuf::from(path("out")).exists());
}

#[test]
fn what_is_no_fingerprint_is_told_from_a_wrong_one() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let key = code_of(&alone, "code", &alone.tool(&["init", "--recovery-code", "--json"]));
    alone.start();
    let request = alone.home().join("request").display().to_string();
    assert_eq!(alone.tool(&["bundle", "request", "--out", &request]).code, 0);
    for wrong in ["xyz", "aaa", "1f0c8-77ab3", ""] {
        let made = alone.tool(&["bundle", "make", &request, "--fingerprint", wrong, "--out", "/nonexistent/x"]);
        let verified = alone.tool(&["recover", "--verify", "--identity", &key, "--made-by", wrong]);
        for output in [made, verified] {
            assert_eq!(output.code, 64, "{output:?}");
            assert!(output.err.contains("eight groups of five hexadecimal digits"), "{output:?}");
        }
    }
    // As people write it: case, spaces and hyphens do not count.
    let plain = "1F0C8 77AB3 E92D4 05B6F C3A18 D64E2 9B7F0 2CE51";
    let verified = alone.tool(&["recover", "--verify", "--identity", &key, "--made-by", plain]);
    assert!(verified.assert_refused(77).err.contains("not made by the node"), "{verified:?}");
}

#[test]
fn a_file_that_is_there_already_is_to_be_removed_or_another_named() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let request = alone.home().join("request").display().to_string();
    assert_eq!(alone.tool(&["bundle", "request", "--out", &request]).code, 0);
    let again = alone.tool(&["bundle", "request", "--out", &request]);
    assert!(again.assert_refused(78).err.contains("remove it if it is an old one"), "{again:?}");
}

#[test]
#[cfg(feature = "pkcs11")]
fn a_node_that_is_sealed_by_a_token_is_not_sent_to_its_firmware_when_it_asks_for_keys() {
    let node = Node::start_with_token();
    let out = node.dir().join("out").display().to_string();
    for verb in [&["bundle", "request"][..], &["members", "identity", "--name", "n"]] {
        let refused = node.tool(&[verb, &["--out", &out]].concat());
        refused.assert_refused(78);
        assert!(
            refused.err.contains("sealed by a token") && refused.err.contains("recover --keep-active"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_new_device_that_is_not_there_yet_is_waited_for_before_a_recovery() {
    let (old, new) = (Swtpm::start(), Swtpm::start());
    let alone = Alone::prepare(&old);
    let key = code_of(&alone, "code", &alone.tool(&["init", "--recovery-code", "--json"]));
    alone.write_config(&new);
    drop(new);
    let recover = ["recover", "--identity", &key];
    let refused = alone.tool(&recover);
    assert!(refused.assert_refused(77).err.contains("add --give-up-device"), "{refused:?}");
    let refused = alone.tool(&[&recover[..], &["--give-up-device"]].concat());
    assert!(refused.assert_refused(69).err.contains("once the new device is there"), "{refused:?}");
    assert!(!refused.err.contains("firmware"), "{refused:?}");
}
