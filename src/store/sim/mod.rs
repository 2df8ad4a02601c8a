//! A file system in memory that forgets as a real one does, for tests of what outlives a crash.
//!
//! Content and directory entries are there twice: as every program sees them, and as they are on the medium. [`Disk::sync_file`]
//! and [`Disk::sync_dir`] carry the first over to the second, and nothing else does. Every call is a numbered step, at which one
//! [`Fault`] can be planned; [`SimDisk::after_kill`] and [`SimDisk::after_cut`] are what the next boot finds.

mod fault;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;

pub(crate) use self::fault::{Crash, Extent, Failure, Fault, StepKind};
use super::Disk;

/// A handle: clones see the same disk. [`SimDisk::copy`] is another disk.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<World>>);

#[derive(Clone)]
struct World {
    /// By number; the first one is the directory `/`. Numbers are never used again.
    inodes: Vec<Inode>,
    /// Changes of directories that are not on the medium, oldest first.
    unsynced: Vec<Change>,
    locked: bool,
    /// Steps since [`SimDisk::plan`].
    steps: Vec<StepKind>,
    plan: Option<(usize, Fault)>,
    /// The planned fault has happened.
    struck: bool,
    /// The process that uses this disk is no more.
    dead: bool,
}

#[derive(Clone)]
enum Inode {
    File { seen: Vec<u8>, durable: Vec<u8> },
    Dir { seen: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
}

#[derive(Clone)]
struct Change {
    dir: usize,
    name: String,
    /// What the name stands for from then on.
    to: Option<usize>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            inodes: vec![Inode::Dir { seen: BTreeMap::new(), durable: BTreeMap::new() }],
            unsynced: Vec::new(),
            locked: false,
            steps: Vec::new(),
            plan: None,
            struck: false,
            dead: false,
        }
    }
}

impl SimDisk {
    /// Another disk with the same content, healthy and owned by nobody.
    pub(crate) fn copy(&self) -> Self {
        self.derive(|_| {})
    }

    /// Counts steps from 0 on again, and lets the fault happen at one of them.
    pub(crate) fn plan(&self, fault: Option<(usize, Fault)>) {
        let mut world = self.world();
        world.steps.clear();
        world.plan = fault;
        world.struck = false;
    }

    /// What was done since [`SimDisk::plan`].
    pub(crate) fn steps(&self) -> Vec<StepKind> {
        self.world().steps.clone()
    }

    /// Whether the planned fault has happened.
    pub(crate) fn was_struck(&self) -> bool {
        self.world().struck
    }

    /// What the next boot finds after the process was killed.
    pub(crate) fn after_kill(&self) -> Self {
        self.copy()
    }

    /// What the next boot finds when the power was cut, at the planned step or now.
    pub(crate) fn after_cut(&self, crash: Crash) -> Self {
        self.derive(|world| world.cut(crash))
    }

    /// All files with their contents, as programs see them.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.tree().into_iter().filter_map(|(path, content)| Some((path, content?))).collect()
    }

    /// The same, and directories, which have no content. Sorted.
    pub(crate) fn tree(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let world = self.world();
        let (mut found, mut dirs) = (Vec::new(), vec![(PathBuf::from("/"), 0)]);
        while let Some((path, dir)) = dirs.pop() {
            let Inode::Dir { seen, .. } = &world.inodes[dir] else { continue };
            for (name, inode) in seen {
                match &world.inodes[*inode] {
                    Inode::Dir { .. } => {
                        dirs.push((path.join(name), *inode));
                        found.push((path.join(name), None));
                    }
                    Inode::File { seen, .. } => found.push((path.join(name), Some(seen.clone()))),
                }
            }
        }
        found.sort();
        found
    }

    /// Changes a file behind everybody's back, on the medium as well; `None` takes it away.
    pub(crate) fn scribble(&self, path: &Path, content: Option<Vec<u8>>) {
        let mut world = self.world();
        // Another name of the same file keeps what it has.
        let inode = content.map(|content| world.add(Inode::File { seen: content.clone(), durable: content }));
        world.set(path, inode).unwrap();
        let (dir, _) = world.parent(path).unwrap();
        world.sync(dir);
    }

    fn derive(&self, change: impl FnOnce(&mut World)) -> Self {
        let mut world = self.world().clone();
        change(&mut world);
        let healthy = World { inodes: world.inodes, unsynced: world.unsynced, ..World::default() };
        Self(Arc::new(Mutex::new(healthy)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// One step: counts it, lets the planned fault happen, and does the work unless the fault prevents it.
    fn step<T>(&self, kind: StepKind, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        if world.dead {
            return Err(Errno::EIO.into());
        }
        let at = world.steps.len();
        world.steps.push(kind);
        let Some((planned, fault)) = world.plan.filter(|(planned, fault)| fault.strikes(*planned, at, kind)) else {
            return work(&mut world);
        };
        world.struck |= planned == at;
        match fault {
            Fault::Cut | Fault::KillAfter => {
                // A sync that was cut has carried nothing over for sure; every other step may have been seen.
                if kind != StepKind::Sync || fault == Fault::KillAfter {
                    let _ = work(&mut world);
                }
                world.dead = true;
            }
            Fault::KillBefore => world.dead = true,
            Fault::Error(Failure::IoThoughDone, _) => drop(work(&mut world)),
            Fault::Error(..) => {}
        }
        Err(fault.errno().into())
    }

    /// Whether a write that fails leaves a part of its bytes.
    fn writes_a_part(&self) -> bool {
        matches!(self.world().plan, Some((_, Fault::Error(Failure::NoSpaceInPart, _))))
    }
}

impl World {
    /// Forgets as a power cut does.
    fn cut(&mut self, crash: Crash) {
        let kept: Vec<Change> = std::mem::take(&mut self.unsynced)
            .into_iter()
            .enumerate()
            .filter(|(index, _)| crash.keeps_change(*index))
            .map(|(_, change)| change)
            .collect();
        for inode in &mut self.inodes {
            match inode {
                Inode::Dir { seen, durable } => *seen = durable.clone(),
                Inode::File { seen, durable } if seen != durable => *seen = crash.content(seen, durable),
                Inode::File { .. } => {}
            }
        }
        for Change { dir, name, to } in kept {
            let Inode::Dir { seen, .. } = &mut self.inodes[dir] else { continue };
            match to {
                Some(inode) => drop(seen.insert(name, inode)),
                None => drop(seen.remove(&name)),
            }
        }
        (0..self.inodes.len()).for_each(|inode| self.sync(inode));
    }

    fn sync(&mut self, inode: usize) {
        match &mut self.inodes[inode] {
            Inode::Dir { seen, durable } => *durable = seen.clone(),
            Inode::File { seen, durable } => *durable = seen.clone(),
        }
        self.unsynced.retain(|change| change.dir != inode);
    }

    fn add(&mut self, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut inode = 0;
        for name in path.components().skip(1) {
            let Inode::Dir { seen, .. } = &self.inodes[inode] else { return Err(Errno::ENOTDIR.into()) };
            inode = *seen.get(name.as_os_str().to_str().unwrap()).ok_or(Errno::ENOENT)?;
        }
        Ok(inode)
    }

    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok((self.find(path.parent().unwrap())?, name))
    }

    fn set(&mut self, path: &Path, to: Option<usize>) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let Inode::Dir { seen, .. } = &mut self.inodes[dir] else { return Err(Errno::ENOTDIR.into()) };
        match to {
            Some(inode) => drop(seen.insert(name.clone(), inode)),
            None => drop(seen.remove(&name)),
        }
        self.unsynced.push(Change { dir, name, to });
        Ok(())
    }

    fn create(&mut self, path: &Path, inode: Inode) -> io::Result<()> {
        if self.find(path).is_ok() {
            return Err(Errno::EEXIST.into());
        }
        let inode = self.add(inode);
        self.set(path, Some(inode))
    }

    fn create_file(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.create(path, Inode::File { seen: bytes.to_vec(), durable: Vec::new() })
    }
}

/// Gives the lock back when it is dropped.
pub(crate) struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked = false;
    }
}

impl Disk for SimDisk {
    type Lock = SimLock;

    fn lock(&self, path: &Path) -> io::Result<Option<SimLock>> {
        let is_there = self.world().find(path).is_ok();
        let kind = if is_there { StepKind::Read } else { StepKind::Change };
        let is_free = self.step(kind, |world| match is_there {
            true => Ok(!world.locked),
            false => world.create_file(path, b"").map(|()| !world.locked),
        })?;
        self.world().locked = true;
        Ok(is_free.then(|| SimLock(self.clone())))
    }

    fn exposure(&self, path: &Path) -> io::Result<Option<&'static str>> {
        self.step(StepKind::Read, |world| {
            let inode = world.find(path)?;
            Ok((!matches!(world.inodes[inode], Inode::Dir { .. })).then_some("is not a directory"))
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.step(StepKind::Read, |world| Ok(world.find(path).is_ok()))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.step(StepKind::Change, |world| match world.find(path) {
            Ok(_) => Ok(()),
            Err(_) => world.create(path, Inode::Dir { seen: BTreeMap::new(), durable: BTreeMap::new() }),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.step(StepKind::Read, |world| match &world.inodes[world.find(path)?] {
            Inode::Dir { seen, .. } => Ok(seen.keys().cloned().collect()),
            Inode::File { .. } => Err(Errno::ENOTDIR.into()),
        })
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let written = self.step(StepKind::Write, |world| world.create_file(path, bytes));
        let full = written.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::ENOSPC as i32));
        if full && self.writes_a_part() {
            self.world().create_file(path, &bytes[..bytes.len() / 2])?;
        }
        written
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step(StepKind::Sync, |world| world.find(path).map(|inode| world.sync(inode)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(StepKind::Sync, |world| world.find(path).map(|inode| world.sync(inode)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(StepKind::Change, |world| {
            let inode = world.find(from)?;
            match world.find(to) {
                Ok(_) => Err(Errno::EEXIST.into()),
                Err(_) => world.set(to, Some(inode)),
            }
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(StepKind::Change, |world| {
            let inode = world.find(from)?;
            // rename(2): two names of one file are left as they are.
            if world.find(to).is_ok_and(|old| old == inode) {
                return Ok(());
            }
            world.set(to, Some(inode))?;
            world.set(from, None)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(StepKind::Remove, |world| match world.find(path) {
            Ok(_) => world.set(path, None),
            Err(_) => Ok(()),
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.step(StepKind::Read, |world| match &world.inodes[world.find(path)?] {
            Inode::File { seen, .. } => Ok(seen.clone()),
            Inode::Dir { .. } => Err(Errno::EISDIR.into()),
        })
    }
}

#[cfg(test)]
mod tests;
