//! For each check, nodes that it does not pass: what it says of them, and what was done to a healthy one.

use serde_json::json;

use super::super::finding::Outcome;
use super::super::finding::Outcome::{Fail, Skip, Warn};
use super::Fixture;
#[cfg(feature = "etcd")]
use super::{ENCRYPTION, MANIFEST};

pub(super) type Broken = (&'static str, Outcome, &'static str, fn(&mut Fixture));

pub(super) fn all() -> Vec<Broken> {
    [
        GENERAL,
        PLATFORM,
        NODE,
        #[cfg(feature = "etcd")]
        KUBERNETES,
    ]
    .concat()
}

const GENERAL: &[Broken] = &[
    ("ND-001", Fail, "mistake", |node| node.config_error = true),
    ("ND-001", Warn, "software TPM", |node| node.config += "seal.tpm2.allow_software_tpm = true\n"),
    ("ND-001", Skip, "closed to this user", |node| node.config_denied = true),
    ("ND-002", Warn, "no keys yet", |node| node.remove("/var/lib/nodeseal/current")),
    ("ND-003", Fail, "cannot talk", |node| node.status = None),
    ("ND-003", Fail, "closed (E-AUTH)", |node| {
        node.say("healthy", json!(false));
        node.say("seal_error", json!("E-AUTH: it did not open"));
    }),
    ("ND-003", Skip, "before `init`", |node| {
        node.status = None;
        node.remove("/var/lib/nodeseal/current");
    }),
    ("ND-003", Skip, "ND-001", |node| {
        node.status = None;
        node.config_error = true;
    }),
    ("ND-004", Fail, "did not open", |node| node.say("would_open", json!(false))),
    ("ND-005", Warn, "is in pre-activation", |node| {
        let kek = json!({
            "id": "ab", "state": "pre-activation", "key_id": "", "created": 1, "since": 1, "uses": 0, "shared": false,
            "wraps": 0, "check": "", "must_be_shared": false,
        });
        node.say("pending_kek", kek);
    }),
    ("ND-006", Warn, "landlock none", |node| {
        node.status.as_mut().unwrap()["sandbox"]["landlock"] = json!("none");
    }),
];

/// A device that says something else than a healthy one.
const fn device(node: &mut Fixture, ask: super::AskDevice) {
    node.asks.device = ask;
}

const ON_A_DISK: &str = "/dev/sda2  partition  1000  0  -2\n";

const PLATFORM: &[Broken] = &[
    ("ND-101", Fail, "does not exist", |node| node.remove("/dev/tpmrm0")),
    ("ND-102", Fail, "E-TPM-NODEV", |node| device(node, |_, _| Err(super::Finding::fail("E-TPM-NODEV", "x")))),
    ("ND-103", Warn, "IBM", |node| {
        device(node, |config, backend| {
            let device = super::device(config, backend)?;
            Ok(super::DeviceInfo { software: true, manufacturer: "IBM".to_owned(), ..device })
        });
    }),
    ("ND-104", Warn, "3 of 32", |node| {
        device(node, |config, backend| Ok(super::DeviceInfo { lockout_counter: 3, ..super::device(config, backend)? }));
    }),
    ("ND-104", Fail, "in lockout now", |node| {
        device(node, |config, backend| Ok(super::DeviceInfo { in_lockout: true, ..super::device(config, backend)? }));
    }),
    ("ND-105", Fail, "behind a KEK", |node| node.say("clock_doubted", json!(true))),
    ("ND-105", Warn, "nothing that sets it", |node| node.remove("/run/systemd/timesync")),
    ("ND-106", Warn, "landlock is not among", |node| node.replace("/sys/kernel/security/lsm", "landlock,", "")),
    ("ND-106", Fail, "landlock is not among", |node| {
        node.config += "sandbox.mode = \"require\"\n";
        node.replace("/sys/kernel/security/lsm", "landlock,", "");
    }),
    ("ND-106", Warn, "no seccomp", |node| node.remove("/proc/sys/kernel/seccomp")),
    ("ND-106", Warn, "Linux 6.1 ", |node| node.replace("/proc/sys/kernel/osrelease", "6.12.", "6.1.")),
    ("ND-107", Fail, "can reach swap", |node| node.status.as_mut().unwrap()["sandbox"]["memory"] = json!("unlocked")),
    ("ND-108", Warn, "is then on the disk", |node| {
        node.write("/proc/swaps", &[super::SWAPS, ON_A_DISK].concat(), 0o644);
        node.status.as_mut().unwrap()["sandbox"]["memory"] = json!("locked");
    }),
    ("ND-109", Warn, "/dev/sda2", |node| node.write("/proc/swaps", &[super::SWAPS, ON_A_DISK].concat(), 0o644)),
    ("ND-110", Warn, "32 MiB", |node| {
        node.asks.room = |_| Ok(super::Room { bytes: 32 << 20, files: 0, counts_files: false });
    }),
    ("ND-110", Fail, "63 files", |node| {
        node.asks.room = |_| Ok(super::Room { bytes: 1 << 30, files: 63, counts_files: true });
    }),
    ("ND-111", Warn, "may have 1024", |node| node.replace("/proc/4712/limits", "8192 ", "1024 ")),
];

const STATE: &str = "/var/lib/nodeseal";

const NODE: &[Broken] = &[
    ("ND-201", Fail, "mode 0640", |node| node.mode("/var/lib/nodeseal/roots/ab/state", 0o640)),
    ("ND-201", Fail, "symbolic link", |node| {
        std::os::unix::fs::symlink("/etc/shadow", node.at(STATE).join("roots/ab/keyring/x.kek")).unwrap();
    }),
    ("ND-202", Warn, "state is empty, or", |node| node.remove("/var/lib/nodeseal/roots/ab/state.prev")),
    ("ND-202", Warn, "recovery.age.prev", |node| node.remove("/var/lib/nodeseal/recovery.age")),
    ("ND-202", Warn, "cd.kek", |node| node.write("/var/lib/nodeseal/roots/ab/keyring/cd.kek", "", 0o600)),
    ("ND-203", Warn, "there is none", |node| node.say("recovery_recipients", json!([]))),
    ("ND-203", Fail, "could not be rewritten", |node| node.say("recovery_owed", json!(true))),
    ("ND-203", Fail, "the newest KEK was made", |node| {
        node.asks.keys = |_| {
            let newest =
                crate::keyring::keeper::KekRow { created: super::NOW, ..crate::ctl::kek_ids::tests::row("ab") };
            Some(crate::keyring::keeper::KeyTable { key_id: String::new(), keys: vec![newest] })
        };
    }),
    ("ND-203", Warn, "there is none", |node| {
        node.status = None;
        node.remove("/var/lib/nodeseal/recovery.age");
    }),
    ("ND-204", Warn, "never", |node| node.say("recovery_rehearsed", json!(null))),
    ("ND-204", Warn, "before the newest KEK", |node| node.say("rehearsal_lacks_kek", json!(true))),
    ("ND-204", Warn, "half a year", |node| node.say("recovery_rehearsed", json!(super::NOW - 200 * 86_400))),
    ("ND-205", Warn, "is due", |node| node.say("overdue", json!(true))),
    ("ND-206", Warn, "2 copies", |node| node.say("wraps_owed", json!(2))),
    ("ND-207", Warn, "sealed without", |node| node.config += "seal.tpm2.rollback = \"tpm-counter\"\n"),
    ("ND-208", Fail, "does not exist", |node| node.remove("/run/nodeseal/kms.sock")),
    ("ND-208", Warn, "every user", |node| node.mode("/run/nodeseal/kms.sock", 0o666)),
    ("ND-208", Fail, "replace the socket", |node| node.mode("/run/nodeseal", 0o777)),
    ("ND-209", Warn, "nodeseal.service lacks NoExecPaths=/: it can start any program", |node| {
        node.write("/etc/systemd/system/nodeseal.service.d/override.conf", "[Service]\nNoExecPaths=\n", 0o644);
    }),
    ("ND-209", Warn, "nodeseal-sealer.service lacks PrivateNetwork=yes", |node| {
        node.write("/etc/systemd/system/nodeseal-sealer.service", "[Service]\nUser=nodeseal\n", 0o644);
    }),
];

#[cfg(feature = "etcd")]
const KUBERNETES: &[Broken] = &[
    ("ND-301", Fail, "does not name", |node| node.replace(MANIFEST, "--encryption-provider-config", "--x")),
    ("ND-301", Warn, "stands 2 times", |node| {
        let flag = "--encryption-provider-config=/a\n    - --tls-cipher-suites";
        node.replace(MANIFEST, "--tls-cipher-suites", flag);
    }),
    ("ND-301", Warn, "no pod that can be read", |node| node.write(MANIFEST, "[", 0o600)),
    ("ND-302", Fail, "does not exist", |node| node.remove(ENCRYPTION)),
    ("ND-302", Fail, "not in a folder", |node| {
        node.replace(MANIFEST, "mountPath: /etc/kubernetes/nodeseal", "mountPath: /x")
    }),
    ("ND-302", Fail, "kind Pod", |node| node.replace(ENCRYPTION, "kind: EncryptionConfiguration", "kind: Pod")),
    ("ND-303", Fail, "secrets", |node| node.replace(ENCRYPTION, "providers:\n", "providers:\n      - identity: {}\n")),
    ("ND-303", Warn, "events", |node| {
        let rule = "resources:\n  - resources: [events]\n    providers: [{identity: {}}]\n  - resources: [";
        node.replace(ENCRYPTION, "resources:\n  - resources: [", rule);
    }),
    ("ND-304", Warn, "secrets", |node| local(node, "providers:\n")),
    ("ND-305", Fail, "no rule", |node| node.replace(ENCRYPTION, "[secrets, '*.*']", "[configmaps]")),
    ("ND-305", Fail, "in clear", |node| node.replace(ENCRYPTION, "providers:\n", "providers:\n      - identity: {}\n")),
    ("ND-306", Warn, "secrets", |node| node.replace(ENCRYPTION, ", '*.*'", "")),
    ("ND-307", Warn, "no scan", |node| {
        node.replace(ENCRYPTION, "timeout: 3s\n", "timeout: 3s\n      - identity: {}\n")
    }),
    ("ND-308", Warn, "nodeseal", |node| node.replace(ENCRYPTION, "apiVersion: v2\n", "apiVersion: v1\n")),
    ("ND-309", Fail, "no provider kms", |node| node.replace(ENCRYPTION, "kms.sock", "other.sock")),
    ("ND-309", Fail, "no provider kms", |node| node.replace(MANIFEST, "path: /run/nodeseal,", "path: /run/other,")),
    ("ND-309", Warn, "another plugin", |node| {
        let other = "providers:\n      - kms: {apiVersion: v2, name: other, endpoint: 'unix:///run/nodeseal/b.sock'}\n";
        node.replace(ENCRYPTION, "providers:\n", other);
    }),
    ("ND-310", Warn, "from 3s to 10s", |node| node.replace(ENCRYPTION, "timeout: 3s", "timeout: 900ms")),
    ("ND-310", Warn, "from 3s to 10s", |node| node.replace(ENCRYPTION, "timeout: 3s", "timeout: 1m")),
    ("ND-311", Warn, "local key old", |node| local(node, "timeout: 3s\n")),
    ("ND-312", Fail, "mode 0620", |node| node.mode(ENCRYPTION, 0o620)),
    ("ND-312", Warn, "mode 0644", |node| node.mode(ENCRYPTION, 0o644)),
    ("ND-313", Fail, "another folder", |node| {
        node.remove(super::SEEN);
        node.write(&format!("{}/run/nodeseal/x", super::SEEN), "", 0o600);
    }),
    ("ND-313", Fail, "mounts the socket itself", |node| {
        node.replace(MANIFEST, "mountPath: /run/nodeseal,", "mountPath: /run/nodeseal/kms.sock,");
        node.replace(MANIFEST, "path: /run/nodeseal,", "path: /run/nodeseal/kms.sock,");
    }),
    ("ND-314", Warn, "neither kms", |node| {
        node.replace(ENCRYPTION, "providers:\n", "providers:\n      # the plugin\n")
    }),
    ("ND-315", Warn, "TLS_RSA_WITH_RC4_128_SHA", |node| {
        node.replace(MANIFEST, "=TLS_AES", "=TLS_RSA_WITH_RC4_128_SHA,TLS_AES")
    }),
    ("ND-315", Warn, "not set", |node| node.replace(MANIFEST, "--tls-cipher-suites", "--x")),
];

/// A key in the file, behind these words.
#[cfg(feature = "etcd")]
fn local(node: &Fixture, behind: &str) {
    node.replace(ENCRYPTION, behind, &format!("{behind}      - aescbc: {{keys: [{{name: old, secret: c2VjcmV0}}]}}\n"));
}
