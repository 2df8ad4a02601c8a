//! Turns the same proto files into stock tonic code.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for version in ["v1beta1", "v2"] {
        let dir = format!("../../proto/k8s/{version}");
        let file = format!("{dir}/api.proto");
        println!("cargo::rerun-if-changed={file}");
        tonic_prost_build::configure().build_client(false).compile_fds(protox::compile([&file], [&dir])?)?;
    }
    Ok(())
}
