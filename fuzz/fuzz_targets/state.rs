//! See `nodeseal_fuzz::state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::state(data));
