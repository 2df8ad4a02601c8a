//! Turns the proto files of Kubernetes into the Rust code of `proto/generated`, which is checked in: a build needs neither a compiler of
//! proto files nor the crates of one, and is the same in every folder.
//!
//! usage: proto-generate [--check]
//!
//! With `--check` nothing is written: what is checked in has to be what the proto files and this generator give (`make lint`).
//!
//! Messages and services come apart: a client of other plugins needs the messages without the service (src/lib.rs, layers).
#![allow(clippy::disallowed_methods, reason = "what is written is made anew at will")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const VERSIONS: [&str; 2] = ["v1beta1", "v2"];
const PARTS: [&str; 2] = ["messages", "services"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_check = match arguments.as_slice() {
        [] => false,
        [only] if only == "--check" => true,
        _ => return Err("usage: proto-generate [--check]".into()),
    };
    let made = std::env::temp_dir().join(format!("nodeseal-proto-{}", std::process::id()));
    let result = generate(&proto, &made).and_then(|()| settle(&proto.join("generated"), &made, is_check));
    let _ = fs::remove_dir_all(&made);
    let others = result?;
    if others.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("not what the proto files give: {}", others.join(", "));
    eprintln!("hint: run `make proto` and commit what it writes");
    Ok(ExitCode::FAILURE)
}

fn generate(proto: &Path, into: &Path) -> Result<(), Box<dyn Error>> {
    for part in PARTS {
        fs::create_dir_all(into.join(part))?;
    }
    for version in VERSIONS {
        let folder = proto.join("k8s").join(version);
        let descriptors = protox::compile([folder.join("api.proto")], [&folder])?;
        let generator = || tonic_prost_build::configure().bytes(".").build_client(false).build_transport(false);
        generator().build_server(false).out_dir(into.join("messages")).compile_fds(descriptors.clone())?;
        generator()
            .codec_path("crate::api::codec::KmsCodec")
            .extern_path(format!(".{version}"), format!("crate::kms::{version}"))
            .out_dir(into.join("services"))
            .compile_fds(descriptors)?;
    }
    Ok(())
}

/// The files that differ, or, if it is no check, none: they are written.
fn settle(generated: &Path, made: &Path, is_check: bool) -> Result<Vec<String>, Box<dyn Error>> {
    let mut others = Vec::new();
    for (part, version) in PARTS.iter().flat_map(|part| VERSIONS.map(|version| (part, version))) {
        let name: PathBuf = [part, &*format!("{version}.rs")].iter().collect();
        let (new, at) = (fs::read(made.join(&name))?, generated.join(&name));
        if !is_check {
            fs::create_dir_all(generated.join(part))?;
            fs::write(at, new)?;
        } else if fs::read(&at).ok() != Some(new) {
            others.push(at.display().to_string());
        }
    }
    Ok(others)
}
