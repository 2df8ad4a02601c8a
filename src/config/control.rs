//! `[control]`: the operator's socket and that of the status.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::problems::{Checked, Noted, Problems};
use super::sockets;

/// The whole directory of the KMS socket is mounted into API-server pods, whose root passes any mode: the control
/// socket has a folder of its own. So has the status socket, which a monitor's pod may mount without becoming the
/// operator.
const CONTROL_SOCKET: &str = "/run/nodeseal-control/control.sock";
const STATUS_SOCKET: &str = "/run/nodeseal-status/status.sock";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    socket: Option<String>,
    status_socket: Option<String>,
    status_group: Option<String>,
}

/// The table, checked.
pub(super) struct Sockets {
    pub(super) socket: PathBuf,
    pub(super) status_socket: PathBuf,
    pub(super) status_group: Option<u32>,
}

pub(super) fn check(problems: &mut Problems, table: Control) -> Checked<Sockets> {
    let Control { socket, status_socket, status_group } = table;
    // Of several nodeseald on one machine each has its own.
    let beside =
        socket.as_deref().and_then(|socket| Path::new(socket).parent()).map(|folder| folder.join("status.sock"));
    let beside = beside.map_or_else(|| STATUS_SOCKET.to_owned(), |path| path.display().to_string());
    let socket = sockets::own(problems, "control.socket", socket, CONTROL_SOCKET);
    // What is wrong with the other one is wrong with what follows from it.
    let status_socket = match (&socket, status_socket) {
        (Err(Noted), None) => Err(Noted),
        (_, path) => sockets::own(problems, "control.status_socket", path, &beside),
    };
    let status_group = check_group(problems, status_group);
    Ok(Sockets { socket: socket?, status_socket: status_socket?, status_group: status_group? })
}

fn check_group(problems: &mut Problems, name: Option<String>) -> Checked<Option<u32>> {
    let Some(name) = name else { return Ok(None) };
    match nix::unistd::Group::from_name(&name) {
        Ok(Some(group)) => Ok(Some(group.gid.as_raw())),
        Ok(None) | Err(_) => {
            problems.refuse("control.status_group", format!("there is no group {name:?} on this machine"))
        }
    }
}

/// Both sockets, without a word on what is wrong.
pub(super) fn sockets_of(socket: Option<String>, status_socket: Option<String>) -> Option<(PathBuf, PathBuf)> {
    let table = Control { socket, status_socket, status_group: None };
    check(&mut Problems::default(), table).ok().map(|control| (control.socket, control.status_socket))
}

/// The folder that docs/operations mount into pods of kube-apiserver, where root of a container passes mode and peer
/// check.
pub(super) fn warn_of_pods(warnings: &mut Problems, control: &Path) {
    let mounted = [Path::new("/run/nodeseal"), Path::new("/var/run/nodeseal")];
    if control.parent().is_some_and(|folder| mounted.contains(&folder)) {
        let text = "lies in the folder that pods of kube-apiserver mount, so that root of such a pod is the operator: leave it out, or \
                    name one in a folder of its own, such as /run/nodeseal-control";
        warnings.add("control.socket", text);
    }
}
