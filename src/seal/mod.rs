//! The client of the sealer and what is made from its answers: the node root and its keys. And what is made
//! for another machine's sealer.

pub mod agree;
pub mod client;
pub mod credential;
pub mod credentials;
pub mod duplicate;
pub mod fault;
pub mod frame;
pub mod host_secret;
pub mod protocol;
pub mod root;
pub mod starter;
pub mod tcg;
pub mod token_key;
pub mod tpm_head;
