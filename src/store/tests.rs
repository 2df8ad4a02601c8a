use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;

use super::*;
use crate::types::{Explained, Owner};
use nix::errno::Errno;

/// Lets the n-th step fail, and every later one too, as after a power cut; counts the steps on the way.
struct Failing<'a> {
    steps_left: &'a Cell<usize>,
    log: &'a RefCell<Vec<&'static str>>,
    torn: bool,
}

impl Failing<'_> {
    fn step(&self, name: &'static str) -> io::Result<()> {
        self.log.borrow_mut().push(name);
        match self.steps_left.get().checked_sub(1) {
            Some(left) => {
                self.steps_left.set(left);
                Ok(())
            }
            None => Err(io::Error::from_raw_os_error(nix::libc::EIO)),
        }
    }
}

impl Disk for Failing<'_> {
    type Lock = <RealDisk as Disk>::Lock;

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        RealDisk.lock(path)
    }
    fn exposure(&self, path: &Path) -> io::Result<Option<Exposure>> {
        RealDisk.exposure(path)
    }
    fn owner(&self, path: &Path) -> Owner {
        RealDisk.owner(path)
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        RealDisk.size(path)
    }
    fn is_one_file(&self, a: &Path, b: &Path) -> io::Result<bool> {
        RealDisk.is_one_file(a, b)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.step("make_dir").and_then(|()| RealDisk.make_dir(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.step("write_new").is_err() {
            if self.torn {
                RealDisk.write_new(path, &bytes[..bytes.len() / 2])?;
            }
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        RealDisk.write_new(path, bytes)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step("sync_file").and_then(|()| RealDisk.sync_file(path))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step("sync_dir").and_then(|()| RealDisk.sync_dir(path))
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("link").and_then(|()| RealDisk.link(from, to))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename").and_then(|()| RealDisk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove").and_then(|()| RealDisk.remove(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step("remove").and_then(|()| RealDisk.remove_dir(path))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }
}

fn content<D: Disk>(dir: &StateDir<D>) -> Loaded<Vec<u8>> {
    dir.load("state", Kind::State, |_, bytes| Ok::<_, Infallible>(bytes.to_vec())).unwrap()
}

fn private_dir() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700)).tempdir().unwrap()
}

#[test]
fn a_replacement_that_stops_at_any_step_leaves_the_old_or_the_new_content() {
    for torn in [false, true] {
        let mut completed = false;
        for steps in 0..64 {
            let temp = private_dir();
            let dir = StateDir::open(temp.path()).unwrap();
            dir.replace("state", Kind::State, b"first").unwrap();
            dir.replace("state", Kind::State, b"old").unwrap();
            drop(dir);

            let (steps_left, log) = (Cell::new(steps), RefCell::default());
            let failing = StateDir::open_on(Failing { steps_left: &steps_left, log: &log, torn }, temp.path()).unwrap();
            completed = failing.replace("state", Kind::State, b"new").is_ok();
            drop(failing);

            let dir = StateDir::open(temp.path()).unwrap();
            let found = content(&dir);
            assert_eq!(found.generation, Generation::Newest, "stopped after {steps} steps {log:?}");
            assert!(found.value == b"old" || found.value == b"new", "stopped after {steps} steps {log:?}");
            assert!(!completed || found.value == b"new");
            dir.replace("state", Kind::State, b"newer").unwrap();
            assert_eq!(content(&dir).value, b"newer", "the next write succeeds after {steps} steps {log:?}");
            if completed {
                break;
            }
        }
        assert!(completed, "the loop has reached the last step");
    }
}

#[test]
fn a_damaged_newest_file_falls_back_and_never_becomes_the_previous_one() {
    let temp = private_dir();
    let dir = StateDir::open(temp.path()).unwrap();
    dir.replace("state", Kind::State, b"one").unwrap();
    dir.replace("state", Kind::State, b"two").unwrap();
    std::fs::write(temp.path().join("state"), b"NODESEAL torn").unwrap();
    let found = content(&dir);
    assert_eq!((found.value.as_slice(), found.generation), (&b"one"[..], Generation::Previous));

    dir.replace("state", Kind::State, b"three").unwrap();
    std::fs::remove_file(temp.path().join("state")).unwrap();
    assert_eq!(content(&dir).value, b"one", "the damaged file was not kept as the previous generation");
}

/// Every kind, each named by the one before it, so that the compiler asks for a new one.
fn kinds() -> Vec<Kind> {
    let next = |kind: &Kind| match kind {
        Kind::HostSecret => Some(Kind::NodeRoot),
        Kind::NodeRoot => Some(Kind::LocalKek),
        Kind::LocalKek => Some(Kind::State),
        Kind::State => Some(Kind::InitMarker),
        Kind::InitMarker => Some(Kind::Recovery),
        Kind::Recovery => Some(Kind::BundleRequest),
        Kind::BundleRequest => Some(Kind::Credential),
        Kind::Credential => Some(Kind::Wraps),
        Kind::Wraps => Some(Kind::Current),
        Kind::Current => Some(Kind::Member),
        Kind::Member => Some(Kind::Evidence),
        Kind::Evidence => None,
    };
    std::iter::successors(Some(Kind::HostSecret), next).collect()
}

fn set_version(file: &Path, version: u8) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[9] = version;
    let body = bytes.len() - 32;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes[..body]);
    bytes[body..].copy_from_slice(&digest);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_file_of_a_later_release_is_refused_and_not_passed_over_and_one_of_an_earlier_release_is_read() {
    for kind in kinds() {
        let temp = private_dir();
        let dir = StateDir::open(temp.path()).unwrap();
        let file = temp.path().join("file");
        dir.replace("file", kind, b"one").unwrap();
        dir.replace("file", kind, b"two").unwrap();
        let load = || dir.load("file", kind, |version, bytes| Ok::<_, Infallible>((version, bytes.to_vec())));
        let newest = load().unwrap().value.0;
        for version in 1..=newest {
            set_version(&file, version);
            assert_eq!(load().unwrap().value, (version, b"two".to_vec()), "{kind:?}");
        }
        set_version(&file, newest + 1);
        let error = load().err().unwrap();
        let LoadError::Store(error @ StoreError::Newer { version, .. }) = error else { panic!("{kind:?}: {error}") };
        assert!(version == newest + 1 && error.hint().contains("install the release that wrote it"), "{kind:?}");
    }
}

#[test]
fn a_second_owner_and_an_open_directory_are_refused() {
    let temp = private_dir();
    let _first = StateDir::open(temp.path()).unwrap();
    assert!(matches!(StateDir::open(temp.path()), Err(StoreError::InUse { .. })));

    let open =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o750)).tempdir().unwrap();
    assert!(matches!(StateDir::open(open.path()), Err(StoreError::Insecure { .. })));
}

/// In a mount namespace of this thread alone; only root may.
pub(super) fn on_tmpfs(options: &str, test: impl FnOnce(&Path)) {
    use nix::mount::{MsFlags, mount};
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount");
        return;
    }
    let (temp, none) = (private_dir(), None::<&str>);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), temp.path(), Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    test(temp.path());
    nix::mount::umount2(temp.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn what_the_kernel_refuses_is_told_with_the_command_that_gives_it_back() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let temp = private_dir();
    std::os::unix::fs::chown(temp.path(), Some(1), Some(1)).unwrap();
    let error = StateDir::open(temp.path()).err().unwrap();
    assert!(matches!(error, StoreError::Insecure { reason: Exposure::OfAnother { .. }, .. }), "{error}");
    assert!(error.to_string().contains("and this runs as root") && error.hint().contains("[sandbox]"), "{error}");
    let denied = failure(&RealDisk, temp.path(), "read", &temp.path().join("state"), Errno::EACCES.into());
    let owner = RealDisk.owner(temp.path()).for_chown();
    assert!(denied.to_string().ends_with(&format!("chown -R {owner} {}", temp.path().display())), "{denied}");
    assert!(denied.hint().contains("as root") && !denied.is_lost());
}

#[test]
fn each_error_of_the_kernel_has_its_own_remedy() {
    let error = |errno: Errno| StoreError::io("read", Path::new("/state/state"), errno.into());
    for (errno, word, is_lost) in [
        (Errno::EIO, "replace the disk", true),
        (Errno::EUCLEAN, "replace the disk", true),
        (Errno::ENOENT, "mount the file system of state_dir", true),
        (Errno::ENOSPC, "free space", false),
        (Errno::EDQUOT, "free space", false),
        (Errno::EROFS, "read-only", false),
        (Errno::EMFILE, "open files", false),
        (Errno::ENOMEM, "free memory", false),
        (Errno::ELOOP, "symbolic link", false),
    ] {
        let error = error(errno);
        assert!(error.hint().contains(word), "{errno}: {}", error.hint());
        assert_eq!(error.is_lost(), is_lost, "{errno}");
        assert_eq!(error.is_full(), word == "free space", "{errno}");
        assert_eq!(error.is_read_only(), word == "read-only", "{errno}");
    }
}

#[test]
fn what_could_not_be_read_back_is_refused_before_it_takes_the_place_of_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("state")).unwrap();
    state.replace_both("state", Kind::State, b"whole").unwrap();
    assert!(state.replace("state", Kind::State, &vec![0; container::PAYLOAD_MAX_BYTES + 1]).is_err());
    let both = state.examine("state", Kind::State, |_, bytes| Ok::<_, ()>(bytes.to_vec()));
    assert_eq!(both.newest.ok(), Some(b"whole".to_vec()), "the newest generation is gone");
}
