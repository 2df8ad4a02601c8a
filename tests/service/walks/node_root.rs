//! Old copies of the state directory, and another node root.

use std::fs;
use std::path::Path;
use std::process::Command;

use test_support::swtpm::Swtpm;

use super::{Ground, Home, assert_all_belongs_to_the_service, by_all, roots};

const GUARD: &str = "\nseal.tpm2.rollback = \"tpm-counter\"";

fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Its id: the node has one and no other.
fn only_root(home: &Home) -> String {
    let roots = roots(home);
    assert_eq!(roots.len(), 1, "{roots:?}");
    assert_eq!(roots[0], home.root());
    roots[0].file_name().unwrap().to_str().unwrap().to_owned()
}

/// The recovery file that was copied last is signed by the root that the node has now, and the key from before opens it.
fn assert_copy_is_of_this_root(ground: &Ground, home: &Home) {
    let maker = home.tool(&["status", "--json"]).json()["recovery_maker"].as_str().unwrap().to_owned();
    let verify = "nodeseal recover --verify --file /media/safe/recovery.age --identity /media/safe/recovery.key";
    let verified = ground.shell(&format!("{verify} --made-by {maker}"), home);
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn an_old_copy_of_the_state_directory() {
    by_all(|ground| {
        let tpm = Swtpm::start();
        let mut alone = ground.machine(&tpm);
        alone.extra += GUARD;
        alone.write_config(&tpm);
        ground.walk("before", &mut alone);
        let old = alone.client().store().unwrap();
        assert_eq!(alone.stop(), 0);
        let copy = alone.home().join("copy");
        copy_folder(&alone.state(), &copy);
        alone.start();
        let rotated = alone.tool(&["keys", "rotate", "--json"]).json();
        assert_eq!(alone.tool(&["keys", "activate", rotated["key"]["id"].as_str().unwrap()]).code, 0);
        let newer = alone.client().store().unwrap();
        // A restart of the newest is no rollback.
        assert_eq!(alone.stop(), 0);
        alone.start().assert_opens(&newer);
        assert_eq!(alone.stop(), 0);
        let newest = alone.home().join("newest");
        fs::rename(alone.state(), &newest).unwrap();
        copy_folder(&copy, &alone.state());
        let client = alone.start_locked();
        let event = alone.await_event("seal.refused", "E-ROLLBACK");
        let error = event["error"].as_str().unwrap();
        assert!(error.contains("later changes of keys") && error.contains("does not open"), "{error}");
        alone.assert_locked(&client);
        ground.walk("old-copy", &mut alone);
        alone.client().assert_opens(&old);
        let unknown = alone.client().decrypt(&newer.text, &newer.key_id);
        assert!(unknown.is_err_and(|error| error.code() == Some(5)), "NOT_FOUND for what it can no longer open");
        assert!(![&old.key_id, &newer.key_id].contains(&&alone.client().status().unwrap().key_id), "a new KEK");
        assert_eq!(alone.stop(), 0);
        // The counter has moved on: the copy that was the newest before is old now.
        fs::rename(alone.state(), alone.home().join("accepted")).unwrap();
        fs::rename(&newest, alone.state()).unwrap();
        alone.forget_log();
        alone.start_locked();
        alone.await_event("seal.refused", "E-ROLLBACK");
    });
}

#[test]
fn another_node_root_while_kube_apiserver_looks_on() {
    by_all(|ground| {
        let tpm = Swtpm::start();
        let (mut home, stored) = ground.set_up(&tpm);
        let (old, client) = (only_root(&home), home.client());
        let printed = ground.walk("rotate-root", &mut home);
        assert!(printed[1].contains("would be sealed") && printed[1].contains(&old), "{printed:?}");
        let new = only_root(&home);
        assert!(new != old && printed[2].contains(&new), "{printed:?}");
        client.assert_opens(&stored);
        let later = client.store().unwrap();
        assert_eq!(later.key_id, stored.key_id, "no key changed");
        assert_copy_is_of_this_root(ground, &home);
        assert_eq!(home.stop(), 0);
        let client = home.start();
        for text in [stored, later] {
            client.assert_opens(&text);
        }
    });
}

#[test]
fn another_node_root_without_a_daemon() {
    by_all(|ground| {
        let tpm = Swtpm::start();
        let (mut home, stored) = ground.set_up(&tpm);
        let old = only_root(&home);
        assert_eq!(home.stop(), 0);
        let tried = ground.shell("nodeseal rotate-root --dry-run", &home);
        assert!(tried.code == 0 && only_root(&home) == old, "{tried:?}");
        let rotated = ground.shell("nodeseal rotate-root", &home);
        assert_eq!(rotated.code, 0, "{rotated:?}");
        assert_all_belongs_to_the_service(&home);
        assert_ne!(only_root(&home), old);
        assert_eq!(home.start().status().unwrap().key_id, stored.key_id);
        home.client().assert_opens(&stored);
        assert_eq!(ground.shell("cp /var/lib/nodeseal/recovery.age /media/safe/", &home).code, 0);
        assert_copy_is_of_this_root(ground, &home);
    });
}

#[test]
fn a_copy_of_the_disk_from_before_another_node_root_is_refused_where_a_guard_is_on() {
    by_all(|ground| {
        let tpm = Swtpm::start();
        let mut home = ground.machine(&tpm);
        home.extra += GUARD;
        home.write_config(&tpm);
        ground.walk("before", &mut home);
        let stored = home.client().store().unwrap();
        assert_eq!(home.stop(), 0);
        let copy = home.home().join("copy");
        copy_folder(&home.state(), &copy);
        home.start();
        ground.walk("rotate-root", &mut home);
        home.client().assert_opens(&stored);
        assert_eq!(home.stop(), 0);
        fs::rename(home.state(), home.home().join("newest")).unwrap();
        fs::rename(&copy, home.state()).unwrap();
        home.forget_log();
        let client = home.start_locked();
        home.await_event("seal.refused", "E-NV-GONE");
        home.assert_locked(&client);
        assert_eq!(home.stop(), 0);
        fs::rename(home.state(), &copy).unwrap();
        fs::rename(home.home().join("newest"), home.state()).unwrap();
        home.start().assert_opens(&stored);
    });
}
