//! A unit as systemd would read it, by its files alone: systemd.unit(5), "Unit File Load Path", and its drop-ins. What an assignment does
//! to one before it is what systemd.exec(5) and systemd.service(5) say of each setting: lists and commands grow and an empty assignment
//! resets them, of the others the last one counts.

use std::collections::BTreeMap;

use super::{Machine, Unread};

/// The first one wins.
const FOLDERS: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Those that grow with each line, word by word; of all others but commands the last one counts.
pub(in crate::ctl) const LISTS: [&str; 7] = [
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "NoExecPaths",
    "InaccessiblePaths",
    "RestrictAddressFamilies",
    "SocketBindDeny",
    "SystemCallFilter",
];

/// Commands, and what else is a list of whole lines.
const LINES: [&str; 10] = [
    "ExecStart",
    "ExecStartPre",
    "ExecStartPost",
    "ExecCondition",
    "ExecReload",
    "ExecReloadPost",
    "ExecStop",
    "ExecStopPost",
    "Environment",
    "EnvironmentFile",
];

/// Settings of `[Service]`: the words of lists, the lines of commands, in their order, or the last value.
pub(in crate::ctl) type Settings = BTreeMap<String, Vec<String>>;

#[derive(Default)]
pub(in crate::ctl) struct Unit {
    pub(in crate::ctl) settings: Settings,
    /// Files that systemd reads and this program cannot.
    pub(in crate::ctl) unread: Vec<String>,
}

/// The lines of `[Service]`; comments and other sections are left out, a `\` joins lines.
pub(in crate::ctl) fn read_into(settings: &mut Settings, text: &str) {
    let mut is_service = false;
    let mut before = String::new();
    // The last line may end with a `\`, as that of k3s' installer does.
    for line in text.lines().map(str::trim).chain([""]) {
        // A comment between joined lines is left out as well.
        if line.starts_with(['#', ';']) || (before.is_empty() && line.is_empty()) {
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
            let grows = LISTS.contains(&key) || LINES.contains(&key);
            if !grows || value.is_empty() {
                values.clear();
            }
            if LISTS.contains(&key) {
                values.extend(words(value));
            } else if !(grows && value.is_empty()) {
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

/// Folders beside a unit: its own, those of all whose names begin so up to a dash, and that of all services.
fn beside(unit: &str) -> Vec<String> {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    let dashes = stem.match_indices('-').map(|(at, _)| at).filter(|at| at + 1 < stem.len());
    let prefixes = dashes.rev().map(|at| format!("{}.service.d", &stem[..=at])).collect::<Vec<_>>();
    [vec![format!("{unit}.d")], prefixes, vec!["service.d".to_owned()]].concat()
}

impl Unit {
    /// What counts on this machine; `None` if it is not installed.
    pub(in crate::ctl) fn find(machine: &Machine, unit: &str) -> Option<Self> {
        let paths = FOLDERS.iter().map(|folder| format!("{folder}/{unit}"));
        let (path, text) = paths
            .map(|path| (machine.read(&path), path))
            .find_map(|(text, path)| (!matches!(text, Err(Unread::Missing))).then_some((path, text)))?;
        let mut found = Self::default();
        match text {
            Ok(text) => read_into(&mut found.settings, &text),
            Err(unread) => found.unread.push(unread.text(path)),
        }
        // Of one name the first folder's counts, and all in the order of their names.
        let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
        for beside in beside(unit) {
            for folder in FOLDERS {
                let folder = format!("{folder}/{beside}");
                match machine.names(&folder) {
                    Ok(names) => {
                        for name in names.into_iter().filter(|name| name.ends_with(".conf")) {
                            drop_ins.entry(name.clone()).or_insert_with(|| format!("{folder}/{name}"));
                        }
                    }
                    Err(unread) => found.unread.push(unread.text(folder)),
                }
            }
        }
        for path in drop_ins.values() {
            // A link to /dev/null masks those of the same name.
            if std::fs::read_link(machine.at(path)).is_ok_and(|to| to.as_os_str() == "/dev/null") {
                continue;
            }
            match machine.read(path) {
                Ok(text) => read_into(&mut found.settings, &text),
                Err(unread) => found.unread.push(unread.text(path)),
            }
        }
        Some(found)
    }

    /// Names of units that are installed and begin so.
    #[cfg(feature = "etcd")]
    pub(in crate::ctl) fn names(machine: &Machine, beginning: &str) -> Result<Vec<String>, Unread> {
        let mut found = Vec::new();
        for folder in FOLDERS {
            let is_it = |name: &String| name.starts_with(beginning) && name.ends_with(".service");
            found.extend(machine.names(folder)?.into_iter().filter(is_it));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Each line of a setting.
    #[cfg(feature = "etcd")]
    pub(in crate::ctl) fn lines(&self, key: &str) -> &[String] {
        self.settings.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_drop_ins_of_each_beginning_of_its_name() {
        assert_eq!(beside("a-b-c.service"), ["a-b-c.service.d", "a-b-.service.d", "a-.service.d", "service.d"]);
        assert_eq!(beside("a.service"), ["a.service.d", "service.d"]);
    }

    #[test]
    fn commands_grow_and_an_empty_line_resets_them() {
        let mut settings = Settings::new();
        read_into(&mut settings, "[Service]\nExecStart=/a \\\n# left out\n  b\nExecStart=/c\n");
        assert_eq!(settings["ExecStart"], ["/a  b", "/c"]);
        read_into(&mut settings, "[Service]\nExecStart=\nExecStart=+/d\n");
        assert_eq!(settings["ExecStart"], ["+/d"]);
    }
}
