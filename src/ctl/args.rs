//! The command line. Help texts are one line each; the long story is in docs/.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::recipients::RecoveryArgs;
use crate::config::DEFAULT_PATH;

#[derive(Parser)]
#[command(
    name = super::PROGRAM,
    version,
    about = "Operates a Kubernetes KMS plugin that is rooted in this node's hardware",
    // So that the list of verbs fits a screen; `nodeseal VERB --help` says the same.
    disable_help_subcommand = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What every verb takes.
#[derive(Args)]
pub(super) struct Common {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "NODESEAL_CONFIG", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Give the keys to another node, for its TPM alone
    #[command(subcommand)]
    Bundle(BundleVerb),
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Seal and list what providers log in with
    #[command(subcommand)]
    Credentials(CredentialsVerb),
    /// Try it out: everything in one folder, software TPM or token
    Dev(DevArgs),
    /// Print the EncryptionConfiguration for kube-apiserver
    EncryptionConfig(EncryptionConfigArgs),
    /// Set this node up: seal a node root, make the first KEK
    Init(InitArgs),
    /// List, rotate, activate and retire local KEKs
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Print the status as Prometheus text, for node_exporter
    Metrics,
    /// Rebuild the keys from a recovery file, or prove it would do
    Recover(RecoverArgs),
    /// Let nodeseald take up its changed configuration
    Reload(ReloadArgs),
    /// Seal the node root anew: device, policy, PCRs, recipients
    Reseal(ResealArgs),
    /// Show what the running nodeseald says of itself
    Status(StatusArgs),
}

#[derive(Subcommand)]
pub(super) enum BundleVerb {
    /// On the node that has the keys: encrypt them to the TPM of a request
    Make {
        /// What `bundle request` wrote on the other node
        #[arg(value_name = "REQUEST")]
        file: PathBuf,
        /// The request's fingerprint, as the other node printed it
        #[arg(long, value_name = "GROUPS")]
        fingerprint: String,
        /// Where to write the bundle; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// On the node that needs the keys: take them over from a bundle
    Accept {
        /// What `bundle make` wrote on the other node
        #[arg(value_name = "BUNDLE")]
        file: PathBuf,
        /// The bundle's fingerprint, as the other node printed it
        #[arg(long, value_name = "GROUPS")]
        fingerprint: String,
    },
    /// On the node that needs the keys: ask for them
    Request {
        /// Where to write the request; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Report every mistake in the configuration
    Check,
}

#[derive(Subcommand)]
pub(super) enum CredentialsVerb {
    /// Show names and ages, never content
    List,
    /// Seal a credential from standard input, in place of an older one of that name
    Seal {
        /// As nodeseal.toml names it
        name: String,
        /// Read from this open file descriptor instead
        #[arg(long, value_name = "N")]
        fd: Option<u32>,
    },
}

#[derive(Subcommand)]
pub(super) enum KeysVerb {
    /// Turn to a KEK in pre-activation; the old one goes on decrypting
    Activate {
        /// Of the KEK
        id: String,
    },
    /// Show all KEKs and their states
    List,
    /// Destroy a KEK that is not active, or mark it as compromised
    Retire {
        /// Of the KEK
        id: String,
        /// The id once more: what only this KEK opens is lost for ever
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        confirm: String,
        /// Only mark it: it goes on decrypting
        #[arg(long)]
        compromised: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a new KEK in pre-activation
    Rotate,
}

#[derive(Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct RecoverArgs {
    /// The recovery file; as a rule a copy of recovery.age of the state directory
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Key file of age with the identity; without it, code or identity are read from standard input
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
    /// Only prove that the file opens and has this node's keys
    #[arg(long)]
    pub(super) verify: bool,
    /// Go on encrypting under the file's active KEK, which other nodes have too; else a new one is made
    #[arg(long)]
    pub(super) keep_active: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct ReloadArgs {
    /// Also if a local KEK is left that no provider of the new configuration opens
    #[arg(long)]
    pub(super) abandon: bool,
}

#[derive(Args)]
pub(super) struct ResealArgs {
    /// The device to move to: tpm2 or pkcs11; else the configured one
    #[arg(long, value_name = "DEVICE")]
    pub(super) to: Option<String>,
    /// Go on with a state directory that the TPM's counter calls old
    #[arg(long)]
    pub(super) accept_rollback: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct StatusArgs {
    /// Also encrypt and decrypt 32 random bytes through the KMS socket
    #[arg(long)]
    pub(super) probe: bool,
    /// Also ask the sealing device what it is
    #[arg(long)]
    pub(super) device: bool,
}

#[derive(Args)]
pub(super) struct DevArgs {
    /// Everything lives here; made if absent
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// The sealing device to imitate
    #[arg(long, value_enum, default_value_t = Backend::Tpm2)]
    pub(super) backend: Backend,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    Tpm2,
    Pkcs11,
}

#[derive(Args)]
pub(super) struct EncryptionConfigArgs {
    /// The KMS API to use
    #[arg(long, value_enum, default_value_t = KmsApi::V2)]
    pub(super) api: KmsApi,
    /// Resources to encrypt
    #[arg(long, value_delimiter = ',', default_value = "secrets")]
    pub(super) resources: Vec<String>,
    /// Leave out the provider that reads what was stored unencrypted
    #[arg(long)]
    pub(super) no_identity: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KmsApi {
    V2,
    V1beta1,
}
