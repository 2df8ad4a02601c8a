//! What the doctor takes of kube-apiserver as it is started on this node (`ctl::apiserver`): the first place that says it.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::finding::Finding;
use super::scene::Scene;
use crate::ctl::apiserver::{self, ENCRYPTION, Started, Unseen};
use crate::ctl::machine::Unread;
use crate::etcd::wanted::{Wanted, socket};

/// The flag of the file.
pub(super) const FLAG: &str = ENCRYPTION;

pub(super) struct Apiserver(Started);

impl Deref for Apiserver {
    type Target = Started;

    fn deref(&self) -> &Started {
        &self.0
    }
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
        match apiserver::find(&scene.machine).into_iter().next() {
            Some(Ok(started)) => Ok(Self(started)),
            Some(Err(unseen)) => Err(told(&unseen)),
            None => Err(Finding::skip("no kube-apiserver was found on this node")),
        }
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

fn told(unseen: &Unseen) -> Finding {
    const SEE: &str = "see whether kube-apiserver runs, and what its --encryption-provider-config says";
    match unseen {
        Unseen::File { path, unread: unread @ Unread::Denied } => unread.skipped(path),
        Unseen::File { path, unread } => Finding::warn(unread.text(path), SEE),
        Unseen::Form { path, wanted } => {
            Finding::warn(format!("{path} is there, and is no {wanted} that can be read"), SEE)
        }
        Unseen::NoUnit { server, units } => {
            Finding::warn(format!("{server} is there, and no unit {units} that starts it"), SEE)
        }
        Unseen::Stranger { pid } => Finding::warn(
            format!("process {pid} is named kube-apiserver, and its user is neither root nor that of a static pod"),
            "see with `ps` who has started it: what a process of another user says counts for nothing here",
        ),
    }
}
