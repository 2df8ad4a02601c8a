use std::path::Path;

use super::*;
use crate::store::Kind;
use crate::store::sim::{Extent, Failure, Fault, SimDisk, StepKind};
use crate::store::tests::on_tmpfs;

const ROOT: &str = "/state";

fn with_state(disk: &SimDisk) -> StateDir<SimDisk> {
    let dir = StateDir::create_on(disk.clone(), Path::new(ROOT)).unwrap();
    dir.replace("state", Kind::State, &[0; 300]).unwrap();
    dir
}

fn spare(disk: &SimDisk) -> usize {
    disk.files().into_iter().find(|(path, _)| path.ends_with(FILE)).map_or(0, |(_, bytes)| bytes.len())
}

#[test]
fn on_a_full_disk_the_spare_gives_room_to_write_and_is_made_again_as_often_as_it_takes() {
    let disk = SimDisk::default();
    let dir = with_state(&disk);
    assert_eq!(dir.keep_spare(room_for(&[300])).unwrap(), LEAST_BYTES);
    disk.plan(None);
    assert_eq!(dir.keep_spare(LEAST_BYTES).unwrap(), LEAST_BYTES);
    assert_eq!(disk.steps(), [StepKind::Look], "nothing is written while it is there");
    disk.leave_room(0);
    for _ in 0..100 {
        let error = dir.replace("state", Kind::State, &[1; 300]).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert!(dir.release_spare());
        dir.replace("state", Kind::State, &[1; 300]).unwrap();
        assert!(dir.keep_spare(LEAST_BYTES).unwrap() >= LEAST_BYTES / 2);
        // What is left of it is somebody else's.
        disk.leave_room(0);
    }
    assert!(dir.release_spare() && !dir.release_spare());
    let free = spare(&disk);
    disk.leave_room(100);
    assert!(free == 0 && dir.keep_spare(LEAST_BYTES).unwrap_err().is_full(), "less than a block");
    disk.leave_room(LEAST_BYTES);
    assert_eq!(dir.keep_spare(LEAST_BYTES).unwrap(), LEAST_BYTES);
    // A larger one is wanted, and there is no room for it.
    disk.leave_room(100);
    assert_eq!(dir.keep_spare(4 * LEAST_BYTES).unwrap(), LEAST_BYTES);
}

#[test]
fn a_spare_that_is_stopped_at_any_step_by_any_fault_is_there_or_is_not_and_hurts_nothing() {
    let disk = SimDisk::default();
    let dir = with_state(&disk);
    disk.plan(None);
    dir.keep_spare(LEAST_BYTES).unwrap();
    dir.release_spare();
    let steps = disk.steps().len();
    drop(dir);
    for fault in Fault::all() {
        for at in 0..steps {
            let disk = SimDisk::default();
            let dir = with_state(&disk);
            disk.plan(Some((at, fault)));
            let _ = dir.keep_spare(LEAST_BYTES);
            dir.release_spare();
            drop(dir);
            for disk in disk.outcomes(fault) {
                let dir = StateDir::open_on(disk.clone(), Path::new(ROOT)).unwrap();
                assert!(
                    dir.load("state", Kind::State, |_, bytes| (bytes.len() == 300).then_some(()).ok_or(())).is_ok()
                );
                dir.sweep("").unwrap();
                assert_eq!(dir.keep_spare(LEAST_BYTES).unwrap(), LEAST_BYTES, "step {at}, {fault:?}");
                assert_eq!(spare(&disk), LEAST_BYTES);
                assert_eq!(disk.files().len(), 3, "lock, state and spare");
            }
        }
    }
}

#[test]
fn what_could_not_be_written_whole_takes_no_room() {
    for failure in [Failure::NoSpaceAbove(512), Failure::NoSpaceInPart] {
        let disk = SimDisk::default();
        let dir = with_state(&disk);
        disk.plan(Some((0, Fault::Error(failure, Extent::FromThenOn))));
        assert!(dir.replace("recovery.age", Kind::Recovery, &[0; 5000]).unwrap_err().is_full());
        let small = dir.replace("state", Kind::State, &[0; 300]);
        assert_eq!(small.is_ok(), failure == Failure::NoSpaceAbove(512), "{failure:?}");
        assert!(disk.files().iter().all(|(path, _)| !path.to_str().unwrap().ends_with(".new")), "{failure:?}");
    }
}

#[test]
fn on_a_file_system_of_the_kernel_the_spare_has_blocks_of_its_own() {
    on_tmpfs("size=256k,mode=0700", |root| {
        let dir = StateDir::create(root).unwrap();
        dir.replace("state", Kind::State, &[0; 300]).unwrap();
        assert_eq!(dir.keep_spare(LEAST_BYTES).unwrap(), LEAST_BYTES);
        // Another program's log takes all the rest.
        let mut log = std::fs::File::create(root.join("log")).unwrap();
        while std::io::Write::write(&mut log, &[7; 512]).is_ok() {}
        for _ in 0..3 {
            assert!(dir.replace("state", Kind::State, &[1; 300]).unwrap_err().is_full());
            assert!(dir.release_spare());
            dir.replace("state", Kind::State, &[1; 300]).unwrap();
            assert!(dir.keep_spare(LEAST_BYTES).unwrap() >= BLOCK_BYTES);
            while std::io::Write::write(&mut log, &[7; 512]).is_ok() {}
        }
    });
}

#[test]
fn the_room_is_for_each_file_twice() {
    assert_eq!(room_for(&[]), LEAST_BYTES);
    assert_eq!(room_for(&[1, 400_000]), 2 * 4096 + 2 * 98 * 4096 + 4 * 4096);
    assert_eq!(room_for(&[usize::MAX / 8]), MOST_BYTES);
}
