use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;

use crate::store::sim::{Extent, Failure, Fault, SimDisk, StepKind};
use crate::store::tests::on_tmpfs;
use crate::store::*;
use crate::types::Explained;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused")]
struct Refused;

type Dir = StateDir<SimDisk>;

fn file(name: &str) -> PathBuf {
    Path::new("/state").join(name)
}

/// A directory with two generations of the file `state`: "one", and "two", which is the newest.
fn disk() -> SimDisk {
    let disk = SimDisk::default();
    let dir = StateDir::create_on(disk.clone(), Path::new("/state")).unwrap();
    dir.replace("state", Kind::State, b"one").unwrap();
    dir.replace("state", Kind::State, b"two").unwrap();
    drop(dir);
    disk.after_kill()
}

fn open(disk: &SimDisk) -> Dir {
    StateDir::open_on(disk.clone(), Path::new("/state")).unwrap()
}

/// Takes everything but these contents.
fn load_without(dir: &Dir, refused: &[&[u8]]) -> Result<(Vec<u8>, Generation), LoadError<Refused>> {
    let parse = |_, bytes: &[u8]| if refused.contains(&bytes) { Err(Refused) } else { Ok(bytes.to_vec()) };
    dir.load("state", Kind::State, parse).map(|loaded| (loaded.value, loaded.generation))
}

fn load(dir: &Dir) -> Result<(Vec<u8>, Generation), LoadError<Refused>> {
    load_without(dir, &[])
}

fn one() -> (Vec<u8>, Generation) {
    (b"one".to_vec(), Generation::Previous)
}

fn two() -> (Vec<u8>, Generation) {
    (b"two".to_vec(), Generation::Newest)
}

fn is_of(error: &LoadError<Refused>, errno: Errno) -> bool {
    let LoadError::Store(error) = error else { return false };
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.raw_os_error() == Some(errno as i32))
}

#[test]
fn what_is_not_damage_is_an_error_and_never_makes_the_previous_generation_count() {
    for (failure, errno) in [(Failure::Denied, Errno::EACCES), (Failure::NoDescriptor, Errno::EMFILE)] {
        for extent in [Extent::Once, Extent::FromThenOn] {
            let disk = disk();
            let dir = open(&disk);
            disk.plan(Some((0, Fault::Error(failure, extent))));
            let error = load(&dir).unwrap_err();
            assert!(is_of(&error, errno), "{failure:?}: {error:?}");
            disk.plan(None);
            assert_eq!(load(&dir).unwrap(), two());
        }
    }
}

#[test]
fn a_previous_generation_that_may_not_be_read_is_told_where_the_newest_is_lost() {
    let disk = disk();
    disk.scribble(&file("state"), None);
    let dir = open(&disk);
    disk.plan(Some((1, Fault::Error(Failure::Denied, Extent::Once))));
    assert!(is_of(&load(&dir).unwrap_err(), Errno::EACCES));
    assert_eq!(load(&dir).unwrap(), one());
}

#[test]
fn a_read_error_that_passes_makes_nothing_fall_back_and_a_sector_that_stays_bad_does() {
    let disk = disk();
    let dir = open(&disk);
    disk.plan(Some((0, Fault::Error(Failure::Io, Extent::Once))));
    assert_eq!(load(&dir).unwrap(), two(), "read again");
    disk.plan(Some((0, Fault::Error(Failure::Io, Extent::FromThenOn))));
    assert!(is_of(&load(&dir).unwrap_err(), Errno::EIO), "a disk that answers nothing is no bad sector");
    disk.plan(Some((0, Fault::BAD_SECTOR)));
    assert_eq!(load(&dir).unwrap(), one());
    disk.plan(None);
    assert_eq!(load(&dir).unwrap(), one(), "it stays bad");
    drop(dir);
    let dir = open(&disk.after_kill());
    assert_eq!(load(&dir).unwrap(), one(), "also after a reboot");
    dir.replace("state", Kind::State, b"three").unwrap();
    assert_eq!(load(&dir).unwrap().0, b"three");
    disk.spoil(&file("state.prev"));
    disk.spoil(&file("state"));
    assert!(is_of(&load(&open(&disk.after_kill())).unwrap_err(), Errno::EIO), "both");
}

#[test]
fn a_newest_generation_that_its_reader_refuses_never_takes_the_place_of_the_one_before() {
    let template = disk();
    let count = {
        let disk = template.copy();
        let dir = open(&disk);
        load_without(&dir, &[b"two"]).unwrap();
        disk.plan(None);
        dir.replace("state", Kind::State, b"three").unwrap();
        disk.steps().len()
    };
    for fault in Fault::all() {
        for at in 0..count {
            let disk = template.copy();
            let dir = open(&disk);
            assert_eq!(load_without(&dir, &[b"two"]).unwrap(), one());
            disk.plan(Some((at, fault)));
            let done = dir.replace("state", Kind::State, b"three").is_ok();
            drop(dir);
            for disk in disk.outcomes(fault) {
                let (found, _) = load_without(&open(&disk), &[b"two"])
                    .unwrap_or_else(|error| panic!("step {at}, {fault:?}: nothing is left: {error:?}"));
                assert!(found == b"three" || !done && found == b"one", "step {at}, {fault:?}");
            }
        }
    }
}

#[test]
fn a_read_only_directory_is_opened_locked_and_read() {
    for has_lock_file in [true, false] {
        let prepare = |root: &Path| {
            StateDir::create(root).unwrap().replace("state", Kind::State, b"two").unwrap();
            if !has_lock_file {
                std::fs::remove_file(root.join("lock")).unwrap();
            }
        };
        on_tmpfs("mode=0700", |root| {
            prepare(root);
            let (none, flags) = (None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
            nix::mount::mount(none, root, none, flags, none).unwrap();
            let dir = StateDir::create(root).unwrap();
            let parse = |_, bytes: &[u8]| Ok::<_, Refused>(bytes.to_vec());
            assert_eq!(dir.load("state", Kind::State, parse).unwrap().value, b"two");
            assert!(matches!(StateDir::open(root), Err(StoreError::InUse { .. })), "locked");
            let error = dir.replace("state", Kind::State, b"three").unwrap_err();
            assert!(error.hint().contains("read-only"), "{}", error.hint());
            drop(dir);
            StateDir::open(root).unwrap();
        });
    }
}

/// In which way a generation is lost.
const LOSSES: [fn(&SimDisk, &Path); 4] = [
    |disk, path| disk.scribble(path, None),
    |disk, path| disk.scribble(path, Some(b"NODESEAL torn".to_vec())),
    |disk, path| disk.scribble(path, Some(container::wrap(Kind::State, b"refused"))),
    SimDisk::spoil,
];

fn repair(dir: &Dir, pair: Pair) -> Result<Repaired, LoadError<Refused>> {
    let parse = |_, bytes: &[u8]| if bytes == b"refused" { Err(Refused) } else { Ok(bytes.to_vec()) };
    dir.repair("state", Kind::State, pair, parse)
}

fn both(dir: &Dir) -> [Option<Vec<u8>>; 2] {
    let parse = |_, bytes: &[u8]| if bytes == b"refused" { Err(Refused) } else { Ok(bytes.to_vec()) };
    let Examined { newest, previous } = dir.examine("state", Kind::State, parse);
    [newest.ok(), previous.ok()]
}

fn writes(disk: &SimDisk) -> usize {
    disk.steps().iter().filter(|step| !matches!(step, StepKind::Look | StepKind::Read)).count()
}

/// Disks on which there is something to repair: what becomes of both generations.
fn broken() -> Vec<(SimDisk, Pair, [&'static [u8]; 2])> {
    let mut all = Vec::new();
    for pair in [Pair::Alike, Pair::Successive] {
        for (name, left) in [("state", b"one"), ("state.prev", b"two")] {
            for lose in LOSSES {
                let disk = disk();
                lose(&disk, &file(name));
                all.push((disk, pair, [&left[..], left]));
            }
        }
    }
    // A write of both that was cut short after the first.
    all.push((disk(), Pair::Alike, [b"two", b"two"]));
    // And one within: both names are one file.
    let disk = disk();
    disk.remove(&file("state.prev")).unwrap();
    disk.link(&file("state"), &file("state.prev")).unwrap();
    disk.sync_dir(Path::new("/state")).unwrap();
    all.push((disk, Pair::Successive, [b"two", b"two"]));
    all
}

#[test]
fn a_lost_generation_is_made_anew_from_the_other_and_nothing_is_written_while_both_are_whole() {
    for (disk, pair, expected) in broken() {
        let dir = open(&disk);
        assert!(matches!(repair(&dir, pair).unwrap(), Repaired::Anew(_)));
        assert_eq!(both(&dir), expected.map(|content| Some(content.to_vec())));
        drop(dir);
        let disk = disk.after_cut(crate::store::sim::Crash::Lost);
        let dir = open(&disk);
        assert_eq!(both(&dir), expected.map(|content| Some(content.to_vec())), "on the medium");
        assert!(!disk.is_one_file(&file("state"), &file("state.prev")).unwrap());
        disk.plan(None);
        assert_eq!(repair(&dir, pair).unwrap(), Repaired::Nothing);
        assert_eq!(writes(&disk), 0);
    }
    let disk = disk();
    let dir = open(&disk);
    disk.plan(None);
    assert_eq!(repair(&dir, Pair::Successive).unwrap(), Repaired::Nothing, "what it is and what it was");
    assert_eq!((writes(&disk), both(&dir)), (0, [Some(b"two".to_vec()), Some(b"one".to_vec())]));
}

#[test]
fn a_repair_that_is_stopped_at_any_step_by_any_fault_leaves_what_was_good() {
    let mut count = 0;
    for (template, pair, expected) in broken() {
        let trial = template.copy();
        let dir = open(&trial);
        trial.plan(None);
        repair(&dir, pair).unwrap();
        let steps = trial.steps();
        let reads = steps.iter().position(|step| *step == StepKind::Remove).unwrap();
        let faults = Fault::all().into_iter().chain([Fault::BAD_SECTOR]);
        for (fault, at) in faults.flat_map(|fault| (0..steps.len()).map(move |at| (fault, at))) {
            // The only good copy on a bad sector is gone.
            let is_the_end = fault == Fault::BAD_SECTOR && at < reads;
            if !fault.fits(steps[at]) || is_the_end {
                continue;
            }
            let disk = template.copy();
            let dir = open(&disk);
            disk.plan(Some((at, fault)));
            let done = repair(&dir, pair).is_ok();
            drop(dir);
            for disk in disk.outcomes(fault) {
                count += 1;
                let dir = open(&disk);
                let what = format!("{pair:?} step {at}, {fault:?}");
                let parse = |_, bytes: &[u8]| if bytes == b"refused" { Err(Refused) } else { Ok(bytes.to_vec()) };
                let found = dir.load("state", Kind::State, parse).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_eq!(found.value, expected[0], "{what}");
                assert!(!done || fault.fits(StepKind::Read) || both(&dir).iter().all(Option::is_some), "{what}");
                repair(&dir, pair).unwrap();
                assert_eq!(both(&dir), expected.map(|content| Some(content.to_vec())), "{what}");
                dir.sweep("").unwrap();
                assert_eq!(disk.files().len(), 3, "{what}: lock and two generations");
            }
        }
    }
    assert!(count > 1000, "{count}");
}

#[test]
fn what_is_not_lost_is_not_repaired() {
    for failure in [Failure::Denied, Failure::NoDescriptor] {
        for at in [0, 1] {
            let disk = disk();
            let dir = open(&disk);
            disk.plan(Some((at, Fault::Error(failure, Extent::Once))));
            repair(&dir, Pair::Successive).unwrap_err();
            assert_eq!(writes(&disk), 0);
            assert_eq!(both(&dir), [Some(b"two".to_vec()), Some(b"one".to_vec())]);
        }
    }
    // Nothing to make it from.
    let disk = disk();
    for name in ["state", "state.prev"] {
        disk.scribble(&file(name), Some(b"NODESEAL torn".to_vec()));
    }
    let dir = open(&disk);
    assert!(matches!(repair(&dir, Pair::Alike), Err(LoadError::Store(StoreError::Damaged { .. }))));
}

#[test]
fn a_file_of_an_earlier_release_is_repaired_as_it_is() {
    let disk = disk();
    let mut bytes = container::wrap(Kind::State, b"abc");
    bytes[9] = 1;
    let body = bytes.len() - 32;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes[..body]);
    bytes[body..].copy_from_slice(&digest);
    disk.scribble(&file("state.prev"), Some(bytes.clone()));
    disk.scribble(&file("state"), None);
    let dir = open(&disk);
    assert_eq!(repair(&dir, Pair::Successive).unwrap(), Repaired::Anew(Generation::Newest));
    assert_eq!(disk.read(&file("state")).unwrap(), bytes);
}
