//! `[sandbox]`: what the daemons keep themselves from.

use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{paths, ports};
use super::problems::{Checked, Problems};
use crate::sandbox::{Mode, Settings, User};
use crate::types::OVERFLOW_UID;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sandbox {
    mode: Option<String>,
    user: Option<String>,
    providers: Option<String>,
    allow_paths: Option<Vec<String>>,
    allow_ports: Option<Vec<i64>>,
}

pub(super) fn check(problems: &mut Problems, warnings: &mut Problems, table: Sandbox) -> Checked<Settings> {
    let Sandbox { mode, user, providers, allow_paths, allow_ports } = table;
    let mode = match mode.as_deref() {
        None | Some("best-effort") => Ok(Mode::BestEffort),
        Some("require") => Ok(Mode::Require),
        Some("off") => {
            warnings.add("sandbox.mode", "is \"off\": files, network and system calls are not restricted");
            Ok(Mode::Off)
        }
        Some(other) => {
            problems.refuse("sandbox.mode", format!("{other:?} is none of \"best-effort\", \"require\", \"off\""))
        }
    };
    let user = user.map(|name| check_user(problems, &name)).transpose();
    let any_provider = match providers.as_deref() {
        None | Some("configured") => Ok(false),
        Some("any") => Ok(true),
        Some(other) => problems.refuse("sandbox.providers", format!("{other:?} is neither \"configured\" nor \"any\"")),
    };
    let allow_paths = paths(problems, "sandbox.allow_paths", allow_paths);
    let allow_ports = ports(problems, "sandbox.allow_ports", allow_ports);
    Ok(Settings {
        mode: mode?,
        user: user?,
        any_provider: any_provider?,
        allow_paths: allow_paths?,
        allow_ports: allow_ports?,
    })
}

fn check_user(problems: &mut Problems, name: &str) -> Checked<User> {
    let problem = match nix::unistd::User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => "is root: write an unprivileged user, or remove the key".to_owned(),
        Ok(Some(user)) if user.uid.as_raw() == OVERFLOW_UID => {
            "is uid 65534, which stands for every unmapped user: create a separate user, such as nodeseal".to_owned()
        }
        Ok(Some(user)) => return Ok(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        Ok(None) | Err(_) => format!("there is no user {name:?} on this machine"),
    };
    problems.refuse("sandbox.user", problem)
}
