//! What a component needs of the machine once it runs, as data: paths with a kind of access, ports that it connects to, and why.
//!
//! A component declares, [`super::landlock`] enforces, a reload asks [`super::Granted::lacks`] whether what it wants fits in. Declares
//! nothing that was opened before the confinement: sockets that listen, the log, the way to the sealer.
//!
//! ```
//! use std::path::Path;
//!
//! use nodeseal::sandbox::{Access, Needs};
//!
//! // Each part says what it needs, and knows nothing of the others.
//! let state = Needs::default().path(Path::new("/no/link"), Access::Keep, "the state directory");
//! let provider = Needs::default().port(8200).socket(Path::new("/no/such/folder/plugin.sock"));
//!
//! let all = state.and(provider);
//! assert!(all.ports.contains(&8200) && !all.any_port);
//! assert_eq!((all.paths[0].access, all.paths[0].why), (Access::Keep, "the state directory"));
//! // The folder of a socket may come later than the process that connects to it.
//! assert!(!all.sockets.is_empty() && !all.any_socket);
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files and list folders.
    Read,
    /// Read and write one device file, with its ioctls.
    Device,
    /// Read, write, make, rename and remove files and folders. Never a device, a socket or a program.
    Keep,
}

impl Access {
    pub(super) const fn includes(self, other: Self) -> bool {
        matches!(
            (self, other),
            (_, Self::Read) | (Self::Device, Self::Device) | (Self::Keep, Self::Device) | (Self::Keep, Self::Keep)
        )
    }
}

/// A path and what is done below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathNeed {
    /// A file or the root of a hierarchy.
    pub path: PathBuf,
    /// See [`Access`].
    pub access: Access,
    /// For the reader of the code and of the log.
    pub why: &'static str,
}

/// Everything that a process needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Those that do not exist are left out when it comes to it.
    pub paths: Vec<PathNeed>,
    /// Folders above some of these, which are given with them and asked of nobody: see [`Needs::replaced_file`].
    pub(super) above: BTreeSet<PathBuf>,
    /// TCP ports to connect to. A port that listens (metrics) is bound before the confinement; nobody binds one after it.
    pub ports: BTreeSet<u16>,
    /// Connections go to any TCP port.
    pub any_port: bool,
    /// Folders, and sockets themselves, that connections to unix sockets by their path go to.
    pub sockets: BTreeSet<PathBuf>,
    /// As [`Needs::above`].
    pub(super) sockets_above: BTreeSet<PathBuf>,
    /// Connections go to any unix socket.
    pub any_socket: bool,
    /// Datagrams go to name servers, and nowhere else.
    pub name_servers: bool,
}

impl Needs {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        self.above.extend(other.above);
        self.ports.extend(other.ports);
        self.any_port |= other.any_port;
        self.sockets.extend(other.sockets);
        self.sockets_above.extend(other.sockets_above);
        self.any_socket |= other.any_socket;
        self.name_servers |= other.name_servers;
        self
    }

    /// This path, and where its links lead.
    #[must_use]
    pub fn path(mut self, path: &Path, access: Access, why: &'static str) -> Self {
        let real = path.canonicalize().ok().filter(|real| real != path);
        for path in std::iter::once(path.to_owned()).chain(real) {
            self.paths.push(PathNeed { path, access, why });
        }
        self
    }

    /// A file that others replace by a rename, or by a link that is swapped above it. That is a new file each time, so a
    /// grant must be on its folder. For a file directly below `/` it is on the file alone.
    ///
    /// Below `/run` the folder itself is new after each start of its owner (RuntimeDirectory= of systemd), and a grant
    /// holds for the old one only. So the folder above it is granted too, unless the whole machine uses that one.
    #[must_use]
    pub fn replaced_file(self, file: &Path, why: &'static str) -> Self {
        let folder = |file: &Path| match file.parent() {
            Some(parent) if parent.parent().is_some() => parent.to_owned(),
            _ => file.to_owned(),
        };
        let real = file.canonicalize().ok();
        let folders = std::iter::once(folder(file)).chain(real.map(|real| folder(&real)));
        folders.fold(self, |mut needs, folder| {
            needs.above.extend(above(&folder));
            needs.path(&folder, Access::Read, why)
        })
    }

    /// A port to connect to.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.insert(port);
        self
    }

    /// Whatever port it will be.
    #[must_use]
    pub fn any_port(mut self) -> Self {
        self.any_port = true;
        self
    }

    /// A unix socket to connect to. Its owner may replace it, and its folder may not exist yet, so the grant is on the
    /// folder, or on the nearest existing one above it. For a socket directly below `/` it is on the socket alone. Below
    /// `/run` the same holds as for [`Needs::replaced_file`].
    #[must_use]
    pub fn socket(mut self, socket: &Path) -> Self {
        let is_fine = |folder: &&Path| folder.parent().is_some() && folder.exists();
        let folder = socket.ancestors().skip(1).find(is_fine).unwrap_or(socket);
        let real = folder.canonicalize().ok();
        self.sockets_above.extend(above(folder));
        self.sockets_above.extend(real.as_deref().and_then(above));
        self.sockets.extend(real);
        self.sockets.insert(folder.to_owned());
        self
    }

    /// Those of a service of the system, if it is there: what lies above its folder is others'.
    fn sockets_in(mut self, folder: &str) -> Self {
        self.sockets.insert(PathBuf::from(folder));
        self
    }

    /// Whatever socket it will be.
    #[must_use]
    pub fn any_socket(mut self) -> Self {
        self.any_socket = true;
        self
    }

    /// Datagrams to name servers.
    #[must_use]
    pub fn name_servers(mut self) -> Self {
        self.name_servers = true;
        self
    }

    /// Shared libraries: the TPM library loads its transport when it is first used, and OpenSSL what the system's configuration names.
    /// `nodeseald` reads them alone, and maps none (`libraries`).
    #[must_use]
    pub fn libraries(self) -> Self {
        const FOLDERS: [&str; 5] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64"];
        let needs = self.path(Path::new("/etc/ld.so.cache"), Access::Read, "where libraries are");
        FOLDERS.iter().fold(needs, |needs, folder| needs.path(Path::new(folder), Access::Read, "shared libraries"))
    }

    /// Names of users, which a reload looks up again.
    #[must_use]
    pub fn users(self) -> Self {
        const FILES: [&str; 3] = ["/etc/nsswitch.conf", "/etc/passwd", "/etc/group"];
        // Of sssd, nscd and systemd-userdb, which libc's own ways to them know.
        const SOCKETS: [&str; 3] = ["/var/lib/sss/pipes", "/run/nscd", "/run/systemd/userdb"];
        let needs = FILES
            .iter()
            .fold(self.libraries(), |needs, file| needs.path(Path::new(file), Access::Read, "names of users"));
        SOCKETS.iter().fold(needs, |needs, folder| needs.sockets_in(folder))
    }

    /// Names of machines. The whole of `/etc`, since programs replace `resolv.conf` and `hosts` by a rename, and a resolver that cannot
    /// read the new one asks 127.0.0.1 instead: an outage that nobody would look for here.
    #[must_use]
    pub fn name_service(self) -> Self {
        const FOLDERS: [&str; 4] = ["/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"];
        let needs = FOLDERS
            .iter()
            .fold(self.libraries(), |needs, folder| needs.path(Path::new(folder), Access::Read, "names of machines"));
        // Of systemd-resolved and nscd.
        const SOCKETS: [&str; 2] = ["/run/systemd/resolve", "/run/nscd"];
        let needs = SOCKETS.iter().fold(needs, |needs, folder| needs.sockets_in(folder));
        needs.port(DNS).name_servers()
    }

    /// Certificate authorities of the machine.
    #[must_use]
    pub fn system_roots(self) -> Self {
        const FOLDERS: [&str; 6] = [
            "/etc/ssl",
            "/etc/pki",
            "/etc/ca-certificates",
            "/usr/lib/ssl",
            "/usr/share/ca-certificates",
            "/usr/local/share/ca-certificates",
        ];
        FOLDERS
            .iter()
            .fold(self, |needs, folder| needs.path(Path::new(folder), Access::Read, "certificate authorities"))
    }
}

/// The folder above one that its owner creates again at each start, unless many others' are in it.
fn above(folder: &Path) -> Option<PathBuf> {
    const OF_MANY: [&str; 6] = ["/run", "/run/credentials", "/run/k3s", "/run/secrets", "/run/systemd", "/run/user"];
    let above = folder.parent().filter(|above| above.starts_with("/run"))?;
    let is_of_a_user = above.parent() == Some(Path::new("/run/user"));
    (!is_of_a_user && !OF_MANY.iter().any(|wide| Path::new(wide) == above)).then(|| above.to_owned())
}

/// By datagrams, and by TCP for answers that a datagram has no room for (RFC 7766).
pub(super) const DNS: u16 = 53;

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Device => "device",
            Self::Keep => "keep",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::granted::Granted;
    use super::*;

    fn granted(needs: &Needs) -> Granted {
        Granted::all(needs)
    }

    #[test]
    fn below_run_the_folder_above_is_given_with_a_folder_and_neither_run_itself_nor_what_is_everybodys() {
        let of = |folder: &str| {
            let needs = Needs::default().replaced_file(&Path::new(folder).join("token"), "token");
            assert!(needs.paths.iter().all(|need| need.path == Path::new(folder)), "{needs:?}");
            needs.above.into_iter().map(|above| above.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("/run/no-such-agent/sockets"), ["/run/no-such-agent"]);
        assert_eq!(of("/run/user/1000/no-such-agent/sockets"), ["/run/user/1000/no-such-agent"]);
        let of_many =
            ["/run/credentials/no-such.service", "/run/user/1000", "/run/user/1000/no-such-agent", "/run/k3s/x"];
        for folder in ["/run/no-such-agent", "/var/lib/no-such"].iter().chain(&of_many) {
            assert!(of(folder).is_empty(), "{folder}");
        }
    }

    #[test]
    fn what_lies_below_a_grant_is_given_and_what_is_wider_or_beside_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for name in ["a", "a/b", "ab"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        let has = granted(&Needs::default().path(&dir.join("a"), Access::Read, "x").port(443));
        let lacks = |path: &Path, access| has.lacks(&Needs::default().path(path, access, "y"));
        assert_eq!(lacks(&dir.join("a"), Access::Read), None);
        assert_eq!(lacks(&dir.join("a/b"), Access::Read), None);
        assert_eq!(lacks(&dir.join("absent"), Access::Read), None, "nothing is there to be given");
        for (path, access) in [("a", Access::Keep), ("a", Access::Device), ("ab", Access::Read), ("", Access::Read)] {
            assert!(lacks(&dir.join(path), access).is_some_and(|lack| lack.paths.len() == 1), "{path} {access}");
        }
        assert_eq!(has.lacks(&Needs::default().port(443)), None);
        let told = |needs: &Needs| has.lacks(needs).map(|lack| lack.to_string().split_once(": ").unwrap().1.to_owned());
        assert_eq!(told(&Needs::default().port(8200)).as_deref(), Some("TCP port 8200"));
        assert_eq!(told(&Needs::default().any_port()).as_deref(), Some("every TCP port"));
        let any = Granted { ports: None, ..has };
        assert_eq!(any.lacks(&Needs::default().port(8200).any_port()), None);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once_and_what_lies_within_it_is_not_told_besides() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for name in ["a/b", "c"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let needs = ["a/b", "c", "absent", "a", "a/b"];
        let needs = needs.iter().fold(Needs::default(), |needs, path| needs.path(&dir.join(path), Access::Read, "x"));
        let lack = granted(&Needs::default().port(443)).lacks(&needs.port(443).port(8200).port(53)).unwrap();
        let (dir, told) = (dir.display(), "the sandbox was not given at the start");
        assert_eq!(lack.to_string(), format!("{told}: {dir}/c (x), {dir}/a (x), TCP port 53, TCP port 8200"));
    }

    #[test]
    fn a_socket_is_granted_by_its_folder_or_by_the_nearest_one_that_is_there_and_never_by_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("a")).unwrap();
        let of = |socket: &Path| Needs::default().socket(socket).sockets.into_iter().collect::<Vec<_>>();
        assert_eq!(of(&dir.join("a/x.sock")), [dir.join("a")]);
        assert_eq!(of(&dir.join("b/c/x.sock")), [&*dir]);
        assert_eq!(of(Path::new("/x.sock")), [Path::new("/x.sock")]);
        assert_eq!(of(Path::new("/nowhere/x.sock")), [Path::new("/nowhere/x.sock")]);
        let needs = Needs::default().users().name_service();
        let is_wide =
            |folder: &&PathBuf| ["/", "/run", "/var", "/var/lib"].iter().any(|wide| Path::new(wide) == *folder);
        assert_eq!(needs.sockets.iter().find(is_wide), None, "an absent service opens nothing else");

        let has = granted(&Needs::default().socket(&dir.join("a/x.sock")));
        let told = |needs: &Needs| has.lacks(needs).map(|lack| lack.to_string().split_once(": ").unwrap().1.to_owned());
        assert_eq!(told(&Needs::default().socket(&dir.join("a/other.sock"))), None);
        let lack = told(&Needs::default().socket(&dir.join("x.sock")).any_socket().name_servers()).unwrap();
        let folder = dir.display();
        assert_eq!(lack, format!("unix sockets in {folder}, every unix socket, datagrams to name servers"));
        let open = Granted { sockets: None, name_servers: true, ..has };
        assert_eq!(open.lacks(&Needs::default().socket(&dir.join("x.sock")).any_socket().name_servers()), None);
    }

    #[test]
    fn a_replaced_file_is_granted_by_its_folder_and_by_the_folder_that_its_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/1")).unwrap();
        std::fs::create_dir(dir.join("seen")).unwrap();
        std::fs::write(dir.join("real/1/token"), "x").unwrap();
        std::os::unix::fs::symlink(dir.join("real/1/token"), dir.join("seen/token")).unwrap();
        let needs = Needs::default().replaced_file(&dir.join("seen/token"), "token");
        let paths: Vec<_> = needs.paths.iter().map(|need| need.path.clone()).collect();
        assert_eq!(paths, [dir.join("seen"), dir.join("real/1")]);
        // Never the whole machine.
        let needs = Needs::default().replaced_file(Path::new("/token"), "token");
        assert_eq!(needs.paths[0].path, Path::new("/token"));
    }
}
