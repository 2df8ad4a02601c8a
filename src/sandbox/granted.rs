//! What was given to a process, so that it knows what it lacks and what it has lost before it tries.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use super::needs::{Needs, PathNeed};

/// What was given to the process for good.
#[derive(Clone, Debug)]
pub struct Granted {
    /// Device and inode of what a path named when it was given: the kernel gives the folder and not its name.
    pub(super) places: BTreeMap<PathBuf, Place>,
    pub(super) paths: Vec<PathNeed>,
    /// None: ports are not restricted, by this kernel or since any may be needed.
    pub(super) ports: Option<BTreeSet<u16>>,
    /// None: connections to unix sockets are not restricted, as above.
    pub(super) sockets: Option<BTreeSet<PathBuf>>,
    /// Also where this kernel does not restrict datagrams.
    pub(super) name_servers: bool,
}

/// All needs that the confinement has no room for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Lack {
    pub(super) paths: Vec<PathNeed>,
    ports: BTreeSet<u16>,
    any_port: bool,
    sockets: BTreeSet<PathBuf>,
    any_socket: bool,
    name_servers: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { paths, ports, any_port, sockets, any_socket, name_servers } = self;
        let paths = paths.iter().map(|need| format!("{} ({})", need.path.display(), need.why));
        let ports = ports.iter().map(|port| format!("TCP port {port}"));
        let sockets = sockets.iter().map(|folder| format!("unix sockets in {}", folder.display()));
        let rest = [
            (any_port, "every TCP port"),
            (any_socket, "every unix socket"),
            (name_servers, "datagrams to name servers"),
        ];
        let rest = rest.into_iter().filter(|(is_lacking, _)| **is_lacking).map(|(_, what)| what.to_owned());
        let all: Vec<_> = paths.chain(ports).chain(sockets).chain(rest).collect();
        write!(f, "the sandbox was not given at the start: {}", all.join(", "))
    }
}

/// Folders that others have removed and created again since they were granted: what is in them is nobody's to read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(BTreeSet<PathBuf>);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders: Vec<_> = self.0.iter().map(|folder| folder.display().to_string()).collect();
        write!(
            f,
            "{} was created again since the start, and the sandbox gives no access to the new one",
            folders.join(", ")
        )
    }
}

/// Device and inode. The kernel keeps the inode of a grant, so that no other one gets its number.
pub(super) type Place = (u64, u64);

/// What a path names now.
pub(super) fn place(path: &Path) -> Option<Place> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Granted {
    /// That all of these needs were given, with no restriction that they do not name.
    pub(super) fn all(needs: &Needs) -> Self {
        let given = needs.paths.iter().map(|need| &need.path).chain(&needs.sockets);
        Self {
            places: given.filter_map(|path| Some((path.clone(), place(path)?))).collect(),
            paths: needs.paths.clone(),
            ports: Some(needs.ports.clone()),
            sockets: Some(needs.sockets.clone()),
            name_servers: needs.name_servers,
        }
    }

    /// Those of these needs that were given by a name that names another folder now.
    pub fn lost(&self, needs: &Needs) -> Option<Lost> {
        let is_live = |given: &&PathBuf| self.places.get(*given).is_some_and(|at| place(given) == Some(*at));
        let is_lost = |path: &Path, given: &mut dyn Iterator<Item = &PathBuf>| {
            let mut given = given.filter(|given| path.starts_with(given)).peekable();
            given.peek().is_some() && path.exists() && !given.any(|given| is_live(&given))
        };
        let read = needs.paths.iter().map(|need| &need.path);
        let read = read.filter(|path| is_lost(path, &mut self.paths.iter().map(|given| &given.path)));
        let called = needs.sockets.iter().filter(|path| is_lost(path, &mut self.sockets.iter().flatten()));
        let lost: BTreeSet<PathBuf> = read.chain(called).cloned().collect();
        (!lost.is_empty()).then_some(Lost(lost))
    }

    /// All of these needs that are there on the machine and were not given. What lies below another one that is lacking goes with it.
    pub fn lacks(&self, needs: &Needs) -> Option<Lack> {
        let holds = |given: &PathNeed, need: &PathNeed| {
            need.path.starts_with(&given.path) && given.access.includes(need.access)
        };
        let mut paths: Vec<PathNeed> = Vec::new();
        for need in &needs.paths {
            let is_given = self.paths.iter().chain(&paths).any(|given| holds(given, need));
            if !is_given && need.path.exists() {
                paths.retain(|other| !holds(need, other));
                paths.push(need.clone());
            }
        }
        let is_missing = |port: &&u16| self.ports.as_ref().is_some_and(|ports| !ports.contains(port));
        let ports = needs.ports.iter().filter(is_missing).copied().collect::<BTreeSet<_>>();
        let any_port = needs.any_port && self.ports.is_some();
        let is_closed = |folder: &&PathBuf| {
            folder.exists()
                && self.sockets.as_ref().is_some_and(|given| !given.iter().any(|given| folder.starts_with(given)))
        };
        let sockets = needs.sockets.iter().filter(is_closed).cloned().collect::<BTreeSet<_>>();
        let any_socket = needs.any_socket && self.sockets.is_some();
        let name_servers = needs.name_servers && !self.name_servers;
        let lacks_nothing =
            paths.is_empty() && ports.is_empty() && sockets.is_empty() && !any_port && !any_socket && !name_servers;
        (!lacks_nothing).then_some(Lack { paths, ports, any_port, sockets, any_socket, name_servers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_made_anew_is_lost_unless_one_above_it_was_given() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let folder = top.join("agent");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("token"), "one").unwrap();
        let needs = Needs::default().replaced_file(&folder.join("token"), "token").socket(&folder.join("x.sock"));
        let has = Granted::all(&needs);
        let has_more =
            Granted::all(&needs.clone().path(&top, super::super::Access::Read, "above").socket(&top.join("y.sock")));
        assert_eq!(has.lost(&needs), None);
        // Its number may not come back while the old one is kept, as the kernel does.
        let _kept = fs::File::open(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(has.lost(&needs), None, "nothing is there to be read");
        fs::create_dir(&folder).unwrap();
        assert_eq!(has.lost(&needs), Some(Lost([folder].into())));
        assert_eq!((has_more.lost(&needs), has.lacks(&needs)), (None, None));
    }
}
