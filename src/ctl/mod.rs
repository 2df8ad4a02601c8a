//! `nodeseal`, the operator's tool: one file a verb.
//!
//! Results go to standard output, everything else to standard error (`control::say`). Nothing secret is ever read from the command
//! line. Every verb takes `--config` and `--json`, under which a refusal is on standard output as well ([`failed::Failed`]).

#[cfg(feature = "etcd")]
mod apiserver;
mod args;
mod asked;
mod bundle;
mod common;
mod compared;
mod completions;
mod config_check;
mod config_show;
mod credentials;
mod debug;
mod dev;
mod doctor;
mod encryption_config;
#[cfg(feature = "etcd")]
mod etcd;
mod exchange;
mod failed;
mod files;
mod init;
mod kek_ids;
mod keys;
mod machine;
mod members;
mod metrics;
#[cfg(feature = "etcd")]
mod migrate;
mod next;
mod output;
mod recipients;
mod recover;
mod recovery_file;
#[cfg(feature = "etcd")]
mod rehearse;
mod reload;
mod reseal;
mod restore;
mod rotate_root;
mod rows;
mod schema;
mod setup;
mod status;
mod terminal;
mod version;
mod windows;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Common, Verb};
use self::output::Done;
use crate::control::program;

pub(crate) const PROGRAM: &str = "nodeseal";

pub use self::completions::completions;
pub use self::doctor::{DoctorRow, doctor_rows};

/// The command line, for manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// `nodeseal`.
pub fn main() -> ExitCode {
    let line = Cli::try_parse().inspect_err(|error| failed::print_usage(error, std::env::args_os()));
    program::main(PROGRAM, line, |Cli { common, verb }| {
        run(&common, verb).inspect_err(|failed| {
            if common.json {
                failed::print(failed);
            }
        })
    })
}

fn run(common: &Common, verb: Verb) -> Done {
    match verb {
        Verb::Bundle(verb) => bundle::run(common, &verb),
        Verb::Completions { shell } => completions::run(shell),
        Verb::Config(args::ConfigVerb::Check) => config_check::run(common),
        Verb::Config(args::ConfigVerb::Show) => config_show::run(common),
        Verb::Config(args::ConfigVerb::Schema) => {
            crate::control::say::result(&format!("{:#}", crate::config::schema()));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Credentials(verb) => credentials::run(common, &verb),
        Verb::Debug(verb) => debug::run(common, verb),
        Verb::Dev(args) => dev::run(common, &args),
        Verb::Doctor(args) => doctor::run(common, &args),
        Verb::EncryptionConfig(args) => encryption_config::run(common, &args),
        #[cfg(feature = "etcd")]
        Verb::Etcd(verb) => etcd::run(common, &verb),
        Verb::Init(args) => init::run(common, &args),
        Verb::Keys(verb) => keys::run(common, verb),
        Verb::Members(verb) => members::run(common, &verb),
        Verb::Metrics => metrics::run(common),
        #[cfg(feature = "etcd")]
        Verb::Migrate(verb) => migrate::run(common, &verb),
        #[cfg(feature = "etcd")]
        Verb::Recover(args) if args.rehearse => rehearse::run(common, &args),
        Verb::Recover(args) => recover::run(common, &args),
        Verb::Reload(args) => reload::run(common, &args),
        Verb::Reseal(args) => reseal::run(common, &args),
        Verb::RotateRoot(args) => rotate_root::run(common, &args),
        Verb::Setup(args) => setup::run(common, &args),
        Verb::Status(args) => status::run(common, &args),
        Verb::Version => version::run(common),
    }
}
