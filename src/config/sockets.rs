//! Paths of unix sockets: what the kernel takes, and that no two of ours are one.

use std::path::{Path, PathBuf};

use super::check::{Problems, absolute};
use super::{Problem, raw};

/// `sun_path` of unix(7) with its zero.
const PATH_BYTES: usize = 108;

/// A socket that is made under another name first (`socket::listen`), whose longest one ends in the largest process id.
pub(super) fn own(problems: &mut Problems, key: &str, path: Option<String>, default: &str) -> Option<PathBuf> {
    let path = path_of(problems, key, path, default)?;
    let made_as = path.with_extension(format!("new{PID_MAX}"));
    let longer = made_as.as_os_str().len().saturating_sub(path.as_os_str().len());
    fits(problems, key, path, PATH_BYTES - 1 - longer)
}

/// Linux's largest (proc(5), pid_max).
const PID_MAX: u32 = 4_194_304;

/// Of `[control]`.
pub(super) struct Control {
    pub(super) socket: PathBuf,
    pub(super) status_socket: PathBuf,
    pub(super) status_group: Option<u32>,
}

/// The whole directory of the KMS socket is mounted into API-server pods, whose root passes any mode: the control socket has a folder of its
/// own. So has the status socket, which a monitor's pod may mount without becoming the operator.
const CONTROL_SOCKET: &str = "/run/nodeseal-control/control.sock";
const STATUS_SOCKET: &str = "/run/nodeseal-status/status.sock";

pub(super) fn control(problems: &mut Problems, table: raw::Control) -> Option<Control> {
    let raw::Control { socket, status_socket, status_group } = table;
    // Of several nodeseald on one machine each has its own.
    let beside =
        socket.as_deref().and_then(|socket| Path::new(socket).parent()).map(|folder| folder.join("status.sock"));
    let beside = beside.map_or_else(|| STATUS_SOCKET.to_owned(), |path| path.display().to_string());
    let socket = own(problems, "control.socket", socket, CONTROL_SOCKET);
    // What is wrong with the other one is wrong with what follows from it.
    let status_socket = match (&socket, status_socket) {
        (None, None) => None,
        (_, path) => own(problems, "control.status_socket", path, &beside),
    };
    let status_group = match status_group {
        None => Some(None),
        Some(name) => match nix::unistd::Group::from_name(&name) {
            Ok(Some(group)) => Some(Some(group.gid.as_raw())),
            Ok(None) | Err(_) => {
                problems.add("control.status_group", format!("there is no group {name:?} on this machine"));
                None
            }
        },
    };
    Some(Control { socket: socket?, status_socket: status_socket?, status_group: status_group? })
}

/// Both sockets, without a word on what is wrong.
pub(super) fn of_control(socket: Option<String>, status_socket: Option<String>) -> Option<(PathBuf, PathBuf)> {
    let table = raw::Control { socket, status_socket, status_group: None };
    control(&mut Problems::default(), table).map(|control| (control.socket, control.status_socket))
}

/// A socket of somebody else.
pub(super) fn of_another(problems: &mut Problems, key: &str, path: String) -> Option<PathBuf> {
    let path = path_of(problems, key, Some(path), "")?;
    fits(problems, key, path, PATH_BYTES - 1)
}

fn path_of(problems: &mut Problems, key: &str, path: Option<String>, default: &str) -> Option<PathBuf> {
    let is_folder = path.as_deref().is_some_and(|path| path.ends_with('/') || path.ends_with("/."));
    let path = absolute(problems, key, path, default)?;
    if is_folder {
        problems.add(key, format!("{:?} is a folder: write the path of a file in it", path.display().to_string()));
        return None;
    }
    Some(path)
}

fn fits(problems: &mut Problems, key: &str, path: PathBuf, max: usize) -> Option<PathBuf> {
    if path.as_os_str().len() <= max {
        return Some(path);
    }
    problems.add(key, format!("is longer than the {max} bytes that the kernel allows"));
    None
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

/// The folder that docs/operations mount into pods of kube-apiserver, where root of a container passes mode and peer check.
pub(super) fn warn_of_pods(warnings: &mut Vec<Problem>, control: &Path) {
    let mounted = [Path::new("/run/nodeseal"), Path::new("/var/run/nodeseal")];
    if control.parent().is_some_and(|folder| mounted.contains(&folder)) {
        let text = "lies in the folder that pods of kube-apiserver mount, so that root of such a pod is the operator: leave it out, or \
                    name one in a folder of its own, such as /run/nodeseal-control";
        warnings.push(Problem::new("control.socket", text));
    }
}

/// What is lost with the machine's memory.
pub(super) fn warn_of_memory(warnings: &mut Vec<Problem>, state_dir: &Path) {
    if ["/run", "/var/run", "/dev/shm"].iter().any(|memory| state_dir.starts_with(memory)) {
        let text = "is in memory, and is lost at the next boot: use a folder on a disk, such as /var/lib/nodeseal";
        warnings.push(Problem::new("state_dir", text));
    }
}
