//! Paths of unix sockets: what the kernel takes, and that no two of ours are one.

use std::path::{Path, PathBuf};

use super::forms::absolute;
use super::problems::{Checked, Problems};

/// `sun_path` of unix(7) with its zero.
const PATH_BYTES: usize = 108;
/// Linux's largest (proc(5), pid_max).
const PID_MAX: u32 = 4_194_304;

/// A socket that is made under another name first (`socket::listen`), whose longest one ends in the largest process id.
pub(super) fn own(problems: &mut Problems, key: &str, path: Option<String>, default: &str) -> Checked<PathBuf> {
    let path = path_of(problems, key, path, default)?;
    let made_as = path.with_extension(format!("new{PID_MAX}"));
    let longer = made_as.as_os_str().len().saturating_sub(path.as_os_str().len());
    fits(problems, key, path, PATH_BYTES - 1 - longer)
}

/// A socket of somebody else.
pub(super) fn of_another(problems: &mut Problems, key: &str, path: String) -> Checked<PathBuf> {
    let path = path_of(problems, key, Some(path), "")?;
    fits(problems, key, path, PATH_BYTES - 1)
}

fn path_of(problems: &mut Problems, key: &str, path: Option<String>, default: &str) -> Checked<PathBuf> {
    let is_folder = path.as_deref().is_some_and(|path| path.ends_with('/') || path.ends_with("/."));
    let path = absolute(problems, key, path, default)?;
    if is_folder {
        let shown = path.display().to_string();
        return problems.refuse(key, format!("{shown:?} is a folder: write the path of a file in it"));
    }
    Ok(path)
}

fn fits(problems: &mut Problems, key: &str, path: PathBuf, max: usize) -> Checked<PathBuf> {
    if path.as_os_str().len() <= max {
        return Ok(path);
    }
    problems.refuse(key, format!("is longer than the {max} bytes that the kernel allows"))
}

/// Each is bound by a program of its own, which would find the other one there.
pub(super) fn check_apart(problems: &mut Problems, sockets: &[(&str, &Path)]) {
    for (index, (key, path)) in sockets.iter().enumerate() {
        // `Path` compares components: `/run/./x` and `/run//x` are `/run/x`.
        if let Some((other, _)) = sockets.iter().take(index).find(|(_, earlier)| earlier == path) {
            problems.add(key, format!("is the path of {other}: give each socket its own"));
        }
    }
}
