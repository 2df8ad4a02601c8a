//! The KMS plugin.

fn main() -> std::process::ExitCode {
    nodeseal::daemon::main()
}
