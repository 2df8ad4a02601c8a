//! The operator's tool.

fn main() -> std::process::ExitCode {
    nodeseal::ctl::main()
}
