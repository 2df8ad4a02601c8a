//! A recovery that was cut short.

use nix::sys::signal::Signal;
use test_support::process::snapshot;
use test_support::swtpm::Swtpm;

use super::{Ground, Home, assert_all_belongs_to_the_service, by_all, roots};

const RECOVER: &str = "nodeseal recover --identity /media/safe/recovery.key";

/// The kernel ends it (SIGXFSZ) at the first file of more than 200 bytes: the seal of the new root.
fn cut_short(ground: &Ground, home: &Home) {
    let before = roots(home);
    let cut = ground.shell(&format!("prlimit --fsize=200 {RECOVER}"), home);
    assert!(cut.code == 128 + Signal::SIGXFSZ as i32 && cut.out.is_empty(), "{cut:?}");
    let begun = roots(home);
    assert!(begun.len() == 2 && before.iter().all(|root| begun.contains(root)), "half of a root is there: {begun:?}");
    assert_all_belongs_to_the_service(home);
}

#[test]
fn a_recovery_that_was_cut_short_can_be_taken_back_and_leaves_the_directory_as_it_was() {
    by_all(|ground| {
        let (old, new) = (Swtpm::start(), Swtpm::start());
        let (mut home, stored) = ground.set_up(&old);
        assert_eq!(home.stop(), 0);
        let before = snapshot(&home.state());
        home.write_config(&new);
        let early = ground.shell("nodeseal recover --abort", &home);
        early.assert_refused(77);
        cut_short(ground, &home);
        let taken_back = ground.shell("nodeseal recover --abort", &home);
        assert!(taken_back.code == 0 && taken_back.out.contains("are unchanged"), "{taken_back:?}");
        assert_all_belongs_to_the_service(&home);
        assert!(before == snapshot(&home.state()), "byte for byte");
        // The board was only away.
        home.write_config(&old);
        assert_eq!(home.start().status().unwrap().key_id, stored.key_id);
        home.client().assert_opens(&stored);
    });
}

#[test]
fn a_recovery_that_was_cut_short_is_finished_by_the_same_command() {
    by_all(|ground| {
        let (old, new) = (Swtpm::start(), Swtpm::start());
        let (mut home, stored) = ground.set_up(&old);
        assert_eq!(home.stop(), 0);
        home.write_config(&new);
        cut_short(ground, &home);
        let finished = ground.shell(RECOVER, &home);
        assert_eq!(finished.code, 0, "{finished:?}");
        assert_all_belongs_to_the_service(&home);
        assert_eq!(roots(&home).len(), 2, "the old root is kept, and what was half made is gone");
        home.start().assert_opens(&stored);
    });
}
