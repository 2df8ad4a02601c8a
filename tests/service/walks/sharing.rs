//! Nodes that have the same keys.

use test_support::swtpm::Swtpm;

use super::{MAKE_DIRECTORY, by_all, run_walk, walk, with_fingerprint};

#[test]
fn keys_for_another_node() {
    by_all(|ground| {
        let (one, two) = (Swtpm::start(), Swtpm::start());
        let (mut first, of_first) = ground.set_up(&one);
        let mut second = ground.machine(&two);
        run_walk("join", ground.safe.path(), &mut [("cp-2", &mut second)]);
        assert!(second.client().store().is_err(), "it encrypts nothing before it has a key");
        let printed = run_walk("bundle", ground.safe.path(), &mut [("cp-1", &mut first), ("cp-2", &mut second)]);
        assert!(printed[3].contains("active"), "{printed:?}");
        let ids = [first.client().status().unwrap().key_id, second.client().status().unwrap().key_id];
        assert_eq!(ids[0], ids[1], "one key_id");
        second.client().assert_opens(&of_first);
        first.client().assert_opens(&second.client().store().unwrap());
        // Also after both were off.
        let of_both = second.client().store().unwrap();
        for node in [&mut first, &mut second] {
            assert_eq!(node.stop(), 0);
            node.start().assert_opens(&of_both);
        }
        let marks: Vec<_> = printed
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.strip_prefix("fingerprint: "))
            .collect();
        let accept = format!("nodeseal bundle accept /media/safe/cp-2.bundle --fingerprint {}", marks[1]);
        let replayed = ground.shell(&accept, &second);
        replayed.assert_refused(77);
        assert!(replayed.err.contains("no open request"), "{replayed:?}");
        let foreign = ground.shell("nodeseal bundle request --out /media/safe/cp-1.request", &first);
        assert_eq!(foreign.code, 0, "{foreign:?}");
        let foreign = ground.shell(&accept, &first);
        foreign.assert_refused(77);
        assert!(foreign.err.contains("another request"), "{foreign:?}");
        let wrong = accept.replace(marks[1], marks[0]);
        assert!(ground.shell(&wrong, &first).err.contains("fingerprint"));
    });
}

#[test]
fn a_cleared_tpm_of_a_node_that_shares_its_keys() {
    by_all(|ground| {
        let safe = ground.safe.path();
        let (one, two) = (Swtpm::start(), Swtpm::start());
        let (mut first, of_first) = ground.set_up(&one);
        let mut second = ground.machine(&two);
        run_walk("join", safe, &mut [("cp-2", &mut second)]);
        run_walk("bundle", safe, &mut [("cp-1", &mut first), ("cp-2", &mut second)]);
        two.tool("tpm2_clear -c p");
        assert_eq!(second.stop(), 0);
        // Which KEK encrypts then has to be said: the other node reads nothing under a new one.
        let unsaid = ground.shell("nodeseal recover --identity /media/safe/recovery.key", &second);
        unsaid.assert_refused(77);
        assert!(unsaid.err.contains("--keep-active") && unsaid.err.contains("--new-key"), "{unsaid:?}");
        second.start_locked();
        run_walk("shared-node", safe, &mut [("cp-2", &mut second)]);
        second.client().assert_opens(&of_first);
        first.client().assert_opens(&second.client().store().unwrap());
        let ids = [first.client().status().unwrap().key_id, second.client().status().unwrap().key_id];
        assert_eq!(ids[0], ids[1], "one key_id");
    });
}

#[test]
fn a_bundle_request_that_cannot_be_written_leaves_the_earlier_one_good() {
    by_all(|ground| {
        let safe = ground.safe.path();
        let (one, two) = (Swtpm::start(), Swtpm::start());
        let (first, _) = ground.set_up(&one);
        let mut second = ground.machine(&two);
        for command in [MAKE_DIRECTORY, "nodeseal init --no-recovery"] {
            assert_eq!(ground.shell(command, &second).code, 0, "{command}");
        }
        second.start();
        let lines = walk("bundle");
        let asked = ground.shell(lines[0].1, &second);
        assert_eq!(asked.code, 0, "{asked:?}");
        for out in ["cp-2.request", "no-such-folder/cp-2.request"] {
            ground.shell(&lines[0].1.replace("cp-2.request", out), &second).assert_refused(78);
        }
        let mark = asked.out.lines().find_map(|line| line.strip_prefix("fingerprint: ")).unwrap();
        let shown = ground.shell("nodeseal bundle show /media/safe/cp-2.request", &second);
        assert!(shown.code == 0 && shown.out.ends_with(&format!("fingerprint: {mark}\n")), "{shown:?}");
        // A wrong fingerprint is not answered with the right one, and leaves no file.
        let wrong = ground.shell(lines[1].1, &first);
        wrong.assert_refused(77);
        assert!(wrong.err.contains("nodeseal bundle show") && !wrong.err.contains(mark), "{wrong:?}");
        assert!(!safe.join("cp-2.bundle").exists());
        let made = ground.shell(&with_fingerprint(lines[1].1, std::slice::from_ref(&asked.out)), &first);
        assert_eq!(made.code, 0, "{made:?}");
        let shown = ground.shell("nodeseal bundle show /media/safe/cp-2.bundle", &second);
        assert!(shown.code == 0 && shown.out.starts_with("a bundle, cluster"), "{shown:?}");
        let taken = ground.shell(&with_fingerprint(lines[2].1, &[made.out]), &second);
        assert_eq!(taken.code, 0, "the first request is still open: {taken:?}");
    });
}
