//! KEKs that the operator destroys: what "destroyed" promises, and what may stand in its way.

use super::*;
use crate::keyring::KeeperError;
use crate::keyring::keeper::Proof;
use crate::keyring::ring::RetireTo;
use crate::types::Explained;

/// A node with a recovery file, and the ids of `count` KEKs that were active, oldest first.
fn with_former(count: usize) -> (Node, Vec<KekId>) {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::set_up(&mut node);
    let mut former = Vec::new();
    for _ in 0..count {
        node.live(|running| {
            former.push(running.kek("active"));
            running.renew().unwrap();
        });
    }
    (node, former)
}

fn destroy(running: &Running, kek: KekId) -> Result<(), KeeperError> {
    running.handle.retire(kek, RetireTo::Destroyed, Proof::Waived).map(drop)
}

#[test]
fn two_keks_that_do_not_open_do_not_stand_in_each_others_way() {
    let (node, former) = with_former(3);
    let (first, second, third) = (former[0], former[1], former[2]);
    for order in [[first, second], [second, first]] {
        let mut node = node.on(node.disk.copy());
        for kek in order {
            node.damage_both(&format!("keyring/{kek}.kek"));
        }
        let identity = node.identity.clone().unwrap();
        let running = boot(&mut node);
        let refused = destroy(&running, third);
        assert!(matches!(refused, Err(KeeperError::MayBeInRecoveryFile(_))), "{refused:?}");
        destroy(&running, order[0]).unwrap();
        // The other one may still have its last copy in a recovery file.
        let has = |kek: KekId| node.recovery_files(&identity).iter().any(|(_, keks)| keks.contains(&kek));
        assert!(has(order[1]), "the last copy of a KEK that was not retired is gone");
        assert!(matches!(destroy(&running, third), Err(KeeperError::MayBeInRecoveryFile(_))));
        // As the operator has named a copy of his own.
        node.scribble("recovery-of-cp-1.age", Some(b"age".to_vec()));
        destroy(&running, order[1]).unwrap();
        assert!(node.file("recovery-of-cp-1.age").is_some());
        for kek in order {
            assert!(!has(kek), "a destroyed KEK is in a recovery file although all open");
        }
        destroy(&running, third).unwrap();
        assert!(!has(third));
        operations::renew_root(&node, &running).unwrap();
        drop(running);
        drop(boot(&mut node));
    }
}

#[test]
fn no_kek_is_called_destroyed_while_a_folder_that_a_recovery_has_kept_may_have_it() {
    let mut node = Node::new();
    operations::lose_root(&mut node);
    let kept = node.newest_root();
    node.recover().unwrap();
    let running = boot(&mut node);
    running.renew().unwrap();
    let former = running.table().keys.into_iter().find(|row| row.state == "deactivated").unwrap();
    let former: KekId = former.id.parse().unwrap();
    let refused = destroy(&running, former).unwrap_err();
    assert!(refused.to_string().contains(&kept), "{refused}");
    assert!(refused.hint().contains("rm -r"), "{}", refused.hint());
    assert!(running.table().keys.iter().any(|row| row.id == former.to_string() && row.state == "deactivated"));
    running.handle.retire(former, RetireTo::Compromised, Proof::Waived).unwrap();
    assert!(destroy(&running, former).is_err());
    // As the operator does.
    for name in node.files().into_keys().filter(|name| name.starts_with(&kept)) {
        node.scribble(&name, None);
    }
    let mut folders: Vec<_> = node.folders().into_iter().filter(|name| name.starts_with(&kept)).collect();
    folders.sort();
    folders.iter().rev().for_each(|name| node.remove_dir(name));
    destroy(&running, former).unwrap();
    assert!(!node.files().keys().any(|name| name.contains(&former.to_string())));
}

#[test]
fn a_destruction_is_not_answered_as_done_while_a_file_still_has_the_key() {
    let (whole, former) = with_former(1);
    let kek = former[0];
    let steps = steps(&whole, |_, running| destroy(running, kek).unwrap());
    let identity = whole.identity.clone().unwrap();
    let remains = |node: &Node| {
        node.files().keys().any(|name| name.contains(&kek.to_string()))
            || node.recovery_files(&identity).iter().any(|(_, keks)| keks.contains(&kek))
    };
    let mut refused = 0;
    for extent in [Extent::Once, Extent::FromThenOn] {
        for failure in [Failure::Io, Failure::NoSpace, Failure::ReadOnly] {
            let fault = Fault::Error(failure, extent);
            for (at, step) in steps.iter().enumerate().filter(|(_, step)| fault.fits(**step)) {
                let mut node = whole.on(whole.disk.copy());
                let running = node.start();
                running.first_attempt().unwrap();
                node.disk.plan(Some((at, fault)));
                let answer = destroy(&running, kek);
                let when = format!("{fault:?} at step {at}, {step:?}: {answer:?}");
                assert!(answer.is_err() || !remains(&node), "{when}");
                let is_recorded = |running: &Running| {
                    running.table().keys.iter().any(|row| row.id == kek.to_string() && row.state == "destroyed")
                };
                node.disk.plan(None);
                let Err(error) = answer else { continue };
                if is_recorded(&running) {
                    refused += 1;
                    assert!(error.hint().contains("next start"), "{when}: {}", error.hint());
                }
                // The same once more, on a disk that is well.
                match destroy(&running, kek) {
                    Ok(()) | Err(KeeperError::Move(_)) => {}
                    Err(error) => panic!("{when}, and again: {error:?}"),
                }
                assert!(!remains(&node), "{when}: it stays although the disk is well");
                drop(running);
                let running = boot(&mut node);
                assert!(is_recorded(&running));
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn the_folder_of_a_root_that_was_left_goes_before_a_kek_is_called_destroyed() {
    let (whole, former) = with_former(1);
    let kek = former[0];
    let fault = Fault::Error(Failure::Io, Extent::FromThenOn);
    let steps = steps(&whole, |node, running| operations::renew_root(node, running).unwrap());
    let mut left = 0;
    for at in (0..steps.len()).filter(|at| fault.fits(steps[*at])) {
        let mut node = whole.on(whole.disk.copy());
        let running = node.start();
        running.first_attempt().unwrap();
        let old = node.newest_root();
        node.disk.plan(Some((at, fault)));
        let renewed = operations::renew_root(&node, &running);
        node.disk.plan(None);
        if renewed.is_err() || !node.files().keys().any(|name| name.starts_with(&old)) {
            continue;
        }
        left += 1;
        running.ask(|keeper| keeper.retire(kek, RetireTo::Destroyed, Proof::Waived)).unwrap();
        let remains: Vec<_> = node.files().into_keys().filter(|name| name.contains(&kek.to_string())).collect();
        assert!(remains.is_empty(), "step {at}: {remains:?}");
        drop(running);
        drop(boot(&mut node));
    }
    assert!(left > 0, "nothing is left whatever fails");
}
