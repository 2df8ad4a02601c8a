//! See `nodeseal_fuzz::sealer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::sealer(data));
