//! Whom a file belongs to, as the operator calls him.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{User, getegid, geteuid};

/// The kernel's overflow uid (/proc/sys/kernel/overflowuid): whoever a user namespace does not show. Nobody who is meant is called so.
pub const OVERFLOW_UID: u32 = 65_534;

/// A user, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Of a file or a folder.
    pub fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid() }
    }

    /// As whom this process runs.
    pub fn own() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Whether both are the same user, whatever the group.
    pub const fn is(self, other: Self) -> bool {
        self.uid == other.uid
    }

    /// Whether it is uid 0.
    pub const fn is_root(self) -> bool {
        self.uid == 0
    }

    /// What chown(1) takes: `nodeseal:` with the user's own group, or both numbers where there is no name.
    pub fn for_chown(self) -> String {
        match self.name() {
            Some(name) => format!("{name}:"),
            None => format!("{}:{}", self.uid, self.gid),
        }
    }

    fn name(self) -> Option<String> {
        User::from_uid(self.uid.into()).ok().flatten().map(|user| user.name)
    }
}

/// The name, or the number where there is none.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(&name),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_called_by_name_and_by_number_where_there_is_none() {
        let root = Owner { uid: 0, gid: 7 };
        assert_eq!((root.to_string().as_str(), root.for_chown().as_str()), ("root", "root:"));
        let unknown = Owner { uid: 4_000_000_001, gid: 7 };
        assert_eq!(unknown.to_string(), "uid 4000000001");
        assert_eq!(unknown.for_chown(), "4000000001:7");
        assert!(!unknown.is(root) && root.is(Owner { uid: 0, gid: 0 }) && root.is_root());
    }
}
