//! What goes wrong between the state directory and the TPM: each gets its own code and remedy, destroys nothing, and opens by
//! itself when the right part is put back.

use std::fs;
use std::path::{Path, PathBuf};

use test_support::client::Stored;
use test_support::node::Node;
use test_support::process::{snapshot, until};
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// A node that was set up, with a text of it, and stopped.
fn set_up(tpm: &Swtpm) -> (Alone, Stored) {
    let mut alone = Alone::set_up(tpm);
    let stored = alone.start().store().unwrap();
    assert_eq!(alone.stop(), 0);
    (alone, stored)
}

/// Starts it broken: it stays up, says this code and a remedy, and changes nothing; mends it: it opens by itself.
fn assert_refused_until_mended(alone: &mut Alone, stored: &Stored, code: &str, mend: impl FnOnce(&Alone)) {
    alone.forget_log();
    let before = snapshot(&alone.state());
    let client = alone.start_locked();
    let event = alone.await_event("seal.refused", code);
    assert!(event["hint"].as_str().is_some_and(|hint| hint.len() > 20), "{event}");
    assert!(event["error"].as_str().is_some_and(|error| error.contains(code)), "{event}");
    alone.assert_locked(&client);
    until(std::time::Duration::from_secs(10), "it tries again", || {
        (alone.events("seal.refused").len() > 1).then_some(())
    });
    assert_eq!(snapshot(&alone.state()), before, "{code}: nothing on the disk changed");
    assert_eq!(alone.exit_code(), None, "it stays up");
    mend(alone);
    let client = alone.wait_until_ready();
    client.assert_opens(stored);
    assert_eq!(client.status().unwrap().key_id, stored.key_id, "{code}: the same key_id");
    assert_eq!(alone.stop(), 0);
}

fn flip(path: &Path, from_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// A copy beside the state directory; putting it back is the second half.
fn aside(alone: &Alone, name: &str) -> impl FnOnce(&Alone) + use<> {
    let from = alone.root().join(name);
    let copy = alone.home().join("aside");
    fs::copy(&from, &copy).unwrap();
    move |_: &Alone| fs::rename(copy, from).unwrap()
}

#[test]
fn another_host_secret_is_refused_until_the_right_one_is_back() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let (another, _) = set_up(&tpm);
    let back = aside(&alone, "node/host.key");
    fs::copy(another.root().join("node/host.key"), alone.root().join("node/host.key")).unwrap();
    assert_refused_until_mended(&mut alone, &stored, "E-AUTH", back);
}

#[test]
fn a_lost_host_secret_falls_back_to_its_spare_copy_and_without_one_is_refused() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let back = aside(&alone, "node/host.key");
    fs::remove_file(alone.root().join("node/host.key")).unwrap();
    alone.start().assert_opens(&stored);
    alone.await_event("state.fell_back", "host.key");
    alone.await_event("state.repaired", "host.key");
    assert_eq!(alone.stop(), 0);
    for generation in ["node/host.key", "node/host.key.prev"] {
        fs::remove_file(alone.root().join(generation)).unwrap();
    }
    assert_refused_until_mended(&mut alone, &stored, "host.key", back);
}

#[test]
fn a_flipped_blob_falls_back_to_its_spare_copy_and_without_one_is_refused() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let newest = alone.root().join("node/root.seal");
    let spare = alone.root().join("node/root.seal.prev");
    let back = aside(&alone, "node/root.seal");
    flip(&newest, 60);
    alone.start().assert_opens(&stored);
    alone.await_event("state.fell_back", "root.seal");
    alone.await_event("state.repaired", "root.seal");
    assert_eq!(alone.stop(), 0);
    flip(&newest, 60);
    flip(&spare, 60);
    assert_refused_until_mended(&mut alone, &stored, "root.seal", back);
}

#[test]
fn another_tpm_is_refused_until_the_right_one_is_back() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let another = Swtpm::start();
    // It has a storage root key of its own at the same handle.
    let (_other_node, _) = set_up(&another);
    alone.write_config(&another);
    assert_refused_until_mended(&mut alone, &stored, "E-SRK-CHANGED", |alone| alone.write_config(&tpm));
    let empty = Swtpm::start();
    alone.write_config(&empty);
    assert_refused_until_mended(&mut alone, &stored, "E-SRK-MISSING", |alone| alone.write_config(&tpm));
}

#[test]
fn a_cleared_tpm_is_refused_until_what_it_was_is_back() {
    let mut tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    tpm.cut_power();
    let permanent = tpm.file("tpm2-00.permall");
    let copy = alone.home().join("tpm");
    fs::copy(&permanent, &copy).unwrap();
    tpm.power_on();
    alone.write_config(&tpm);
    tpm.tool("tpm2_clear -c p");
    assert_refused_until_mended(&mut alone, &stored, "E-SRK-MISSING", |alone| {
        tpm.cut_power();
        fs::copy(&copy, &permanent).unwrap();
        tpm.power_on();
        alone.write_config(&tpm);
    });
}

#[test]
fn a_changed_boot_state_is_refused_under_a_pcr_policy_and_a_reseal_in_time_prevents_it() {
    let mut tpm = Swtpm::start();
    tpm.tool(&format!("tpm2_pcrextend 4:sha256={}", "11".repeat(32)));
    let mut alone = Alone::prepare(&tpm);
    alone.extra = "seal.tpm2.policy = \"pcr\"\nseal.tpm2.pcrs = [4]".into();
    alone.write_config(&tpm);
    assert_eq!(alone.tool(&["init", "--no-recovery"]).code, 0);
    let stored = alone.start().store().unwrap();
    // Measured once more while it runs: it goes on, and a restart does not open.
    tpm.tool(&format!("tpm2_pcrextend 4:sha256={}", "22".repeat(32)));
    alone.client().assert_opens(&stored);
    assert_eq!(alone.stop(), 0);
    assert_refused_until_mended(&mut alone, &stored, "E-POLICY", |alone| {
        // A reboot in which only the first measurement is made.
        tpm.restart();
        tpm.tool(&format!("tpm2_pcrextend 4:sha256={}", "11".repeat(32)));
        alone.write_config(&tpm);
    });
    // The operator's way: the old measurements still hold, the new seal is made to none of them, and then they may change.
    alone.start();
    alone.extra.clear();
    alone.write_config(&tpm);
    assert_eq!(alone.stop(), 0);
    let resealed = alone.tool(&["reseal", "--json"]);
    assert_eq!((resealed.code, resealed.json()["seal_policy"].as_str()), (0, Some("none")), "{resealed:?}");
    tpm.tool(&format!("tpm2_pcrextend 4:sha256={}", "33".repeat(32)));
    alone.start().assert_opens(&stored);
}

#[test]
fn the_software_tpm_guard_holds() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let allowed = fs::read_to_string(alone.config()).unwrap();
    fs::write(alone.config(), allowed.replace("software_tpm = true", "software_tpm = false")).unwrap();
    let config = alone.config();
    assert_refused_until_mended(&mut alone, &stored, "E-SWTPM", move |_| fs::write(config, allowed).unwrap());
}

fn generations(alone: &Alone) -> [PathBuf; 2] {
    ["state", "state.prev"].map(|name| alone.root().join(name))
}

#[test]
fn a_damaged_state_falls_back_opens_every_text_and_keeps_its_key_id() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    let mut texts = vec![client.store().unwrap()];
    // Two rotations, so that the older state knows less than the disk holds.
    for _ in 0..2 {
        let rotated = alone.tool(&["keys", "rotate", "--json"]).json();
        assert_eq!(alone.tool(&["keys", "activate", rotated["key"]["id"].as_str().unwrap()]).code, 0);
        texts.push(client.store().unwrap());
    }
    let [newest, older] = generations(&alone);
    for damage in ["flipped", "cut", "empty", "gone"] {
        assert_eq!(alone.stop(), 0);
        alone.forget_log();
        match damage {
            "flipped" => flip(&newest, 40),
            "cut" => fs::write(&newest, &fs::read(&newest).unwrap()[..50]).unwrap(),
            "empty" => fs::write(&newest, b"").unwrap(),
            _ => fs::remove_file(&newest).unwrap(),
        }
        let client = alone.start();
        let event = alone.await_event("state.fell_back", "state");
        assert_eq!(event["file"], "state", "{event}");
        texts.iter().for_each(|stored| client.assert_opens(stored));
        // Changes of keys are in both generations.
        let stored = client.store().unwrap();
        assert_eq!(stored.key_id, texts.last().unwrap().key_id, "{damage}");
        texts.push(stored);
    }
    assert_eq!(alone.stop(), 0);
    // Both gone bad: refused, nothing made anew, and the file put back is enough.
    let stored = texts.last().unwrap().clone();
    let back = aside(&alone, "state");
    flip(&newest, 40);
    flip(&older, 40);
    assert_refused_until_mended(&mut alone, &stored, "state", back);
}

#[test]
fn a_lost_state_beside_existing_keys_is_never_made_anew() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let back = aside(&alone, "state");
    generations(&alone).iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_refused_until_mended(&mut alone, &stored, "state", back);
}

#[test]
fn another_cluster_name_is_refused_until_it_is_set_back() {
    let tpm = Swtpm::start();
    let (mut alone, stored) = set_up(&tpm);
    let right = fs::read_to_string(alone.config()).unwrap();
    fs::write(alone.config(), right.replace("cluster = \"alone\"", "cluster = \"other\"")).unwrap();
    alone.forget_log();
    let before = snapshot(&alone.state());
    let client = alone.start_locked();
    let event = alone.await_event("seal.refused", "cluster");
    assert!(event["hint"].as_str().unwrap().contains("cluster"), "{event}");
    alone.assert_locked(&client);
    assert_eq!(snapshot(&alone.state()), before);
    alone.kill();
    fs::write(alone.config(), right).unwrap();
    alone.start().assert_opens(&stored);
}

#[test]
fn a_damaged_kek_file_costs_only_what_it_opens_and_comes_back_with_its_spare() {
    let mut node = Node::start();
    let old = node.client().store().unwrap();
    let first = node.ask(&["keys", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    node.rotate_and_activate();
    let new = node.client().store().unwrap();
    node.stop();
    let file = node.root().join(format!("keyring/{first}.kek"));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, b"rot").unwrap();
    node.up();
    node.client().assert_opens(&old);
    assert!(node.log().contains("state.fell_back"));
    node.stop();
    let spare = node.root().join(format!("keyring/{first}.kek.prev"));
    assert_eq!(fs::read(&file).unwrap(), whole, "it was written anew");
    for generation in [&file, &spare] {
        fs::write(generation, b"rot").unwrap();
    }
    node.up();
    let client = node.client();
    client.assert_opens(&new);
    assert_eq!(client.decrypt(&old.text, &old.key_id).unwrap_err().code(), Some(test_support::client::code::NOT_FOUND));
    assert!(node.log().contains("state.troubled"));
    node.stop();
    fs::write(&file, whole).unwrap();
    node.up();
    node.client().assert_opens(&old);
}

#[test]
fn what_status_deep_calls_well_opens_at_the_next_start() {
    let mut node = Node::start();
    let old = node.client().store().unwrap();
    node.rotate_and_activate();
    let new = node.client().store().unwrap();
    let keks = node.root().join("keyring");
    let names = |folder: &Path| -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names(&keks);
    fs::remove_dir_all(&keks).unwrap();
    let deep = node.tool(&["status", "--deep"]);
    assert!(deep.code == 0 && deep.out.contains("repaired"), "{deep:?}");
    assert_eq!(names(&keks), before);
    let again = node.tool(&["status", "--deep"]);
    assert!(again.code == 0 && !again.out.contains("repaired"), "{again:?}");
    node.stop();
    node.up();
    let client = node.client();
    client.assert_opens(&old);
    client.assert_opens(&new);
    let rows = node.ask(&["keys", "list"])["keys"].clone();
    let lost = rows.as_array().unwrap().iter().find(|row| row["state"] == "deactivated").unwrap();
    let lost = lost["id"].as_str().unwrap();
    node.stop();
    for generation in ["kek", "kek.prev"] {
        fs::remove_file(keks.join(format!("{lost}.{generation}"))).unwrap();
    }
    node.up();
    // One that is not in memory cannot come back, and is named.
    let deep = node.tool(&["status", "--deep"]);
    assert!(deep.code == 69 && deep.err.contains(lost) && deep.out.contains("hint"), "{deep:?}");
    // What nothing needs any more is retired, and all is well again.
    node.ask(&["keys", "retire", lost, "--confirm", lost, "--without-scan"]);
    assert_eq!(node.tool(&["status", "--deep"]).code, 0);
}

#[test]
fn an_older_seal_that_was_put_back_is_noticed_and_refused_where_there_is_a_guard() {
    for rollback in ["tpm-counter", "none"] {
        let tpm = Swtpm::start();
        let mut alone = Alone::prepare(&tpm);
        alone.extra = format!("seal.tpm2.rollback = \"{rollback}\"");
        alone.write_config(&tpm);
        assert_eq!(alone.tool(&["init", "--no-recovery"]).code, 0);
        let stored = alone.start().store().unwrap();
        let names = ["node/root.seal", "node/root.seal.prev"].map(|name| alone.root().join(name));
        let old = names.clone().map(|name| fs::read(name).unwrap());
        assert_eq!(alone.tool(&["reseal"]).code, 0);
        assert_eq!(alone.stop(), 0);
        for (name, content) in names.iter().zip(&old) {
            fs::write(name, content).unwrap();
        }
        if rollback == "none" {
            alone.start().assert_opens(&stored);
            alone.await_event("seal.is_other", "nodeseal reseal");
        } else {
            alone.start_locked();
            alone.await_event("seal.refused", "an older one was restored");
        }
    }
}
