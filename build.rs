//! Turns the Kubernetes proto files into Rust. Nothing else is generated.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for version in ["v1beta1", "v2"] {
        let dir = format!("proto/k8s/{version}");
        let file = format!("{dir}/api.proto");
        println!("cargo::rerun-if-changed={file}");
        let descriptors = protox::compile([&file], [&dir])?;
        tonic_prost_build::configure()
            .codec_path("crate::api::codec::KmsCodec")
            .bytes(".")
            .build_client(false)
            .build_transport(false)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
