//! A file system in memory that forgets as a real one does, for tests of what outlives a crash.
//!
//! Content and directory entries are there twice: as every program sees them, and as they are on the medium. [`Disk::sync_file`]
//! and [`Disk::sync_dir`] carry the first over to the second, and nothing else does. Every call is a numbered step, at which one
//! [`Fault`] can be planned; [`SimDisk::after_kill`] and [`SimDisk::after_cut`] are what the next boot finds.

mod digest;
mod disk;
mod fault;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;

pub(crate) use self::fault::{Crash, Extent, Failure, Fault, StepKind};
use super::{Disk, Exposure};
use crate::types::Owner;

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
    /// All that it has, if it can be full.
    blocks: Option<usize>,
    /// Bytes of content that there is room for.
    capacity: usize,
}

#[derive(Clone)]
enum Inode {
    /// Copies of a disk share contents: there are tens of thousands of copies, and few of them change.
    File {
        seen: Arc<Vec<u8>>,
        durable: Arc<Vec<u8>>,
        is_bad: bool,
    },
    Dir {
        seen: BTreeMap<String, usize>,
        durable: BTreeMap<String, usize>,
    },
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
            blocks: None,
            capacity: usize::MAX,
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

    /// What the next boot can find after this fault, each content once.
    pub(crate) fn outcomes(&self, fault: Fault) -> Vec<Self> {
        if fault != Fault::Cut {
            return vec![self.after_kill()];
        }
        let mut found = Vec::new();
        for crash in Crash::ALL {
            let next = self.after_cut(crash);
            let tree = next.tree();
            if found.iter().all(|(_, other)| *other != tree) {
                found.push((next, tree));
            }
        }
        found.into_iter().map(|(disk, _)| disk).collect()
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
                    Inode::File { seen, .. } => found.push((path.join(name), Some(seen.to_vec()))),
                }
            }
        }
        found.sort();
        found
    }

    /// The entry of a directory that was made last.
    pub(crate) fn newest(&self, dir: &Path) -> Option<String> {
        let world = self.world();
        let Inode::Dir { seen, .. } = &world.inodes[world.find(dir).ok()?] else { return None };
        seen.iter().max_by_key(|(_, inode)| **inode).map(|(name, _)| name.clone())
    }

    /// From now on, and after every boot, there is no free block: what is written takes the place of what was removed.
    pub(crate) fn fill(&self) {
        let mut world = self.world();
        world.blocks = Some(world.blocks_in_use());
    }

    /// Changes a file behind everybody's back, on the medium as well; `None` takes it away.
    pub(crate) fn scribble(&self, path: &Path, content: Option<Vec<u8>>) {
        let mut world = self.world();
        // Another name of the same file keeps what it has.
        let inode = content
            .map(Arc::new)
            .map(|content| world.add(Inode::File { seen: Arc::clone(&content), durable: content, is_bad: false }));
        world.set(path, inode).unwrap();
        let (dir, _) = world.parent(path).unwrap();
        world.sync(dir);
    }

    /// Makes a disk of which so many bytes are free. Only content counts, and what is removed is free again.
    pub(crate) fn leave_room(&self, bytes: usize) {
        let mut world = self.world();
        world.capacity = world.used().saturating_add(bytes);
    }

    /// Makes a file one that cannot be read any more, as [`Failure::BadSector`] does.
    pub(crate) fn spoil(&self, path: &Path) {
        self.world().spoil(path);
    }

    fn derive(&self, change: impl FnOnce(&mut World)) -> Self {
        let mut world = self.world().clone();
        change(&mut world);
        let World { inodes, unsynced, blocks, capacity, .. } = world;
        let healthy = World { inodes, unsynced, blocks, capacity, ..World::default() };
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
                Inode::File { seen, durable, .. } if seen != durable => {
                    *seen = Arc::new(crash.content(seen, durable));
                }
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
            Inode::File { seen, durable, .. } => *durable = Arc::clone(seen),
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

    fn blocks_in_use(&self) -> usize {
        let (mut blocks, mut seen) = (0, BTreeSet::new());
        let mut waiting = vec![0];
        while let Some(inode) = waiting.pop() {
            // Names of one file share its blocks.
            if !seen.insert(inode) {
                continue;
            }
            match &self.inodes[inode] {
                Inode::Dir { seen, .. } => waiting.extend(seen.values()),
                Inode::File { seen, .. } => blocks += blocks_of(seen),
            }
        }
        blocks
    }

    fn create(&mut self, path: &Path, inode: Inode) -> io::Result<()> {
        if self.find(path).is_ok() {
            return Err(Errno::EEXIST.into());
        }
        let inode = self.add(inode);
        self.set(path, Some(inode))
    }

    fn create_file(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.blocks.is_some_and(|blocks| self.blocks_in_use() + blocks_of(bytes) > blocks) {
            return Err(Errno::ENOSPC.into());
        }
        if self.capacity != usize::MAX && bytes.len() > self.capacity.saturating_sub(self.used()) {
            return Err(Errno::ENOSPC.into());
        }
        self.create(path, Inode::File { seen: Arc::new(bytes.to_vec()), durable: Arc::default(), is_bad: false })
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> usize {
        let (mut files, mut dirs) = (std::collections::BTreeSet::new(), vec![0]);
        while let Some(Inode::Dir { seen, .. }) = dirs.pop().map(|dir| &self.inodes[dir]) {
            for inode in seen.values() {
                match &self.inodes[*inode] {
                    Inode::Dir { .. } => dirs.push(*inode),
                    Inode::File { .. } => drop(files.insert(*inode)),
                }
            }
        }
        let length = |inode: &usize| match &self.inodes[*inode] {
            Inode::File { seen, .. } => seen.len(),
            Inode::Dir { .. } => 0,
        };
        files.iter().map(length).sum()
    }

    fn spoil(&mut self, path: &Path) {
        if let Ok(inode) = self.find(path)
            && let Inode::File { is_bad, .. } = &mut self.inodes[inode]
        {
            *is_bad = true;
        }
    }
}

/// A block holds 4096 bytes.
fn blocks_of(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(4096)
}

#[cfg(test)]
mod tests;
