//! The parts, from the inside out: strings and header blocks, frames, the stream, and h2 behind it.

mod blocks;
mod frames;
mod model;
mod property;
mod stream;
