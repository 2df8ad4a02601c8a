//! What the operator does next, after each failure of the keys' owner.

use super::{KeeperError, NoProof, ROLLBACK};
use crate::keyring::ring::MoveError;
use crate::keyring::state_file::StateError;
use crate::seal::fault::FaultCode;
use crate::types::{Class, Explained};

impl Explained for KeeperError {
    fn class(&self) -> Class {
        match self {
            Self::AlreadySetUp
            | Self::AwaitsBundle
            | Self::BeforeGuard { .. }
            | Self::Confirmation
            | Self::KeptFolder(_)
            | Self::LeftOver(_)
            | Self::MayBeInRecoveryFile(_)
            | Self::MayStillOpen(_)
            | Self::MemberTwice(_)
            | Self::NoReceipt(_)
            | Self::NoRecoveryFile
            | Self::OtherTpm(_)
            | Self::OwnIdentity
            | Self::NothingInterrupted
            | Self::NotAllWereGiven { .. }
            | Self::PendingElsewhere(_)
            | Self::InUseElsewhere(_)
            | Self::ScanElsewhere
            | Self::NoProof { .. }
            | Self::NoProofOfKey { .. }
            | Self::UnfitScan
            | Self::UnderKeyId(_)
            | Self::SeveralNodes(_)
            | Self::NotShared(_)
            | Self::OtherSeal
            | Self::SharedRecovery
            | Self::Unsure
            | Self::CounterBehind { .. }
            | Self::KeysOpen
            | Self::LastOpener { .. }
            | Self::OnlyForeign { .. }
            | Self::OnlyWay { .. }
            | Self::Move(_)
            | Self::RecoveryPending
            | Self::RolledBack { .. }
            | Self::Stale(_)
            | Self::UsedUp(_) => Class::Denied,
            Self::OtherCluster(_) | Self::TokenCannotAsk => Class::Misconfigured,
            Self::Bundle(error) => error.class(),
            Self::Credentials(error) => error.class(),
            Self::Device(error) => error.class(),
            Self::Duplicate(error) => error.class(),
            Self::Parent(error) => error.class(),
            Self::Recovery(error) => error.class(),
            Self::KekFile { .. } | Self::MemberFile { .. } | Self::NotOpened(_) | Self::State(_) => Class::Corrupt,
            Self::KekMissing { source, .. } | Self::Store(source) => source.class(),
            Self::NothingPending { .. } | Self::UnknownMember(_) => Class::NotFound,
            Self::Busy
            | Self::Hung(_)
            | Self::NotBegun(_)
            | Self::Locked
            | Self::Memory(_)
            | Self::Random(_)
            | Self::Unwrapped { .. } => Class::Unavailable,
            Self::NotGone { source, .. } => source.class(),
            Self::Root(error) => error.class(),
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::AlreadySetUp => {
                "to make a new KEK: `nodeseal keys rotate`; a second init would make everything encrypted so far unreadable"
            }
            Self::AwaitsBundle => {
                "on this node: `nodeseal bundle request --out FILE`; on a node that has the keys: `nodeseal bundle make FILE --fingerprint GROUPS --out FILE`"
            }
            Self::BeforeGuard { .. } => ROLLBACK.hint(),
            Self::KeptFolder(_) => {
                "if nothing needs that folder any more, remove it first: `rm -r STATE_DIR/roots/NAME`; --compromised only marks the KEK"
            }
            Self::NotGone { .. } => {
                "fix the disk and run the same command again; the next start of nodeseald tries it too"
            }
            Self::LeftOver(_) => {
                "`nodeseal recover` takes a recovery file; if this is to be a new node, move these files to another place first"
            }
            Self::MayBeInRecoveryFile(_) => {
                "restore its file in keyring/, or retire that KEK first, if nothing is encrypted under it any more"
            }
            Self::MayStillOpen(error) => match error.class() {
                Class::Unavailable => "wait until the device answers again; if it never will, add --give-up-device",
                _ => {
                    "find out what is wrong with the state directory first; if its keys are lost, add --give-up-device"
                }
            },
            Self::MemberFile { .. } => {
                "remove it (`nodeseal members remove NAME`), and add its identity again: `nodeseal members add FILE`"
            }
            Self::MemberTwice(_) => "remove the other name first: `nodeseal members remove NAME`",
            Self::NoReceipt(_) => {
                "make these nodes accept their bundle, then: `nodeseal keys activate --when-all-have DIR`; if another node has continued this rotation, accept a bundle of that node; if a node is permanently gone: `nodeseal members remove NAME`"
            }
            Self::TokenCannotAsk => {
                "such a node takes the recovery file of a node that has the keys: `nodeseal recover --keep-active`"
            }
            Self::OtherTpm(_) => {
                "if the TPM of that node was replaced, add --replace; if this is another node, write its identity under another name: `nodeseal members identity --name`"
            }
            Self::OwnIdentity => "add the identity of another node",
            Self::UnknownMember(_) => "list them: `nodeseal members list`",
            Self::NoRecoveryFile => "make one first: `nodeseal reseal --recovery-code`; or add --without-recovery-file",
            Self::NothingInterrupted => "there is nothing to do",
            Self::NothingPending { is_shared: false } => "make a KEK first: `nodeseal keys rotate`",
            Self::NothingPending { is_shared: true } => {
                "accept a bundle from the node that has rotated: `nodeseal bundle request` here, `nodeseal bundle make` there; only if none has: `nodeseal keys rotate`, on one node only"
            }
            Self::NotShared(_) => {
                "give it to the other nodes first: `nodeseal bundle request` there, `nodeseal bundle make` here; or, if they no longer exist, add --not-shared"
            }
            Self::NotAllWereGiven { .. } => {
                "give it to them first: `nodeseal bundle request` there, `nodeseal bundle make` here; if a node is permanently gone: `nodeseal members remove NAME`; for a node without a name, use the words that stand for it"
            }
            Self::NoProof { why, .. } | Self::NoProofOfKey { why, .. } => match why {
                NoProof::Never | NoProof::Old { .. } => {
                    "scan etcd first: `nodeseal etcd scan`; to go ahead without knowing: add --without-scan"
                }
                NoProof::Writes => {
                    "first set `write = false` for its provider and reload; in mode \"direct\" also enable the local KEK or another provider. Keep its table, since it still opens what is stored: once `nodeseal status` shows the new key_id, follow rotate.md from step 3 on, scan etcd, and then give the key up"
                }
                NoProof::Unclear => {
                    "see which objects these are and why: `nodeseal etcd scan` has a finding for each kind, and --names names them. When they are repaired or deleted, scan again"
                }
                NoProof::Early => "scan etcd again in a few minutes: `nodeseal etcd scan`",
                NoProof::Needed { .. } => {
                    "migrate the storage first (rotate.md, from step 3), then scan again: `nodeseal etcd scan`"
                }
                NoProof::Backups | NoProof::BackupsLeft => {
                    "destroy the backups of etcd that were taken before the first scan without such objects (`nodeseal keys show` has the times of scans), then say so: --backups-before DATE, at or after that time and not in the future (a date is its midnight in UTC, and 2026-01-31T12:00:00Z a time); or keep the key for as long as you keep them"
                }
            },
            Self::ScanElsewhere => {
                "check --endpoints and --prefix: they must be those of the kube-apiserver that this node serves"
            }
            Self::UnfitScan => {
                "use `nodeseal` of the same release; with more than 512 KEKs in etcd, migrate the storage first"
            }
            Self::UnderKeyId(_) => {
                "raise `write.epoch` on all nodes and reload (or rotate the key at the provider); once `nodeseal status` shows the new key_id, follow rotate.md from step 3 on, then retire it"
            }
            Self::InUseElsewhere(_) => {
                "`nodeseal keys list` on each node must show it neither as active nor in pre-activation, for 8 minutes at least; then scan etcd (`nodeseal etcd scan`), and add --not-shared"
            }
            Self::PendingElsewhere(_) => {
                "activate it too: `nodeseal keys activate`; or give it up on every node, where it still decrypts: `nodeseal keys retire ID --give-up --confirm ID`. When no other node can activate it any more, destroy it with --not-shared"
            }
            Self::SeveralNodes(_) => "name one as it is written here: `nodeseal members remove NAME@…`",
            Self::OtherSeal => {
                "restore the newest node/root.seal; if you restored this one on purpose: `nodeseal reseal --accept-rollback`"
            }
            Self::Unsure => {
                "restart nodeseald as soon as the disk is healthy: until then it decrypts, and changes nothing"
            }
            Self::SharedRecovery => {
                "add --keep-active if the other nodes still encrypt under it, or --new-key if this is the only node left"
            }
            Self::Bundle(error) => error.hint(),
            Self::Hung(_) => {
                "a disk or a device hangs: see the kernel log. The keys in memory keep working, and nothing is written. It is unknown whether this was done: check with `nodeseal keys list` as soon as it answers"
            }
            Self::NotBegun(_) => {
                "a disk or a device hangs: see the kernel log. The keys in memory keep working, and nothing is written. Try again as soon as `nodeseal keys list` answers"
            }
            Self::Busy => "wait for the first operation to end; a device that never answers is given up after a minute",
            Self::Confirmation => "repeat the full id of the KEK behind --confirm",
            Self::Credentials(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Duplicate(error) => error.hint(),
            Self::Parent(error) => error.hint(),
            Self::CounterBehind { .. } => FaultCode::CounterGone.hint(),
            Self::KeysOpen => {
                "the recovery file has no KEK that this node lacks; if this device is to be given up, move the node to another first: `nodeseal reseal --to tpm2` or `--to pkcs11`"
            }
            Self::KekMissing { source, .. } if !source.is_lost() => source.hint(),
            Self::KekFile { .. } | Self::KekMissing { .. } | Self::NotOpened(_) => {
                "restore the folder keyring/ from a backup of this node's state directory"
            }
            Self::LastOpener { .. } => {
                "keep the provider with write = false, rotate, migrate the cluster's storage and retire the KEK; or give it up: `nodeseal reload --abandon`"
            }
            Self::OnlyForeign { .. } => {
                "keep its table with opens_foreign = true and write = false until the storage is migrated and `nodeseal etcd scan` finds nothing that another plugin has made; then give it up: `nodeseal reload --abandon`"
            }
            Self::OnlyWay { .. } => {
                "keep its table with write = false until the cluster's storage was migrated, on all nodes (docs/operations/rotate.md); then give it up: `nodeseal reload --abandon`"
            }
            Self::Locked => "`nodeseal status` says why the keys are still sealed, and what to do",
            Self::Memory(_) => "free memory, or raise the limit of locked memory",
            Self::Move(MoveError::Active) => {
                "make and activate another KEK first: `nodeseal keys rotate`, `nodeseal keys activate`"
            }
            Self::Move(MoveError::Pending) => {
                "activate it: `nodeseal keys activate`, or give it up: `nodeseal keys retire ID --give-up --confirm ID`"
            }
            Self::Move(MoveError::Former) => "make a new KEK: `nodeseal keys rotate`",
            Self::Move(MoveError::Destroyed) => {
                "to retire it, there is nothing to do; to encrypt with another: `nodeseal keys rotate`"
            }
            Self::Move(MoveError::Unknown) => "list the KEKs: `nodeseal keys list`",
            Self::OtherCluster(_) => {
                "set `cluster` in nodeseal.toml to that name, or take the recovery file of this cluster"
            }
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Recovery(error) => error.hint(),
            Self::RecoveryPending => "run `nodeseal recover` again, with the same recovery file",
            Self::RolledBack { .. } => ROLLBACK.hint(),
            Self::Stale(_) => {
                "make the other node accept a bundle of this one first; if each refuses the bundle of the other: `nodeseal keys rotate` on one of them, and a new bundle of that one here"
            }
            Self::Root(error) => error.hint(),
            Self::State(StateError::Cluster(_)) => {
                "set `cluster` in nodeseal.toml back to the name that this node was set up with"
            }
            Self::State(_) => "restore the whole state directory from one backup of this node",
            Self::Store(error) => error.hint(),
            Self::UsedUp(_) => "recover without --keep-active: a new KEK encrypts from then on, and this one decrypts",
            Self::Unwrapped { .. } => {
                "see `nodeseal status` for the providers' errors; it is retried as soon as they answer"
            }
        }
    }
}
