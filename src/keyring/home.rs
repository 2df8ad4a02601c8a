//! Where the keys of a node lie: one folder for each node root, and the file `current` that names the one that counts.
//!
//! ```text
//! STATE_DIR/current            the folder that counts, and those that are kept
//! STATE_DIR/roots/<root id>/   everything that is sealed under one node root
//! STATE_DIR/recovery.age       the recovery file of the root that counts
//! ```
//!
//! A new root is built in a folder of its own, proved by the way that every start takes, and counts from the moment at which
//! `current` names it. Until then the old one is whole; a folder that `current` does not name is half made, and is removed.
//! Nothing is ever moved away to make room. Up to release 0.1 the files of the root lay in the state directory itself: that layout
//! is read, and carried over at the first change of keys.
//!
//! Nothing is removed on a guess: a folder goes when it says of itself that it is half made, or when `current` says that it was
//! left. Where `current` is lost, whatever is there stays. A folder that is kept says so itself, once another one counts, so that
//! the one that counts can be told from it without `current`.

mod current;

pub use self::current::Current;
use super::error::KeeperError;
use super::files::{self, CURRENT, HALF_MADE, KEPT};
use crate::store::{Disk, Generation, Kind, LoadError, Pair, Repaired, StateDir, StoreError};
use crate::types::RootId;

/// The folder of all roots.
pub(super) const ROOTS: &str = "roots";
/// Of release 0.1: what begins the name of a folder that its recovery has kept.
const KEPT_BY_RELEASE_0_1: &str = "before-recovery-";
/// Below [`ROOTS`]: what lay in the state directory itself when a recovery replaced it.
const FLAT: &str = "flat";

/// The state directory, and the folder of the root that counts.
pub struct Home<D: Disk> {
    /// The state directory itself.
    pub top: StateDir<D>,
    /// Where the files of the root are. The same as `top` in the layout of release 0.1.
    pub root: StateDir<D>,
    /// `None` in the layout of release 0.1, and where nothing is set up.
    pub(super) current: Option<Current>,
    /// The newest generation of `current` is lost.
    pub(super) fell_back: bool,
    /// A write of `current` has failed and cannot be read back: what counts is known to the next start alone.
    pub(super) is_unsure: bool,
}

impl<D: Disk + Clone> Home<D> {
    /// Looks where the keys are. Writes nothing.
    pub fn find(top: StateDir<D>) -> Result<Self, StoreError> {
        let (current, generation) = match top.load(CURRENT, Kind::Current, |_, bytes| Current::decode(bytes)) {
            Ok(loaded) => (Some(loaded.value), loaded.generation),
            Err(LoadError::Store(error)) if error.is_missing() => (the_only_one(&top, false)?, Generation::Previous),
            // It was written, so that what it named was proved.
            Err(error) if error.is_lost() => {
                let only = the_only_one(&top, true)?.ok_or_else(|| top.damaged(CURRENT))?;
                (Some(only), Generation::Previous)
            }
            Err(LoadError::Store(error)) => return Err(error),
            Err(LoadError::Content(_)) => return Err(top.damaged(CURRENT)),
        };
        let is_set_up = current.is_some();
        let root = match &current {
            Some(current) => top.inside(&folder(&current.name)),
            None => top.inside(""),
        };
        Ok(Self { top, root, current, fell_back: is_set_up && generation == Generation::Previous, is_unsure: false })
    }

    /// The keys lie in the state directory itself, as release 0.1 has left them.
    pub(super) fn is_flat(&self) -> bool {
        self.current.is_none()
    }

    /// The folder of another root, made if it is absent. Nothing counts on it yet.
    pub(super) fn make_folder(&self, root: &RootId) -> Result<StateDir<D>, StoreError> {
        let folder = folder(&root.to_string());
        self.top.make_dir(ROOTS)?;
        self.top.make_dir(&folder)?;
        // First: whatever is cut short says of itself that nothing counts on it.
        self.top.replace(&format!("{folder}/{HALF_MADE}"), Kind::InitMarker, b"")?;
        for name in files::FOLDERS {
            self.top.make_dir(&format!("{folder}/{name}"))?;
        }
        Ok(self.top.inside(&folder))
    }

    /// The same, seen as if the keys in this folder counted: for the proof that they do.
    pub(super) fn beside(&self, root: &RootId) -> Self {
        let name = root.to_string();
        let root = self.top.inside(&folder(&name));
        Self {
            top: self.top.inside(""),
            root,
            current: Some(Current { name, kept: Vec::new(), left: Vec::new() }),
            fell_back: false,
            is_unsure: false,
        }
    }

    /// A file of the state directory gets a second name in the folder of the root that counts now, before another one does.
    pub(super) fn keep_with_the_old(&self, name: &str) -> Result<(), StoreError> {
        let old = folder(self.current.as_ref().map_or(FLAT, |current| &current.name));
        self.top.make_dir(ROOTS)?;
        self.top.make_dir(&old)?;
        self.top.link_into(&old, name)
    }

    /// Whether `current` was lost or says something else than is known here, and was written anew.
    pub(super) fn repair(&self) -> Result<bool, StoreError> {
        let Some(current) = self.current.as_ref().filter(|_| !self.is_unsure) else { return Ok(false) };
        let is_known = |_: u8, bytes: &[u8]| match Current::decode(bytes) {
            Ok(found) if found == *current => Ok(()),
            Ok(_) | Err(_) => Err(()),
        };
        match self.top.repair(CURRENT, Kind::Current, Pair::Alike, is_known) {
            Ok(repaired) => Ok(repaired != Repaired::Nothing),
            // One that fails leaves the same root, or nothing, as before.
            Err(error) if error.is_lost() => {
                self.top.replace_both(CURRENT, Kind::Current, &current.encode()).map(|()| true)
            }
            Err(LoadError::Store(error)) => Err(error),
            Err(LoadError::Content(())) => Err(self.top.damaged(CURRENT)),
        }
    }

    /// A folder that was left is still there: a stop or the disk has prevented [`Home::tidy`].
    pub(super) fn has_left(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.left.is_empty())
    }

    /// A folder on the disk with keys that a recovery has replaced.
    pub(super) fn kept(&self) -> Result<Option<String>, StoreError> {
        if let Some(current) = &self.current {
            for name in self.top.names(ROOTS)?.into_iter().filter(|name| *name != current.name) {
                if current.kept.contains(&name) || self.top.exists(&format!("{}/{KEPT}", folder(&name)))? {
                    return Ok(Some(folder(&name)));
                }
            }
            // Not moved there yet.
            if current.kept.iter().any(|name| name == FLAT) && !files::of_root(&self.top)?.is_empty() {
                return Ok(Some(folder(FLAT)));
            }
        }
        Ok(self.top.names("")?.into_iter().find(|name| name.starts_with(KEPT_BY_RELEASE_0_1)))
    }

    /// Reads once more what counts, after a write of `current` has failed. Nothing was written since.
    pub(super) fn resolve(&mut self, root: &RootId) {
        match self.top.load(CURRENT, Kind::Current, |_, bytes| Current::decode(bytes)) {
            Ok(loaded) if self.current.as_ref().is_some_and(|current| current.name == loaded.value.name) => {
                self.current = Some(loaded.value);
                self.is_unsure = false;
            }
            Err(LoadError::Store(error)) if self.current.is_none() && error.is_missing() => self.is_unsure = false,
            // The same root, in a folder of its own since then.
            Ok(loaded) if self.current.is_none() && loaded.value.name == root.to_string() => {
                self.root = self.top.inside(&folder(&loaded.value.name));
                self.current = Some(loaded.value);
                self.is_unsure = false;
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// From now on the keys in this folder count. With `keep` the old ones stay where they are, for whoever may want them again.
    pub(super) fn turn(&mut self, root: &RootId, keep: bool) -> Result<(), StoreError> {
        let old = self.current.as_ref().map_or(FLAT, |current| &current.name).to_owned();
        let mut kept = self.current.as_ref().map(|current| current.kept.clone()).unwrap_or_default();
        let mut left = self.current.as_ref().map(|current| current.left.clone()).unwrap_or_default();
        if keep {
            kept.push(old)
        } else {
            left.push(old)
        }
        self.name(Current { name: root.to_string(), kept, left })
    }

    fn name(&mut self, next: Current) -> Result<(), StoreError> {
        if let Err(error) = self.top.replace_both(CURRENT, Kind::Current, &next.encode()) {
            // A call that failed may have done its work all the same.
            match self.top.load(CURRENT, Kind::Current, |_, bytes| Current::decode(bytes)) {
                // The same root: what else it says can be said again.
                Ok(loaded) if self.current.as_ref().is_some_and(|current| current.name == loaded.value.name) => {
                    self.current = Some(loaded.value);
                    return Err(error);
                }
                Err(LoadError::Store(missing)) if self.current.is_none() && missing.is_missing() => return Err(error),
                Ok(_) | Err(_) => {
                    self.is_unsure = true;
                    return Err(error);
                }
            }
        }
        self.root = self.top.inside(&folder(&next.name));
        self.current = Some(next);
        Ok(())
    }

    /// Gives the keys of release 0.1 a folder of their own. Each file has both names until `current` counts.
    pub(super) fn carry_over(&mut self, root: &RootId) -> Result<(), StoreError> {
        self.make_folder(root)?;
        let folder = folder(&root.to_string());
        for name in files::of_root(&self.top)? {
            self.top.link_into(&folder, &name)?;
            if let Some((sub, _)) = name.split_once('/') {
                self.top.sync_dir(&format!("{folder}/{sub}"))?;
            }
        }
        self.turn(root, false)?;
        self.tidy()
    }

    /// Brings to its end what a stop between two steps has left: folders that are half made or that `current` calls left are removed,
    /// and so are files of release 0.1 whose root has a folder by now; those that are kept say so.
    pub(super) fn tidy(&mut self) -> Result<(), StoreError> {
        if self.is_unsure {
            return Ok(());
        }
        for name in self.half_made()? {
            self.remove_folder(&name)?;
        }
        let Some(current) = self.current.clone() else { return Ok(()) };
        let own = format!("{}/{HALF_MADE}", folder(&current.name));
        if self.top.exists(&own)? {
            // The write that named it may be known to nobody but the page cache.
            self.name(current.clone())?;
            self.top.destroy(&own)?;
        }
        for name in &current.left {
            match name.as_str() {
                FLAT => self.remove_flat()?,
                name => self.remove_folder(name)?,
            }
        }
        if current.kept.iter().any(|name| name == FLAT) {
            self.move_flat()?;
        }
        self.mark_kept(&current)?;
        if !current.left.is_empty() {
            self.name(Current { left: Vec::new(), ..current })?;
        }
        Ok(())
    }

    fn mark_kept(&self, current: &Current) -> Result<(), StoreError> {
        for name in &current.kept {
            let marker = format!("{}/{KEPT}", folder(name));
            if self.top.exists(&folder(name))? && !self.top.exists(&marker)? {
                self.top.replace(&marker, Kind::InitMarker, b"")?;
            }
        }
        // One that the operator has gone back to.
        let own = format!("{}/{KEPT}", folder(&current.name));
        if self.top.exists(&own)? { self.top.destroy(&own) } else { Ok(()) }
    }

    /// A folder with keys that nothing names: `current` is lost, or somebody has put the folder there.
    pub(super) fn unnamed(&self) -> Result<Option<String>, StoreError> {
        let names = |name: &String| {
            self.current.as_ref().is_some_and(|current| {
                current.name == *name || current.kept.contains(name) || current.left.contains(name)
            })
        };
        let found = self.top.names(ROOTS)?.into_iter().find(|name| !names(name) && name != FLAT);
        Ok(found.map(|name| folder(&name)))
    }

    /// Whether a new root was begun and not finished.
    pub(super) fn has_half_made(&self) -> Result<bool, StoreError> {
        Ok(!self.half_made()?.is_empty())
    }

    fn half_made(&self) -> Result<Vec<String>, StoreError> {
        let counts = |name: &String| self.current.as_ref().is_some_and(|current| current.name == *name);
        let mut found = Vec::new();
        for name in self.top.names(ROOTS)?.into_iter().filter(|name| !counts(name)) {
            let files = self.top.names(&folder(&name))?;
            // Without a file in it, the stop came before it could say so.
            let is_bare =
                files.iter().all(|file| files::FOLDERS.contains(&file.as_str()) || file.starts_with(HALF_MADE));
            if is_bare || files.iter().any(|file| file.starts_with(HALF_MADE)) {
                found.push(name);
            }
        }
        Ok(found)
    }

    fn remove_flat(&self) -> Result<(), StoreError> {
        for name in files::of_root(&self.top)? {
            self.top.destroy(&name)?;
        }
        self.remove_flat_folders()
    }

    fn move_flat(&self) -> Result<(), StoreError> {
        let flat = files::of_root(&self.top)?;
        if flat.is_empty() {
            return self.remove_flat_folders();
        }
        self.top.make_dir(&folder(FLAT))?;
        for name in files::FOLDERS {
            self.top.make_dir(&format!("{}/{name}", folder(FLAT)))?;
        }
        for name in flat {
            self.top.move_into(&folder(FLAT), &name)?;
        }
        self.remove_flat_folders()
    }

    fn remove_flat_folders(&self) -> Result<(), StoreError> {
        for name in files::FOLDERS {
            // One that still holds something that is not ours stays.
            if self.top.exists(name)? && self.top.names(name)?.is_empty() {
                self.top.remove_dir(name)?;
            }
        }
        Ok(())
    }

    fn remove_folder(&self, name: &str) -> Result<(), StoreError> {
        let folder = folder(name);
        if !self.top.exists(&folder)? {
            return Ok(());
        }
        for sub in files::FOLDERS {
            let dir = format!("{folder}/{sub}");
            if !self.top.exists(&dir)? {
                continue;
            }
            for file in self.top.names(&dir)? {
                self.top.destroy(&format!("{dir}/{file}"))?;
            }
            self.top.remove_dir(&dir)?;
        }
        let (marker, others): (Vec<String>, Vec<String>) =
            self.top.names(&folder)?.into_iter().partition(|file| file.starts_with(HALF_MADE));
        // What says that it is half made goes last.
        for file in others.iter().chain(&marker) {
            self.top.destroy(&format!("{folder}/{file}"))?;
        }
        self.top.remove_dir(&folder)
    }
}

/// Where both generations of `current` are lost, a single folder that is whole and not kept leaves no choice.
fn the_only_one<D: Disk>(top: &StateDir<D>, half_made: bool) -> Result<Option<Current>, StoreError> {
    let (mut whole, mut kept) = (Vec::new(), Vec::new());
    for name in top.names(ROOTS)? {
        let folder = folder(&name);
        let has = |file: &str| top.exists(&format!("{folder}/{file}"));
        if name == FLAT || has(KEPT)? {
            kept.push(name);
        } else if has(files::STATE)? && (half_made || !has(HALF_MADE)?) {
            whole.push(name);
        }
    }
    // The layout of release 0.1.
    if top.exists(files::STATE)? {
        return Ok(None);
    }
    match whole.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(Current { name: name.clone(), kept, left: Vec::new() })),
        names => {
            let folders: Vec<String> = names.iter().map(|name| folder(name)).collect();
            Err(StoreError::Ambiguous { path: top.path().join(CURRENT), folders: folders.join(", ") })
        }
    }
}

fn folder(name: &str) -> String {
    format!("{ROOTS}/{name}")
}

impl<D: Disk + Clone> Home<D> {
    /// [`Home::find`], as whoever works with the keys needs it.
    pub(super) fn of(top: StateDir<D>) -> Result<Self, KeeperError> {
        Self::find(top).map_err(KeeperError::Store)
    }
}
