//! What the kernel says of the confinement of the running daemons, and what follows from it for the operator.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use test_support::node::Node;
use test_support::process::{find, program, signal, until};
use test_support::swtpm::Swtpm;

use crate::alone::{Alone, NODESEALD};

/// Fields of /proc/PID/task/*/status, of every thread.
fn of_threads(pid: u32, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    status.map(value).collect()
}

fn assert_confined(pid: u32, threads: usize) {
    for (field, expected) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        let values = of_threads(pid, field);
        assert!(values.len() >= threads, "{field}: {values:?}");
        // The bounding set is root's to empty, and without rights to bound it is nothing.
        if field != "CapBnd" || geteuid().is_root() {
            assert!(values.iter().all(|value| value == expected), "{field} of {pid}: {values:?}");
        }
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn every_thread_of_both_daemons_is_confined_and_status_and_log_say_how() {
    let node = Node::start();
    node.client().store().unwrap();
    // API, keeper, control, files, and one that answers.
    assert_confined(node.pid("nodeseald"), 4);
    assert_confined(node.pid("nodeseal-sealer"), 1);
    let sandbox = node.ask(&["status"])["sandbox"].clone();
    assert_eq!(sandbox["landlock"], "full", "{sandbox}");
    assert_eq!(sandbox["seccomp"], "nodeseald", "{sandbox}");
    assert_eq!(sandbox["no_capabilities"], true, "{sandbox}");
    assert!(sandbox["landlock_abi"].as_u64().unwrap() >= 6, "{sandbox}");
    let text = node.tool(&["status"]).out;
    assert!(text.contains("landlock full (ABI ") && text.contains("seccomp nodeseald"), "{text}");
    let logs = node.logs();
    for program in ["program=\"nodeseald\"", "program=\"nodeseal-sealer\""] {
        let is_told = |line: &str| line.contains("sandbox.applied") && line.contains(program);
        assert!(logs.lines().any(is_told), "{program}: {logs}");
    }
}

#[test]
fn without_a_supervisor_who_starts_sealers_is_confined_too_and_ends_with_the_daemon() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.extra = "sandbox.mode = \"require\"".into();
    alone.write_config(&tpm);
    let stored = alone.start().store().unwrap();
    assert_confined(alone.pid(), 4);
    let home = alone.home().display().to_string();
    let starters = find("nodeseal-sealer", &home);
    assert_eq!(starters.len(), 1, "one starter, and no sealer at rest");
    assert_confined(starters[0], 1);
    // A new question is answered: the device is reached by a process that the confined one did not start.
    assert_eq!(alone.tool(&["reseal"]).code, 0);
    alone.kill();
    until(Duration::from_secs(5), "the starter ends", || find("nodeseal-sealer", &home).is_empty().then_some(()));
    alone.start().assert_opens(&stored);
    // Its loss is told and ends nothing: the keys are in memory.
    signal(find("nodeseal-sealer", &home)[0], Signal::SIGKILL);
    let client = alone.client();
    client.assert_opens(&stored);
    alone.tool(&["reseal"]).assert_refused(69);
    assert_eq!(alone.stop(), 0);
    alone.start().assert_opens(&stored);
}

#[test]
fn root_becomes_the_configured_user_with_no_group_that_it_does_not_need() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can change its user");
        return;
    }
    let user = User::from_name("daemon").unwrap().expect("every Linux has a user `daemon`");
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    fs::set_permissions(alone.home(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir(alone.state()).unwrap();
    alone.extra = "sandbox = { user = \"daemon\", mode = \"require\" }".into();
    alone.write_config(&tpm);
    let programs = alone.copy_programs();
    // The operator is root, and what the tool makes is the service's.
    let tool = |alone: &Alone, script: &str| {
        let status = Command::new("sh")
            .args(["-euc", script, programs.join("nodeseal").to_str().unwrap()])
            .env("NODESEAL_CONFIG", alone.config())
            .status();
        assert!(status.unwrap().success(), "{script}");
    };
    tool(&alone, "$0 init --no-recovery");
    tool(&alone, "echo secret | $0 credentials seal login");
    tool(&alone, "$0 reseal --recovery-code");
    tool(&alone, "$0 rotate-root");
    let owner = |path: &Path| path.metadata().map(|meta| (meta.uid(), meta.gid())).unwrap();
    for file in ["node/root.seal", "state", "credentials/login.cred"] {
        assert_eq!(owner(&alone.root().join(file)), (user.uid.as_raw(), user.gid.as_raw()), "{file}");
    }
    for file in ["", "lock", "current", "roots", "recovery.age"] {
        assert_eq!(owner(&alone.state().join(file)), (user.uid.as_raw(), user.gid.as_raw()), "{file}");
    }
    let start = |alone: &mut Alone| {
        let config = alone.config();
        alone.spawn(Command::new(programs.join("nodeseald")).arg("--config").arg(config));
        alone.wait_until_ready()
    };
    let stored = start(&mut alone).store().unwrap();
    let uids = |pid| of_threads(pid, "Uid");
    let uid = user.uid.as_raw();
    for pid in find("nodeseal-sealer", &alone.home().display().to_string()).into_iter().chain([alone.pid()]) {
        assert!(uids(pid).iter().all(|uids| *uids == format!("{uid} {uid} {uid} {uid}")), "{:?}", uids(pid));
        let groups = of_threads(pid, "Groups");
        assert!(groups.iter().all(|groups| *groups == user.gid.to_string()), "{groups:?}");
        assert_confined(pid, 1);
    }
    assert_eq!(alone.tool(&["keys", "rotate"]).code, 0);
    alone.kill();
    start(&mut alone).assert_opens(&stored);
    // One that runs as a third user is not what was asked for.
    alone.kill();
    alone.extra = "sandbox.user = \"nobody-of-this-name\"".into();
    alone.write_config(&tpm);
    alone.run_another(&alone.config()).assert_refused(78);
}

#[test]
fn run_by_root_nothing_is_set_up_where_nobody_is_to_own_it() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root has no directory of its own");
        return;
    }
    if User::from_name("nodeseal").unwrap().is_some() {
        eprintln!("SKIPPED: this machine has the user of the packages, for whom the directory is made");
        return;
    }
    let tpm = Swtpm::start();
    let alone = Alone::prepare(&tpm);
    fs::remove_dir(alone.state()).unwrap();
    let refused = alone.tool(&["init", "--no-recovery"]);
    refused.assert_refused(77);
    let command = format!("install -d -m 0700 -o USER -g USER {}", alone.state().display());
    assert!(refused.err.contains(&command), "{refused:?}");
    assert!(!alone.state().exists(), "nothing of root's is left behind");
}

#[test]
fn a_file_of_root_in_the_directory_is_no_damage_and_is_told_with_its_remedy() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root leaves such files");
        return;
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare_for(&tpm, 1);
    let state = alone.state();
    let script = format!(
        "install -d -m 0700 -o 1 -g 1 {0} && {1} init --no-recovery",
        state.display(),
        alone.nodeseal().display()
    );
    let status = Command::new("sh").args(["-ec", &script]).env("NODESEAL_CONFIG", alone.config()).status();
    assert!(status.unwrap().success());
    let key_id = alone.start().status().unwrap().key_id;
    assert_eq!(alone.tool(&["keys", "rotate"]).code, 0, "both generations, of which the older one lacks a key");
    let keys = alone.tool(&["keys", "list", "--json"]).json();
    let active = keys["keys"].as_array().unwrap().iter().find(|key| key["state"] == "active").unwrap()["id"].clone();
    assert_eq!(alone.stop(), 0);
    let root = alone.root();
    let kek = root.join(format!("keyring/{}.kek", active.as_str().unwrap()));
    for file in [root.join("state"), kek, state.join("current"), root.join("keyring"), root] {
        std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
        alone.forget_log();
        alone.start_locked();
        let event = alone.await_event("seal.refused", "chown -R");
        let error = event["error"].as_str().unwrap();
        assert!(error.contains(&format!("chown -R daemon: {}: ", state.display())), "{error}");
        assert!(alone.events("state.fell_back").is_empty() && alone.events("key.created").is_empty());
        assert!(Command::new("chown").args(["-R", "daemon:"]).arg(&state).status().unwrap().success());
        assert_eq!(alone.wait_until_ready().status().unwrap().key_id, key_id, "by itself, with the same key");
        assert_eq!(alone.stop(), 0);
    }
}

#[test]
fn a_supervisor_is_told_when_the_keys_are_open_and_of_life_reload_and_stop() {
    for name in ["path", "abstract"] {
        let mut tpm = Swtpm::start();
        let mut alone = Alone::set_up(&tpm);
        let path = alone.home().join("notify");
        let (listener, address) = if name == "path" {
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string())
        } else {
            let own = format!("nodeseal-notify-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&own).unwrap();
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{own}"))
        };
        listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let next = || {
            let mut bytes = [0; 512];
            let length = listener.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        let begins = |word: &str| loop {
            let said = next();
            if said.starts_with(word) {
                return said;
            }
            assert!(said.starts_with("WATCHDOG=1") || said.starts_with("STATUS="), "{said} before {word}");
        };
        // With the TPM away the keys stay closed, and nobody says that it is ready.
        tpm.cut_power();
        let mut command = Command::new(program(NODESEALD));
        command.arg("--config").arg(alone.config());
        command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "200000");
        alone.spawn(&mut command);
        begins("STATUS=opening the keys");
        let closed = Instant::now();
        let mut signs = 0;
        while closed.elapsed() < Duration::from_millis(500) {
            assert_eq!(next(), "WATCHDOG=1", "alive, and not ready");
            signs += 1;
        }
        assert!(signs <= 7, "twice in the time that the supervisor waits, and not {signs} times in half a second");
        tpm.power_on();
        alone.write_config(&tpm);
        assert!(begins("READY=1").contains("\nSTATUS=answering with ns1-"));
        signal(alone.pid(), Signal::SIGHUP);
        let reloading = begins("RELOADING=1\nMONOTONIC_USEC=");
        let micros = reloading.lines().nth(1).unwrap().split_once('=').unwrap().1;
        assert!(micros.parse::<u64>().unwrap() > 0, "{reloading}");
        begins("READY=1");
        // A process that does not run says nothing, so that its supervisor ends it.
        signal(alone.pid(), Signal::SIGSTOP);
        listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut bytes = [0; 512];
        let stopped = Instant::now();
        while listener.recv(&mut bytes).is_ok() {
            assert!(stopped.elapsed() < Duration::from_secs(2), "a stopped process gives signs of life");
        }
        listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        signal(alone.pid(), Signal::SIGCONT);
        signal(alone.pid(), Signal::SIGTERM);
        begins("STOPPING=1");
        until(Duration::from_secs(10), "it ends", || alone.exit_code());
    }
}
