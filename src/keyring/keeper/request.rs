//! What the rest of the program asks the keeper, and what it is answered.

use std::sync::mpsc::Sender;

use super::openers::Next;
use crate::keyring::KeeperError;
use crate::keyring::epoch::Record;
use crate::keyring::evidence::{Evidence, Scan};
use crate::keyring::export::Export;
use crate::keyring::recovery::Recipient;
use crate::keyring::ring::RetireTo;
use crate::provider::Mark;
use crate::provider::set::Specimen;
use crate::seal::root::{Parent, SealedRoot};
use crate::types::clock::UnixSeconds;
use crate::types::{Backend, CredentialName, KekId, MemberName, RootId, SealPolicy, SealTo, Secret};

/// One KEK for showing. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KekRow {
    /// 32 hexadecimal digits.
    pub id: String,
    /// SP 800-57's word.
    pub state: String,
    /// What kube-apiserver stores beside texts of this KEK; empty for one that has served under key_ids of providers.
    pub key_id: String,
    /// Seconds since 1970.
    pub created: UnixSeconds,
    /// Seconds since 1970 of the last change of state; for the active KEK its activation.
    pub since: UnixSeconds,
    /// Encryptions that may have been made; an upper bound.
    pub uses: u64,
    /// Other nodes have it too.
    #[serde(default)]
    pub shared: bool,
    /// Copies that providers have made.
    #[serde(default)]
    pub wraps: usize,
    /// Tells its key from every other one of this id, in hexadecimal; empty while the key is not in memory.
    #[serde(default)]
    pub check: String,
    /// In pre-activation, and other nodes have the active KEK and not this one.
    #[serde(default)]
    pub must_be_shared: bool,
    /// When it opened a text last, in seconds since 1970; absent if it has opened none since `nodeseald` started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<UnixSeconds>,
    /// It was never active here, and another node that has it may turn to it.
    #[serde(default)]
    pub may_return: bool,
    /// It was active under the key_id of providers' keys that is reported now.
    #[serde(default)]
    pub under_key_id: bool,
    /// Objects that the last complete scan of etcd has counted under it; absent if there was none.
    #[serde(default)]
    pub objects: Option<u64>,
    /// When that scan was made, in seconds since 1970.
    #[serde(default)]
    pub scanned: Option<UnixSeconds>,
    /// Since when no scan has counted any.
    #[serde(default)]
    pub unneeded_since: Option<UnixSeconds>,
    /// A scan that began sooner than some minutes after this time says nothing of it: kube-apiserver may have written under it since.
    #[serde(default)]
    pub written_until: UnixSeconds,
}

/// All KEKs for showing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyTable {
    /// What Status reports.
    pub key_id: String,
    /// The active one first.
    pub keys: Vec<KekRow>,
}

/// One member for showing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemberRow {
    /// As the other node calls itself.
    pub name: String,
    /// Of its identity.
    pub fingerprint: String,
    /// It was given the KEK in pre-activation, and that KEK waits for its receipt.
    pub owes_receipt: bool,
}

/// Which KEK is to become active, and on what condition.
#[derive(Clone, Debug, Default)]
pub struct Activation {
    /// `None`: the one that there is.
    pub id: Option<KekId>,
    /// Also if other nodes have the active one and not this one.
    pub not_shared: bool,
    /// Every member has to show that it has it, whoever has made it.
    pub when_all_have: bool,
    /// Of members that were given it.
    pub receipts: Vec<Vec<u8>>,
}

/// What was seen of etcd, and what it is measured by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// It.
    pub evidence: Evidence,
    /// Since when kube-apiserver is told what it is told now, in seconds since 1970.
    pub turned: UnixSeconds,
}

/// What must be known before a KEK is destroyed, or the last way to a provider's key is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A scan of etcd, and that there are no backups from before this time, in seconds since 1970.
    Scan {
        /// As the operator says; absent if he has said nothing.
        backups_since: Option<UnixSeconds>,
    },
    /// The operator insists without one.
    Waived,
}

impl Proof {
    /// As `--without-scan` and `--backups-before` say it.
    pub const fn said(without_scan: bool, backups_since: Option<UnixSeconds>) -> Self {
        if without_scan { Self::Waived } else { Self::Scan { backups_since } }
    }
}

/// What `status` shows of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// KEKs that the node knows of, without those that were destroyed.
    pub keks: usize,
    /// Those in memory.
    pub usable: usize,
    /// The kind of device that sealed the node root.
    pub backend: Option<Backend>,
    /// What the node root is bound to.
    pub policy: SealPolicy,
    /// The device has opened the root when it was asked last, at the start or by the daily check, and it is known which root counts.
    pub would_open: bool,
    /// An old copy of the state directory would be recognised.
    pub guarded: bool,
    /// The node has no KEK yet.
    pub awaits_bundle: bool,
    /// The active KEK is due for replacement, by age or by use.
    pub is_overdue: bool,
    /// When it is due by its age; `None` on a node that has none yet.
    pub due: Option<UnixSeconds>,
    /// What is due is replaced without being asked for.
    pub rotates_by_itself: bool,
    /// A KEK in pre-activation.
    pub pending: Option<KekRow>,
    /// The clock is behind every release of this program, or behind the birth of a KEK that is in use.
    pub is_clock_doubted: bool,
    /// The recovery file is not the one that it should be.
    pub is_recovery_owed: bool,
    /// When a recovery file was last rehearsed.
    pub rehearsed: Option<UnixSeconds>,
    /// A KEK is younger than that.
    pub rehearsal_lacks_kek: bool,
    /// When etcd was last scanned whole.
    pub scanned: Option<UnixSeconds>,
    /// When the recovery file was written last.
    pub recovery_written: Option<UnixSeconds>,
    /// Whom the recovery file is encrypted to; empty if there is none.
    pub recipients: Vec<String>,
    /// Fingerprint of the key that signs this node's recovery files.
    pub recovery_maker: String,
    /// Keys of the providers, and the copies that they have made or still owe.
    pub roots: ProvidersReport,
}

/// What the keeper knows of providers and of the copies that they have made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProvidersReport {
    /// Their keys.
    pub records: Vec<Record>,
    /// Copies that are still to be made: one for each KEK and key.
    pub owed: usize,
    /// Texts that were given out with fewer copies; an upper bound.
    pub short_texts: u64,
    /// Why the key_id does not name the providers' keys as they are now.
    pub waits: Option<String>,
    /// Keys that may open something stored, and that no provider has.
    pub lost: Vec<String>,
    /// The operator's part of the key_id, or the calendar's.
    pub epoch: Option<u32>,
    /// When the calendar ends it.
    pub epoch_turns: Option<UnixSeconds>,
}

/// What is to be made anew around the same keys.
#[derive(Clone, Debug)]
pub struct ResealOrder {
    /// By which device, under which policy.
    pub to: SealTo,
    /// NV index of the counter that guards the state from now on, if any.
    pub guard: Option<u32>,
    /// Whom the recovery file is encrypted to from now on; absent: as before.
    pub recipients: Option<Vec<Recipient>>,
    /// Which storage root key it may be sealed under.
    pub parent: Parent,
    /// A counter at that index that our authValue does not open gives way.
    pub replace_counter: bool,
}

/// Another node root, for a node in use.
#[derive(Clone, Debug)]
pub struct RenewOrder {
    /// By which device, under which policy.
    pub to: SealTo,
    /// NV index of the counter that the configuration asks for, if any.
    pub guard: Option<u32>,
    /// The operator knows that there is no recovery file.
    pub without_recovery_file: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What a renewal of the root has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The root that was left.
    pub old: RootId,
    /// The one that counts now; `None` for a dry run.
    pub new: Option<RootId>,
    /// KEKs that were sealed anew.
    pub keks: usize,
    /// Credentials that were sealed anew.
    pub credentials: usize,
}

/// What a check device and files has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckReport {
    /// The device has opened the root, it is the one in use, and the next start has what it needs.
    pub opens: bool,
    /// Why not.
    pub error: Option<String>,
    /// What the operator does next.
    pub hint: Option<String>,
    /// Files that were damaged or lost, and were written anew from the other generation or from memory.
    pub repaired: Vec<String>,
    /// Files that are damaged and could not be repaired.
    pub damaged: Vec<String>,
    /// KEKs that are not in memory and whose file does not open: what they have encrypted is not readable here.
    #[serde(default)]
    pub lacking: Vec<String>,
    /// Seconds since 1970.
    pub at: UnixSeconds,
}

impl CheckReport {
    /// Nothing is left to be done.
    pub fn is_fine(&self) -> bool {
        self.opens && self.damaged.is_empty() && self.lacking.is_empty()
    }
}

pub(super) type Reply<T> = Sender<Result<T, KeeperError>>;

/// What others ask. Each carries its way back.
pub(super) enum Request {
    Activate(Activation, Reply<KeyTable>),
    AddMember(Vec<u8>, String, bool, Reply<Vec<MemberRow>>),
    BundleAccept(Vec<u8>, Option<String>, Reply<KeyTable>),
    BundleFor(MemberName, Reply<Vec<u8>>),
    BundleMake(Vec<u8>, String, Reply<Vec<u8>>),
    AskForBundle(String, Reply<Vec<u8>>),
    Check(Reply<CheckReport>),
    /// Providers, and if keys that none of them has are given up, on which proof.
    Configure(Next, Option<Proof>, Reply<()>),
    CredentialOpen(CredentialName, Reply<(Secret, Mark)>),
    CredentialReplace(CredentialName, Mark, Secret, Reply<()>),
    CredentialRemove(CredentialName, Reply<()>),
    CredentialStore(CredentialName, Vec<u8>, Reply<()>),
    Identity(MemberName, Reply<Vec<u8>>),
    List(Reply<KeyTable>),
    Members(Reply<Vec<MemberRow>>),
    Overview(Reply<Overview>),
    Receipt(Reply<Vec<u8>>),
    RemoveMember(String, Reply<Vec<MemberRow>>),
    RenewRoot(RenewOrder, Reply<Renewed>),
    Reseal(ResealOrder, Reply<SealedRoot>),
    Restore(Box<Export>, Reply<Vec<KekId>>),
    Evidence(Reply<Seen>),
    Rehearsed(Reply<Seen>),
    Retire(KekId, RetireTo, Proof, Reply<KeyTable>),
    Rotate(Reply<KekRow>),
    Scanned(Scan, Reply<Seen>),
    /// Of each key, something that it has made.
    Specimens(Reply<Vec<Specimen>>),
}

impl Request {
    /// Whether its answer takes the sealing device.
    pub(super) const fn asks_the_device(&self) -> bool {
        matches!(
            self,
            Self::BundleAccept(..)
                | Self::AskForBundle(..)
                | Self::Check(_)
                | Self::Identity(..)
                | Self::RenewRoot(..)
                | Self::Reseal(..)
                | Self::Restore(..)
                | Self::Rotate(_)
        )
    }

    /// The answer while the keys are not open.
    pub(super) fn refuse(self) {
        fn locked<T>(reply: &Reply<T>) {
            // A reply that nobody waits for any more is no error.
            let _ = reply.send(Err(KeeperError::Locked));
        }
        match self {
            Self::Activate(_, reply)
            | Self::BundleAccept(_, _, reply)
            | Self::List(reply)
            | Self::Retire(_, _, _, reply) => locked(&reply),
            Self::Evidence(reply) | Self::Rehearsed(reply) | Self::Scanned(_, reply) => locked(&reply),
            Self::AddMember(_, _, _, reply) | Self::Members(reply) | Self::RemoveMember(_, reply) => locked(&reply),
            Self::BundleMake(_, _, reply)
            | Self::AskForBundle(_, reply)
            | Self::BundleFor(_, reply)
            | Self::Identity(_, reply)
            | Self::Receipt(reply) => locked(&reply),
            Self::Check(reply) => locked(&reply),
            Self::Configure(_, _, reply)
            | Self::CredentialReplace(_, _, _, reply)
            | Self::CredentialRemove(_, reply)
            | Self::CredentialStore(_, _, reply) => locked(&reply),
            Self::CredentialOpen(_, reply) => locked(&reply),
            Self::Overview(reply) => locked(&reply),
            Self::RenewRoot(_, reply) => locked(&reply),
            Self::Reseal(_, reply) => locked(&reply),
            Self::Restore(_, reply) => locked(&reply),
            Self::Rotate(reply) => locked(&reply),
            Self::Specimens(reply) => locked(&reply),
        }
    }
}
