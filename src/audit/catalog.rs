//! What names each event for good in the journal: its `MESSAGE_ID`, by which `journalctl -x` finds what the catalogue says of it
//! (systemd/nodeseal.catalog, which is made of docs/audit-events.md; tests/house holds all three together).
//!
//! An id is drawn once, stands here for ever, and is never given to another event.

/// Event and id, in the order of the events. 32 hexadecimal digits (sd_journal_print(3)); `uuidgen -r` without its dashes.
pub const MESSAGE_IDS: &[(&str, &str)] = &[
    ("clock.doubted", "f032b63d3edd4dc7bd8b5e8ab8c71eb7"),
    ("config.refused", "ba29de269e9c4d19813542ea286937b2"),
    ("config.reloaded", "20ac6bbd9d6844d4a9f412e16f4ba42c"),
    ("config.warned", "11784308530c47639942512de4f06e32"),
    ("connection.evicted", "0ecda64f22004c0f863aba7baa8dfe18"),
    ("credential.removed", "a10f076900e143dd9bf94fb7d21cabfe"),
    ("credential.sealed", "d2e02fae677f4bf591b17f8707926ac6"),
    ("debug.ended", "77f586445a4b4b3bb3ad4992333030d6"),
    ("debug.started", "da99f53e38e14cb98aa06762d03a3839"),
    ("dek.served", "2934563013c3478f97a670cf843c52d7"),
    ("device.refused", "6940f61d9830406c80425f1456f39234"),
    ("device.stuck", "a84a48166d2b4508b48287d542cf527f"),
    ("epoch.due_soon", "b84dea2e1b9f44c49cd2dd7284178604"),
    ("epoch.refused", "3e3ad3f8db0b49d6a06f117ecfa9c2bc"),
    ("handle.taken", "f76d1bb8af854a118b3b645168b3f84e"),
    ("key.activated", "1e2b30100d654ef49af851022b4f94f2"),
    ("key.created", "a77e2567bdd04eacb4cdec6cfd56a2f2"),
    ("key.due_soon", "ee93ad91e4bd439788b4ba33c4839ec9"),
    ("key.overdue", "e36b78c222c94ce798efaee4540fc821"),
    ("key.retired", "4a39c79af0e1472489c10741dfce6b02"),
    ("key.retired_without_scan", "787440f295e4412e8e0a5d27bcc734ba"),
    ("keys.accepted", "178dfd2964684a35ba6cc700575c1f2e"),
    ("keys.given", "42096f0341bf4cd0a5446a8d0cad98ea"),
    ("keys.recovered", "5b97a220e10e41cc8676e3a3fb87104a"),
    ("limit.reached", "113c15abb0334e2495a971353c4cac51"),
    ("log.dropped", "62f481673efd4c4c8991cadfb67252ce"),
    ("member.added", "a38fd18de214491ca01adaae124553a2"),
    ("member.removed", "73fd5de88a8e4c41817e41e16734fa7d"),
    ("memory.unlocked", "e71526f3208243f0b8c1a4d3b15a2863"),
    ("peer.refused", "6ef49093381b4adbab8e41a27da9a265"),
    ("provider.failed", "4ac3dbc1e2f647059692d3009f7fb24f"),
    ("provider.key_given_up_without_scan", "f799c0f3b417475a86da491a1502ab9f"),
    ("provider.key_lost", "230e6e78e23745c2b43c220ab79d9eac"),
    ("provider.key_seen", "0cd5d4838ba84e94970bd8ebbb4ecc23"),
    ("provider.keys_full", "f276242afcc745d484d0371bf333de21"),
    ("provider.recovered", "e22cd239ba0742cab5258137e35006cb"),
    ("provider.went_back", "cc5b68e2a0c14b1893c82ea8f3fe5475"),
    ("request.refused", "603886c2bc464f2190e818a962d30d08"),
    ("root.renewed", "3bb38e76775a468d9dc8831bc1cd52d5"),
    ("sandbox.applied", "ab5a4b556caf4dd6a5ef98d616898213"),
    ("seal.is_other", "d4edccd94a6f47ea8f9af009a8a21ae0"),
    ("seal.opened", "cf870b7962b346a7941892ef23d5f310"),
    ("seal.refused", "f3c4ff094a02455b81323d0fd589becf"),
    ("seal.renewed", "79454fd57bb24d7494e57593db5fd35d"),
    ("seal.would_not_open", "17d1730716454c408b459b840a7b4131"),
    ("service.listening", "89a10174243b4c6288538c0bd01fd5a2"),
    ("service.started", "17285218d65b4b80b30a6c863afe0eff"),
    ("service.stopping", "622332592bd14a54a20e33e59e64336f"),
    ("state.disk_full", "844b96fec1b54a02ae1bb6a99b759405"),
    ("state.fell_back", "8bb1f7122a674c69a45d8981afdc5126"),
    ("state.repaired", "d68b1565f56e40ed80d9b28f2bca00ca"),
    ("state.troubled", "43cd260318c442f180ee07e6277cf923"),
    ("state.unguarded", "2c10974ef0824f24b5bf487c7c7a53eb"),
    ("wrap.owed", "d1d7996ced114f56ad8646d56b9302f3"),
];

/// Of this event.
pub(super) fn id_of(event: &str) -> Option<&'static str> {
    let at = MESSAGE_IDS.binary_search_by_key(&event, |(name, _)| name).ok()?;
    MESSAGE_IDS.get(at).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_event_has_an_id_of_its_own_that_is_found() {
        let ids: HashSet<_> = MESSAGE_IDS.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), MESSAGE_IDS.len());
        for (event, id) in MESSAGE_IDS {
            assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{event}");
            assert_eq!(id_of(event), Some(*id));
        }
        assert_eq!(id_of("no.such_event"), None);
    }
}
