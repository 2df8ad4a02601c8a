//! A static pod: the manifest of kubeadm or RKE2, what it tells kube-apiserver, and what it mounts.

use std::path::PathBuf;

use serde::Deserialize;

use super::flags::Flags;
use super::{Mount, Source, Started, Unseen, View};
use crate::ctl::machine::{Machine, Unread};

/// A static pod, of which only this is read.
#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
    security_context: Option<SecurityContext>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    volume_mounts: Vec<VolumeMount>,
    security_context: Option<SecurityContext>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Deserialize)]
struct HostPath {
    path: PathBuf,
}

impl Pod {
    fn parse(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok()
    }

    fn flags(&self) -> Flags {
        Flags(self.spec.containers.iter().flat_map(|one| [&one.command[..], &one.args].concat()).collect())
    }

    /// The user of its containers, if the manifest has one.
    fn users(&self) -> impl Iterator<Item = u32> {
        let of_containers = self.spec.containers.iter().map(|one| &one.security_context);
        let all = std::iter::once(&self.spec.security_context).chain(of_containers);
        all.filter_map(|context| context.as_ref()?.run_as_user)
    }

    fn mounts(&self) -> Vec<Mount> {
        let host_of = |name: &str| {
            let volume = self.spec.volumes.iter().find(|volume| volume.name == name)?;
            Some(volume.host_path.as_ref()?.path.clone())
        };
        let mounts = self.spec.containers.iter().flat_map(|container| &container.volume_mounts);
        mounts
            .filter_map(|mount| Some(Mount { inside: mount.mount_path.clone(), host: host_of(&mount.name)? }))
            .collect()
    }
}

/// What a manifest says, and the users that its pod runs as; `None` if there is none.
pub(super) fn find(machine: &Machine, path: &str) -> Option<Result<(Started, Vec<u32>), Unseen>> {
    let text = match machine.read(path) {
        Ok(text) => text,
        Err(Unread::Missing) => return None,
        Err(unread) => return Some(Err(Unseen::File { path: path.to_owned(), unread })),
    };
    let Some(pod) = Pod::parse(&text) else {
        return Some(Err(Unseen::Form { path: path.to_owned(), wanted: "pod" }));
    };
    let started = Started {
        said_in: path.to_owned(),
        source: Source::Command,
        flags: pod.flags(),
        view: View::Pod(pod.mounts()),
    };
    Some(Ok((started, pod.users().collect())))
}
