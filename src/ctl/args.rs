//! The command line. Help texts are one line each; the long story is in docs/.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::recipients::RecoveryArgs;
use crate::config::DEFAULT_PATH;
use crate::keyring::bundle::read_fingerprint;

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

/// What every verb takes.
#[derive(Args)]
pub(super) struct Common {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "NODESEAL_CONFIG", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// Print the result, or why there is none, as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Give the keys to another node, for its TPM alone
    #[command(subcommand)]
    Bundle(BundleVerb),
    /// Print completions for a shell
    Completions {
        /// The shell that is to read them
        #[arg(value_enum)]
        shell: Shell,
    },
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
    /// List, show, rotate, activate and retire local KEKs
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Know the other nodes, for rotations of keys that all of them share
    #[command(subcommand)]
    Members(MembersVerb),
    /// Print the status as Prometheus text, for node_exporter
    Metrics,
    /// Rebuild the keys from a recovery file, or prove it would do
    Recover(RecoverArgs),
    /// Let nodeseald take up its changed configuration
    Reload(ReloadArgs),
    /// Seal the node root anew: device, policy, PCRs, recipients
    Reseal(ResealArgs),
    /// Put everything under a new node root; no key and no key_id changes
    RotateRoot(RotateRootArgs),
    /// Show what the running nodeseald says of itself
    Status(StatusArgs),
    /// Show the release, its features, and the formats that it reads and writes
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
        /// What `bundle request` wrote on the other node
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
    /// On the node that needs the keys: take them over from a bundle
    Accept {
        /// What `bundle make` wrote on the other node; - is standard input
        #[arg(value_name = "BUNDLE")]
        file: PathBuf,
        /// The bundle's fingerprint, as the other node printed it; a member's bundle needs none
        #[arg(long, value_name = "GROUPS", value_parser = read_fingerprint)]
        fingerprint: Option<String>,
        /// Print a receipt alone, for `keys activate --when-all-have` on the node that gave the bundle
        #[arg(long)]
        receipt: bool,
    },
    /// On the node that needs the keys: ask for them
    Request {
        /// Where to write the request; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what a request or a bundle says of itself, and its fingerprint
    Show {
        /// What `bundle request` or `bundle make` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
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
pub(super) enum MembersVerb {
    /// Trust another node: give it keys and take keys from it
    Add {
        /// What `members identity` wrote on the other node
        #[arg(value_name = "IDENTITY")]
        file: PathBuf,
        /// Its fingerprint, as the other node printed it
        #[arg(long, value_name = "GROUPS", value_parser = read_fingerprint)]
        fingerprint: String,
        /// In place of a member of that name that had another TPM
        #[arg(long)]
        replace: bool,
    },
    /// Write what the other nodes need to know of this one
    Identity {
        /// Where to write it; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// What this node is called; its host name if left out
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Show the members
    List,
    /// Give a node no keys any more, and take none from it
    Remove {
        /// The member
        name: String,
    },
}

#[derive(Subcommand)]
pub(super) enum KeysVerb {
    /// Turn to a KEK in pre-activation; the old one goes on decrypting
    Activate {
        /// Of the KEK, or the beginning of it; the one in pre-activation if left out
        id: Option<String>,
        /// Also if other nodes have the active KEK and do not have this one
        #[arg(long)]
        not_shared: bool,
        /// Folder with the receipts of all members that were given it
        #[arg(long, value_name = "DIR", conflicts_with = "not_shared")]
        when_all_have: Option<PathBuf>,
    },
    /// Show all KEKs and their states
    List,
    /// Show one KEK
    Show {
        /// Of the KEK, or the beginning of it
        id: String,
    },
    /// Destroy a KEK that is not active, mark it as compromised, or give it up
    Retire {
        /// Of the KEK, or the beginning of it
        id: String,
        /// The whole id once more: what only this KEK opens is lost for ever
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        confirm: String,
        /// Only mark it: it goes on decrypting
        #[arg(long)]
        compromised: bool,
        /// Only give up a KEK in pre-activation: it goes on decrypting, and this node never turns to it by itself
        #[arg(long, conflicts_with = "compromised")]
        give_up: bool,
        /// Also if it was never active here and other nodes had it: none of them can turn to it any more
        #[arg(long, conflicts_with_all = ["compromised", "give_up"])]
        not_shared: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a new KEK in pre-activation
    Rotate {
        /// Also turn to it
        #[arg(long)]
        activate: bool,
        /// Write a bundle for each member into this folder; with a KEK in pre-activation, for that one
        #[arg(long, value_name = "DIR", conflicts_with = "activate")]
        members: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(super) struct RotateRootArgs {
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also if there is no recovery file
    #[arg(long)]
    pub(super) without_recovery_file: bool,
}

#[derive(Args)]
pub(super) struct InitArgs {
    /// Make no KEK: encrypt nothing before the keys of another node came in a bundle
    #[arg(long)]
    pub(super) join: bool,
    /// Take the place of a counter that an earlier installation of this node left in the TPM
    #[arg(long)]
    pub(super) replace_counter: bool,
    #[command(flatten)]
    pub(super) recovery: RecoveryArgs,
}

#[derive(Args)]
pub(super) struct RecoverArgs {
    /// The recovery file; else that of the state directory
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Key file of age; else standard input, or a code there
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
    /// Only prove that the file opens and has this node's keys
    #[arg(long)]
    pub(super) verify: bool,
    /// Refuse a file that another node has made
    #[arg(long, value_name = "GROUPS", value_parser = read_fingerprint)]
    pub(super) made_by: Option<String>,
    /// Go on encrypting under the file's active KEK, which other nodes have too
    #[arg(long)]
    pub(super) keep_active: bool,
    /// Make a new KEK, although other nodes have the file's active one
    #[arg(long, conflicts_with = "keep_active")]
    pub(super) new_key: bool,
    /// Give up the keys that are here, although they may open again
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
    /// Also if something may be left that no provider of the new configuration opens
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
    /// Also under another storage root key of the TPM than before
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
    /// Also ask the sealing device what it is
    #[arg(long)]
    pub(super) device: bool,
    /// Also let the device open the node root once, and read every file
    #[arg(long)]
    pub(super) deep: bool,
    /// Go on until it is interrupted, every two seconds
    #[arg(long, conflicts_with_all = ["device", "deep"])]
    pub(super) watch: bool,
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
    #[arg(long, value_delimiter = ',', default_value = "secrets", value_parser = super::encryption_config::resource)]
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
