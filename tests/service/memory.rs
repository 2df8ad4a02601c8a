//! Keys looked for from outside, as root, in all memory of the running daemons: they are in no page that can be read. The same on a
//! kernel that refuses secret pages: then they are in locked pages and nowhere else.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, geteuid};
use nodeseal::keyring::Home;
use nodeseal::keyring::recovery::{self, Identity};
use nodeseal::sandbox::Protection;
use nodeseal::sandbox::memory::LockedKey;
use nodeseal::seal::client::SealerClient;
use nodeseal::seal::root::NodeRoot;
use nodeseal::store::StateDir;
use nodeseal::types::{Key, hex};
use test_support::client::Client;
use test_support::process::{descriptors, until};
use test_support::scan::{Mapping, Needles, Seen, search, summary};
use test_support::swtpm::Swtpm;

use crate::alone::{Alone, NODESEALD};

const SEALER: &str = env!("CARGO_BIN_EXE_nodeseal-sealer");

/// The bytes of a container file (docs/formats.md): magic, kind, version, algorithm, length; then the payload.
const PAYLOAD: std::ops::Range<usize> = 15..47;

const EIO: i32 = 5;
const ENOSYS: u32 = 38;

/// A node with a sealer that stays, so that it can be looked into, and with all that can be known of its keys.
struct Known {
    _tpm: Swtpm,
    alone: Alone,
    sealer: Child,
    identity: Identity,
    needles: Needles,
}

impl Known {
    fn new() -> Self {
        let tpm = Swtpm::start();
        let mut alone = Alone::prepare(&tpm);
        let socket = alone.home().join("run/sealer.sock");
        alone.extra = format!("seal.socket = {socket:?}");
        alone.write_config(&tpm);
        fs::create_dir(alone.home().join("run")).unwrap();
        let log = File::create(alone.home().join("sealer.log")).unwrap();
        let mut command = Command::new(SEALER);
        command.arg("--config").arg(alone.config()).env("TSS2_LOG", "all+NONE").env_remove("LISTEN_FDS");
        let sealer = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut known = Self { _tpm: tpm, alone, sealer, identity: Identity::generate(), needles: Needles::default() };
        until(Duration::from_secs(20), "the sealer listens", || socket.exists().then_some(()));
        let recipient = known.identity.recipient().to_string();
        let made = known.alone.tool(&["init", "--recovery-recipient", &recipient]);
        assert_eq!(made.code, 0, "{made:?}");
        known.learn_root(&socket);
        known.learn_keks();
        known
    }

    /// The node root's keys, and both halves that they are made from: asked of the sealer as the daemon asks.
    fn learn_root(&mut self, sealer: &Path) {
        let cluster = "alone".parse().unwrap();
        let dir = Home::find(StateDir::open(&self.alone.state()).unwrap()).unwrap().root;
        let (root, _) = NodeRoot::open(&dir, &SealerClient::Socket(sealer.to_owned())).unwrap();
        for (name, key) in [
            ("KEK wrapping key", root.kek_wrapping_key(&cluster)),
            ("credential key", root.credential_key(&cluster)),
            ("counter authorisation", root.counter_auth(&cluster)),
            ("state MAC key", root.state_mac_key(&cluster)),
            ("recovery signing seed", root.recovery_signing_seed(&cluster)),
        ] {
            self.needles.add(name, key.expose());
        }
        self.needles.add_aes("KEK wrapping key", root.kek_wrapping_key(&cluster).expose());
        self.needles.add("host secret", &fs::read(self.alone.root().join("node/host.key")).unwrap()[PAYLOAD]);
    }

    /// All KEKs of the recovery file, which is newer than every change of keys.
    fn learn_keks(&mut self) -> Vec<Key> {
        let file = fs::read(self.alone.state().join(recovery::FILE)).unwrap();
        let (export, _) = recovery::decrypt(&self.identity, &file).unwrap();
        for (id, key) in &export.keys {
            self.needles.add_aes(&format!("KEK {id}"), key.expose());
        }
        export.keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Thousands of calls, a rotation and a reseal, so that keys have been wherever they go.
    fn use_it(&mut self, client: &Client) {
        let stored = client.store().unwrap();
        let many = |client: &Client| {
            for _ in 0..1500 {
                client.assert_opens(&client.store().unwrap());
                client.decrypt_v1(&client.encrypt_v1(b"a DEK of version 1, 32 bytes....").unwrap()).unwrap();
            }
        };
        many(client);
        let made = self.alone.tool(&["keys", "rotate", "--json"]).json();
        let id = made["key"]["id"].as_str().unwrap().to_owned();
        assert_eq!(self.alone.tool(&["keys", "activate", &id]).code, 0);
        many(client);
        let resealed = self.alone.tool(&["reseal"]);
        assert_eq!(resealed.code, 0, "{resealed:?}");
        client.assert_opens(&stored);
        assert_eq!(self.learn_keks().len(), 2);
    }

    fn status(&self) -> serde_json::Value {
        self.alone.tool(&["status", "--json"]).json()
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let _ = self.sealer.kill();
        let _ = self.sealer.wait();
    }
}

fn is_root() -> bool {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root looks into other processes");
    }
    geteuid().is_root()
}

fn is_kernels(mapping: &Mapping) -> bool {
    ["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&mapping.name.as_str())
}

fn secret_pages(seen: &Seen) -> Vec<&(Mapping, i32)> {
    seen.refused.iter().filter(|(mapping, _)| mapping.name.contains("/secretmem")).collect()
}

#[test]
fn no_key_is_in_any_memory_of_the_daemons_that_root_can_read() {
    if !is_root() {
        return;
    }
    let mut known = Known::new();
    let client = known.alone.start();
    if known.status()["sandbox"]["memory"] != "secret" {
        eprintln!("SKIPPED: this kernel has no memfd_secret");
        return;
    }
    known.use_it(&client);
    // Known to be there, so that the search is known to look into this process.
    known.needles.add("control", client.status().unwrap().key_id.as_bytes());
    let pid = known.alone.pid();
    let daemon = search(pid, &known.needles);
    eprintln!("FIGURE: {} MiB of nodeseald searched", daemon.bytes >> 20);
    let found: Vec<_> = daemon.found.iter().filter(|(name, ..)| !name.starts_with("control")).collect();
    assert!(found.is_empty(), "{}", summary(found));
    assert!(daemon.found.len() > 1, "the key_id is in its memory");
    let sealer = search(known.sealer.id(), &known.needles);
    eprintln!("FIGURE: {} MiB of nodeseal-sealer searched", sealer.bytes >> 20);
    assert!(sealer.found.is_empty(), "{}", summary(&sealer.found));

    let secret = secret_pages(&daemon);
    assert!(secret.iter().any(|(mapping, error)| mapping.access.starts_with("rw") && *error == EIO), "{secret:?}");
    for (mapping, error) in &daemon.refused {
        assert!(mapping.name.contains("/secretmem") || is_kernels(mapping), "{mapping:?} gives error {error}");
    }
    for (mapping, _) in &secret {
        // Nor by the other ways in.
        let (start, end) = (mapping.start, mapping.end);
        let mut bytes = [0; 32];
        let from = [RemoteIoVec { base: usize::try_from(start).unwrap(), len: bytes.len() }];
        let read = process_vm_readv(Pid::from_raw(pid.try_into().unwrap()), &mut [IoSliceMut::new(&mut bytes)], &from);
        assert!(read.is_err(), "{mapping:?} by process_vm_readv");
        assert!(File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}")).is_err(), "{mapping:?} by map_files");
    }
    assert!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().all(|fd| {
        let target = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        !target.to_string_lossy().contains("secretmem")
    }));
    assert_kept_from_swap_and_dumps(pid, "/secretmem");
}

/// While a connection is open its buffers may hold what went through it last: those are HTTP/2's, and wiped when they are freed.
#[test]
fn a_seed_that_was_encrypted_and_decrypted_is_nowhere_once_its_connection_is_closed() {
    if !is_root() {
        return;
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let pid = alone.pid();
    let open = descriptors(pid);
    let client = alone.client();
    let stored = client.store().unwrap();
    let mut needles = Needles::default();
    needles.add("seed", &stored.plaintext);
    // How each text begins stays, so that the search is known to look into this process.
    needles.add("control", &stored.text[..16]);
    for _ in 0..100 {
        client.assert_opens(&stored);
        client.encrypt(&stored.plaintext).unwrap();
        assert_eq!(client.decrypt_v1(&client.encrypt_v1(&stored.plaintext).unwrap()).unwrap(), stored.plaintext);
    }
    drop(client);
    until(Duration::from_secs(10), "the connection is closed", || (descriptors(pid) <= open).then_some(()));
    let seen = search(pid, &needles);
    assert_eq!(seen.names(), ["control[0]"], "{}", summary(&seen.found));
}

/// Starts it as a kernel without memfd_secret would see it. The filter holds for this thread, and for what it starts.
fn start_without_secret_pages(alone: &mut Alone, shell: &str) -> Client {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            let filter = serde_json::json!({ "refuse": {
                "mismatch_action": "allow",
                "match_action": { "errno": ENOSYS },
                "filter": [{ "syscall": "memfd_secret" }],
            }});
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filters = seccompiler::compile_from_json(filter.to_string().as_bytes(), arch).unwrap();
            seccompiler::apply_filter(&filters["refuse"]).unwrap();
            let config = alone.config();
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{shell} exec \"$@\""), "sh", NODESEALD, "--config"]).arg(config);
            alone.spawn(&mut command);
        });
        started.join().unwrap();
    });
    alone.wait_until_ready()
}

#[test]
fn on_a_kernel_without_secret_pages_keys_are_in_locked_pages_and_nowhere_else() {
    if !is_root() {
        return;
    }
    let mut known = Known::new();
    let client = start_without_secret_pages(&mut known.alone, "");
    assert_eq!(known.status()["sandbox"]["memory"], "locked");
    assert!(known.alone.tool(&["status"]).out.contains("locked memory for keys"));
    known.use_it(&client);
    let pid = known.alone.pid();
    let seen = search(pid, &known.needles);
    let pages: Vec<u64> = locked(pid).iter().map(|mapping| mapping.start).collect();
    let (inside, outside): (Vec<_>, Vec<_>) =
        seen.found.iter().partition(|(_, _, mapping)| pages.contains(&mapping.start));
    assert!(outside.is_empty(), "{}", summary(outside));
    let keks = inside.iter().filter(|(name, ..)| name.starts_with("KEK ") && name.ends_with("expanded[0]")).count();
    assert_eq!(keks, 2, "both KEKs are there, so that the search is known to find them: {inside:#?}");
    assert!(secret_pages(&seen).is_empty());
    assert!(known.alone.events("memory.unlocked").is_empty());
    let applied = known.alone.events("sandbox.applied");
    assert!(applied.iter().any(|event| event["memory"] == "locked"), "{applied:?}");
    assert_kept_from_swap_and_dumps(pid, "");
}

#[test]
fn where_nothing_can_be_locked_it_serves_and_says_so() {
    if !is_root() {
        return;
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    // With secret pages as well: they count as locked.
    for refused in [true, false] {
        let client = if refused {
            start_without_secret_pages(&mut alone, "ulimit -l 0;")
        } else {
            let config = alone.config();
            let mut command = Command::new("sh");
            alone.spawn(command.args(["-c", "ulimit -l 0; exec \"$@\"", "sh", NODESEALD, "--config"]).arg(config));
            alone.wait_until_ready()
        };
        client.assert_opens(&client.store().unwrap());
        let status = alone.tool(&["status", "--json"]).json();
        assert_eq!(status["sandbox"]["memory"], "unlocked", "{status}");
        alone.await_event("memory.unlocked", "LimitMEMLOCK");
        assert_eq!(alone.stop(), 0);
        alone.forget_log();
    }
}

/// The mappings that the kernel calls locked.
fn locked(pid: u32) -> Vec<Mapping> {
    let maps = test_support::scan::mappings(pid);
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let flags = smaps.lines().filter(|line| line.starts_with("VmFlags:"));
    maps.into_iter().zip(flags).filter(|(_, flags)| flags.contains(" lo")).map(|(mapping, _)| mapping).collect()
}

/// Every locked page: not swapped, not in core dumps, not in children.
fn assert_kept_from_swap_and_dumps(pid: u32, name: &str) {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut regions = 0;
    for region in smaps.split("VmFlags:").collect::<Vec<_>>().windows(2) {
        let flags = region[1].lines().next().unwrap();
        let head = region[0].trim_start_matches(|c| c != '\n').trim_start();
        if !flags.contains(" lo") {
            continue;
        }
        regions += 1;
        assert!(flags.contains(" dd") && flags.contains(" dc"), "{head} {flags}");
        assert!(head.lines().next().unwrap().contains(name), "{head}");
        let swap = head.lines().find_map(|line| line.strip_prefix("Swap:"));
        assert!(swap.is_none_or(|swap| swap.trim() == "0 kB"), "{head}");
    }
    assert!(regions > 0, "{smaps}");
}

#[test]
fn what_is_planted_in_a_process_is_found_there() {
    if !is_root() {
        return;
    }
    let mut marker = [0; 32];
    getrandom::fill(&mut marker).unwrap();
    let text = hex::encode(marker);
    let mut shell = Command::new("sh");
    shell.args(["-c", "read -r kept; echo read; read -r _"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{text}").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut needles = Needles::default();
    needles.add("marker", text.as_bytes());
    let seen = search(child.id(), &needles);
    drop(stdin);
    child.wait().unwrap();
    assert_eq!(line, "read\n");
    assert_eq!(seen.names(), ["marker[0]", "marker[1]", "marker[2]", "marker[3]"]);
    for (mapping, _) in &seen.refused {
        assert!(is_kernels(mapping), "{mapping:?}");
    }
}

/// In the environment: the folder of the process that is to be dumped.
const DUMPED: &str = "NODESEAL_DUMPED";

/// The child's side of the next test. Without its variable it does nothing.
#[test]
fn dumped() {
    let Some(folder) = std::env::var_os(DUMPED).map(PathBuf::from) else { return };
    // On a thread that ends: registers of those that run are part of every dump, and a copy of memory leaves its last bytes in them.
    let path = folder.join("key");
    let made = std::thread::spawn(move || {
        let key = LockedKey::new(Key::random().unwrap()).unwrap();
        assert_ne!(key.protection(), Protection::Unlocked);
        // The kernel reads the bytes where they are.
        fs::write(path, key.expose()).unwrap();
        key
    });
    let _key = made.join().unwrap();
    let mut marker = vec![0; 32];
    getrandom::fill(&mut marker).unwrap();
    fs::write(folder.join("marker"), &marker).unwrap();
    std::process::abort();
}

#[test]
fn a_core_dump_of_a_process_that_allows_one_holds_its_memory_and_not_its_keys() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/', '@']) {
        eprintln!("SKIPPED: this machine gives core dumps to {pattern}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited || exit 9; exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "memory::dumped", "--nocapture"]).env(DUMPED, folder.path());
    let status = command.current_dir(folder.path()).stdout(Stdio::null()).status().unwrap();
    if status.code() == Some(9) {
        eprintln!("SKIPPED: core dumps are forbidden to us");
        return;
    }
    assert!(status.core_dumped(), "{status:?}");
    let dump = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let dump = dump.filter(|path| path.file_name().unwrap().to_string_lossy().contains("core")).collect::<Vec<_>>();
    let dump = fs::read(&dump[0]).unwrap();
    let is_there = |bytes: &[u8]| dump.windows(16).any(|window| window == &bytes[..16]);
    assert!(is_there(&fs::read(folder.path().join("marker")).unwrap()), "the dump is one of that process");
    let key = fs::read(folder.path().join("key")).unwrap();
    assert!(!is_there(&key), "the key is in the dump");
}
