//! Ends what an earlier `nodeseal dev` of the same folder left running when it was killed with SIGKILL.
//!
//! Only our own user's processes of our three programs whose command line names this very folder; the folder's lock is held.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAMS: [&str; 3] = ["nodeseald", "nodeseal-sealer", "swtpm"];
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn end(root: &Path) {
    let found = find(root);
    for pid in &found {
        // It may have ended on its own.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    let give_up = Instant::now() + TIMEOUT;
    while Instant::now() < give_up && find(root).iter().any(|pid| found.contains(pid)) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find(root: &Path) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| belongs(*pid, root))
        .collect()
}

fn belongs(pid: i32, root: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<&str> = line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let program = words.first().and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str());
    let config = root.join("nodeseal.toml").display().to_string();
    let state = format!("dir={},", root.join("tpm").display());
    program.is_some_and(|program| PROGRAMS.contains(&program))
        && words.iter().any(|word| *word == config || word.starts_with(&state))
}
