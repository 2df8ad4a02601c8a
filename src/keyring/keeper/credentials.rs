//! Credentials, for the operator's tool and for providers. Each is read from disk when it is asked for, so that one that was sealed
//! again is the one that is used next.

use super::Keeper;
use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::provider::Mark;
use crate::seal::credentials::{self, CredentialKey, CredentialStoreError};
use crate::store::Disk;
use crate::types::{CredentialName, Secret};

impl<D: Disk + Clone> Keeper<'_, D> {
    /// What the operator's tool has sealed under this node's root. It is opened once before anything is written.
    pub(super) fn store_credential(&mut self, name: &CredentialName, payload: &[u8]) -> Result<(), KeeperError> {
        let key = self.key_of_credentials()?;
        key.store(self.books.folder()?, payload, name, &self.settings.cluster).map_err(KeeperError::Credentials)?;
        emit(&Event::CredentialSealed { name });
        Ok(())
    }

    /// The caller knows that no provider logs in with it.
    pub(super) fn remove_credential(&mut self, name: &CredentialName) -> Result<(), KeeperError> {
        credentials::remove(self.books.folder()?, name).map_err(KeeperError::Credentials)?;
        emit(&Event::CredentialRemoved { name });
        Ok(())
    }

    /// For a login. With what no other sealing of it has.
    pub(super) fn open_credential(&self, name: &CredentialName) -> Result<(Secret, Mark), KeeperError> {
        let key = self.key_of_credentials()?;
        let opened =
            key.open_marked(&self.books.home.root, name, &self.settings.cluster).map_err(KeeperError::Credentials);
        opened.map(|(content, nonce)| (content, Mark::new(nonce)))
    }

    /// After a login that uses its credential up. What the operator has sealed or removed meanwhile stays so.
    pub(super) fn replace_credential(
        &mut self,
        name: &CredentialName,
        from: Mark,
        content: &Secret,
    ) -> Result<(), KeeperError> {
        if self.open_credential(name)?.1 != from {
            return Err(KeeperError::Credentials(CredentialStoreError::Replaced(name.clone())));
        }
        let key = self.key_of_credentials()?;
        let payload = key.seal(content, name, &self.settings.cluster, (self.settings.now)());
        self.store_credential(name, &payload.map_err(KeeperError::Credentials)?)
    }

    pub(super) fn key_of_credentials(&self) -> Result<CredentialKey, KeeperError> {
        let key = self.derived.credential_key.copy();
        Ok(CredentialKey::from_parts(self.books.root_id(), key))
    }
}
