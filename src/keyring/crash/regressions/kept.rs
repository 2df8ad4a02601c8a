//! Folders of roots that a recovery has kept: which of several counts is known also when `current` is lost.

use super::*;
use crate::keyring::KeyringError;
use crate::types::Explained;

/// A node that was recovered beside keys that do not open, and the folder of those.
fn recovered() -> (Node, String) {
    let mut node = Node::new();
    operations::lose_root(&mut node);
    let kept = node.newest_root();
    node.recover().unwrap();
    let (files, ledger) = (node.kept.clone(), node.ledger.clone());
    node.live(|_| ());
    (node.kept, node.left) = (files, ledger.key_id().cloned());
    (node, kept)
}

fn lose_current(node: &Node, loss: Option<&[u8]>) {
    for name in ["current", "current.prev"] {
        node.scribble(name, loss.map(<[u8]>::to_vec));
    }
}

fn error_of(node: &Node) -> String {
    let error = node.open_once().unwrap_err();
    format!("{error}: {}; {}", std::error::Error::source(&error).unwrap(), error.hint())
}

#[test]
fn what_counts_is_found_beside_a_kept_folder_when_the_file_that_says_so_is_lost() {
    let (node, kept) = recovered();
    for loss in LOSSES {
        let mut node = node.on(node.disk.copy());
        lose_current(&node, loss);
        drop(boot_and_read(&mut node));
        assert!(node.file("current").is_some() && node.file("current.prev").is_some(), "{loss:?}: it is written anew");
        // And it still knows that the other folder is kept.
        assert!(matches!(node.init(), Err(crate::keyring::KeeperError::AlreadySetUp)));
        assert!(node.files().keys().any(|name| name.starts_with(&kept) && name.ends_with("state")));
    }
}

#[test]
fn a_kept_folder_that_does_not_say_so_does_after_the_next_start() {
    let (mut node, kept) = recovered();
    node.scribble(&format!("{kept}/kept"), None);
    drop(boot(&mut node));
    assert!(node.files().contains_key(&format!("{kept}/kept")));
    lose_current(&node, None);
    drop(boot_and_read(&mut node));
}

#[test]
fn where_it_stays_open_which_folder_counts_the_error_names_them_and_says_what_to_do() {
    let (node, kept) = recovered();
    for loss in LOSSES {
        let mut node = node.on(node.disk.copy());
        let counts = node.newest_root();
        node.scribble(&format!("{kept}/kept"), None);
        lose_current(&node, loss);
        let refused = node.start().first_attempt();
        assert!(matches!(refused, Err(KeyringError::Locked)), "{refused:?}");
        let error = error_of(&node);
        assert!(error.contains(&kept) && error.contains(&counts) && error.contains("touch"), "{error}");
        // And does not make the node anew.
        assert!(node.init().is_err() && node.recover().is_err());
        node.scribble(&format!("{kept}/kept"), Some(Vec::new()));
        drop(boot_and_read(&mut node));
    }
}

#[test]
fn a_recovery_of_the_layout_of_release_0_1_that_is_cut_leaves_no_empty_folders() {
    let mut node = Node::new();
    operations::lose_root(&mut node);
    operations::flatten(&mut node);
    for name in node.folders().into_iter().rev().filter(|name| name.starts_with("roots")) {
        node.remove_dir(&name);
    }
    let trial = node.on(node.disk.copy());
    trial.disk.plan(None);
    trial.recover().unwrap();
    for at in (0..trial.disk.steps().len()).filter(|at| Fault::KillAfter.fits(trial.disk.steps()[*at])) {
        let mut node = node.on(node.disk.copy());
        node.disk.plan(Some((at, Fault::KillAfter)));
        assert!(node.recover().is_err());
        node.disk = node.disk.after_kill();
        let again = node.recover();
        assert!(matches!(again, Ok(()) | Err(crate::keyring::KeeperError::KeysOpen)), "step {at}: {again:?}");
        drop(boot(&mut node));
        let top: Vec<_> =
            node.folders().into_iter().filter(|name| !name.starts_with("roots") && !name.is_empty()).collect();
        assert!(top.is_empty(), "step {at}: {top:?}");
    }
}
