//! `nodeseal status --deep`: what it calls well opens at the next start, and what is lost on the disk and known in memory comes back.

use super::damage::whole_node;
use super::*;
use crate::keyring::keeper::{CheckReport, RenewOrder};
use crate::keyring::{KeeperError, kek_file};

fn check(running: &Running) -> CheckReport {
    running.ask(KeeperHandle::check).unwrap()
}

/// Both generations, and nothing is left of what is not given.
fn set_both(node: &Node, name: &str, content: Option<&[u8]>) {
    for name in [name.to_owned(), format!("{name}.prev")] {
        node.set(&name, content.map(<[u8]>::to_vec));
    }
}

/// The loss happens while the node runs, and the next look says what is true: all is well, and the next start opens everything.
fn assert_comes_back(whole: &Node, what: &str, lose: impl Fn(&Node)) {
    let mut node = whole.on(whole.disk.copy());
    let running = boot(&mut node);
    lose(&node);
    let report = check(&running);
    assert!(report.is_fine() && !report.repaired.is_empty(), "{what}: {report:?}");
    let again = check(&running);
    assert!(again.is_fine() && again.repaired.is_empty(), "{what}, the second time: {again:?}");
    // The process is killed, and not only stopped.
    node.disk = node.disk.after_cut(Crash::Lost);
    drop(running);
    drop(boot_and_read(&mut node));
}

fn kek_file_of(node: &Node, state: &str) -> String {
    let node = node.on(node.disk.copy());
    kek_file::file_name(&node.start().kek(state))
}

#[test]
fn a_kek_file_that_is_lost_in_both_generations_is_written_anew_from_memory() {
    let node = whole_node();
    for state in ["active", "pre-activation", "deactivated"] {
        let name = kek_file_of(&node, state);
        for loss in LOSSES {
            assert_comes_back(&node, &format!("{state} {loss:?}"), |node| set_both(node, &name, loss));
        }
    }
}

#[test]
fn a_kek_file_that_is_another_valid_one_is_written_anew_from_memory() {
    let node = whole_node();
    for state in ["active", "deactivated"] {
        let name = kek_file_of(&node, state);
        let id = name.trim_start_matches("keyring/").trim_end_matches(".kek").parse().unwrap();
        let others = [node.file(&kek_file_of(&node, "pre-activation")).unwrap(), node.kek_file_with_another_key(&id)];
        for other in others {
            assert_comes_back(&node, state, |node| set_both(node, &name, Some(&other)));
            assert_comes_back(&node, state, |node| node.set(&name, Some(other.clone())));
            assert_comes_back(&node, state, |node| node.set(&format!("{name}.prev"), Some(other.clone())));
        }
    }
}

#[test]
fn the_folder_of_the_keks_is_made_anew_from_memory() {
    let mut node = Node::new();
    operations::grow_rooted(&mut node);
    assert_comes_back(&node, "keyring/", |node| {
        let folder = format!("{}/keyring", node.newest_root());
        let below: Vec<_> = node.files().into_keys().filter(|name| name.starts_with(&folder)).collect();
        below.iter().for_each(|name| node.scribble(name, None));
        node.remove_dir(&folder);
    });
}

#[test]
fn the_providers_copies_that_are_lost_in_both_generations_are_written_anew_from_memory() {
    let mut node = Node::new();
    operations::grow_rooted(&mut node);
    let name = kek_file_of(&node, "active").replace(".kek", ".wraps");
    for loss in LOSSES {
        assert_comes_back(&node, &format!("{loss:?}"), |node| set_both(node, &name, loss));
    }
}

#[test]
fn a_state_that_is_lost_in_both_generations_or_is_an_older_one_is_written_anew_from_memory() {
    let node = whole_node();
    for loss in LOSSES {
        assert_comes_back(&node, &format!("{loss:?}"), |node| set_both(node, "state", loss));
    }
    let older = node.file("state").unwrap();
    let mut node = node.on(node.disk.copy());
    node.live(|running| drop(running.activate(running.kek("pre-activation"), true).unwrap()));
    assert_comes_back(&node, "an older one", |node| set_both(node, "state", Some(&older)));
}

#[test]
fn the_file_that_says_what_counts_is_written_anew_from_memory_also_beside_a_kept_folder() {
    let mut node = Node::new();
    operations::lose_root(&mut node);
    let older = node.file("current").unwrap();
    node.recover().unwrap();
    for loss in LOSSES.into_iter().chain([Some(older.as_slice())]) {
        assert_comes_back(&node, &format!("{loss:?}"), |node| set_both(node, "current", loss));
    }
}

#[test]
fn a_kek_that_this_node_lacks_is_named() {
    let mut node = whole_node();
    let name = kek_file_of(&node, "deactivated");
    for loss in LOSSES {
        let mut node = node.on(node.disk.copy());
        set_both(&node, &name, loss);
        let running = boot(&mut node);
        let report = check(&running);
        assert!(report.opens && report.repaired.is_empty(), "{report:?}");
        let id = name.trim_start_matches("keyring/").trim_end_matches(".kek");
        assert_eq!(report.lacking, [id], "{loss:?}: {report:?}");
        assert!(!report.is_fine() && report.hint.is_some());
    }
    // One that came back opens at the next start.
    let content = node.file(&name).unwrap();
    set_both(&node, &name, None);
    let running = boot(&mut node);
    set_both(&node, &name, Some(&content));
    assert!(check(&running).is_fine());
    drop(running);
    drop(boot_and_read(&mut node));
}

#[test]
fn a_look_writes_nothing_while_all_is_well() {
    let mut rooted = Node::new();
    operations::grow_rooted(&mut rooted);
    for mut node in [whole_node(), rooted] {
        let running = boot(&mut node);
        assert!(check(&running).is_fine());
        node.disk.plan(None);
        let report = check(&running);
        assert!(report.is_fine() && report.repaired.is_empty(), "{report:?}");
        let writes: Vec<_> = node.disk.steps();
        assert!(writes.iter().all(|step| matches!(step, StepKind::Look | StepKind::Read)), "{writes:?}");
    }
}

#[test]
fn a_host_secret_that_is_not_proved_takes_the_place_of_no_other() {
    let node = whole_node();
    let mut other = node.on(node.disk.copy());
    let foreign = whole_node().file("node/host.key").unwrap();
    let own = other.file("node/host.key").unwrap();
    let running = boot(&mut other);
    other.set("node/host.key", Some(foreign));
    let report = check(&running);
    assert!(!report.opens, "{report:?}");
    assert_eq!(other.file("node/host.key.prev"), Some(own), "the good copy is gone");
}

#[test]
fn a_root_whose_files_are_gone_does_not_open_and_the_look_says_so() {
    let mut node = whole_node();
    let running = boot(&mut node);
    set_both(&node, "node/root.seal", None);
    let report = check(&running);
    assert!(!report.opens && report.error.is_some() && report.hint.is_some(), "{report:?}");
}

#[test]
fn a_node_that_does_not_know_what_counts_does_not_say_that_all_is_well() {
    let mut whole = Node::new();
    operations::grow(&mut whole);
    let order =
        RenewOrder { to: crate::keyring::crash::node::TO, guard: None, without_recovery_file: true, dry_run: false };
    let renew = |running: &Running| running.ask(|keeper| keeper.renew_root(order.clone())).map(drop);
    let steps = steps(&whole, |_, running| renew(running).unwrap());
    let fault = Fault::Error(Failure::IoThoughDone, Extent::Once);
    let mut unsure = 0;
    for at in (0..steps.len()).filter(|at| fault.fits(steps[*at])) {
        let node = whole.on(whole.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        node.disk.plan(Some((at, fault)));
        let renewed = renew(&running);
        node.disk.plan(None);
        if renewed.is_ok() || !matches!(running.ask(KeeperHandle::rotate), Err(KeeperError::Unsure)) {
            continue;
        }
        unsure += 1;
        assert!(!running.handle.overview().unwrap().would_open);
        let report = check(&running);
        assert!(!report.opens && report.hint.as_ref().is_some_and(|hint| hint.contains("restart")), "{report:?}");
        assert!(!running.handle.overview().unwrap().would_open);
    }
    assert!(unsure > 0, "no fault leaves it in doubt");
}
