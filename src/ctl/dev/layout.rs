//! The folder of `nodeseal dev`: what lies where, and the configuration that is generated for it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::types::{Class, Explained, hex};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

/// sun_path of unix(7) without its final zero; the longest name of ours and its temporary suffix are counted in.
const PATH_MAX_BYTES: usize = 107 - "/control.new4194304".len();

#[derive(Debug, thiserror::Error)]
pub(super) enum LayoutError {
    #[error("{path} is not valid TOML", path = path.display())]
    Fragment {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("another `nodeseal dev` runs in {path}", path = path.display())]
    InUse { path: PathBuf },
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} can be entered by other users, or belongs to one", path = path.display())]
    NotPrivate { path: PathBuf },
    #[error(
        "the path of the folder is longer than {PATH_MAX_BYTES} bytes, which leaves no room for the names of sockets"
    )]
    TooLong,
}

impl Explained for LayoutError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::Fragment { .. } => "fix the file that --config names",
            Self::InUse { .. } => "stop the other one, or name another folder",
            Self::Io { .. } => "check the folder: space, owner and mode",
            Self::NotPrivate { .. } => "name a folder that does not exist yet, or close it to others: chmod 0700",
            Self::TooLong => "name a shorter folder",
        }
    }
}

/// An open and locked folder.
pub(super) struct Layout {
    root: PathBuf,
    _lock: Flock<File>,
}

impl Layout {
    /// Makes the folder if it is absent (0700) and locks it.
    pub(super) fn open(dir: &Path) -> Result<Self, LayoutError> {
        let fail = |what, path: &Path, source| LayoutError::Io { what, path: path.to_owned(), source };
        make_dir(dir).map_err(|source| fail("create", dir, source))?;
        let root = fs::canonicalize(dir).map_err(|source| fail("open", dir, source))?;
        if root.as_os_str().len() > PATH_MAX_BYTES {
            return Err(LayoutError::TooLong);
        }
        make_private(&root)?;
        for folder in ["log", "tpm"] {
            let path = root.join(folder);
            make_dir(&path).map_err(|source| fail("create", &path, source))?;
        }
        let path = root.join("dev.lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = Flock::lock(file.map_err(|source| fail("open", &path, source))?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| LayoutError::InUse { path: root.clone() })?;
        Ok(Self { root, _lock: lock })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn config(&self) -> PathBuf {
        self.root.join("nodeseal.toml")
    }

    pub(super) fn sealer_socket(&self) -> PathBuf {
        self.root.join("sealer.sock")
    }

    pub(super) fn tpm(&self) -> PathBuf {
        self.root.join("tpm")
    }

    pub(super) fn token(&self) -> PathBuf {
        self.root.join("token")
    }

    /// Whether a software TPM has run here, so that something may be sealed by it.
    pub(super) fn has_tpm(&self) -> bool {
        fs::read_dir(self.tpm()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Where the logs are.
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where a program's log is.
    pub(super) fn log_path(&self, program: &str) -> PathBuf {
        self.logs().join(format!("{program}.log"))
    }

    /// Writes `nodeseal.toml`: what this folder needs, with the fragment laid over it. One that somebody has changed since it was written
    /// is kept beside it; the answer names it then.
    pub(super) fn write_config(&self, seal: Table, fragment: Option<&Path>) -> Result<Option<PathBuf>, LayoutError> {
        let mut table = self.generated(seal);
        if let Some(path) = fragment {
            let fail = |source| LayoutError::Io { what: "read", path: path.to_owned(), source };
            let text = fs::read_to_string(path).map_err(fail)?;
            let over = text.parse().map_err(|source| LayoutError::Fragment { path: path.to_owned(), source })?;
            lay_over(&mut table, over);
        }
        let path = self.config();
        let kept = self.keep_edited(&path)?;
        let temporary = path.with_extension("toml.new");
        let fail = |source| LayoutError::Io { what: "write", path: path.clone(), source };
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(fail)?;
        file.write_all(signed(&table.to_string()).as_bytes()).map_err(fail)?;
        fs::rename(&temporary, &path).map_err(fail)?;
        Ok(kept)
    }

    fn keep_edited(&self, path: &Path) -> Result<Option<PathBuf>, LayoutError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LayoutError::Io { what: "read", path: path.to_owned(), source }),
        };
        let body = text.splitn(HEAD_LINES + 1, '\n').nth(HEAD_LINES).unwrap_or_default();
        if text == signed(body) {
            return Ok(None);
        }
        let names = (1..).map(|number| path.with_extension(format!("toml.edited.{number}")));
        let first = std::iter::once(path.with_extension("toml.edited"));
        let Some(kept) = first.chain(names).find(|name| fs::symlink_metadata(name).is_err()) else { return Ok(None) };
        fs::rename(path, &kept).map_err(|source| LayoutError::Io { what: "keep", path: path.to_owned(), source })?;
        Ok(Some(kept))
    }

    fn generated(&self, mut seal: Table) -> Table {
        let path = |name: &str| Value::String(self.root.join(name).display().to_string());
        let uid = nix::unistd::geteuid().as_raw();
        let users = if uid == 0 { vec![0] } else { vec![0, uid] };
        let users = Value::Array(users.into_iter().map(|uid| Value::Integer(uid.into())).collect());
        let table =
            |pairs: Vec<(&str, Value)>| Value::Table(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        seal.insert("socket".into(), path("sealer.sock"));
        let mut file = Table::new();
        file.insert("version".into(), Value::Integer(1));
        file.insert("cluster".into(), Value::String("dev".into()));
        file.insert("state_dir".into(), path("state"));
        file.insert("listen".into(), table(vec![("socket", path("kms.sock")), ("allow_users", users)]));
        file.insert("control".into(), table(vec![("socket", path("control.sock"))]));
        file.insert("seal".into(), Value::Table(seal));
        file
    }
}

/// Of [`signed`].
const HEAD_LINES: usize = 2;

/// A generated text, with what tells that nobody has changed it.
fn signed(body: &str) -> String {
    let hash = hex::encode(Sha256::digest(body.as_bytes()));
    format!(
        "# Written by `nodeseal dev` at each start. Settings of your own belong into another file: --config FILE.\n\
         # sha256 of what follows: {hash}\n{body}"
    )
}

/// A log, appended to.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// An empty folder of ours that others can enter is closed to them; one that holds something else is left as it is.
fn make_private(root: &Path) -> Result<(), LayoutError> {
    let fail = |what, source| LayoutError::Io { what, path: root.to_owned(), source };
    let meta = fs::metadata(root).map_err(|source| fail("look at", source))?;
    let is_ours = meta.uid() == nix::unistd::geteuid().as_raw();
    if is_ours && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(root).map_err(|source| fail("list", source))?.next().is_none();
    if !is_ours || !is_empty {
        return Err(LayoutError::NotPrivate { path: root.to_owned() });
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(|source| fail("close", source))
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Tables are merged, everything else is replaced.
fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_is_closed_to_others_and_one_with_somebodys_files_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        open(temp.path());
        drop(Layout::open(temp.path()).unwrap());
        assert_eq!(fs::metadata(temp.path()).unwrap().mode() & 0o777, 0o700);
        open(temp.path());
        assert!(matches!(Layout::open(temp.path()), Err(LayoutError::NotPrivate { .. })));
    }

    #[test]
    fn a_configuration_that_somebody_has_changed_is_kept_and_one_as_it_was_written_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("dev");
        let layout = Layout::open(&folder).unwrap();
        let write = || layout.write_config(Table::new(), None).unwrap();
        assert_eq!((write(), write()), (None, None));
        let edited = fs::read_to_string(layout.config()).unwrap() + "[listen]\nmode = 384\n";
        fs::write(layout.config(), &edited).unwrap();
        let kept = write().unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), edited);
        assert!(kept.ends_with("nodeseal.toml.edited") && write().is_none());
        fs::write(layout.config(), "version = 1\n").unwrap();
        assert!(write().unwrap().ends_with("nodeseal.toml.edited.1"));
        assert_eq!(fs::read_to_string(&kept).unwrap(), edited, "what was kept before stays");
    }

    #[test]
    fn a_fragment_replaces_single_keys_and_leaves_their_neighbours() {
        let mut base: Table = "a = 1\n[t]\nx = 1\ny = 2\n".parse().unwrap();
        lay_over(&mut base, "[t]\ny = 3\nz = 4\n[u]\nv = 5\n".parse().unwrap());
        assert_eq!(base, "a = 1\n[t]\nx = 1\ny = 3\nz = 4\n[u]\nv = 5\n".parse().unwrap());
    }
}
