//! What the process keeps others from: its memory and its core dumps. Needs of components and the confinement itself join here.

pub mod memory;
pub mod process;
