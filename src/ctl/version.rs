//! `nodeseal version`: the release, what is compiled in, and which formats it reads and writes, so that it is known before an upgrade
//! or a way back whether two releases understand each other. docs/formats.md has each of them.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use super::common::Common;
use super::output::{Done, print};
use super::schema;
use crate::keyring::exchanged::FileKind;
use crate::keyring::export;
use crate::keyring::files::FILES;
use crate::{config, envelope, seal};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Those of Cargo.toml that say what it can do.
const FEATURES: [(&str, bool); 7] = [
    ("tpm2", cfg!(feature = "tpm2")),
    ("pkcs11", cfg!(feature = "pkcs11")),
    ("vault", cfg!(feature = "vault")),
    ("aws", cfg!(feature = "aws")),
    ("azure", cfg!(feature = "azure")),
    ("recovery", cfg!(feature = "recovery")),
    ("etcd", cfg!(feature = "etcd")),
];

/// One stored or sent format.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Format {
    name: &'static str,
    reads: Vec<u16>,
    writes: u16,
}

impl Format {
    /// Every version up to the one that is written.
    fn up_to(name: &'static str, writes: u16) -> Self {
        Self { name, reads: (1..=writes).collect(), writes }
    }
}

fn formats() -> Vec<Format> {
    let mut all = vec![
        Format::up_to("nodeseal.toml", config::FILE_VERSION),
        Format::up_to("text in etcd", envelope::FORMAT.into()),
    ];
    for kind in FILES.iter().filter_map(|file| file.kind) {
        // Several files have one form: it has the name of the first.
        let name = FILES.iter().find(|file| file.kind == Some(kind)).map_or("", |file| file.name);
        if all.iter().all(|format| format.name != name) {
            all.push(Format::up_to(name, kind.version().into()));
        }
    }
    all.push(Format::up_to("keyring export", export::NEWEST));
    let exchanged = [
        ("bundle request", FileKind::Request),
        ("bundle", FileKind::Bundle),
        ("identity", FileKind::Identity),
        ("receipt", FileKind::Receipt),
    ];
    all.extend(exchanged.map(|(name, kind)| Format::up_to(name, kind.version())));
    let sealer = u16::from(seal::protocol::VERSION);
    all.push(Format { name: "sealer protocol", reads: vec![sealer], writes: sealer });
    all
}

pub(super) fn run(common: &Common) -> Done {
    let features: Vec<&str> = FEATURES.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let formats = formats();
    let value = json!({ "version": VERSION, "features": features, "formats": formats });
    print(common, schema::VERSION, &value, || {
        let features = if features.is_empty() { "none".to_owned() } else { features.join(" ") };
        let mut text =
            format!("nodeseal {VERSION}\nfeatures: {features}\n\n{:<20}  {:<8}  WRITES\n", "FORMAT", "READS");
        for Format { name, reads, writes } in &formats {
            let reads = match reads.as_slice() {
                [first, .., last] => format!("{first} to {last}"),
                other => other.iter().map(ToString::to_string).collect(),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<20}  {reads:<8}  {writes}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_has_one_row_and_what_is_written_is_read() {
        let formats = formats();
        let names: std::collections::BTreeSet<_> = formats.iter().map(|format| format.name).collect();
        assert_eq!(names.len(), formats.len());
        assert!(formats.iter().all(|format| format.reads.contains(&format.writes)));
        let state = formats.iter().find(|format| format.name == "state").unwrap();
        assert_eq!((state.reads.as_slice(), state.writes), (&[1, 2, 3, 4][..], 4));
    }
}
