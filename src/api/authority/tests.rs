//! The parts, from the inside out: strings and header blocks, frames, the stream, and h2 behind it.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;
mod frames;
mod model;
mod property;
mod stream;
