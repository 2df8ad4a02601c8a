//! Every event that we can write, in one closed list, and the log that they go to.
//!
//! Nobody else logs an auditable fact. No variant has a field that could hold a plaintext, a key, an annotation or a ciphertext.

mod event;
pub mod log;

pub use event::{Event, emit};
