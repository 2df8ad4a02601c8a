//! Turns the Kubernetes proto files into Rust. Nothing else is generated.
//!
//! Messages and services come apart: a client of other plugins needs the messages without the service (src/lib.rs, layers).

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let services = Path::new(&env::var("OUT_DIR")?).join("services");
    fs::create_dir_all(&services)?;
    for version in ["v1beta1", "v2"] {
        let dir = format!("proto/k8s/{version}");
        let file = format!("{dir}/api.proto");
        println!("cargo::rerun-if-changed={file}");
        let descriptors = protox::compile([&file], [&dir])?;
        let generator = || tonic_prost_build::configure().bytes(".").build_client(false).build_transport(false);
        generator().build_server(false).compile_fds(descriptors.clone())?;
        generator()
            .codec_path("crate::api::codec::KmsCodec")
            .extern_path(format!(".{version}"), format!("crate::kms::{version}"))
            .out_dir(&services)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
