//! The bodies of the fuzz targets: one function each, from any bytes to nothing, and a panic is a finding.
//!
//! The programs in `fuzz_targets/` hand them what libFuzzer makes up; `tests/corpora.rs` hands them the files of `corpus/`, as
//! an ordinary test. The first byte of an input mostly says which reader of the target it is for; a corpus survives a
//! new one, since readers are only ever added at the end.
//!
//! Behind a checksum or a MAC no random bytes come through. There the body puts the right one on, by docs/formats.md and
//! without the code that is tried.

mod authority;
mod bundles;
mod config;
mod envelope;
mod etcd;
mod sealer;
mod state;

pub use authority::authority;
pub use bundles::bundles;
pub use config::config;
pub use envelope::envelope;
pub use etcd::etcd;
pub use sealer::sealer;
pub use state::state;

use nodeseal::types::{ClusterId, Key};
use sha2::{Digest, Sha256};

/// What is tried with an input.
pub type Body = fn(&[u8]);

/// All targets, by name: that of the program, and that of the folder in `corpus/`.
pub const TARGETS: [(&str, Body); 7] = [
    ("authority", authority),
    ("bundles", bundles),
    ("config", config),
    ("envelope", envelope),
    ("etcd", etcd),
    ("sealer", sealer),
    ("state", state),
];

/// The cluster of the frozen vectors.
fn cluster() -> ClusterId {
    "c1".parse().expect("a cluster id")
}

fn key(byte: u8) -> Key {
    Key::copy_of(&[byte; Key::LEN]).expect("32 bytes")
}

/// With a checksum that fits, as an editor of the file would put there.
fn summed(body: &[u8]) -> Vec<u8> {
    [body, &Sha256::digest(body)].concat()
}
