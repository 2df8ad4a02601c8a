//! What the kernel says of a process, and patience.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Polls until there is something; after the limit the test fails with this sentence.
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "within {limit:?} it did not come that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program of this name as it was built with this test: cargo puts both into one folder, the test into `deps` of it.
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is not there: build the programs, as `cargo test --test` does", path.display());
    path
}

/// What to start for this program of the build. NODESEAL_PROGRAMS names a folder with others in their places: the recorders of
/// `make seccomp`.
pub fn program(built: impl AsRef<Path>) -> PathBuf {
    let built = built.as_ref();
    match std::env::var_os("NODESEAL_PROGRAMS") {
        Some(folder) => Path::new(&folder).join(built.file_name().unwrap()),
        None => built.to_owned(),
    }
}

/// A line of /proc/PID/status, in KiB where it is a size.
pub fn status_field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Resident memory in MiB.
pub fn resident_mib(pid: u32) -> u64 {
    status_field(pid, "VmRSS") / 1024
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub fn signal(pid: u32, signal: Signal) {
    // It may have ended on its own.
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// Processes with this file name whose command line holds this text, without zombies.
pub fn find(program: &str, text: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
            let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
            let name = Path::new(words[0].as_ref()).file_name().map(|name| name.to_string_lossy().into_owned());
            name.as_deref() == Some(program) && words.iter().any(|word| word.contains(text)) && is_alive(*pid)
        })
        .collect()
}

/// Lets this process open as many files as it may.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard >= 4096, "these tests need 4,096 descriptors: ulimit -Hn says {hard}");
}

/// Every file below a folder with its content.
pub fn snapshot(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Tells a scope's threads to stop when a test leaves it, also by a failure.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The folder of the node root that counts, as the file `current` of a state directory names it (docs/formats.md, "Current").
pub fn root_of(state: &std::path::Path) -> std::path::PathBuf {
    const NAME: std::ops::Range<usize> = 17..49;
    let current = std::fs::read(state.join("current")).unwrap();
    state.join("roots").join(std::str::from_utf8(&current[NAME]).unwrap())
}
