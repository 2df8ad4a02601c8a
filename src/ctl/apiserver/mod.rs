//! kube-apiserver as it is started on this node: the one place that finds its flags, for the doctor, a scan of etcd and a migration.
//!
//! Looked at are the static pods of kubeadm and RKE2, the configuration and the units of k3s and RKE2, and the running processes. What is
//! there and cannot be read or understood is told as [`Unseen`] and never taken for nothing: a scan goes by these flags to say that it has
//! seen all of etcd, and a KEK is destroyed on that. Of processes only those of root, or of a user that a static pod names, say anything:
//! any user can call a program kube-apiserver.

mod flags;
mod pod;
mod process;
mod rancher;

use std::path::{Path, PathBuf};

pub(super) use self::flags::Flags;
pub(super) use self::process::trusted as processes;
pub(super) use self::rancher::SERVERS as RANCHER_SERVERS;
use super::machine::{Machine, Unread};

pub(super) const KUBEADM: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const RKE2_MANIFEST: &str = "/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml";

/// The flag of the EncryptionConfiguration.
pub(super) const ENCRYPTION: &str = "encryption-provider-config";

/// One place that says how it is started.
pub(super) struct Started {
    /// Which one.
    pub(super) said_in: String,
    pub(super) source: Source,
    pub(super) flags: Flags,
    pub(super) view: View,
}

/// What the flags are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// All of them.
    Command,
    /// Those that k3s or RKE2 is told to add to its own.
    Added,
}

/// How it sees the node's files.
pub(super) enum View {
    /// As they are.
    Host,
    /// Only what is mounted.
    Pod(Vec<Mount>),
}

pub(super) struct Mount {
    pub(super) inside: PathBuf,
    pub(super) host: PathBuf,
}

/// A place that would say it, and does not.
#[derive(Debug)]
pub(super) enum Unseen {
    File {
        path: String,
        unread: Unread,
    },
    Form {
        path: String,
        wanted: &'static str,
    },
    /// k3s or RKE2 runs here, and not by a unit that is known.
    NoUnit {
        server: &'static str,
        units: &'static str,
    },
    /// A process of that name, of a user who may be anybody.
    Stranger {
        pid: String,
    },
}

impl Unseen {
    /// What would say it.
    pub(super) fn place(&self) -> PathBuf {
        match self {
            Self::File { path, .. } | Self::Form { path, .. } => path.into(),
            Self::NoUnit { units, .. } => format!("the unit {units}").into(),
            Self::Stranger { pid } => format!("/proc/{pid}").into(),
        }
    }
}

/// All places, those first that kube-apiserver is started from.
pub(super) fn find(machine: &Machine) -> Vec<Result<Started, Unseen>> {
    let mut found = Vec::new();
    let mut users = vec![machine.root_uid];
    for path in [KUBEADM, RKE2_MANIFEST] {
        match pod::find(machine, path) {
            None => {}
            Some(Ok((started, of_pod))) => {
                users.extend(of_pod);
                found.push(Ok(started));
            }
            Some(Err(unseen)) => found.push(Err(unseen)),
        }
    }
    // RKE2 writes into its manifest what it is told.
    if found.is_empty() {
        found.extend(rancher::find(machine));
    }
    let (of_processes, strangers) = process::find(machine, &users);
    found.extend(of_processes);
    // Beside one that is known another user's process says nothing.
    if found.is_empty() {
        found.extend(strangers.into_iter().map(Err));
    }
    found
}

impl Started {
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
}
