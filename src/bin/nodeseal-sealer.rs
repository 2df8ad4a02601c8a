//! The one process that talks to the sealing device.

fn main() -> std::process::ExitCode {
    nodeseal::daemon::sealer::main()
}
