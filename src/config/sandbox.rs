//! `[sandbox]`, checked, and what the configured components need of the machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::check::{Problems, absolute};
use super::providers::{Provider, any_provider};
use super::{Config, raw};
use crate::sandbox::{Access, Mode, Needs, Policy, Settings, User};
use crate::types::OVERFLOW_UID;

pub(super) fn check(problems: &mut Problems, warnings: &mut Problems, table: raw::Sandbox) -> Option<Settings> {
    let raw::Sandbox { mode, user, providers, allow_paths, allow_ports } = table;
    let mode = match mode.as_deref() {
        None | Some("best-effort") => Some(Mode::BestEffort),
        Some("require") => Some(Mode::Require),
        Some("off") => {
            warnings.add("sandbox.mode", "is \"off\": files, network and system calls are not restricted");
            Some(Mode::Off)
        }
        Some(other) => {
            problems.add("sandbox.mode", format!("{other:?} is none of \"best-effort\", \"require\", \"off\""));
            None
        }
    };
    let user = match user {
        None => Some(None),
        Some(name) => check_user(problems, &name).map(Some),
    };
    let any_provider = match providers.as_deref() {
        None | Some("configured") => Some(false),
        Some("any") => Some(true),
        Some(other) => {
            problems.add("sandbox.providers", format!("{other:?} is neither \"configured\" nor \"any\""));
            None
        }
    };
    let allow_paths = paths(problems, "sandbox.allow_paths", allow_paths);
    let allow_ports = ports(problems, "sandbox.allow_ports", allow_ports);
    Some(Settings {
        mode: mode?,
        user: user?,
        any_provider: any_provider?,
        allow_paths: allow_paths?,
        allow_ports: allow_ports?,
    })
}

/// With `providers = "any"` nobody expects a reload to be refused for want of a file. What lies elsewhere is granted at a start alone.
pub(super) fn warn_of_files(warnings: &mut Problems, settings: &Settings, providers: &[Provider], config: &Path) {
    if !settings.any_provider || settings.mode == Mode::Off {
        return;
    }
    let given = any_provider().replaced_file(config, "the configuration");
    let folders: Vec<_> = given.paths.iter().map(|need| &need.path).chain(&settings.allow_paths).collect();
    let needed: BTreeSet<_> =
        providers.iter().flat_map(|provider| provider.needs().paths).map(|need| need.path).collect();
    for path in needed.iter().filter(|path| !folders.iter().any(|folder| path.starts_with(folder))) {
        let path = path.display();
        let text = format!(
            "{path} is read for a provider, but `providers = \"any\"` does not cover it, so a reload cannot allow it: add it here"
        );
        warnings.add("sandbox.allow_paths", text);
    }
}

fn check_user(problems: &mut Problems, name: &str) -> Option<User> {
    let problem = match nix::unistd::User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => "is root: write an unprivileged user, or remove the key".to_owned(),
        Ok(Some(user)) if user.uid.as_raw() == OVERFLOW_UID => {
            "is uid 65534, which stands for every unmapped user: create a separate user, such as nodeseal".to_owned()
        }
        Ok(Some(user)) => return Some(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        Ok(None) | Err(_) => format!("there is no user {name:?} on this machine"),
    };
    problems.add("sandbox.user", problem);
    None
}

/// Absolute ones.
pub(super) fn paths(problems: &mut Problems, key: &str, paths: Option<Vec<String>>) -> Option<Vec<PathBuf>> {
    let paths = paths.unwrap_or_default();
    let of = |(index, path)| absolute(problems, &format!("{key}[{index}]"), Some(path), "");
    // All of them, so that all mistakes are told.
    let found: Vec<_> = paths.into_iter().enumerate().map(of).collect();
    found.into_iter().collect()
}

/// Of TCP.
pub(super) fn ports(problems: &mut Problems, key: &str, ports: Option<Vec<i64>>) -> Option<Vec<u16>> {
    let ports = ports.unwrap_or_default();
    let found: Option<Vec<_>> = ports.iter().map(|port| u16::try_from(*port).ok().filter(|port| *port != 0)).collect();
    if found.is_none() {
        problems.add(key, "are numbers from 1 to 65535");
    }
    found
}

impl Config {
    /// To read this file anew.
    pub fn own_needs(&self) -> Needs {
        let file = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        Needs::default().users().replaced_file(&file, "the configuration")
    }

    /// What `nodeseald` needs once its sockets are open.
    pub fn daemon_needs(&self) -> Needs {
        let needs = self.own_needs().path(&self.state_dir, Access::Keep, "the state directory");
        let needs = self.seal.socket.iter().fold(needs, |needs, socket| needs.socket(socket));
        let needs = self
            .sandbox
            .allow_paths
            .iter()
            .fold(needs, |needs, path| needs.path(path, Access::Read, "sandbox.allow_paths"));
        let needs = self.sandbox.allow_ports.iter().fold(needs, |needs, port| needs.port(*port));
        let needs = if self.sandbox.any_provider { needs.and(any_provider()) } else { needs };
        let providers = self.providers.iter().flat_map(|providers| &providers.list);
        providers.fold(needs, |needs, provider| needs.and(provider.needs()))
    }

    /// What `nodeseal-sealer` needs once its socket is open, and the policy of its calls.
    pub fn sealer_needs(&self) -> (Needs, Policy) {
        let needs = self.seal.tpm2.needs();
        match &self.seal.pkcs11 {
            #[cfg(feature = "pkcs11")]
            Some(module) => (needs.and(module.needs()), Policy::ModuleSealer),
            _ => (needs, Policy::TpmSealer),
        }
    }
}
