//! The token of `nodeseal dev`: SoftHSM 2 with its objects, its configuration and its PINs in `token/`.
//!
//! The token is made once and never again: what it sealed opens with it alone. Its configuration is found by an environment
//! variable, which the sealer's process alone is given.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml::{Table, Value};

use super::layout::Layout;
use crate::types::{Class, Explained, hex, random};

/// Where distributions put the module.
const MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
/// softhsm2.conf(5)
pub(super) const CONF_VARIABLE: &str = "SOFTHSM2_CONF";
const LABEL: &str = "nodeseal-dev";

#[derive(Debug, thiserror::Error)]
pub(super) enum SoftHsmError {
    #[error("the module libsofthsm2.so is in none of the usual places")]
    Absent,
    #[error("softhsm2-util did not create a token: {0}")]
    Init(String),
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no randomness for a PIN")]
    Random(#[source] random::RandomError),
    #[error("cannot run softhsm2-util")]
    Spawn(#[source] io::Error),
}

impl Explained for SoftHsmError {
    fn class(&self) -> Class {
        Class::Unavailable
    }

    fn hint(&self) -> &str {
        match self {
            Self::Absent | Self::Spawn(_) => "install the package softhsm2",
            Self::Init(_) => "see the folder token/, and whether softhsm2-util works by itself",
            Self::Io { .. } => "check the folder: space, owner and mode",
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
        }
    }
}

pub(super) struct SoftHsm {
    module: &'static Path,
    home: PathBuf,
}

impl SoftHsm {
    /// Whether an earlier run of this folder made one.
    pub(super) fn exists(layout: &Layout) -> bool {
        layout.token().join("pin").exists()
    }

    /// The folder's token; made if there is none.
    pub(super) fn open(layout: &Layout) -> Result<Self, SoftHsmError> {
        let module = MODULES.iter().map(Path::new).find(|path| path.exists()).ok_or(SoftHsmError::Absent)?;
        let token = Self { module, home: layout.token() };
        if !Self::exists(layout) {
            token.make()?;
        }
        Ok(token)
    }

    /// softhsm2.conf.
    pub(super) fn conf(&self) -> PathBuf {
        self.home.join("softhsm2.conf")
    }

    /// `[seal.pkcs11]`.
    pub(super) fn table(&self) -> Table {
        let text = |path: &Path| Value::String(path.display().to_string());
        let mut table = Table::new();
        table.insert("module".into(), text(self.module));
        table.insert("token_label".into(), Value::String(LABEL.into()));
        table.insert("pin_file".into(), text(&self.home.join("pin")));
        // The module writes its objects there, and finds its configuration.
        table.insert("allow_paths".into(), Value::Array(vec![text(&self.home)]));
        table
    }

    fn make(&self) -> Result<(), SoftHsmError> {
        let objects = self.home.join("tokens");
        // Of a run that was interrupted: without its PIN nobody has used it.
        if objects.exists() {
            fs::remove_dir_all(&objects).map_err(|source| fail("remove", &objects, source))?;
        }
        for folder in [&self.home, &objects] {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(fail("create", folder, source));
                }
                _ => {}
            }
        }
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", objects.display());
        write(&self.conf(), &conf)?;
        let (pin, so_pin) = (random_pin()?, random_pin()?);
        write(&self.home.join("so-pin"), &so_pin)?;
        let output = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--pin", &pin, "--so-pin", &so_pin])
            .env(CONF_VARIABLE, self.conf())
            .stdin(Stdio::null())
            .output()
            .map_err(SoftHsmError::Spawn)?;
        if !output.status.success() {
            return Err(SoftHsmError::Init(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        // Last: where it is, the token is whole.
        let temporary = self.home.join("pin.new");
        write(&temporary, &pin)?;
        let path = self.home.join("pin");
        fs::rename(&temporary, &path).map_err(|source| fail("write", &path, source))
    }
}

fn random_pin() -> Result<String, SoftHsmError> {
    random::array::<16>().map(hex::encode).map_err(SoftHsmError::Random)
}

fn write(path: &Path, text: &str) -> Result<(), SoftHsmError> {
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| fail("write", path, source))
}

fn fail(what: &'static str, path: &Path, source: io::Error) -> SoftHsmError {
    SoftHsmError::Io { what, path: path.to_owned(), source }
}
