//! The credentials of providers, as the keeper has them.
//!
//! A login that serves once may seal what it was given in exchange. That is no change by the operator: nothing has to prove itself because of
//! it, and a proof would spend what was sealed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::look::Looks;
use crate::keyring::keeper::KeeperHandle;
#[cfg(feature = "vault")]
use crate::provider::LoginTries;
use crate::provider::{CredentialAnswer, CredentialError, Credentials, Mark};
use crate::seal::credential;
use crate::store::RunFile;
use crate::types::{CredentialName, Secret};

/// How the files look that a login has sealed.
#[derive(Default)]
pub(super) struct OwnSeals {
    /// Of the node root.
    folder: Mutex<Option<PathBuf>>,
    looks: Mutex<Looks>,
}

impl OwnSeals {
    /// Where credentials lie from now on.
    pub(super) fn lie_in(&self, folder: Option<&Path>) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = folder.map(Path::to_owned);
    }

    /// What a provider was made of looks as its own logins have left it.
    pub(super) fn teach(&self, looks: &mut Looks) {
        looks.adopt(&self.looks.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Just sealed.
    fn note(&self, name: &CredentialName) {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = folder.map(|folder| folder.join(credential::file_name(name)));
        let look = Looks::at(path, &Looks::default());
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).add(look);
    }
}

/// Credentials as the keeper has them. It answers on its own thread, and may be busy with a disk.
pub(super) struct Kept {
    keeper: KeeperHandle,
    #[cfg(feature = "vault")]
    tries: LoginTries,
    own: Arc<OwnSeals>,
}

impl Kept {
    #[cfg_attr(not(feature = "vault"), expect(unused_variables, reason = "only Vault has logins that serve once"))]
    pub(super) fn new(keeper: KeeperHandle, login_tries: Option<RunFile>, own: Arc<OwnSeals>) -> Self {
        Self {
            keeper,
            #[cfg(feature = "vault")]
            tries: LoginTries::new(login_tries),
            own,
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        name: &CredentialName,
        ask: impl FnOnce(&KeeperHandle, CredentialName) -> Result<T, crate::keyring::KeeperError> + Send + 'static,
    ) -> CredentialAnswer<'static, T> {
        let (keeper, name) = (self.keeper.clone(), name.clone());
        Box::pin(async move {
            let answer = tokio::task::spawn_blocking(move || ask(&keeper, name)).await;
            answer.map_err(boxed)?.map_err(boxed)
        })
    }
}

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> CredentialError {
    Box::new(error)
}

impl Credentials for Kept {
    fn open<'a>(&'a self, name: &'a CredentialName) -> CredentialAnswer<'a, (Secret, Mark)> {
        self.ask(name, |keeper, name| keeper.open_credential(name))
    }

    #[cfg(feature = "vault")]
    fn tries(&self) -> &LoginTries {
        &self.tries
    }

    fn replace<'a>(&'a self, name: &'a CredentialName, from: Mark, secret: &'a Secret) -> CredentialAnswer<'a, ()> {
        let (content, own) = (Secret::new(secret.expose().to_vec()), Arc::clone(&self.own));
        self.ask(name, move |keeper, name| {
            keeper.replace_credential(name.clone(), from, content)?;
            own.note(&name);
            Ok(())
        })
    }
}
