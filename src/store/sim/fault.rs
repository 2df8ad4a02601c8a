//! What can happen at one step, and to whom.

use nix::errno::Errno;

use crate::store::READ_TRIES;

/// Bytes. What a medium writes at once.
const BLOCK_BYTES: usize = 512;

/// What a step asks of the disk, which decides what can go wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// Makes a name: directory, link, rename.
    Change,
    /// Reads names, and not what is in a file.
    Look,
    Read,
    Remove,
    Sync,
    /// Makes a name and content of so many bytes.
    Write(usize),
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine loses its power while the step is under way; what is left of it, [`Crash`] says.
    Cut,
    /// The call fails and the program lives on.
    Error(Failure, Extent),
    /// The process ends; what the kernel has seen stays.
    KillAfter,
    /// See [`Fault::KillAfter`].
    KillBefore,
}

/// What a power cut leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Names, with empty files behind them.
    Empty,
    /// Each second change of a name, and no content.
    Even,
    /// Names, and contents of which the last block is something else.
    Garbage,
    /// Everything.
    Kept,
    /// Nothing.
    Lost,
    /// The other changes of names than with [`Crash::Even`], and all content.
    Odd,
    /// Names, and contents without the last block.
    Torn,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// EIO for this file from now on, whoever asks and whenever: a sector that does not come back. A new file has other sectors.
    BadSector,
    /// EACCES.
    Denied,
    /// EMFILE.
    NoDescriptor,
    /// EIO, and nothing was done.
    Io,
    /// EIO, and yet it was done.
    IoThoughDone,
    /// ENOSPC, and nothing was done.
    NoSpace,
    /// ENOSPC for more bytes than these, and nothing was done.
    NoSpaceAbove(usize),
    /// ENOSPC, after half of the bytes.
    NoSpaceInPart,
    /// EROFS.
    ReadOnly,
}

/// For how long calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// From this step on, whatever can fail so.
    FromThenOn,
    /// This step.
    Once,
    /// This step and as many after it as it takes to give up two files: each is read [`READ_TRIES`] times.
    Twice,
}

impl Failure {
    /// Whether names can still be taken away.
    pub(crate) fn lets_remove(self) -> bool {
        matches!(self, Self::NoSpace | Self::NoSpaceAbove(_) | Self::NoSpaceInPart)
    }
}

impl Fault {
    /// Bytes. On a disk that is nearly full the sealed copy of a KEK fits, or that and a state, and a recovery file does not.
    const LARGE_BYTES: [usize; 2] = [200, 400];

    /// A sector that does not come back. Apart from the others, since it takes the only good copy away where there is one.
    pub(crate) const BAD_SECTOR: Self = Self::Error(Failure::BadSector, Extent::Once);

    /// Every other fault there is.
    pub(crate) fn all() -> Vec<Self> {
        let failures = [
            Failure::Denied,
            Failure::Io,
            Failure::IoThoughDone,
            Failure::NoDescriptor,
            Failure::NoSpace,
            Failure::NoSpaceInPart,
            Failure::ReadOnly,
        ];
        let mut all = vec![Self::KillAfter, Self::KillBefore, Self::Cut];
        for extent in [Extent::FromThenOn, Extent::Once] {
            all.extend(failures.map(|failure| Self::Error(failure, extent)));
        }
        all.extend(Self::LARGE_BYTES.map(|limit| Self::Error(Failure::NoSpaceAbove(limit), Extent::FromThenOn)));
        // Both generations of a file.
        all.push(Self::Error(Failure::Io, Extent::Twice));
        all
    }

    /// What can become of the disk by it.
    pub(crate) fn outcomes(self) -> usize {
        if self == Self::Cut { Crash::ALL.len() } else { 1 }
    }

    /// The process is gone after it.
    pub(crate) fn ends_the_process(self) -> bool {
        !matches!(self, Self::Error(..))
    }

    /// Whether this can happen to such a step. The end of a process at a read is that at the change before it.
    pub(crate) fn fits(self, kind: StepKind) -> bool {
        use StepKind::{Change, Look, Read, Remove, Sync, Write};
        match self {
            Self::Cut | Self::KillAfter | Self::KillBefore => !matches!(kind, Look | Read),
            Self::Error(Failure::BadSector | Failure::Denied | Failure::NoDescriptor, _) => kind == Read,
            Self::Error(Failure::Io, _) => true,
            Self::Error(Failure::IoThoughDone, _) => !matches!(kind, Look | Read),
            Self::Error(Failure::NoSpace, _) => matches!(kind, Change | Sync | Write(_)),
            Self::Error(Failure::NoSpaceAbove(limit), _) => matches!(kind, Write(bytes) if bytes > limit),
            Self::Error(Failure::NoSpaceInPart, _) => matches!(kind, Write(_)),
            Self::Error(Failure::ReadOnly, _) => matches!(kind, Change | Remove | Write(_)),
        }
    }

    /// Whether a fault that was planned for one step happens at another one.
    pub(super) fn strikes(self, planned: usize, at: usize, kind: StepKind) -> bool {
        let reaches = match self {
            Self::Error(_, Extent::FromThenOn) => at >= planned,
            Self::Error(_, Extent::Twice) => (planned..planned + 2 * READ_TRIES).contains(&at),
            Self::Cut | Self::Error(_, Extent::Once) | Self::KillAfter | Self::KillBefore => at == planned,
        };
        reaches && self.fits(kind)
    }

    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Error(Failure::Denied, _) => Errno::EACCES,
            Self::Error(Failure::NoDescriptor, _) => Errno::EMFILE,
            Self::Error(Failure::NoSpace | Failure::NoSpaceAbove(_) | Failure::NoSpaceInPart, _) => Errno::ENOSPC,
            Self::Error(Failure::ReadOnly, _) => Errno::EROFS,
            _ => Errno::EIO,
        }
    }
}

impl Crash {
    /// Every one.
    pub(crate) const ALL: [Self; 7] =
        [Self::Empty, Self::Even, Self::Garbage, Self::Kept, Self::Lost, Self::Odd, Self::Torn];

    /// Whether a change of a name, counted from the oldest, is on the medium.
    pub(super) fn keeps_change(self, index: usize) -> bool {
        match self {
            Self::Lost => false,
            Self::Even => index.is_multiple_of(2),
            Self::Odd => !index.is_multiple_of(2),
            Self::Empty | Self::Garbage | Self::Kept | Self::Torn => true,
        }
    }

    /// What is found of content that was not synced.
    pub(super) fn content(self, seen: &[u8], durable: &[u8]) -> Vec<u8> {
        let last_block = seen.len().saturating_sub(1) / BLOCK_BYTES * BLOCK_BYTES;
        match self {
            Self::Empty | Self::Even | Self::Lost => durable.to_vec(),
            Self::Kept | Self::Odd => seen.to_vec(),
            Self::Torn => seen[..last_block].to_vec(),
            Self::Garbage => {
                seen.iter().enumerate().map(|(at, byte)| if at < last_block { *byte } else { byte ^ 0xA5 }).collect()
            }
        }
    }
}
