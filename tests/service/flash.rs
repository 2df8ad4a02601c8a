//! Writes to flash: none at rest, next to none under load. And a machine whose file system is read-only but for the state folder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::geteuid;
use test_support::client::{Answer, Client};
use test_support::node::Node;
use test_support::process::until;
use test_support::runtime;
use test_support::swtpm::Swtpm;

use crate::alone::{Alone, NODESEALD};

/// Everything that changes a file or a folder.
fn changes() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CLOSE_WRITE
}

/// Watches a folder with all that is in it.
struct Watch(Inotify);

impl Watch {
    fn on(root: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            inotify.add_watch(&folder, changes()).unwrap();
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(entries.filter(|path| path.is_dir()));
        }
        Self(inotify)
    }

    /// Kind and name of all that happened since the last look.
    fn seen(&self) -> Vec<(AddWatchFlags, String)> {
        let mut seen = Vec::new();
        while let Ok(events) = self.0.read_events() {
            let name = |name: Option<std::ffi::OsString>| name.unwrap_or_default().to_string_lossy().into_owned();
            seen.extend(events.into_iter().map(|event| (event.mask, name(event.name))));
        }
        seen
    }
}

/// Bytes that the process has caused to be written to a disk, of all its life.
fn written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

/// Many at once, as fast as they are answered.
fn encrypt(client: &Client, count: usize) {
    const AT_ONCE: usize = 100;
    for _ in 0..count / AT_ONCE {
        let calls: Vec<_> =
            (0..AT_ONCE).map(|_| runtime::shared().spawn(client.clone().encrypting(vec![7; 32]))).collect();
        for call in calls {
            let answer: Answer<_> = runtime::shared().block_on(call).unwrap();
            answer.unwrap();
        }
    }
}

#[test]
fn at_rest_nothing_is_written_and_under_load_one_small_file_in_ten_thousand_encryptions_at_most() {
    const ENCRYPTIONS: usize = 40_000;
    let node = Node::start();
    let client = node.client();
    let programs = ["nodeseald", "nodeseal-sealer"].map(|program| node.pid(program));
    // Lines are written beside the calls, in their order: this is the last one of a start.
    until(Duration::from_secs(10), "the start is told", || node.log().contains("seal.opened").then_some(()));
    let state = Watch::on(&node.state());
    // A log line is a write too; nobody owes one for what goes well.
    let log = Watch::on(&node.dir().join("log"));
    let before = programs.map(written);
    for _ in 0..100 {
        client.status().unwrap();
    }
    for _ in 0..3 {
        node.ask(&["status", "--probe"]);
        node.ask(&["metrics"]);
    }
    assert_eq!((state.seen(), log.seen()), (vec![], vec![]));
    assert_eq!(programs.map(written), before);

    encrypt(&client, ENCRYPTIONS);
    // The answer to a question comes after what was asked of the keeper before it.
    node.ask(&["keys", "list"]);
    let events = state.seen();
    // Each file is written once, under another name, and takes its place by a rename.
    let files = events.iter().filter(|(kind, _)| kind.contains(AddWatchFlags::IN_CLOSE_WRITE));
    let files: Vec<_> = files.map(|(_, name)| name.as_str()).collect();
    let bytes: u64 = programs.map(written).iter().sum::<u64>() - before.iter().sum::<u64>();
    eprintln!("FIGURE: {ENCRYPTIONS} encryptions: {files:?} written, {bytes} bytes to the disk");
    assert!((1..=ENCRYPTIONS / 10_000).contains(&files.len()), "{events:?}");
    assert!(files.iter().all(|name| *name == "state.new"), "{events:?}");
    let size = fs::metadata(node.root().join("state")).unwrap().len();
    assert!(size < 4096, "{size} bytes");
    // The process makes one write of some hundred bytes for each. The kernel counts with it what the file system notes of its own: one
    // page was seen, and ten while others wrote to it. A write for each encryption, wherever to, would be far more than this.
    assert!(bytes < ENCRYPTIONS as u64 * 8, "{bytes} bytes in {files:?}");
    // So that an empty list is known to mean something.
    node.rotate_and_activate();
    assert!(!state.seen().is_empty() && !log.seen().is_empty());
}

#[test]
fn on_a_read_only_system_it_needs_one_writable_folder_and_one_for_its_sockets() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root makes a file system read-only");
        return;
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    assert_eq!(alone.stop(), 0);
    // Its own view of the mounts: the state and the sockets as they are, all else read-only.
    let script = "set -e
        for folder in \"$1/state\" \"$1/run\"; do mount --bind \"$folder\" \"$folder\"; done
        for mount in / $(findmnt -nT \"$1\" -o TARGET); do mount -o remount,bind,ro \"$mount\"; done
        if touch \"$1/probe\" 2>/dev/null; then echo 'it can be written to' >&2; exit 9; fi
        shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(alone.home());
    command.args([NODESEALD, "--config"]).arg(alone.config());
    alone.spawn(&mut command);
    let client = alone.wait_until_ready();
    let stored = client.store().unwrap();
    for verb in [&["keys", "rotate"][..], &["reseal"]] {
        let output = alone.tool(verb);
        assert_eq!(output.code, 0, "{output:?}");
    }
    client.assert_opens(&stored);
    assert_eq!(alone.stop(), 0);
    // What it wrote there is there.
    until(Duration::from_secs(10), "the lock is free", || {
        alone.tool(&["status"]).err.contains("cannot talk").then_some(())
    });
    alone.start().assert_opens(&stored);
}
