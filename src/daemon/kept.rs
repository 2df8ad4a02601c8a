//! The credentials of providers, as the keeper has them.
//!
//! A login that serves once may seal what it was given in exchange. That is no change by the operator: nothing has to prove itself because of
//! it, and a proof would spend what was sealed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::look::Looks;
use crate::keyring::keeper::KeeperHandle;
#[cfg(feature = "vault")]
use crate::provider::LoginTries;
use crate::provider::{CredentialAnswer, CredentialError, Credentials, Mark};
use crate::seal::credential;
use crate::store::RunFile;
use crate::types::{CredentialName, Secret, lock};

/// How the files of a provider looked when it was made of them, and which of the own seals were there by then.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) looks: Looks,
    /// Number of the last own seal that it takes account of.
    after: u64,
}

/// How the files look that a login has sealed. Seals are numbered: one from before a provider was made is no news for it, and its file may
/// have been sealed by the operator since.
#[derive(Default)]
pub(super) struct OwnSeals {
    /// Of the node root.
    folder: Mutex<Option<PathBuf>>,
    seals: Mutex<Seals>,
}

#[derive(Default)]
struct Seals {
    number: u64,
    /// The last one of each credential.
    last: BTreeMap<CredentialName, (u64, Looks)>,
}

impl OwnSeals {
    /// Where credentials lie from now on.
    pub(super) fn lie_in(&self, folder: Option<&Path>) {
        *lock::lock(&self.folder) = folder.map(Path::to_owned);
    }

    /// Before files are looked at. A seal that comes meanwhile is looked at twice, and none goes unseen.
    pub(super) fn now(&self) -> u64 {
        self.seals().number
    }

    /// These looks were taken after the seal of this number.
    pub(super) const fn seen(looks: Looks, after: u64) -> Seen {
        Seen { looks, after }
    }

    /// What a provider was made of looks as its own logins have left it since.
    pub(super) fn teach(&self, seen: &mut Seen) {
        let seals = self.seals();
        let news = seals.last.values().filter(|(number, _)| *number > seen.after);
        news.for_each(|(_, look)| seen.looks.adopt(look));
        seen.after = seals.number;
    }

    /// Just sealed.
    fn note(&self, name: &CredentialName) {
        let folder = lock::lock(&self.folder).clone();
        let path = folder.map(|folder| folder.join(credential::file_name(name)));
        let look = Looks::at(path, &Looks::default());
        let mut seals = self.seals();
        seals.number += 1;
        let number = seals.number;
        seals.last.insert(name.clone(), (number, look));
    }

    fn seals(&self) -> MutexGuard<'_, Seals> {
        lock::lock(&self.seals)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_own_seal_is_adopted_by_what_was_made_before_it_and_not_by_what_was_made_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let name: CredentialName = "login".parse().unwrap();
        let file = folder.path().join(credential::file_name(&name));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let own = OwnSeals::default();
        own.lie_in(Some(folder.path()));
        let look = || Looks::at([file.clone()], &Looks::default());
        fs::write(&file, "wrapping token").unwrap();
        let mut made = OwnSeals::seen(look(), own.now());
        fs::write(&file, "fetched").unwrap();
        own.note(&name);
        own.teach(&mut made);
        assert!(!look().differ_from(&made.looks), "what the login has sealed is no change");
        fs::write(&file, "of the operator").unwrap();
        own.teach(&mut made);
        assert!(look().differ_from(&made.looks));
        let mut next = OwnSeals::seen(look(), own.now());
        own.teach(&mut next);
        assert!(!look().differ_from(&next.looks), "the login that was sealed last is taken up once");
    }
}
