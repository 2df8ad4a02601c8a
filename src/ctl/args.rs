//! The command line. Help texts are one line each; the long story is in docs/.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use super::common::Common;
use super::encryption_config::EncryptionConfigArgs;
use super::recipients::RecoveryArgs;
use crate::keyring::bundle::read_fingerprint;
use crate::types::Backend;

#[derive(Parser)]
#[command(
    name = super::PROGRAM,
    version,
    about = "Operates a Kubernetes KMS plugin that is rooted in this node's hardware"
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Give the keys to another node; only its TPM can open them
    #[command(subcommand)]
    Bundle(BundleVerb),
    /// Print completions for a shell
    // The packages install them. On the list of all verbs, which is one screen, it would take the place of one for operators.
    #[command(hide = true)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Seal and list credentials for providers
    #[command(subcommand)]
    Credentials(CredentialsVerb),
    /// Log every call for some minutes
    #[command(subcommand)]
    Debug(super::debug::DebugVerb),
    /// Try it out: everything in one folder, software TPM or token
    Dev(DevArgs),
    /// Check this node, its machine, and what kube-apiserver is told
    Doctor(super::doctor::DoctorArgs),
    /// Print the EncryptionConfiguration for kube-apiserver
    EncryptionConfig(EncryptionConfigArgs),
    /// Count what is stored in etcd, and under which key
    #[cfg(feature = "etcd")]
    #[command(subcommand)]
    Etcd(super::etcd::EtcdVerb),
    /// Set this node up: seal a node root, make the first KEK
    Init(InitArgs),
    /// List, show, rotate, activate and retire local KEKs
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Manage the nodes that share keys with this one
    #[command(subcommand)]
    Members(MembersVerb),
    /// Print all metrics as OpenMetrics text
    Metrics,
    /// Have what is stored in etcd written under the present key
    #[cfg(feature = "etcd")]
    #[command(subcommand)]
    Migrate(super::migrate::MigrateVerb),
    /// Rebuild the keys from a recovery file, or check that file
    Recover(RecoverArgs),
    /// Reload the configuration of nodeseald
    Reload(ReloadArgs),
    /// Seal the node root again: device, policy, PCRs, recipients
    Reseal(ResealArgs),
    /// Move everything to a new node root; keys and key_id stay
    RotateRoot(RotateRootArgs),
    /// Write what a new cluster needs: configuration, policies
    Setup(super::setup::SetupArgs),
    /// Show the state of the running nodeseald
    Status(StatusArgs),
    /// Show the release, its features and formats
    Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Fish,
    Zsh,
}

#[derive(Subcommand)]
pub(super) enum BundleVerb {
    /// On the node that has the keys: encrypt them to the TPM of a request
    Make {
        /// File from `bundle request` on the other node
        #[arg(value_name = "REQUEST", required_unless_present = "member")]
        file: Option<PathBuf>,
        /// The request's fingerprint, as the other node printed it
        #[arg(long, value_name = "GROUPS", required_unless_present = "member", value_parser = read_fingerprint)]
        fingerprint: Option<String>,
        /// For a member, without a request
        #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "fingerprint"])]
        member: Option<String>,
        /// Where to write the bundle; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// On the node that needs the keys: accept them from a bundle
    Accept {
        /// File from `bundle make` on the other node; - is standard input
        #[arg(value_name = "BUNDLE")]
        file: PathBuf,
        /// The bundle's fingerprint, as the other node printed it; a member's bundle needs none
        #[arg(long, value_name = "GROUPS", value_parser = read_fingerprint)]
        fingerprint: Option<String>,
        /// Print only a receipt, for `keys activate --when-all-have` on the node that gave the bundle
        #[arg(long)]
        receipt: bool,
    },
    /// On the node that needs the keys: request them
    Request {
        /// Where to write the request; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show a request, bundle or identity, and its fingerprint
    Show {
        /// File from `bundle request` or `bundle make`
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Report every mistake in the configuration
    Check,
    /// Show the values in force, and where each comes from
    Show,
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
}

#[derive(Subcommand)]
pub(super) enum CredentialsVerb {
    /// Show names and ages, never content
    List,
    /// Remove a credential that no provider of the configuration uses
    Remove {
        /// As `credentials list` shows it
        name: String,
    },
    /// Seal a credential from standard input; replaces an older one with that name
    Seal {
        /// Credential name used in nodeseal.toml
        name: String,
        /// Read from this open file descriptor instead
        #[arg(long, value_name = "N")]
        fd: Option<u32>,
    },
}

#[derive(Subcommand)]
pub(super) enum MembersVerb {
    /// Trust another node: give it keys and accept keys from it
    Add {
        /// File from `members identity` on the other node
        #[arg(value_name = "IDENTITY")]
        file: PathBuf,
        /// Its fingerprint, as the other node printed it
        #[arg(long, value_name = "GROUPS", value_parser = read_fingerprint)]
        fingerprint: String,
        /// Replace a member with that name and another TPM
        #[arg(long)]
        replace: bool,
    },
    /// Write the identity of this node for the other nodes
    Identity {
        /// Where to write it; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Name of this node [default: its host name]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Show the members
    List,
    /// Stop giving keys to a node and accepting keys from it
    Remove {
        /// The member
        name: String,
    },
}

#[derive(Subcommand)]
pub(super) enum KeysVerb {
    /// Activate a KEK in pre-activation; the old one still decrypts
    Activate {
        /// Id of the KEK, or its beginning [default: the one in pre-activation]
        id: Option<String>,
        /// Even if other nodes have the active KEK but not this one
        #[arg(long)]
        not_shared: bool,
        /// Folder with the receipts of all members that were given the KEK
        #[arg(long, value_name = "DIR", conflicts_with = "not_shared")]
        when_all_have: Option<PathBuf>,
    },
    /// Show all KEKs and their states
    List,
    /// Show one KEK
    Show {
        /// Id of the KEK, or its beginning, as in `keys list`
        id: String,
    },
    /// Show for how long objects in etcd have needed each KEK and each version of a provider's key, by the scans on record
    Windows {
        /// Draw them into this new file too
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Destroy a KEK that is not active, mark it as compromised, or give it up
    Retire {
        /// Id of the KEK, or its beginning, as in `keys list`
        id: String,
        /// Repeat the whole id: data that only this KEK opens is lost permanently
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        confirm: String,
        /// Only mark it: it still decrypts
        #[arg(long)]
        compromised: bool,
        /// Only give up a KEK in pre-activation: it still decrypts, and this node never activates it on its own
        #[arg(long, conflicts_with = "compromised")]
        give_up: bool,
        /// Even if other nodes have it: none of them encrypts under it, and none can activate it any more
        #[arg(long, conflicts_with_all = ["compromised", "give_up"])]
        not_shared: bool,
        /// There is no backup of etcd from before this day or time (2026-11-26, or with a time in UTC)
        #[arg(long, value_name = "DATE", value_parser = moment, conflicts_with_all = ["compromised", "give_up"])]
        backups_before: Option<u64>,
        /// Destroy it even though no scan of etcd shows that nothing stored needs it
        #[arg(long, conflicts_with_all = ["compromised", "give_up", "backups_before"])]
        without_scan: bool,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a new KEK in pre-activation
    Rotate {
        /// Also activate it
        #[arg(long)]
        activate: bool,
        /// Write a bundle for each member into this folder; with a KEK in pre-activation, for that one
        #[arg(long, value_name = "DIR", conflicts_with = "activate")]
        members: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(super) struct RotateRootArgs {
    /// Only show what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Even without a recovery file
    #[arg(long)]
    pub(super) without_recovery_file: bool,
}

#[derive(Args)]
pub(super) struct InitArgs {
    /// Make no KEK: encrypt nothing before a bundle has brought the keys of another node
    #[arg(long)]
    pub(super) join: bool,
    /// Replace a counter that an earlier installation of this node left in the TPM
    #[arg(long)]
    pub(super) replace_counter: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct RecoverArgs {
    /// The recovery file [default: the one in the state directory]
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Key file of age [default: key or code on standard input]
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
    /// Only prove that the file opens and has this node's keys
    #[arg(long)]
    pub(super) verify: bool,
    /// Only open the file in memory, and everything in an etcd snapshot under its keys; records the date
    #[cfg(feature = "etcd")]
    #[arg(long, conflicts_with_all = ["verify", "abort", "keep_active", "new_key", "give_up_device"])]
    pub(super) rehearse: bool,
    /// Snapshot of etcd for --rehearse
    #[cfg(feature = "etcd")]
    #[arg(long, value_name = "FILE", requires = "rehearse")]
    pub(super) snapshot: Option<PathBuf>,
    /// Refuse a file that was made by another node
    #[arg(long, value_name = "GROUPS", value_parser = read_fingerprint)]
    pub(super) made_by: Option<String>,
    /// Keep encrypting under the file's active KEK, which other nodes have too
    #[arg(long)]
    pub(super) keep_active: bool,
    /// Make a new KEK, even though other nodes have the file's active one
    #[arg(long, conflicts_with = "keep_active")]
    pub(super) new_key: bool,
    /// Give up the keys of this node, even though they may open again
    #[arg(long)]
    pub(super) give_up_device: bool,
    /// Remove what an interrupted recovery has begun
    #[arg(long, conflicts_with_all = ["file", "identity", "verify", "keep_active", "new_key", "give_up_device"])]
    pub(super) abort: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct ReloadArgs {
    /// Give up keys that no provider of the new configuration has, if a scan of etcd shows that nothing stored needs them
    #[arg(long)]
    pub(super) abandon: bool,
    /// With --abandon: there is no backup of etcd from before this day or time (2026-11-26, or with a time in UTC)
    #[arg(long, value_name = "DATE", value_parser = moment, requires = "abandon")]
    pub(super) backups_before: Option<u64>,
    /// With --abandon: even though no scan of etcd shows that nothing stored needs them
    #[arg(long, requires = "abandon", conflicts_with = "backups_before")]
    pub(super) without_scan: bool,
}

#[derive(Args)]
pub(super) struct ResealArgs {
    /// Target device, tpm2 or pkcs11 [default: the configured one]
    #[arg(long, value_name = "DEVICE")]
    pub(super) to: Option<String>,
    /// Accept a state directory that is older than the TPM's counter
    #[arg(long)]
    pub(super) accept_rollback: bool,
    /// Allow another storage root key of the TPM than before
    #[arg(long)]
    pub(super) new_parent: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct StatusArgs {
    /// Also encrypt and decrypt 32 random bytes through the KMS socket
    #[arg(long)]
    pub(super) probe: bool,
    /// Also show what the sealing device is
    #[arg(long)]
    pub(super) device: bool,
    /// Also make the device open the node root once, and read every file
    #[arg(long)]
    pub(super) deep: bool,
    /// Repeat every two seconds until interrupted
    #[arg(long, conflicts_with_all = ["device", "deep"])]
    pub(super) watch: bool,
}

#[derive(Args)]
pub(super) struct DevArgs {
    /// Folder for everything; created if absent
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// The sealing device to imitate
    #[arg(long, value_enum, default_value_t = Backend::Tpm2)]
    pub(super) backend: Backend,
}

impl ValueEnum for Backend {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Tpm2, Self::Pkcs11]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.label()))
    }
}

/// A day, or a time in UTC, in seconds since 1970.
fn moment(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "write it as 2026-11-26 or 2026-11-26T12:00:00Z";
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339(&whole).map_err(|_| FORM)?;
    time.duration_since(std::time::UNIX_EPOCH).map(|since| since.as_secs()).map_err(|_| FORM)
}
