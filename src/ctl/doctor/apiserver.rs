//! kube-apiserver as it is started on this node, found by itself: the static pod of kubeadm or RKE2, the configuration of k3s, or the
//! process. What it is told is read as it reads it (`ctl::etcd::cluster`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::finding::Finding;
use super::scene::{Scene, Unread};
use crate::ctl::etcd::cluster::{Flags, KUBEADM, Pod, RKE2_MANIFEST};
use crate::etcd::wanted::{Wanted, socket};

const K3S_SERVER: &str = "/var/lib/rancher/k3s/server";
const K3S_CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const K3S_CONFIG_FOLDER: &str = "/etc/rancher/k3s/config.yaml.d";
const K3S_UNIT: &str = "/etc/systemd/system/k3s.service";
const ARGUMENT: &str = "kube-apiserver-arg";
/// `/proc/PID/comm`.
const PROCESS: &str = "kube-apiserver";

/// The flag of the file.
pub(super) const FLAG: &str = "encryption-provider-config";

pub(super) struct Apiserver {
    /// Who says so.
    pub(super) said_in: String,
    pub(super) flags: Flags,
    view: View,
}

/// How it sees the node's files.
enum View {
    /// As they are.
    Host,
    /// Only what is mounted.
    Pod(Vec<Mount>),
}

struct Mount {
    inside: PathBuf,
    host: PathBuf,
}

/// The EncryptionConfiguration that it reads.
pub(super) struct Encryption {
    /// On the node.
    pub(super) path: PathBuf,
    pub(super) text: Zeroizing<String>,
    pub(super) wanted: Wanted,
}

impl Apiserver {
    pub(super) fn find(scene: &Scene) -> Result<Self, Finding> {
        for path in [KUBEADM, RKE2_MANIFEST] {
            match scene.read(path) {
                Ok(text) => return Self::of_manifest(path, &text),
                Err(Unread::Missing) => {}
                Err(unread @ (Unread::Denied | Unread::Other(_))) => return Err(unread.skipped(path)),
            }
        }
        match Self::of_k3s(scene)? {
            Some(found) => Ok(found),
            None => of_process(scene).ok_or_else(|| Finding::skip("no kube-apiserver was found on this node")),
        }
    }

    fn of_manifest(path: &str, text: &str) -> Result<Self, Finding> {
        let unclear = || {
            Finding::warn(
                format!("{path} is there, and is no pod that can be read"),
                "see whether kube-apiserver runs, and what its --encryption-provider-config says",
            )
        };
        let pod = Pod::parse(text).ok_or_else(unclear)?;
        let host_of = |name: &str| {
            let volume = pod.spec.volumes.iter().find(|volume| volume.name == name)?;
            Some(volume.host_path.as_ref()?.path.clone())
        };
        let mounts = pod.spec.containers.iter().flat_map(|container| &container.volume_mounts);
        let mounts =
            mounts.filter_map(|mount| Some(Mount { inside: mount.mount_path.clone(), host: host_of(&mount.name)? }));
        Ok(Self { said_in: path.to_owned(), flags: pod.flags(), view: View::Pod(mounts.collect()) })
    }

    /// The server of k3s runs it in its own process.
    fn of_k3s(scene: &Scene) -> Result<Option<Self>, Finding> {
        if matches!(scene.meta(K3S_SERVER), Err(Unread::Missing)) {
            return Ok(None);
        }
        let more = scene.names(K3S_CONFIG_FOLDER).into_iter().filter(|name| name.ends_with(".yaml"));
        let files =
            std::iter::once(K3S_CONFIG.to_owned()).chain(more.map(|name| format!("{K3S_CONFIG_FOLDER}/{name}")));
        let mut words = Vec::new();
        for path in files {
            match scene.read(&path) {
                Ok(text) => words.extend(arguments(&text).ok_or_else(|| {
                    Finding::warn(format!("{path} cannot be read as YAML"), "see what kube-apiserver-arg in it says")
                })?),
                Err(Unread::Missing) => {}
                Err(unread) => return Err(unread.skipped(path)),
            }
        }
        if let Ok(unit) = scene.read(K3S_UNIT) {
            words.extend(arguments_of_unit(&unit));
        }
        // Its own file, with `secrets-encryption`.
        let own = format!("{K3S_SERVER}/cred/encryption-config.json");
        let flags = Flags(words.iter().map(|word| format!("--{word}")).collect());
        let has_own = flags.last(FLAG).is_none() && scene.meta(&own).is_ok();
        let own = has_own.then(|| format!("--{FLAG}={own}"));
        let flags = Flags(flags.0.into_iter().chain(own).collect());
        Ok(Some(Self { said_in: K3S_CONFIG.to_owned(), flags, view: View::Host }))
    }

    /// Where a path that it opens lies on the node; `None` if nothing is mounted there.
    pub(super) fn on_the_node(&self, inside: &Path) -> Option<PathBuf> {
        match &self.view {
            View::Host => Some(inside.to_owned()),
            View::Pod(_) => {
                let mount = self.mount_of(inside)?;
                let rest = inside.strip_prefix(&mount.inside).ok()?;
                Some(if rest.as_os_str().is_empty() { mount.host.clone() } else { mount.host.join(rest) })
            }
        }
    }

    pub(super) const fn is_a_pod(&self) -> bool {
        matches!(self.view, View::Pod(_))
    }

    /// This very path is mounted, and not a folder above it.
    pub(super) fn mounts_itself(&self, inside: &Path) -> bool {
        self.mount_of(inside).is_some_and(|mount| mount.inside == inside)
    }

    /// The innermost one.
    fn mount_of(&self, inside: &Path) -> Option<&Mount> {
        let View::Pod(mounts) = &self.view else { return None };
        let around = mounts.iter().filter(|mount| inside.starts_with(&mount.inside));
        around.max_by_key(|mount| mount.inside.components().count())
    }

    /// The socket of an endpoint, on the node.
    pub(super) fn socket_of(&self, endpoint: &str) -> Option<String> {
        let inside = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
        // A leading `//` of a URL is one slash of a path.
        let inside = PathBuf::from(format!("/{}", inside.trim_start_matches('/')));
        // Both spellings of /run are one folder in a pod only if that is mounted so.
        let host = self.on_the_node(&inside).or_else(|| self.on_the_node(Path::new(&socket(endpoint))))?;
        Some(socket(&host.display().to_string()))
    }

    /// The file, read and understood. What is wrong with it is ND-302's to say.
    pub(super) fn encryption(&self, scene: &Scene) -> Result<Encryption, Finding> {
        let path = self.encryption_path()?;
        let text = scene.read(&path).map_err(|unread| unread.skipped(&path))?;
        let wanted = Wanted::parse(&text).map_err(|_| Finding::skip("the file is not understood (ND-302)"))?;
        Ok(Encryption { path, text, wanted })
    }

    pub(super) fn encryption_path(&self) -> Result<PathBuf, Finding> {
        let inside = self.flags.last(FLAG).filter(|path| !path.is_empty());
        let inside = inside.ok_or_else(|| Finding::skip("kube-apiserver has no EncryptionConfiguration (ND-301)"))?;
        self.on_the_node(Path::new(inside)).ok_or_else(|| {
            Finding::fail(
                format!("{inside} is not in a folder that {} mounts", self.said_in),
                "mount the folder of the file into the pod: see docs/operations/kubeadm.md",
            )
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Of a configuration of k3s, `NAME=VALUE` each.
fn arguments(text: &str) -> Option<Vec<String>> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Some(Vec::new());
    }
    let file: std::collections::BTreeMap<String, serde_json::Value> = serde_saphyr::from_str(text).ok()?;
    // `key+` adds to what an earlier file has (k3s, "Configuration File").
    let values = file.into_iter().filter(|(key, _)| key.trim_end_matches('+') == ARGUMENT);
    let words = values.map(|(_, value)| match serde_json::from_value(value).ok()? {
        OneOrMany::One(word) => Some(vec![word]),
        OneOrMany::Many(words) => Some(words),
    });
    words.collect::<Option<Vec<_>>>().map(|words| words.concat())
}

/// The same of the command line in the unit that k3s' installer writes.
fn arguments_of_unit(unit: &str) -> Vec<String> {
    let is_edge = |sign: char| sign.is_whitespace() || matches!(sign, '\'' | '"' | '\\');
    let words: Vec<&str> = unit.split(is_edge).filter(|word| !word.is_empty()).collect();
    let flag = format!("--{ARGUMENT}");
    let value = |(at, word): (usize, &&str)| match word.strip_prefix(&flag)? {
        "" => words.get(at + 1).map(|next| (*next).to_owned()),
        rest => rest.strip_prefix('=').map(str::to_owned),
    };
    words.iter().enumerate().filter_map(value).collect()
}

/// Processes of that name.
pub(super) fn processes(scene: &Scene) -> Vec<String> {
    let is_it = |pid: &String| scene.read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == PROCESS);
    scene.processes().into_iter().filter(is_it).collect()
}

/// One that somebody else starts: it is taken to see the node's files as they are.
fn of_process(scene: &Scene) -> Option<Apiserver> {
    let pid = processes(scene).into_iter().next()?;
    let line = scene.read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = line.split('\0').map(str::to_owned).collect();
    Some(Apiserver { said_in: format!("the process {pid}"), flags: Flags(words), view: View::Host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_k3s_are_found_in_each_of_its_forms() {
        let wanted = Some(vec!["encryption-provider-config=/a".to_owned()]);
        assert_eq!(arguments("kube-apiserver-arg: encryption-provider-config=/a\n"), wanted);
        assert_eq!(arguments("tls-san: [x]\nkube-apiserver-arg+:\n  - \"encryption-provider-config=/a\"\n"), wanted);
        assert_eq!(arguments("# nothing\n"), Some(Vec::new()));
        assert_eq!(arguments("[broken"), None);
        let unit = "ExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--kube-apiserver-arg' \\\n\t'encryption-provider-config=/a' \\\n";
        assert_eq!(Some(arguments_of_unit(unit)), wanted);
        assert_eq!(Some(arguments_of_unit("k3s server --kube-apiserver-arg=encryption-provider-config=/a")), wanted);
    }
}
