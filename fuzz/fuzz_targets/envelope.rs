//! See `nodeseal_fuzz::envelope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::envelope(data));
