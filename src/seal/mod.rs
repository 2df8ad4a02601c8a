//! The client of the sealer and what is made from its answers: the node root and its keys.

pub mod client;
pub mod fault;
pub mod frame;
pub mod host_secret;
pub mod protocol;
pub mod root;
