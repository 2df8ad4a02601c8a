//! Unix sockets of the programs: how one is bound, and who may come in. What is said on them is the affair of those that serve them.

pub(crate) mod listen;
pub(crate) mod peer;
