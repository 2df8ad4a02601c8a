//! A healthy node as a folder, which each check passes, and what breaks each of them.

mod broken;
mod passed;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::check::Check;
use super::finding::{Finding, Outcome};
use super::scene::{Asks, Room, Scene, Told};
use super::table;
use crate::config;
use crate::seal::protocol::DeviceInfo;

/// 2026-11-28.
pub(super) const NOW: u64 = 1_795_824_000;
pub(super) const CONFIG: &str = "/etc/nodeseal/nodeseal.toml";
pub(super) const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// What kube-apiserver sees of the machine.
pub(super) const SEEN: &str = "/proc/4711/root";
pub(super) const ENCRYPTION: &str = "/etc/kubernetes/nodeseal/encryption.yaml";

type AskDevice = fn(&crate::config::Config, Option<crate::types::Backend>) -> Result<DeviceInfo, Finding>;

/// See the module.
pub(super) struct Fixture {
    root: tempfile::TempDir,
    pub(super) config: String,
    pub(super) config_error: bool,
    pub(super) config_denied: bool,
    /// `None`: nobody listens.
    pub(super) status: Option<Value>,
    pub(super) asks: Asks,
    _socket: UnixListener,
}

impl Fixture {
    /// With the daemon up, in the cluster of kubeadm.
    pub(super) fn healthy() -> Self {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run/nodeseal");
        fs::create_dir_all(&run).unwrap();
        let socket = UnixListener::bind(run.join("kms.sock")).unwrap();
        let fixture = Self {
            root,
            config: "version = 1\ncluster = \"c\"\nseal.socket = \"/run/nodeseal-sealer/sealer.sock\"\n".to_owned(),
            config_error: false,
            config_denied: false,
            status: Some(status()),
            asks: Asks { status: |_| panic!("given"), keys: |_| None, device, room },
            _socket: socket,
        };
        fixture.mode("/run/nodeseal/kms.sock", 0o660);
        for name in ["current", "recovery.age", "roots/ab/state", "roots/ab/keyring/cd.kek"] {
            for generation in ["", ".prev"] {
                fixture.write(&format!("/var/lib/nodeseal/{name}{generation}"), "x", 0o600);
            }
        }
        for folder in ["", "/roots", "/roots/ab", "/roots/ab/keyring"] {
            fixture.mode(&format!("/var/lib/nodeseal{folder}"), 0o700);
        }
        fixture.write("/dev/tpmrm0", "", 0o660);
        fixture.write("/run/systemd/timesync/synchronized", "", 0o644);
        fixture.write("/proc/sys/kernel/osrelease", "6.12.48+deb13-amd64\n", 0o644);
        fixture.write("/proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n", 0o644);
        fixture.write("/sys/kernel/security/lsm", "lockdown,capability,landlock,yama,apparmor\n", 0o644);
        fixture.write("/sys/power/state", "freeze mem disk\n", 0o644);
        fixture.write("/sys/power/disk", "[platform] shutdown\n", 0o644);
        fixture.write("/proc/swaps", SWAPS, 0o644);
        fixture.write(
            "/proc/4712/limits",
            "Limit  Soft  Hard  Units\nMax open files            8192                 8192                 files\n",
            0o444,
        );
        for unit in &super::units::SHIPPED {
            fixture.write(&format!("/usr/lib/systemd/system/{}", unit.name), unit.text, 0o644);
        }
        fixture.write(MANIFEST, MANIFEST_TEXT, 0o600);
        fixture.write(ENCRYPTION, ENCRYPTION_TEXT, 0o600);
        fixture.process("4711", fs::metadata(fixture.root.path()).unwrap().uid());
        fs::create_dir_all(fixture.at(SEEN)).unwrap();
        std::os::unix::fs::symlink(fixture.at("/run"), fixture.at(SEEN).join("run")).unwrap();
        fixture
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    /// One that is named kube-apiserver.
    fn process(&self, pid: &str, user: u32) {
        self.write(&format!("/proc/{pid}/comm"), "kube-apiserver\n", 0o444);
        let status = format!("Name:\tkube-apiserver\nUid:\t{user}\t{user}\t{user}\t{user}\n");
        self.write(&format!("/proc/{pid}/status"), &status, 0o444);
        let line = format!("kube-apiserver\0--encryption-provider-config={ENCRYPTION}\0");
        self.write(&format!("/proc/{pid}/cmdline"), &line, 0o444);
    }

    pub(super) fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        let path = self.at(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    pub(super) fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.at(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from:?}");
        fs::write(self.at(path), text.replace(from, to)).unwrap();
    }

    pub(super) fn say(&mut self, field: &str, value: Value) {
        self.status.as_mut().unwrap()[field] = value;
    }

    pub(super) fn scene(&self) -> Scene {
        let text = if self.config_error { "cluster = 1" } else { self.config.as_str() };
        let denied =
            || config::ConfigError::Read { path: CONFIG.into(), source: std::io::ErrorKind::PermissionDenied.into() };
        let config = if self.config_denied { Err(denied()) } else { config::parse(Path::new(CONFIG), text) };
        let own = fs::metadata(self.root.path()).unwrap().uid();
        let Asks { keys, device, room, .. } = self.asks;
        let asks = Asks { status: |_| Told::Away("cannot talk to nodeseald".to_owned()), keys, device, room };
        let scene = Scene::new(self.root.path().to_owned(), CONFIG.into(), config, own, NOW, asks);
        match &self.status {
            Some(status) => scene.with_told(Told::Status(serde_json::from_value(status.clone()).unwrap())),
            None => scene,
        }
    }

    fn look(&self, check: &Check) -> Finding {
        check.run(&self.scene())
    }
}

fn status() -> Value {
    json!({
        "healthy": true, "version": "1", "pid": 4712, "uptime_seconds": 1, "cluster": "c",
        "socket": "/run/nodeseal/kms.sock", "key_id": "ns1-a", "key_id_hash": null, "uses": 1, "keys": 1, "keys_usable": 1,
        "seal_policy": "none", "seal_backend": "tpm2", "would_open": true, "warnings": [],
        "recovery_recipients": ["age1a"], "recovery_written": NOW - 86_400, "recovery_rehearsed": NOW - 3600,
        "sandbox": {
            "uid": 990, "no_capabilities": true, "landlock": "full", "landlock_abi": 6, "seccomp": "nodeseald",
            "memory": "secret",
        },
    })
}

fn device(_: &crate::config::Config, _: Option<crate::types::Backend>) -> Result<DeviceInfo, Finding> {
    Ok(DeviceInfo {
        backend: "tpm2".to_owned(),
        manufacturer: "INTC".to_owned(),
        firmware: "600.18".to_owned(),
        software: false,
        root_key_name: "000b".to_owned(),
        lockout_counter: 0,
        lockout_max: 32,
        in_lockout: false,
    })
}

fn room(_: &Path) -> std::io::Result<Room> {
    Ok(Room { bytes: 1 << 30, files: 1 << 16, counts_files: true })
}

pub(super) const SWAPS: &str = "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0  partition  1000  0  100\n";

const MANIFEST_TEXT: &str = "\
apiVersion: v1
kind: Pod
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --etcd-servers=https://127.0.0.1:2379
    - --encryption-provider-config=/etc/kubernetes/nodeseal/encryption.yaml
    - --tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384
    volumeMounts:
    - {name: nodeseal-socket, mountPath: /run/nodeseal, readOnly: true}
    - {name: nodeseal-config, mountPath: /etc/kubernetes/nodeseal, readOnly: true}
  volumes:
  - name: nodeseal-socket
    hostPath: {path: /run/nodeseal, type: Directory}
  - name: nodeseal-config
    hostPath: {path: /etc/kubernetes/nodeseal, type: Directory}
";

const ENCRYPTION_TEXT: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets, '*.*']
    providers:
      - kms:
          apiVersion: v2
          name: nodeseal
          endpoint: unix:///run/nodeseal/kms.sock
          timeout: 3s
";

#[test]
fn every_check_passes_on_a_healthy_node() {
    let fixture = Fixture::healthy();
    for check in table::all() {
        let finding = fixture.look(check);
        assert_eq!(finding.outcome, Outcome::Pass, "{}: {finding:?}", check.id);
    }
}

#[test]
fn every_check_warns_or_fails_on_a_node_that_is_broken_for_it() {
    let broken = broken::all();
    for check in table::all() {
        let mut of_it = broken.iter().filter(|(id, ..)| *id == check.id).peekable();
        assert!(of_it.peek().is_some(), "{} has no fixture that it does not pass", check.id);
        for (id, wanted, word, spoil) in of_it {
            let mut fixture = Fixture::healthy();
            spoil(&mut fixture);
            let finding = fixture.look(check);
            assert_eq!(finding.outcome, *wanted, "{id}, {word}: {finding:?}");
            assert!(finding.why.contains(word), "{id}: no {word:?} in {finding:?}");
            let has_todo = finding.todo.as_ref().is_some_and(|todo| !todo.is_empty());
            assert!(has_todo || finding.outcome == Outcome::Skip, "{id}: {finding:?}");
        }
    }
    let ids: Vec<_> = table::all().iter().map(|check| check.id).collect();
    assert!(broken.iter().all(|(id, ..)| ids.contains(id)));
}

#[test]
fn each_id_stands_for_one_check() {
    let mut ids: Vec<_> = table::all().iter().map(|check| check.id).collect();
    assert!(ids.iter().all(|id| id.len() == 6 && id.starts_with("ND-") && id[3..].parse::<u16>().is_ok()), "{ids:?}");
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn before_init_and_without_a_cluster_nothing_fails_for_what_is_not_there_yet() {
    let mut fixture = Fixture::healthy();
    fixture.status = None;
    for path in ["/var/lib/nodeseal", "/etc/kubernetes", "/proc/4711"] {
        fixture.remove(path);
    }
    for check in table::all() {
        let finding = fixture.look(check);
        assert_ne!(finding.outcome, Outcome::Fail, "{}: {finding:?}", check.id);
    }
}

#[test]
fn no_finding_shows_a_key_of_the_configuration() {
    let key = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
    let local = format!("providers:\n      - aescbc: {{keys: [{{name: old, secret: {key}}}]}}");
    for to in [local.as_str(), &format!("providers: [[{key}")] {
        let fixture = Fixture::healthy();
        fixture.replace(ENCRYPTION, "providers:", to);
        for check in table::all() {
            let finding = fixture.look(check);
            assert!(!format!("{finding:?}").contains(key), "{}: {finding:?}", check.id);
        }
    }
}
