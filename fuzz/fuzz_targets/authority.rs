//! See `nodeseal_fuzz::authority`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::authority(data));
