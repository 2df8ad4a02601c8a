//! What each event looks like in the log: its name, its level and its fields.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::event::Event;

/// `count`: how many events alike the line stands for.
pub(super) fn write(event: &Event<'_>, count: u64) {
    match event {
        Event::ClockDoubted { activated, now } => warn!(
            event = "clock.doubted",
            activated,
            now,
            hint = "the active KEK is from the future: check the clock (timedatectl)"
        ),
        Event::ConfigRefused { reason, error, hint } => error!(event = "config.refused", reason, error, hint),
        Event::ConfigReloaded { reason } => info!(event = "config.reloaded", reason),
        Event::ConfigWarned { key, text } => warn!(event = "config.warned", key, text),
        Event::ConnectionEvicted { open, reason } => warn!(event = "connection.evicted", open, reason, count),
        Event::CredentialRemoved { name } => info!(event = "credential.removed", %name),
        Event::CredentialSealed { name } => info!(event = "credential.sealed", %name),
        Event::DebugEnded { incident, reason } => info!(event = "debug.ended", %incident, reason),
        Event::DebugStarted { incident, minutes } => info!(event = "debug.started", %incident, minutes),
        Event::DekServed { op, uid, key_id } => {
            let key_id = key_id.map_or_else(|| "foreign".to_owned(), |key_id| key_id.metric_hash());
            debug!(event = "dek.served", op, uid, key_id);
        }
        Event::DeviceRefused { question, error, hint } => warn!(event = "device.refused", question, %error, hint),
        Event::DeviceStuck { question, after } => error!(
            event = "device.stuck",
            question,
            after_s = after.as_secs(),
            hint = "check whether the device works for other programs; the sealer ends and is started again"
        ),
        Event::EpochDueSoon { days, turns } => {
            info!(event = "epoch.due_soon", days, turns_unix_seconds = turns);
        }
        Event::EpochRefused { key_id } => error!(
            event = "epoch.refused",
            %key_id,
            hint = "this set of keys was in use before: raise write.epoch on all nodes; one of the calendar moves on by itself at its next turn"
        ),
        Event::HandleTaken { handle, found } => {
            let handle = format!("{handle:#x}");
            warn!(
                event = "handle.taken",
                handle = handle.as_str(),
                found,
                hint = "another program has put its key there; Nodeseal's key is created again each time, which takes seconds with some TPMs: find out which program owns it, or choose another parent_handle and run `nodeseal reseal`"
            );
        }
        Event::KeyActivated { kek, key_id } => {
            info!(event = "key.activated", %kek, %key_id, key_id_hash = key_id.metric_hash());
        }
        Event::KeyCreated { kek } => info!(event = "key.created", %kek),
        Event::KeyRetired { kek, state } => warn!(event = "key.retired", %kek, state),
        Event::KeyRetiredWithoutScan { kek } => warn!(
            event = "key.retired_without_scan",
            %kek,
            hint = "check that it was you: nothing was seen of etcd that says that no object needs this KEK"
        ),
        Event::KeyDueSoon { kek, days, due, is_automatic } => {
            info!(event = "key.due_soon", %kek, days, due_unix_seconds = due, automatic = is_automatic);
        }
        Event::KeyOverdue { kek } => warn!(
            event = "key.overdue",
            %kek,
            hint = "other nodes have this KEK too: `nodeseal keys rotate` on one, a bundle to each of the others, then `nodeseal keys activate` on all"
        ),
        Event::KeysAccepted { keys, kek } => warn!(event = "keys.accepted", keys, %kek),
        Event::KeysGiven { keys, node } => warn!(event = "keys.given", keys, node),
        Event::MemberAdded { node, fingerprint } => warn!(event = "member.added", node, fingerprint),
        Event::MemberRemoved { node } => warn!(event = "member.removed", node),
        Event::KeysRecovered { keys, kek } => warn!(event = "keys.recovered", keys, %kek),
        Event::LimitReached { what, limit } => warn!(
            event = "limit.reached",
            what,
            limit,
            hint = "the providers unwrap KEKs above the limit each time: retire what is not needed"
        ),
        Event::LogDropped { lines } => warn!(
            event = "log.dropped",
            lines,
            hint = "the reader of nodeseald's log is too slow, or has stopped: check it"
        ),
        Event::MemoryUnlocked => warn!(
            event = "memory.unlocked",
            hint = "raise the limit of locked memory (LimitMEMLOCK=8M): keys could reach swap"
        ),
        Event::PeerRefused { peer_uid, peer_pid, socket } => {
            warn!(event = "peer.refused", peer_uid, peer_pid, socket = %socket.display(), count);
        }
        Event::ProviderFailed { provider, class, error, hint } => {
            warn!(event = "provider.failed", provider, class = class.label(), error, hint);
        }
        Event::ProviderKeySeen { provider, version } => info!(event = "provider.key_seen", provider, version),
        Event::ProviderKeyGivenUpWithoutScan { kind, key } => warn!(
            event = "provider.key_given_up_without_scan",
            kind,
            key,
            hint = "check that it was you: nothing was seen of etcd that says that no object needs this key"
        ),
        Event::ProviderKeysFull { hint } => warn!(event = "provider.keys_full", hint),
        Event::ProviderKeyLost { kind, key, why, hint } => warn!(event = "provider.key_lost", kind, key, why, hint),
        Event::ProviderRecovered { provider } => info!(event = "provider.recovered", provider),
        Event::ProviderWentBack { provider, version } => warn!(
            event = "provider.went_back",
            provider,
            version,
            hint = "check whether an old backup or replica of the provider answers; its wraps are not used now"
        ),
        Event::RequestRefused { op, uid, class, error } => {
            let error = error.to_string();
            warn!(event = "request.refused", op, uid, class = class.label(), error = error.as_str(), count);
        }
        Event::RootRenewed { old, new } => warn!(event = "root.renewed", %old, %new),
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
                hint = "this kernel confines the process only in part: docs/operations/hardening.md"
            )
        }
        Event::SealOpened { keys, took } => {
            info!(event = "seal.opened", keys, took_ms = millis(*took));
        }
        Event::SealOther { generation, expected } => warn!(
            event = "seal.is_other",
            generation,
            expected,
            hint = "another seal of the node root is on the disk: if that was not you, find out who wrote it; then run `nodeseal reseal`"
        ),
        Event::SealRefused { class, error, hint, retry_in } => {
            error!(event = "seal.refused", class = class.label(), error, hint, retry_in_ms = millis(*retry_in));
        }
        Event::SealRenewed { backend, policy } => info!(event = "seal.renewed", backend, policy),
        Event::SealWouldNotOpen { class, error, hint } => {
            error!(event = "seal.would_not_open", class = class.label(), error, hint);
        }
        Event::ServiceListening { socket } => info!(event = "service.listening", socket = %socket.display()),
        Event::ServiceStarted { program } => {
            info!(event = "service.started", program, version = env!("CARGO_PKG_VERSION"), pid = std::process::id());
        }
        Event::ServiceStopping { reason } => info!(event = "service.stopping", reason),
        Event::StateFellBack { file } => warn!(
            event = "state.fell_back",
            file,
            hint = "the newest generation is damaged: check the disk, and make a backup"
        ),
        Event::StateDiskFull => error!(
            event = "state.disk_full",
            hint = "free space on the file system of the state directory now: keys cannot be changed until then"
        ),
        Event::StateRepaired { file } => {
            warn!(event = "state.repaired", file, hint = "it was damaged or lost, and was repaired: check the disk")
        }
        Event::StateUnguarded => warn!(
            event = "state.unguarded",
            hint = "rollback = \"tpm-counter\" takes effect at the next `nodeseal reseal`"
        ),
        Event::WrapOwed { kek, provider, error } => warn!(
            event = "wrap.owed",
            %kek,
            provider,
            error,
            hint = "it is made as soon as the provider answers; `nodeseal status` shows the missing copies"
        ),
        Event::StateTroubled { what, error, hint } => error!(event = "state.troubled", what, error, hint),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
