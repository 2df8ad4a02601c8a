//! Running processes named kube-apiserver.
//!
//! Anybody can start one of that name, with any command line. So only those count whose users, the real and the effective one, are root or
//! one of a static pod, and nothing is opened that another one names. `/proc/PID` itself can belong to root whoever started it (proc(5),
//! "dumpable"): the users are read from `status`.

use super::flags::Flags;
use super::{Source, Started, Unseen, View};
use crate::ctl::machine::{Machine, Unread};

/// `/proc/PID/comm`.
const NAME: &str = "kube-apiserver";

/// Ids of those that may be trusted, and of the others.
fn all(machine: &Machine, users: &[u32]) -> Result<(Vec<String>, Vec<String>), Unread> {
    let is_it = |pid: &String| machine.read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == NAME);
    let named = machine.processes()?.into_iter().filter(is_it);
    Ok(named.partition(|pid| is_of(machine, pid, users)))
}

/// Ids of processes of root.
pub(in crate::ctl) fn trusted(machine: &Machine) -> Vec<String> {
    all(machine, &[machine.root_uid]).map(|(trusted, _)| trusted).unwrap_or_default()
}

/// Real, effective, saved and file system user.
fn is_of(machine: &Machine, pid: &str, users: &[u32]) -> bool {
    let Ok(status) = machine.read(format!("/proc/{pid}/status")) else { return false };
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("Uid:")) else { return false };
    let ids: Vec<Option<u32>> = line.split_whitespace().map(|id| id.parse().ok()).collect();
    !ids.is_empty() && ids.iter().all(|id| id.is_some_and(|id| users.contains(&id)))
}

/// One that is trusted is taken to see the node's files as they are. The second list are those that are not.
pub(super) fn find(machine: &Machine, users: &[u32]) -> (Vec<Result<Started, Unseen>>, Vec<Unseen>) {
    let (trusted, strangers) = match all(machine, users) {
        Ok(all) => all,
        Err(unread) => return (vec![Err(Unseen::File { path: "/proc".to_owned(), unread })], Vec::new()),
    };
    let of = |pid: String| {
        let path = format!("/proc/{pid}/cmdline");
        let line = match machine.read(&path) {
            // It has ended meanwhile.
            Err(Unread::Missing) => return None,
            Ok(line) if line.is_empty() => return None,
            Err(unread) => return Some(Err(Unseen::File { path, unread })),
            Ok(line) => line,
        };
        let words = line.split_terminator('\0').map(str::to_owned).collect();
        let said_in = format!("the process {pid}");
        Some(Ok(Started { said_in, source: Source::Command, flags: Flags(words), view: View::Host }))
    };
    (trusted.into_iter().filter_map(of).collect(), strangers.into_iter().map(|pid| Unseen::Stranger { pid }).collect())
}
