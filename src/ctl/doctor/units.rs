//! The units as systemd would read them (`ctl::machine::units`), held against those that are shipped.

use std::fmt;

use crate::ctl::machine::units::{LISTS, Settings, read_into};

pub(super) struct Shipped {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

pub(super) static SHIPPED: [Shipped; 2] = [
    Shipped { name: "nodeseal.service", text: include_str!("../../../systemd/nodeseal.service") },
    Shipped { name: "nodeseal-sealer.service", text: include_str!("../../../systemd/nodeseal-sealer.service") },
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

/// Yes in each of systemd's spellings.
fn is_true(value: &str) -> bool {
    ["yes", "true", "on", "1"].contains(&value.to_ascii_lowercase().as_str())
}

/// The lines that protect and are not in force. One that is stricter than shipped is not named where that can be seen.
pub(super) fn lost(shipped: &'static Shipped, unit: &Settings) -> Vec<Lost> {
    let mut ours = Settings::new();
    read_into(&mut ours, shipped.text);
    let mut lost = Vec::new();
    for (key, line) in unit
        .iter()
        .filter(|(key, _)| key.starts_with("Exec"))
        .flat_map(|(key, lines)| lines.iter().map(move |line| (key, line)))
    {
        // systemd.service(5): special executable prefixes, in any order.
        let prefixes = line.chars().take_while(|sign| "@-:+!|".contains(*sign));
        if prefixes.into_iter().any(|sign| matches!(sign, '+' | '!')) {
            let line = format!("{key} without {}", line.split_whitespace().next().unwrap_or_default());
            lost.push(Lost { unit: shipped.name, line, exposure: "such a command has all rights of root" });
        }
    }
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
