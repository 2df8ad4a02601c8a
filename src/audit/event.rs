//! The closed list of events (docs/audit-events.md says the same). Names are `noun.verb_past`; fields carry their unit.

use std::path::Path;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::types::{Class, CredentialName, KekId, KeyId};

/// Something that happened, and that an operator or auditor may ask for.
pub enum Event<'a> {
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
    /// The longest idle connection was closed to make room.
    ConnectionEvicted {
        /// How many are open.
        open: usize,
    },
    /// A credential was stored, in place of an older one if there was one.
    CredentialSealed {
        /// Its name.
        name: &'a CredentialName,
    },
    /// A plaintext was encrypted, or a ciphertext decrypted.
    DekServed {
        /// `v2.Encrypt` and so on.
        op: &'static str,
        /// Of the request; `-` in v1.
        uid: &'a str,
        /// Of the KEK that was used.
        key_id: &'a KeyId,
    },
    /// The keys at providers make a key_id that was left before, and it is not reported again.
    EpochRefused {
        /// Which one.
        key_id: &'a KeyId,
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
        error: &'a str,
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
    ServiceReady {
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

/// Writes the event to the log.
pub fn emit(event: &Event<'_>) {
    match event {
        Event::ConfigRefused { reason, error, hint } => error!(event = "config.refused", reason, error, hint),
        Event::ConfigReloaded { reason } => info!(event = "config.reloaded", reason),
        Event::ConfigWarned { key, text } => warn!(event = "config.warned", key, text),
        Event::ConnectionEvicted { open } => warn!(event = "connection.evicted", open),
        Event::CredentialSealed { name } => info!(event = "credential.sealed", %name),
        Event::DekServed { op, uid, key_id } => {
            debug!(event = "dek.served", op, uid, key_id = key_id.metric_hash());
        }
        Event::EpochRefused { key_id } => error!(
            event = "epoch.refused",
            %key_id,
            hint = "this set of keys was left before: raise write.epoch on all nodes"
        ),
        Event::KeyActivated { kek, key_id } => {
            info!(event = "key.activated", %kek, %key_id, key_id_hash = key_id.metric_hash());
        }
        Event::KeyCreated { kek } => info!(event = "key.created", %kek),
        Event::KeyRetired { kek, state } => warn!(event = "key.retired", %kek, state),
        Event::KeyOverdue { kek } => warn!(
            event = "key.overdue",
            %kek,
            hint = "other nodes have this KEK too: `nodeseal keys rotate` on one, a bundle to each of the others, then `nodeseal keys activate` on all"
        ),
        Event::KeysAccepted { keys, kek } => warn!(event = "keys.accepted", keys, %kek),
        Event::KeysGiven { keys, node } => warn!(event = "keys.given", keys, node),
        Event::KeysRecovered { keys, kek } => warn!(event = "keys.recovered", keys, %kek),
        Event::MemoryUnlocked => warn!(
            event = "memory.unlocked",
            hint = "raise the limit of locked memory (LimitMEMLOCK=8M): keys could reach swap"
        ),
        Event::PeerRefused { peer_uid, peer_pid, socket } => {
            warn!(event = "peer.refused", peer_uid, peer_pid, socket = %socket.display());
        }
        Event::ProviderFailed { provider, class, error, hint } => {
            warn!(event = "provider.failed", provider, class = class.label(), error, hint);
        }
        Event::ProviderKeySeen { provider, version } => info!(event = "provider.key_seen", provider, version),
        Event::ProviderRecovered { provider } => info!(event = "provider.recovered", provider),
        Event::ProviderWentBack { provider, version } => warn!(
            event = "provider.went_back",
            provider,
            version,
            hint = "see whether an old backup or replica of the provider answers; what it wraps now is not counted on"
        ),
        Event::RequestRefused { op, uid, class, error } => {
            warn!(event = "request.refused", op, uid, class = class.label(), error);
        }
        Event::SandboxApplied {
            program,
            uid,
            no_capabilities,
            landlock,
            landlock_abi,
            seccomp,
            memory,
            is_whole: true,
        } => {
            info!(event = "sandbox.applied", program, uid, no_capabilities, landlock, landlock_abi, seccomp, memory);
        }
        Event::SandboxApplied {
            program,
            uid,
            no_capabilities,
            landlock,
            landlock_abi,
            seccomp,
            memory,
            is_whole: false,
        } => {
            warn!(
                event = "sandbox.applied",
                program,
                uid,
                no_capabilities,
                landlock,
                landlock_abi,
                seccomp,
                memory,
                hint = "this kernel confines the process in part only: docs/operations/hardening.md"
            )
        }
        Event::SealOpened { keys, took } => {
            info!(event = "seal.opened", keys, took_ms = millis(*took));
        }
        Event::SealRefused { class, error, hint, retry_in } => {
            error!(event = "seal.refused", class = class.label(), error, hint, retry_in_ms = millis(*retry_in));
        }
        Event::SealRenewed { backend, policy } => info!(event = "seal.renewed", backend, policy),
        Event::ServiceReady { socket } => info!(event = "service.ready", socket = %socket.display()),
        Event::ServiceStarted { program } => {
            info!(event = "service.started", program, version = env!("CARGO_PKG_VERSION"), pid = std::process::id());
        }
        Event::ServiceStopping { reason } => info!(event = "service.stopping", reason),
        Event::StateFellBack { file } => warn!(
            event = "state.fell_back",
            file,
            hint = "the newest generation is damaged: look at the disk, and keep a backup"
        ),
        Event::StateUnguarded => warn!(
            event = "state.unguarded",
            hint = "rollback = \"tpm-counter\" takes effect with the next `nodeseal reseal`"
        ),
        Event::WrapOwed { kek, provider, error } => warn!(
            event = "wrap.owed",
            %kek,
            provider,
            error,
            hint = "it is made as soon as the provider answers; `nodeseal status` shows what is owed"
        ),
        Event::StateTroubled { what, error, hint } => error!(event = "state.troubled", what, error, hint),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
