//! A device that was cleared, replaced or lost, or is to be left.

use test_support::swtpm::Swtpm;

use super::{by_all, roots};

#[test]
fn a_cleared_tpm() {
    by_all(|ground| {
        let tpm = Swtpm::start();
        let (mut alone, stored) = ground.set_up(&tpm);
        tpm.tool("tpm2_clear -c p");
        alone.client().assert_opens(&stored);
        let deep = alone.tool(&["status", "--deep"]);
        assert!(deep.code == 69 && deep.err.contains("E-SRK-MISSING"), "told before the reboot: {deep:?}");
        let before = roots(&alone);
        ground.walk("cleared-tpm", &mut alone);
        alone.client().assert_opens(&stored);
        assert_ne!(alone.client().status().unwrap().key_id, stored.key_id, "a new KEK encrypts");
        let kept = roots(&alone);
        assert!(kept.len() == 2 && before.iter().all(|root| kept.contains(root)), "what was there is kept: {kept:?}");
        for file in ["node/root.seal", "state", "recovery.age"] {
            assert!(before[0].join(file).exists(), "{file}");
        }
        assert_eq!(alone.stop(), 0);
        // And what `recover` left is whole: it starts again, and has nothing to recover.
        alone.start().assert_opens(&stored);
        assert_eq!(alone.stop(), 0);
        let again = ground.shell("nodeseal recover --identity /media/safe/recovery.key", &alone);
        again.assert_refused(77);
        assert!(again.err.contains("nothing to recover"), "{again:?}");
    });
}

#[test]
fn a_replaced_board_under_a_running_daemon() {
    by_all(|ground| {
        let (old, new) = (Swtpm::start(), Swtpm::start());
        let (mut alone, stored) = ground.set_up(&old);
        assert_eq!(alone.stop(), 0);
        alone.write_config(&new);
        let client = alone.start_locked();
        alone.await_event("seal.refused", "E-SRK-MISSING");
        alone.assert_locked(&client);
        ground.walk("replaced-board", &mut alone);
        alone.client().assert_opens(&stored);
    });
}

#[test]
fn a_new_machine_with_nothing_but_the_recovery_file() {
    by_all(|ground| {
        let (old, new) = (Swtpm::start(), Swtpm::start());
        let (mut alone, stored) = ground.set_up(&old);
        // After a rotation the copy is too old, and `--verify` says so.
        let rotated = alone.tool(&["keys", "rotate", "--json"]).json();
        assert_eq!(alone.tool(&["keys", "activate", rotated["key"]["id"].as_str().unwrap()]).code, 0);
        let verify = "nodeseal recover --verify --file /media/safe/recovery.age --identity /media/safe/recovery.key";
        let late = ground.shell(verify, &alone);
        assert!(late.code == 66 && late.out.contains("lacks 1 KEKs"), "{late:?}");
        let newer = alone.client().store().unwrap();
        ground.shell("cp /var/lib/nodeseal/recovery.age /media/safe/", &alone);
        assert_eq!(ground.shell(verify, &alone).code, 0);
        assert_eq!(alone.stop(), 0);
        let mut another = ground.machine(&new);
        assert!(!another.state().exists());
        ground.walk("new-machine", &mut another);
        for text in [stored, newer] {
            another.client().assert_opens(&text);
        }
    });
}

#[cfg(feature = "pkcs11")]
mod tokens {
    use std::fs;
    use std::time::Duration;

    use super::super::{By, Ground, run_walk, shell};
    use test_support::node::Node;
    use test_support::process::until;

    #[test]
    fn a_lost_token() {
        let ground = Ground::new(By::Oneself);
        let safe = ground.safe.path();
        let mut node = Node::start_with_token();
        let stored = node.client().store().unwrap();
        let keygen = "age-keygen -o /media/safe/recovery.key";
        let reseal = "nodeseal reseal --recovery-recipient $(age-keygen -y /media/safe/recovery.key)";
        for command in [keygen, reseal] {
            assert_eq!(shell(command, safe, &node).code, 0);
        }
        assert_eq!(node.stop(), Some(0));
        fs::remove_dir_all(node.dir().join("token")).unwrap();
        // `dev` makes a new one, as an operator would.
        let ready = node.begin();
        until(Duration::from_secs(30), "the new token does not open it", || node.log().contains("E-HSM").then_some(()));
        run_walk("lost-token", safe, &mut [("cp-1", &mut node)]);
        node.client().assert_opens(&stored);
        assert!(ready.recv_timeout(Duration::from_secs(30)).unwrap().contains("ready"));
    }

    #[test]
    fn from_a_tpm_to_a_token_and_back_while_kube_apiserver_looks_on() {
        let ground = Ground::new(By::Oneself);
        let mut node = Node::start();
        let stored = node.client().store().unwrap();
        assert_eq!(node.stop(), Some(0));
        // Both devices are there from now on.
        node.backend = "pkcs11";
        node.up();
        let client = node.client();
        let printed = run_walk("move-root", ground.safe.path(), &mut [("cp-1", &mut node)]);
        assert!(printed[1].contains("pkcs11"), "{printed:?}");
        client.assert_opens(&stored);
        assert_eq!(client.store().unwrap().key_id, stored.key_id, "no key changed");
        for backend in ["pkcs11", "tpm2"] {
            assert_eq!(node.ask(&["status"])["seal_backend"], backend);
            node.cut();
            node.up();
            let client = node.client();
            client.assert_opens(&stored);
            assert_eq!(node.ask(&["reseal", "--to", "tpm2"])["seal_backend"], "tpm2");
            client.assert_opens(&stored);
        }
        node.tool(&["reseal", "--to", "floppy"]).assert_refused(78);
    }
}
