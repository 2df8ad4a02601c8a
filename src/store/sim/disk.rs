//! The model as the store sees it: each call is one step.

use super::*;

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
        let kind = if is_there { StepKind::Look } else { StepKind::Change };
        let locked = self.step(kind, |world| match is_there {
            true => Ok(!world.locked),
            false => world.create_file(path, b"").map(|()| !world.locked),
        });
        let is_free = match locked {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => !self.world().locked,
            locked => locked?,
        };
        self.world().locked = true;
        Ok(is_free.then(|| SimLock(self.clone())))
    }

    fn exposure(&self, path: &Path) -> io::Result<Option<Exposure>> {
        self.step(StepKind::Look, |world| {
            let inode = world.find(path)?;
            Ok((!matches!(world.inodes[inode], Inode::Dir { .. })).then_some(Exposure::NoDirectory))
        })
    }

    fn owner(&self, _: &Path) -> Owner {
        Owner::own()
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.step(StepKind::Look, |world| match world.find(path).map(|inode| &world.inodes[inode]) {
            Ok(Inode::File { seen, .. }) => Ok(seen.len() as u64),
            Ok(Inode::Dir { .. }) | Err(_) => Ok(0),
        })
    }

    fn is_one_file(&self, a: &Path, b: &Path) -> io::Result<bool> {
        self.step(StepKind::Look, |world| Ok(world.find(a)? == world.find(b)?))
    }

    fn pause(&self, _: Duration) {}

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.step(StepKind::Look, |world| Ok(world.find(path).is_ok()))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.step(StepKind::Change, |world| match world.find(path) {
            Ok(_) => Ok(()),
            Err(_) => world.create(path, Inode::Dir { seen: BTreeMap::new(), durable: BTreeMap::new() }),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.step(StepKind::Look, |world| match &world.inodes[world.find(path)?] {
            Inode::Dir { seen, .. } => Ok(seen.keys().cloned().collect()),
            Inode::File { .. } => Err(Errno::ENOTDIR.into()),
        })
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let written = self.step(StepKind::Write(bytes.len()), |world| world.create_file(path, bytes));
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

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(StepKind::Remove, |world| match world.find(path) {
            Ok(inode) => match &world.inodes[inode] {
                Inode::Dir { seen, .. } if seen.is_empty() => world.set(path, None),
                Inode::Dir { .. } => Err(Errno::ENOTEMPTY.into()),
                Inode::File { .. } => Err(Errno::ENOTDIR.into()),
            },
            Err(_) => Ok(()),
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = self.step(StepKind::Read, |world| match &world.inodes[world.find(path)?] {
            Inode::File { is_bad: true, .. } => Err(Errno::EIO.into()),
            Inode::File { seen, .. } => Ok(seen.to_vec()),
            Inode::Dir { .. } => Err(Errno::EISDIR.into()),
        });
        let mut world = self.world();
        let at = world.steps.len().checked_sub(1);
        if read.is_err()
            && !world.dead
            && world.plan.is_some_and(|plan| Some(plan.0) == at && plan.1 == Fault::BAD_SECTOR)
        {
            world.spoil(path);
        }
        read
    }
}
