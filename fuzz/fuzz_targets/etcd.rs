//! See `nodeseal_fuzz::etcd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeseal_fuzz::etcd(data));
