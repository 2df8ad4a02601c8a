//! The units as systemd would read them, by their files alone, held against those that are shipped.
//!
//! Which file counts: systemd.unit(5), "Unit File Load Path". What an assignment does to one before it is what systemd.exec(5) says of
//! each setting: lists grow and an empty assignment resets them, of the others the last one counts.

use std::collections::BTreeMap;
use std::fmt;

use super::scene::Scene;

pub(super) struct Shipped {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

pub(super) static SHIPPED: [Shipped; 2] = [
    Shipped { name: "nodeseal.service", text: include_str!("../../../systemd/nodeseal.service") },
    Shipped { name: "nodeseal-sealer.service", text: include_str!("../../../systemd/nodeseal-sealer.service") },
];

/// The first one wins.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Settings of `[Service]` that protect, and what is open without.
const EXPOSED: [(&str, &str); 36] = [
    ("User", "it runs as another user, root if none is named"),
    ("PrivateDevices", "it reaches the devices of the node"),
    ("DevicePolicy", "it reaches the devices of the node"),
    ("LimitCORE", "a core dump may hold keys"),
    ("LimitMEMLOCK", "keys may not be locked in memory"),
    ("MemorySwapMax", "its memory may reach swap"),
    ("CapabilityBoundingSet", "it can have capabilities"),
    ("AmbientCapabilities", "it can have capabilities"),
    ("NoNewPrivileges", "it can gain rights by a set-uid program"),
    ("PrivateUsers", "it sees the users of the node"),
    ("KeyringMode", "it shares a kernel keyring"),
    ("UMask", "its files may be open to others"),
    ("ProtectSystem", "it can write to the system"),
    ("ProtectHome", "it sees home directories"),
    ("PrivateTmp", "it shares /tmp"),
    ("PrivateMounts", "it shares mounts"),
    ("PrivateIPC", "it shares IPC with others"),
    ("ProtectClock", "it can set the clock"),
    ("ProtectControlGroups", "it can change control groups"),
    ("ProtectHostname", "it can change the host name"),
    ("ProtectKernelLogs", "it can read the kernel's log"),
    ("ProtectKernelModules", "it can load kernel modules"),
    ("ProtectKernelTunables", "it can change kernel settings"),
    ("ProtectProc", "it sees other processes"),
    ("ProcSubset", "it sees all of /proc"),
    ("NoExecPaths", "it can start any program"),
    ("InaccessiblePaths", "it sees files of the cluster"),
    ("PrivateNetwork", "it has the network"),
    ("RestrictAddressFamilies", "it can open other kinds of sockets"),
    ("SocketBindDeny", "it can listen on ports"),
    ("LockPersonality", "it can change its execution domain"),
    ("MemoryDenyWriteExecute", "what it writes to memory can become a program"),
    ("RestrictNamespaces", "it can make namespaces"),
    ("RestrictSUIDSGID", "it can make set-uid files"),
    ("SystemCallArchitectures", "it can use the system calls of another architecture"),
    ("SystemCallFilter", "the kernel offers it more system calls"),
];

/// Those that grow with each line; of all others the last one counts.
const LISTS: [&str; 7] = [
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "NoExecPaths",
    "InaccessiblePaths",
    "RestrictAddressFamilies",
    "SocketBindDeny",
    "SystemCallFilter",
];

/// Settings of `[Service]`: the words of lists, in their order, or the last value.
pub(super) type Settings = BTreeMap<String, Vec<String>>;

/// A line that is shipped and is not in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    unit: &'static str,
    line: String,
    exposure: &'static str,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lacks {}: {}", self.unit, self.line, self.exposure)
    }
}

/// The lines of `[Service]`; comments and other sections are left out, a `\` joins lines.
fn read_into(settings: &mut Settings, text: &str) {
    let mut is_service = false;
    let mut before = String::new();
    for line in text.lines().map(str::trim) {
        if before.is_empty() && (line.is_empty() || line.starts_with(['#', ';'])) {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            before += begun;
            before.push(' ');
            continue;
        }
        let line = std::mem::take(&mut before) + line;
        if line.starts_with('[') {
            is_service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_service) {
            let (key, value) = (key.trim(), value.trim());
            let values = settings.entry(key.to_owned()).or_default();
            if !LISTS.contains(&key) || value.is_empty() {
                values.clear();
            }
            if LISTS.contains(&key) {
                values.extend(words(value));
            } else {
                values.push(value.to_owned());
            }
        }
    }
}

/// A line of `~` names what is taken away, each word of it.
fn words(value: &str) -> Vec<String> {
    match value.strip_prefix('~') {
        Some(denied) => denied.split_whitespace().map(|word| format!("~{word}")).collect(),
        None => value.split_whitespace().map(str::to_owned).collect(),
    }
}

/// What counts on this machine; `None` if it is not installed.
pub(super) fn in_force(scene: &Scene, unit: &str) -> Option<Settings> {
    let text = FOLDERS.iter().find_map(|folder| scene.read(format!("{folder}/{unit}")).ok())?;
    let mut settings = Settings::new();
    read_into(&mut settings, &text);
    // Of one name the first folder's counts, and all in the order of their names.
    let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
    for beside in [format!("{unit}.d"), "service.d".to_owned()] {
        for folder in FOLDERS {
            let folder = format!("{folder}/{beside}");
            for name in scene.names(&folder).into_iter().filter(|name| name.ends_with(".conf")) {
                drop_ins.entry(name.clone()).or_insert_with(|| format!("{folder}/{name}"));
            }
        }
    }
    for path in drop_ins.values() {
        // A link to /dev/null masks one of the same name, and is no regular file.
        if let Ok(text) = scene.read(path) {
            read_into(&mut settings, &text);
        }
    }
    Some(settings)
}

/// Yes in each of systemd's spellings.
fn is_true(value: &str) -> bool {
    ["yes", "true", "on", "1"].contains(&value.to_ascii_lowercase().as_str())
}

/// The lines that protect and are not in force. One that is stricter than shipped is not named where that can be seen.
pub(super) fn lost(shipped: &'static Shipped, unit: &Settings) -> Vec<Lost> {
    let mut ours = Settings::new();
    read_into(&mut ours, shipped.text);
    let mut lost = Vec::new();
    for (key, exposure) in EXPOSED {
        let Some(wanted) = ours.get(key) else { continue };
        let there = unit.get(key).map(Vec::as_slice).unwrap_or_default();
        let is_kept = match key {
            // An allow list may be shorter, and is whole only if it is there at all.
            "RestrictAddressFamilies" => {
                !there.is_empty() && there.iter().all(|word| wanted.contains(word) || word == "none")
            }
            // More denied, or fewer allowed, is stricter; what was denied must be.
            "SystemCallFilter" => {
                let denied = wanted.iter().filter(|word| word.starts_with('~'));
                !there.is_empty()
                    && denied.into_iter().all(|word| there.contains(word))
                    && there.iter().filter(|word| !word.starts_with('~')).all(|word| wanted.contains(word))
            }
            // An empty set is what is shipped.
            "CapabilityBoundingSet" | "AmbientCapabilities" => unit.contains_key(key) && there.is_empty(),
            _ if LISTS.contains(&key) => wanted.iter().all(|word| there.contains(word)),
            // By each installation.
            "User" => there.iter().any(|user| !user.is_empty() && user != "root" && user != "0"),
            _ => match (wanted.first().map(String::as_str), there.first().map(String::as_str)) {
                (Some("yes"), Some(value)) => is_true(value) || (key == "ProtectControlGroups" && value == "strict"),
                (wanted, there) => wanted == there,
            },
        };
        if !is_kept {
            let line = format!("{key}={}", wanted.join(" "));
            lost.push(Lost { unit: shipped.name, line, exposure });
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost_with(drop_in: &str) -> Vec<String> {
        let shipped = &SHIPPED[0];
        let mut unit = Settings::new();
        read_into(&mut unit, shipped.text);
        read_into(&mut unit, drop_in);
        lost(shipped, &unit).into_iter().map(|lost| lost.line.split('=').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_drop_in_that_takes_a_line_away_is_named_and_a_stricter_one_is_not() {
        assert_eq!(lost_with(""), Vec::<String>::new());
        for (line, key) in [
            ("NoExecPaths=", "NoExecPaths"),
            ("PrivateUsers=no", "PrivateUsers"),
            ("CapabilityBoundingSet=CAP_SYS_ADMIN", "CapabilityBoundingSet"),
            ("RestrictAddressFamilies=AF_NETLINK", "RestrictAddressFamilies"),
            ("SystemCallFilter=", "SystemCallFilter"),
            ("SystemCallFilter=@mount", "SystemCallFilter"),
            ("LimitCORE=infinity", "LimitCORE"),
            ("User=root", "User"),
            ("ProtectSystem=full", "ProtectSystem"),
        ] {
            assert_eq!(lost_with(&format!("[Service]\n{line}\n")), [key], "{line}");
        }
        for stricter in [
            "PrivateUsers=true",
            "User=other",
            "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX",
            "InaccessiblePaths=/srv",
        ] {
            assert_eq!(lost_with(&format!("[Service]\n{stricter}\n")), Vec::<String>::new(), "{stricter}");
        }
        assert_eq!(lost_with("[Unit]\nNoExecPaths=\n# [Service]\n"), Vec::<String>::new());
    }

    #[test]
    fn every_exposure_is_of_a_line_that_is_shipped() {
        let mut all = Settings::new();
        for shipped in &SHIPPED {
            read_into(&mut all, shipped.text);
        }
        let unknown: Vec<_> = EXPOSED.iter().filter(|(key, _)| !all.contains_key(*key)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
