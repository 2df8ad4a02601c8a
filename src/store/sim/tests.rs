use super::*;

fn disk_with_a_synced_file() -> SimDisk {
    let disk = SimDisk::default();
    let (dir, file) = (Path::new("/dir"), Path::new("/dir/old"));
    disk.make_dir(dir).unwrap();
    disk.write_new(file, b"old").unwrap();
    disk.sync_file(file).unwrap();
    disk.sync_dir(dir).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn found(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.files().into_iter().map(|(path, bytes)| (path.to_str().unwrap().to_owned(), bytes)).collect()
}

#[test]
fn what_was_synced_outlives_every_crash() {
    let disk = disk_with_a_synced_file();
    for crash in Crash::ALL {
        assert_eq!(found(&disk.after_cut(crash)), [("/dir/old".to_owned(), b"old".to_vec())], "{crash:?}");
    }
}

#[test]
fn what_was_not_synced_is_lost_kept_or_spoilt_as_the_crash_has_it() {
    let disk = disk_with_a_synced_file();
    let content: Vec<u8> = (0..600_u16).map(|n| n.to_le_bytes()[0]).collect();
    disk.write_new(Path::new("/dir/new"), &content).unwrap();
    disk.rename(Path::new("/dir/old"), Path::new("/dir/moved")).unwrap();
    let names = |crash| found(&disk.after_cut(crash)).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let new =
        |crash| found(&disk.after_cut(crash)).into_iter().find(|(name, _)| name == "/dir/new").map(|(_, bytes)| bytes);
    assert_eq!(names(Crash::Lost), ["/dir/old"]);
    assert_eq!(names(Crash::Kept), ["/dir/moved", "/dir/new"]);
    // New file, new name, old name gone: the first and the last of them.
    assert_eq!(names(Crash::Even), ["/dir/new"]);
    assert_eq!(names(Crash::Odd), ["/dir/moved", "/dir/old"]);
    assert_eq!(new(Crash::Kept), Some(content.clone()));
    assert_eq!(new(Crash::Empty), Some(Vec::new()));
    assert_eq!(new(Crash::Torn), Some(content[..512].to_vec()));
    let garbage = new(Crash::Garbage).unwrap();
    assert!(garbage.len() == 600 && garbage[..512] == content[..512] && garbage[512..] != content[512..]);
}

#[test]
fn a_sync_counts_only_when_it_was_finished_and_only_for_what_it_names() {
    let disk = disk_with_a_synced_file();
    let new = Path::new("/dir/new");
    disk.write_new(new, b"new").unwrap();
    disk.sync_file(new).unwrap();
    assert_eq!(found(&disk.after_cut(Crash::Lost)).len(), 1, "the name is not on the medium");
    disk.plan(Some((0, Fault::Cut)));
    assert!(disk.sync_dir(Path::new("/dir")).is_err());
    assert!(disk.was_struck());
    assert!(disk.read(new).is_err(), "the process is gone");
    assert_eq!(found(&disk.after_cut(Crash::Lost)).len(), 1);
}

#[test]
fn a_disk_that_fails_does_what_its_fault_says_and_no_more() {
    let disk = disk_with_a_synced_file();
    let (one, two) = (Path::new("/dir/one"), Path::new("/dir/two"));
    disk.plan(Some((1, Fault::Error(Failure::NoSpaceInPart, Extent::FromThenOn))));
    disk.read(Path::new("/dir/old")).unwrap();
    for file in [one, two] {
        let error = disk.write_new(file, b"content").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32));
        assert_eq!(disk.read(file).unwrap(), b"con");
    }
    disk.remove(one).unwrap();
    disk.plan(Some((0, Fault::Error(Failure::IoThoughDone, Extent::Once))));
    assert!(disk.rename(two, one).is_err());
    assert_eq!(disk.read(one).unwrap(), b"con");
    disk.plan(None);
    disk.remove(one).unwrap();
    assert_eq!(found(&disk.after_cut(Crash::Lost)).len(), 1);
}

#[test]
fn a_disk_without_room_for_large_files_takes_small_ones() {
    let disk = disk_with_a_synced_file();
    disk.plan(Some((0, Fault::Error(Failure::NoSpaceAbove(3), Extent::FromThenOn))));
    disk.write_new(Path::new("/dir/small"), b"abc").unwrap();
    let error = disk.write_new(Path::new("/dir/large"), b"abcd").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32));
    assert_eq!(disk.newest(Path::new("/dir")).as_deref(), Some("small"));
}

#[test]
fn a_full_disk_takes_as_much_as_was_removed() {
    let disk = disk_with_a_synced_file();
    disk.fill();
    let (old, new) = (Path::new("/dir/old"), Path::new("/dir/new"));
    assert!(disk.write_new(new, b"new").is_err());
    disk.link(old, Path::new("/dir/other")).unwrap();
    disk.remove(old).unwrap();
    assert!(disk.write_new(new, b"new").is_err(), "the other name holds the block");
    disk.remove(Path::new("/dir/other")).unwrap();
    disk.write_new(new, b"new").unwrap();
    assert!(disk.write_new(old, b"old").is_err());
}

#[test]
fn one_owner_has_the_lock_until_it_is_gone() {
    let disk = disk_with_a_synced_file();
    let path = Path::new("/dir/lock");
    let lock = disk.lock(path).unwrap();
    assert!(lock.is_some() && disk.lock(path).unwrap().is_none());
    drop(lock);
    assert!(disk.lock(path).unwrap().is_some());
}

/// A disk that somebody else made in his own way, and this one.
#[test]
fn two_disks_are_alike_however_they_came_to_be() {
    let one = disk_with_a_synced_file();
    let other = disk_with_a_synced_file();
    assert_eq!(one.digest(), other.digest());
    // A file that is no more, and a plan.
    let gone = Path::new("/dir/gone");
    other.write_new(gone, b"gone").unwrap();
    other.remove(gone).unwrap();
    assert_ne!(one.digest(), other.digest(), "the medium has not seen it go");
    other.sync_dir(Path::new("/dir")).unwrap();
    other.plan(Some((3, Fault::Cut)));
    assert_eq!(one.digest(), other.digest());
}

#[test]
fn disks_that_can_go_different_ways_are_not_alike() {
    fn dir() -> &'static Path {
        Path::new("/dir")
    }
    fn old() -> &'static Path {
        Path::new("/dir/old")
    }
    fn new() -> &'static Path {
        Path::new("/dir/new")
    }
    type Change = fn(&SimDisk);
    let changes: [(&str, Change); 9] = [
        ("nothing", |_| {}),
        ("a name that is not synced", |disk| disk.link(old(), new()).unwrap()),
        ("the same name on the medium", |disk| {
            disk.link(old(), new()).unwrap();
            disk.sync_dir(dir()).unwrap();
        }),
        ("another file of the same content", |disk| {
            disk.write_new(new(), b"old").unwrap();
            disk.sync_file(new()).unwrap();
            disk.sync_dir(dir()).unwrap();
        }),
        ("the same without its content", |disk| {
            disk.write_new(new(), b"old").unwrap();
            disk.sync_dir(dir()).unwrap();
        }),
        ("a bad sector", |disk| disk.spoil(old())),
        ("no room", |disk| disk.leave_room(0)),
        ("no free block", |disk| disk.fill()),
        ("another content", |disk| disk.scribble(old(), Some(b"new".to_vec()))),
    ];
    let digests: BTreeSet<[u8; 32]> = changes
        .iter()
        .map(|(_, change)| {
            let disk = disk_with_a_synced_file();
            change(&disk);
            disk.digest()
        })
        .collect();
    assert_eq!(digests.len(), changes.len());
}

/// [`SimDisk::newest`] tells them apart.
#[test]
fn the_order_in_which_two_files_were_made_is_part_of_a_disk() {
    let made = |names: [&str; 2]| {
        let disk = disk_with_a_synced_file();
        names.iter().for_each(|name| disk.write_new(&Path::new("/dir").join(name), b"").unwrap());
        disk.sync_dir(Path::new("/dir")).unwrap();
        disk.digest()
    };
    assert_ne!(made(["a", "b"]), made(["b", "a"]));
}
