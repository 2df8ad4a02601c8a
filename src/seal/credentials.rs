//! The credentials of a node on disk: sealed by the operator's tool, stored and listed by whoever owns the state directory.

use super::credential::{self, CredentialError, DIR, Label, SUFFIX};
use super::root::NodeRoot;
use crate::envelope::NONCE_BYTES;
use crate::store::{Disk, Kind, LoadError, PREVIOUS, StateDir, StoreError};
use crate::types::clock::UnixSeconds;
use crate::types::random::{self, RandomError};
use crate::types::{Class, ClusterId, CredentialName, Explained, Key, RootId, Secret};

/// Why a credential cannot be sealed, stored or opened.
#[derive(Debug, thiserror::Error)]
pub enum CredentialStoreError {
    /// The content, or the file.
    #[error("credential `{name}` cannot be used")]
    Credential {
        /// Which one.
        name: CredentialName,
        /// In which way.
        #[source]
        source: CredentialError,
    },
    /// There is none of that name.
    #[error("there is no credential `{0}`")]
    Missing(CredentialName),
    /// Another one lies there than the one that was to be replaced.
    #[error("credential `{0}` has been sealed again meanwhile")]
    Replaced(CredentialName),
    /// Removed, it would stop a login.
    #[error("credential `{name}` is the login of {providers}")]
    Used {
        /// Which one.
        name: CredentialName,
        /// Whose.
        providers: String,
    },
    /// No randomness.
    #[error("no nonce can be made")]
    Random(#[source] RandomError),
    /// The state directory.
    #[error("the state directory cannot be used")]
    Store(#[source] StoreError),
}

impl Explained for CredentialStoreError {
    fn class(&self) -> Class {
        match self {
            Self::Credential { source, .. } => source.class(),
            Self::Missing(_) => Class::NotFound,
            Self::Replaced(_) | Self::Used { .. } => Class::Misconfigured,
            Self::Random(_) => Class::Unavailable,
            Self::Store(error) => error.class(),
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Credential { source, .. } => source.hint(),
            Self::Missing(_) => {
                "seal it on this node: `nodeseal credentials seal NAME`; `nodeseal credentials list` shows those that are here"
            }
            Self::Replaced(_) => "nothing to do: the one that was sealed last is used",
            Self::Used { .. } => {
                "first give these providers another credential, or take them out, and `nodeseal reload`; to replace it, seal another under the same name"
            }
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Store(error) => error.hint(),
        }
    }
}

/// What opens and seals all credentials of a node.
pub struct CredentialKey {
    root: RootId,
    key: Key,
}

impl CredentialKey {
    /// From an open root.
    pub fn of(root: &NodeRoot, cluster: &ClusterId) -> Self {
        Self { root: root.id(), key: root.credential_key(cluster) }
    }

    /// From its parts, for a key that lives in locked memory.
    pub const fn from_parts(root: RootId, key: Key) -> Self {
        Self { root, key }
    }

    /// The payload of a credential's file.
    pub fn seal(
        &self,
        content: &Secret,
        name: &CredentialName,
        cluster: &ClusterId,
        now: UnixSeconds,
    ) -> Result<Vec<u8>, CredentialStoreError> {
        let label = Label { name: name.clone(), sealed: now };
        let nonce = random::array().map_err(CredentialStoreError::Random)?;
        credential::seal(content, &label, cluster, &self.root, &self.key, nonce).map_err(fail(name))
    }

    /// The payload of one that another root has sealed, with the nonce that it has there: whoever remembers what came of a login by it knows it by
    /// that. This key has sealed nothing else with it: a nonce is random where a credential is sealed first.
    pub fn carry_over(
        &self,
        content: &Secret,
        label: &Label,
        cluster: &ClusterId,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, CredentialStoreError> {
        credential::seal(content, label, cluster, &self.root, &self.key, nonce).map_err(fail(&label.name))
    }

    /// Proves the payload and writes it, in place of an older one, of which nothing stays.
    pub fn store<D: Disk>(
        &self,
        dir: &StateDir<D>,
        payload: &[u8],
        name: &CredentialName,
        cluster: &ClusterId,
    ) -> Result<(), CredentialStoreError> {
        self.open_payload(payload, name, cluster)?;
        let store = CredentialStoreError::Store;
        dir.make_dir(DIR).map_err(store)?;
        dir.replace_both(&credential::file_name(name), Kind::Credential, payload).map_err(store)
    }

    /// The content of a credential as it is on disk now.
    pub fn open<D: Disk>(
        &self,
        dir: &StateDir<D>,
        name: &CredentialName,
        cluster: &ClusterId,
    ) -> Result<Secret, CredentialStoreError> {
        self.open_marked(dir, name, cluster).map(|(content, _)| content)
    }

    /// The same, with the nonce that no other sealing has.
    pub fn open_marked<D: Disk>(
        &self,
        dir: &StateDir<D>,
        name: &CredentialName,
        cluster: &ClusterId,
    ) -> Result<(Secret, [u8; NONCE_BYTES]), CredentialStoreError> {
        let accept = |_, bytes: &[u8]| {
            let content = credential::open(bytes, name, cluster, &self.root, &self.key)?;
            Ok((content, credential::nonce(bytes)?))
        };
        match dir.load(&credential::file_name(name), Kind::Credential, accept) {
            Ok(loaded) => Ok(loaded.value),
            Err(LoadError::Content(source)) => Err(fail(name)(source)),
            Err(LoadError::Store(error)) if error.is_missing() => Err(CredentialStoreError::Missing(name.clone())),
            Err(LoadError::Store(error)) => Err(CredentialStoreError::Store(error)),
        }
    }

    fn open_payload(
        &self,
        payload: &[u8],
        name: &CredentialName,
        cluster: &ClusterId,
    ) -> Result<Secret, CredentialStoreError> {
        credential::open(payload, name, cluster, &self.root, &self.key).map_err(fail(name))
    }
}

/// Takes both generations away. Who uses it is the caller's to know.
pub fn remove<D: Disk>(dir: &StateDir<D>, name: &CredentialName) -> Result<(), CredentialStoreError> {
    // One of which only the older generation is left is there too.
    for generation in [SUFFIX.to_owned(), format!("{SUFFIX}{PREVIOUS}")] {
        match dir.list(DIR, &generation) {
            Ok(names) if names.iter().any(|found| found == name.as_str()) => {
                return dir.destroy(&credential::file_name(name)).map_err(CredentialStoreError::Store);
            }
            Ok(_) => {}
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(CredentialStoreError::Store(error)),
        }
    }
    Err(CredentialStoreError::Missing(name.clone()))
}

/// Names and ages, without a key: what each file says in clear. Files that cannot be read are left out.
pub fn list<D: Disk>(dir: &StateDir<D>) -> Result<Vec<Label>, StoreError> {
    let names = match dir.list(DIR, SUFFIX) {
        Ok(names) => names,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let read = |name: &String| {
        let file = format!("{DIR}/{name}{SUFFIX}");
        dir.load(&file, Kind::Credential, |_, bytes| credential::label(bytes)).ok().map(|loaded| loaded.value)
    };
    Ok(names.iter().filter_map(read).collect())
}

fn fail(name: &CredentialName) -> impl FnOnce(CredentialError) -> CredentialStoreError {
    let name = name.clone();
    move |source| CredentialStoreError::Credential { name, source }
}
