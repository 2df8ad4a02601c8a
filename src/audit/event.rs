//! The closed list of events (docs/audit-events.md says the same). Names are `noun.verb_past`; fields carry their unit.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use crate::types::clock::UnixSeconds;
use crate::types::{Class, CredentialName, Incident, KekId, KeyId, RootId};

/// Something that happened, and that an operator or auditor may ask for.
pub(crate) enum Event<'a> {
    /// A changed configuration cannot be used; what ran before goes on.
    ConfigRefused {
        /// What asked for it.
        reason: &'a str,
        /// The whole chain.
        error: &'a str,
        /// What to do.
        hint: &'a str,
    },
    /// A changed configuration runs.
    ConfigReloaded {
        /// What asked for it.
        reason: &'a str,
    },
    /// The configuration holds something that is allowed and unwise.
    ConfigWarned {
        /// Path of the key.
        key: &'a str,
        /// What and why.
        text: &'a str,
    },
    /// A connection was closed to make room.
    ConnectionEvicted {
        /// How many are open.
        open: usize,
        /// Why.
        reason: &'static str,
    },
    /// A credential is no longer on this node.
    CredentialRemoved {
        /// Which one.
        name: &'a CredentialName,
    },
    /// A credential was stored, in place of an older one if there was one.
    CredentialSealed {
        /// Its name.
        name: &'a CredentialName,
    },
    /// The log is as configured again.
    DebugEnded {
        /// Because of what it was raised.
        incident: &'a Incident,
        /// What has ended it.
        reason: &'static str,
    },
    /// The operator has raised the level of the log for a while.
    DebugStarted {
        /// Because of what.
        incident: &'a Incident,
        /// For how long, unless he ends it.
        minutes: u8,
    },
    /// A plaintext was encrypted, or a ciphertext decrypted.
    DekServed {
        /// `v2.Encrypt` and so on.
        op: &'static str,
        /// Of the request; `-` in v1.
        uid: &'a str,
        /// Of the KEK that was used; `None` for a ciphertext that Nodeseal has not made.
        key_id: Option<&'a KeyId>,
    },
    /// The keys at providers make a key_id that was left before, and it is not reported again.
    EpochRefused {
        /// Which one.
        key_id: &'a KeyId,
    },
    /// The calendar gives the key_id another epoch before long.
    EpochDueSoon {
        /// At most so many are left.
        days: u64,
        /// In seconds since 1970.
        turns: UnixSeconds,
    },
    /// A stored time lies in the future: the clock was wrong then, or is now.
    ClockDoubted {
        /// Seconds since 1970, of the active KEK.
        activated: u64,
        /// Seconds since 1970, by the clock now.
        now: u64,
    },
    /// The device said no.
    DeviceRefused {
        /// What was asked.
        question: &'static str,
        /// Code, message and figures.
        error: &'a dyn Display,
        /// What to do.
        hint: &'static str,
    },
    /// The device did not answer in time, and the sealer ended, so that its supervisor starts it anew.
    DeviceStuck {
        /// What was asked.
        question: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// Another program's key is where the storage root key was, and ours was made for the moment. Told once a start.
    #[cfg_attr(
        not(feature = "tpm2"),
        expect(dead_code, reason = "of a TPM; the list of events is the same in every build")
    )]
    HandleTaken {
        /// Where.
        handle: u32,
        /// The Name of what is there.
        found: &'a str,
    },
    /// A bound was reached, and what is above it is left out. Told once a start.
    LimitReached {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Everything lies under another node root from now on.
    RootRenewed {
        /// The one that was left.
        old: &'a RootId,
        /// The one that counts.
        new: &'a RootId,
    },
    /// The device would not open the node root at the next start, or its counter does not fit.
    SealWouldNotOpen {
        /// Of the failure.
        class: Class,
        /// The whole chain.
        error: &'a str,
        /// What to do.
        hint: &'a str,
    },
    /// Another seal of the node root lies on the disk than the one that was made last.
    SealOther {
        /// As the file says.
        generation: u64,
        /// As the state says.
        expected: u64,
    },
    /// The disk is full, and room that was kept for this was used.
    StateDiskFull,
    /// A file was damaged or lost, and was written anew from its other generation or from memory.
    StateRepaired {
        /// Which file.
        file: &'a str,
    },
    /// A new key_id is reported from now on.
    KeyActivated {
        /// The local KEK.
        kek: &'a KekId,
        /// Its key_id.
        key_id: &'a KeyId,
    },
    /// A local KEK was made and is safe on disk.
    KeyCreated {
        /// The local KEK.
        kek: &'a KekId,
    },
    /// A local KEK was marked or destroyed by the operator.
    KeyRetired {
        /// The local KEK.
        kek: &'a KekId,
        /// `compromised` or `destroyed`.
        state: &'static str,
    },
    /// The operator destroys a local KEK without a scan of etcd that speaks for it.
    KeyRetiredWithoutScan {
        /// The local KEK.
        kek: &'a KekId,
    },
    /// The active KEK is due for replacement before long.
    KeyDueSoon {
        /// The local KEK.
        kek: &'a KekId,
        /// At most so many are left.
        days: u64,
        /// In seconds since 1970.
        due: UnixSeconds,
        /// It is replaced without an operator.
        is_automatic: bool,
    },
    /// The active KEK is due for replacement, and other nodes have it: the operator must rotate on one and give it to the others.
    KeyOverdue {
        /// The local KEK.
        kek: &'a KekId,
    },
    /// The keyring was rebuilt from a recovery file.
    KeysRecovered {
        /// How many came back.
        keys: usize,
        /// The active one.
        kek: &'a KekId,
    },
    /// Keys of another node were taken in.
    KeysAccepted {
        /// How many were new here.
        keys: usize,
        /// The active one.
        kek: &'a KekId,
    },
    /// Keys were encrypted to another node's TPM.
    KeysGiven {
        /// How many.
        keys: usize,
        /// As the other node calls itself.
        node: &'a str,
    },
    /// The identity of another node was compared and is trusted from now on.
    MemberAdded {
        /// As the other node calls itself.
        node: &'a str,
        /// What the operator has compared.
        fingerprint: &'a str,
    },
    /// A node is given no keys any more, and none are taken from it.
    MemberRemoved {
        /// As it called itself.
        node: &'a str,
    },
    /// Nobody read the log for a while.
    LogDropped {
        /// How many are missing before this one.
        lines: u64,
    },
    /// A key page could not be locked.
    MemoryUnlocked,
    /// A connection was closed before a byte of it was read.
    PeerRefused {
        /// SO_PEERCRED.
        peer_uid: u32,
        /// SO_PEERCRED.
        peer_pid: i32,
        /// Which socket.
        socket: &'a Path,
    },
    /// A provider does not do what is asked, after it did, or for the first time.
    ProviderFailed {
        /// As the operator calls it.
        provider: &'a str,
        /// Of the failure.
        class: Class,
        /// The whole chain.
        error: &'a str,
        /// What to do.
        hint: &'a str,
    },
    /// Another version of a provider's key counts from now on, or its key was seen for the first time.
    ProviderKeySeen {
        /// As the operator calls it.
        provider: &'a str,
        /// Of its key.
        version: &'a str,
    },
    /// No more keys of providers are remembered.
    ProviderKeysFull {
        /// What follows.
        hint: &'static str,
    },
    /// A key at a provider was given up without a scan of etcd that speaks for it.
    ProviderKeyGivenUpWithoutScan {
        /// Of the provider.
        kind: &'static str,
        /// Its identity.
        key: &'a str,
    },
    /// A key that may open something stored, and that no configured provider has.
    ProviderKeyLost {
        /// Of the provider.
        kind: &'static str,
        /// Its identity.
        key: &'a str,
        /// What it may be needed for.
        why: &'static str,
        /// What the operator does about it.
        hint: &'static str,
    },
    /// A provider answers again.
    ProviderRecovered {
        /// As the operator calls it.
        provider: &'a str,
    },
    /// A provider reports a version that was left.
    ProviderWentBack {
        /// As the operator calls it.
        provider: &'a str,
        /// Of its key.
        version: &'a str,
    },
    /// A call was answered with an error.
    RequestRefused {
        /// `v2.Encrypt` and so on.
        op: &'static str,
        /// Of the request; `-` where there is none.
        uid: &'a str,
        /// Of the failure.
        class: Class,
        /// The whole chain.
        error: &'a dyn Display,
    },
    /// The process has confined itself for good.
    SandboxApplied {
        /// `nodeseald` or `nodeseal-sealer`.
        program: &'static str,
        /// Effective.
        uid: u32,
        /// No capability is left.
        no_capabilities: bool,
        /// `full`, `partial`, `none` or `off`.
        landlock: &'a str,
        /// The kernel's.
        landlock_abi: u8,
        /// The policy's name, `none` or `off`.
        seccomp: &'a str,
        /// What keeps the pages of keys from others, where keys are kept.
        memory: Option<&'static str>,
        /// Nothing is missing.
        is_whole: bool,
    },
    /// The node root was opened and all local KEKs are in memory.
    SealOpened {
        /// How many.
        keys: usize,
        /// From the first attempt.
        took: Duration,
    },
    /// The keys could not be opened; tried again.
    SealRefused {
        /// Of the failure.
        class: Class,
        /// The whole chain.
        error: &'a str,
        /// What to do.
        hint: &'a str,
        /// Until the next attempt.
        retry_in: Duration,
    },
    /// The node root was sealed anew.
    SealRenewed {
        /// `tpm2` or `pkcs11`.
        backend: &'static str,
        /// The policy it is bound to.
        policy: &'a str,
    },
    /// The KMS socket answers.
    ServiceListening {
        /// Where; absent under socket activation.
        socket: &'a Path,
    },
    /// First line of a process.
    ServiceStarted {
        /// `nodeseald` or `nodeseal-sealer`.
        program: &'static str,
    },
    /// A stop was asked for.
    ServiceStopping {
        /// The signal.
        reason: &'static str,
    },
    /// A file's newest generation is damaged; the one before was taken.
    StateFellBack {
        /// Which file.
        file: &'a str,
    },
    /// The configuration asks for a guarded state directory, and it is not guarded yet.
    StateUnguarded,
    /// A provider has not wrapped a local KEK: a debt.
    WrapOwed {
        /// The local KEK.
        kek: &'a KekId,
        /// As the operator calls it.
        provider: &'a str,
        /// What it said.
        error: &'a str,
    },
    /// Something of ours on disk could not be read or written; the service goes on.
    StateTroubled {
        /// What was tried.
        what: &'static str,
        /// The whole chain.
        error: &'a str,
        /// What to do.
        hint: &'a str,
    },
}
