//! What the C library would load when it is first asked for a name, loaded while that is still allowed.
//!
//! glibc takes users, groups and machines from what `/etc/nsswitch.conf` lists, and each source but its own (`files`, `dns`) is a shared
//! library that it maps at the first question (nsswitch.conf(5), "FILES"). `nodeseald` must map no program later: it can write files,
//! and whatever got into it could map what it has written. A library that is there already is not mapped again.
//!
//! No name is looked up here, so nothing waits for a name server. A source that is added to the file later, or whose library is not
//! there, is passed over by the C library as one that is not available, until the next start.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;

use super::raw;

const SOURCES: &str = "/etc/nsswitch.conf";
/// What `nodeseald` asks for: users of sockets, and servers.
const DATABASES: [&str; 4] = ["passwd", "group", "initgroups", "hosts"];

/// Once, before any thread exists.
pub(super) fn load() {
    // Without the file the C library uses sources of its own alone.
    let text = fs::read_to_string(SOURCES).unwrap_or_default();
    for source in sources(&text) {
        if let Ok(library) = CString::new(format!("libnss_{source}.so.2")) {
            // One that is not there gives no names, later as little as now.
            let _ = raw::load_for_good(&library);
        }
    }
}

/// nsswitch.conf(5): `DATABASE: SOURCE [ACTION…] SOURCE …`, `#` begins a remark.
fn sources(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
    let asked = lines.filter(|(database, _)| DATABASES.contains(&database.trim()));
    asked.flat_map(|(_, listed)| outside_of_actions(listed)).filter(|source| is_name(source)).collect()
}

/// An action stands in brackets, with or without room around it.
fn outside_of_actions(listed: &str) -> impl Iterator<Item = &str> {
    let after_each_bracket = listed.split('[').enumerate();
    let outside = after_each_bracket.filter_map(|(place, text)| match place {
        0 => Some(text),
        _ => text.split_once(']').map(|(_, outside)| outside),
    });
    outside.flat_map(str::split_whitespace)
}

/// No path, no folder above: a library of the system's folders.
fn is_name(source: &str) -> bool {
    !source.is_empty() && source.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_those_of_users_and_machines_without_actions_and_remarks() {
        let text = "# passwd: no\npasswd:\tfiles systemd # sss\ngroup: files [SUCCESS=merge] systemd\nshadow: files other\n\
                    hosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns ../evil\nnetworks: odd\n";
        let expected = ["dns", "files", "mdns4_minimal", "resolve", "systemd"];
        assert_eq!(sources(text).into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(sources("").len(), 0);
        assert_eq!(sources("hosts:files[NOTFOUND=return]dns").into_iter().collect::<Vec<_>>(), ["dns", "files"]);
    }
}
