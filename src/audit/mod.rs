//! Every event that we can write, in one closed list, and the log that they go to.
//!
//! Nobody else logs an auditable fact. No variant has a field that could hold a plaintext, a key, an annotation or a ciphertext.

pub mod catalog;
pub mod debug;
mod event;
mod journal;
mod line;
pub mod log;
mod repeat;
mod ring;

pub(crate) use event::Event;

/// Writes the event to the log. Never waits for who reads it.
pub(crate) fn emit(event: &Event<'_>) {
    if !repeat::takes(event) {
        line::write(event, 1);
    }
}
