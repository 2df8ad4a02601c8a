//! See `nodeseal_fuzz::bundles`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::bundles(data));
