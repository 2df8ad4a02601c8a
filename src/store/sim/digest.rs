//! What tells two disks apart, for whoever tries the same once.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Inode, SimDisk, World};

/// Numbers of inodes as a walk meets them: in the world they tell what was made and removed meanwhile.
#[derive(Default)]
struct Met {
    numbers: BTreeMap<usize, usize>,
    waiting: Vec<usize>,
}

impl Met {
    fn number(&mut self, inode: usize) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(inode).or_insert_with(|| {
            self.waiting.push(inode);
            next
        })
    }
}

fn add(sum: &mut Sha256, bytes: &[u8]) {
    sum.update(bytes.len().to_le_bytes());
    sum.update(bytes);
}

impl SimDisk {
    /// Equal for disks on which nothing can go another way: names and contents, seen and on the medium, what is not synced, bad
    /// sectors, and room. Not what was planned for it. Of inodes their order alone counts, which [`SimDisk::newest`] tells.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let world = self.world();
        let World { inodes, unsynced, blocks, capacity, .. } = &*world;
        let (mut sum, mut met) = (Sha256::new(), Met::default());
        met.number(0);
        let mut changes = unsynced.iter();
        loop {
            while let Some(inode) = met.waiting.pop() {
                match &inodes[inode] {
                    Inode::File { seen, durable, is_bad } => {
                        sum.update([0, u8::from(*is_bad), u8::from(seen == durable)]);
                        add(&mut sum, seen);
                        add(&mut sum, durable);
                    }
                    Inode::Dir { seen, durable } => {
                        sum.update([1]);
                        for names in [seen, durable] {
                            sum.update(names.len().to_le_bytes());
                            for (name, inode) in names {
                                add(&mut sum, name.as_bytes());
                                sum.update(met.number(*inode).to_le_bytes());
                            }
                            let mut order: Vec<(&usize, &String)> = names.iter().map(|(name, at)| (at, name)).collect();
                            order.sort();
                            order.iter().for_each(|(_, name)| add(&mut sum, name.as_bytes()));
                        }
                    }
                }
            }
            let Some(change) = changes.next() else { break };
            sum.update([2]);
            sum.update(met.number(change.dir).to_le_bytes());
            add(&mut sum, change.name.as_bytes());
            let to = change.to.map_or(usize::MAX, |inode| met.number(inode));
            sum.update(to.to_le_bytes());
        }
        sum.update(blocks.map_or(usize::MAX, |blocks| blocks).to_le_bytes());
        sum.update(capacity.to_le_bytes());
        sum.finalize().into()
    }
}
