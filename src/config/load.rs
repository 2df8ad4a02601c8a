//! Opens the file, refuses one that others can change, and hands its text to `check`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::check::{self, File};
use super::checked::Config;
use super::mistakes::{self, Instead};
use super::problems::Problem;
use super::{control, lines, systemd};
use crate::types::{Class, Explained};

/// Bytes. A configuration with a hundred providers is a tenth of it.
const MAX_BYTES: u64 = 1024 * 1024;
/// Mistakes that one line of a log names, and characters of each.
const FEW: usize = 3;
const FEW_CHARS: usize = 200;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Others can write to the file.
    #[error("{path} {reason}", path = path.display())]
    Insecure {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
    /// More than any configuration needs. Cut, it would be another one.
    #[error("{path} has {bytes} bytes, and a configuration at most {MAX_BYTES}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The content, all mistakes at once.
    #[error("{path} has {n} mistake{s}", path = path.display(), n = problems.len(), s = if problems.len() == 1 { "" } else { "s" })]
    Problems {
        /// The file.
        path: PathBuf,
        /// In the order of the file's sections.
        problems: Vec<Problem>,
    },
    /// The kernel said no.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Not TOML, or a key that we do not know.
    #[error("{path} is not a valid configuration", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// With line and column.
        #[source]
        source: toml::de::Error,
    },
}

impl ConfigError {
    /// The single mistakes, if there are any.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Problems { problems, .. } => problems,
            Self::Insecure { .. } | Self::Read { .. } | Self::Syntax { .. } | Self::TooLarge { .. } => &[],
        }
    }

    /// The first mistakes in brackets, for a line of a log; empty if there are none.
    pub fn few(&self) -> String {
        let problems = self.problems();
        if problems.is_empty() {
            return String::new();
        }
        let cut = |problem: &Problem| problem.to_string().chars().take(FEW_CHARS).collect::<String>();
        let more = problems.len().checked_sub(FEW).filter(|more| *more > 0).map(|more| format!("and {more} more"));
        let named: Vec<_> = problems.iter().take(FEW).map(cut).chain(more).collect();
        format!(" ({})", named.join("; "))
    }
}

impl Explained for ConfigError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::Insecure { .. } => "chown root and chmod go-w the file",
            Self::TooLarge { .. } => {
                "check that this is the right file: `--config` or NODESEAL_CONFIG names another one"
            }
            Self::Problems { .. } | Self::Syntax { .. } => {
                "fix the file and run `nodeseal config check`; docs/configuration.md lists every key"
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "make it readable for the user of nodeseald (see its unit), for example with chown root:nodeseal and chmod 0640"
            }
            Self::Read { .. } => {
                "name the file with --config or NODESEAL_CONFIG; a first one has two lines: `version = 1` and `cluster = \"NAME\"`"
            }
        }
    }
}

/// Reads and checks the file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    // O_NONBLOCK, so that a pipe in its place holds nobody up.
    let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if !meta.is_file() {
        return Err(read(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let own = nix::unistd::geteuid().as_raw();
    let insecure = |reason: String| ConfigError::Insecure { path: path.to_owned(), reason };
    if meta.uid() != 0 && meta.uid() != own {
        return Err(insecure(format!("belongs to user {}, who can change it", meta.uid())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(insecure(format!("has mode {:04o}: others can change it", meta.mode() & 0o7777)));
    }
    let mut text = Vec::new();
    // It may grow while it is read.
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(read)?;
    let bytes = meta.len().max(text.len() as u64);
    if bytes > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = String::from_utf8(text).map_err(|error| read(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    parse_on(path, &text, systemd::version())
}

/// Checks the text of a file; `path` is for the messages alone. Of the machine only its users are looked up.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    parse_on(path, text, None)
}

/// The control socket and the status socket of a file that has mistakes, for asking a daemon that has read it before: those that it names, or the
/// usual ones.
pub fn sockets_despite(path: &Path, error: &ConfigError) -> Option<(PathBuf, PathBuf)> {
    let has_mistakes = matches!(error, ConfigError::Problems { .. } | ConfigError::Syntax { .. });
    let text = has_mistakes.then(|| std::fs::read_to_string(path).ok()).flatten()?;
    let file: toml::Table = text.parse().unwrap_or_default();
    let named = |key: &str| Some(file.get("control")?.as_table()?.get(key)?.as_str()?.to_owned());
    control::sockets_of(named("socket"), named("status_socket"))
}

fn parse_on(path: &Path, text: &str, systemd: Option<u32>) -> Result<Config, ConfigError> {
    let syntax = |source| ConfigError::Syntax { path: path.to_owned(), source };
    let table: toml::Table = text.parse().map_err(syntax)?;
    let (file, mistakes) = mistakes::read::<File>(table, Instead::Nothing, &[]);
    let mut problems: Vec<Problem> = mistakes.into_iter().map(|(key, text)| Problem::new(&key, text)).collect();
    let checked = file.map(|file| check::check(path, file, systemd));
    match checked {
        Some(Ok(mut config)) if problems.is_empty() => {
            lines::find(text, &mut config.warnings);
            return Ok(config);
        }
        Some(Err(more)) => {
            // What was taken out is not missing.
            let is_told = |more: &Problem| problems.iter().any(|told| told.key == more.key);
            let more: Vec<Problem> = more.into_iter().filter(|more| !is_told(more)).collect();
            problems.extend(more);
        }
        Some(Ok(_)) | None => {}
    }
    lines::find(text, &mut problems);
    Err(ConfigError::Problems { path: path.to_owned(), problems })
}
