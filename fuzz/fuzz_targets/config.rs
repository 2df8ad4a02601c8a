//! See `nodeseal_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::config(data));
