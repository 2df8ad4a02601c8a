//! What calls leave behind on the stack: copies of keys, which no library wipes when it moves a value, and no drop reaches.
//!
//! [`wiped`] runs a piece of work and then overwrites what lay below it. The bound is the caller's: deeper frames are not reached, and
//! neither are registers that a signal saved. `tests/service/memory.rs` looks for what is left in the running programs.

/// Bytes that one use of a cipher reaches down. Seen in a build without optimisation: 9 KiB; writing 16 takes less than a microsecond.
pub const CIPHER_BYTES: usize = 16 * 1024;

/// Bytes that a thread overwrites when it has nothing to do: frames of event loops, HTTP/2 and TLS in a build without optimisation.
pub const IDLE_BYTES: usize = 64 * 1024;

/// Bytes that opening, changing and storing keys reaches down, with age and its curves. Threads have 2 MiB.
pub const KEEPER_BYTES: usize = 128 * 1024;

/// Runs the work in a frame of its own, then overwrites so many bytes from that frame's begin downwards.
#[inline(never)]
pub fn wiped<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    overwrite::<BYTES>();
    result
}

/// More than the words of its own that [`overwrite`] has above its array, and that it cannot overwrite.
const GAP_BYTES: usize = 256;

/// Lets the work begin below that gap. None of the three is inlined: what they need would lie in a frame that is not overwritten.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    let gap = [0_u8; GAP_BYTES];
    zeroize::optimization_barrier(&gap);
    let result = below(work);
    zeroize::optimization_barrier(&gap);
    result
}

#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Overwrites so many bytes below the caller's frame: for a thread that goes idle.
#[inline(never)]
pub fn overwrite<const BYTES: usize>() {
    let frame = [0_u8; BYTES];
    zeroize::optimization_barrier(&frame);
}
