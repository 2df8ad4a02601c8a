//! KEKs that do not open here: their last copies may be in the recovery file, and in nothing else.

use sha2::{Digest, Sha256};

use super::Books;
use crate::keyring::error::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::home::Home;
use crate::keyring::recovery;
use crate::keyring::state_file::State;
use crate::store::{Disk, Kind, LoadError};
use crate::types::{KekId, hex};

const COPY_PREFIX: &str = "recovery-";
const COPY_SUFFIX: &str = ".age";
/// Of the digest that names a copy.
const SET_BYTES: usize = 8;

impl<D: Disk + Clone> Books<D> {
    /// A KEK whose sealed copy is damaged may be in the file that is about to be replaced, and nowhere else. One copy for each set
    /// of such KEKs, and none once all open. `opens`: one of those that are to be destroyed does.
    pub(super) fn keep_what_is_lacking(
        &self,
        export: &Export,
        next: &State,
        destroyed: &[KekId],
        opens: bool,
    ) -> Result<(), KeeperError> {
        let store = KeeperError::Store;
        let mut lacking = export.lacking();
        lacking.retain(|id| !next.is_placeholder(id));
        let Some(first) = lacking.first() else {
            // What is about to be destroyed may still have its last copy in one, until the state says so.
            return if destroyed.is_empty() { self.remove_copies() } else { Ok(()) };
        };
        if opens {
            // The copy would keep the key that is to be destroyed.
            return Err(KeeperError::MayBeInRecoveryFile(*first));
        }
        lacking.extend(destroyed);
        lacking.sort();
        let set: Vec<u8> = lacking.iter().flat_map(|id| id.as_bytes().to_vec()).collect();
        let copy = format!("{COPY_PREFIX}{}{COPY_SUFFIX}", hex::encode(&Sha256::digest(&set)[..SET_BYTES]));
        if self.home.top.exists(&copy).map_err(store)? {
            return Ok(());
        }
        match read_recovery_file(&self.home)? {
            Some(old) => self.home.top.replace(&copy, Kind::Recovery, &old).map_err(store),
            None => Ok(()),
        }
    }

    /// See [`Books::keep_what_is_lacking`].
    fn remove_copies(&self) -> Result<(), KeeperError> {
        for stem in self.home.top.list("", COPY_SUFFIX).map_err(KeeperError::Store)? {
            // One that the operator has put here has a name of another form.
            let set = stem.strip_prefix(COPY_PREFIX).and_then(|set| hex::decode(set).ok());
            if set.is_some_and(|set| set.len() == SET_BYTES) {
                self.home.top.destroy(&format!("{stem}{COPY_SUFFIX}")).map_err(KeeperError::Store)?;
            }
        }
        Ok(())
    }

    /// After a KEK was destroyed: no recovery file has its key any more, but for a copy that a KEK which does not open may need.
    pub(in crate::keyring::keeper) fn forget_in_recovery_files(
        &mut self,
        exports: impl Fn(&State) -> Export,
    ) -> Result<(), KeeperError> {
        let mut lacking = exports(&self.state).lacking();
        lacking.retain(|id| !self.state.is_placeholder(id));
        if self.is_recovery_owed {
            self.settle_recovery_file(exports)?;
        }
        if lacking.is_empty() { self.remove_copies() } else { Ok(()) }
    }
}

fn read_recovery_file<D: Disk>(home: &Home<D>) -> Result<Option<Vec<u8>>, KeeperError> {
    let read = |_, bytes: &[u8]| Ok::<_, std::convert::Infallible>(bytes.to_vec());
    match home.top.load(recovery::FILE, Kind::Recovery, read) {
        Ok(old) => Ok(Some(old.value)),
        Err(LoadError::Store(error)) if error.is_missing() => Ok(None),
        Err(LoadError::Store(error)) => Err(KeeperError::Store(error)),
        Err(LoadError::Content(never)) => match never {},
    }
}
