//! What of a node waits for its operator: one table for the text and the JSON of `nodeseal status`, and for the metrics.

use serde::Serialize;

use super::report::{ProviderRow, Status};
use crate::seal::fault::code_in;
use crate::types::Class;
use crate::types::clock::{self, UnixSeconds, text as time};

/// Seconds. Of a KEK that nobody replaces by itself it is said so long before it is due: carrying one to other nodes takes planning.
const AHEAD_SECONDS: UnixSeconds = 14 * 24 * 3600;

/// Seconds. What is away for less comes back by itself: a reboot, a failover.
const AWAY_SECONDS: u64 = 15 * 60;

/// One thing that is to be done.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Need {
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    /// What the operator does about it.
    #[serde(rename = "do")]
    pub(crate) todo: String,
}

impl Need {
    /// Every kind, in the order in which they are told.
    pub(crate) const KINDS: [&'static str; 15] = [
        "closed",
        "config",
        "would_not_open",
        "bundle",
        "lacking_keys",
        "unreadable_texts",
        "lost_key",
        "clock",
        "recovery_file",
        "pending_key",
        "due",
        "reload",
        "reseal",
        "restart",
        "providers",
    ];
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.todo)
    }
}

/// All that is known to wait now.
/// `is_broken`: the configuration cannot be used any more.
pub(crate) fn needs(status: &Status, is_broken: bool) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut add = |kind, what: &str, todo: &str| {
        needs.push(Need { kind, what: what.to_owned(), todo: todo.to_owned() });
    };
    if let Some(closed) = closed(status) {
        add("closed", &closed, status.seal_hint.as_deref().unwrap_or("see the log of nodeseald"));
    }
    if is_broken {
        add("config", "nodeseald would not start with the present configuration", "nodeseal config check");
    }
    if status.would_open == Some(false) {
        add(
            "would_not_open",
            "the keys would not open at the next start",
            "nodeseal status --deep says why; do not reboot",
        );
    }
    if status.awaits_bundle {
        let todo = "nodeseal bundle request --out FILE here, then nodeseal bundle make FILE --fingerprint GROUPS --out FILE on a node that has the keys";
        add("bundle", "this node waits for the keys of another one", todo);
    }
    if status.keys_known && status.keys_usable < status.keys {
        let lacking = format!("{} of {} KEKs do not open here", status.keys - status.keys_usable, status.keys);
        add(
            "lacking_keys",
            &lacking,
            "nodeseal status --deep names them; nodeseal recover adds those of a recovery file",
        );
    }
    if let Some(without) = &status.without_kek {
        let (count, kek, last) = (without.decrypts, &without.kek, time(without.last));
        let what =
            format!("no key was found for {count} Decrypts since the start; the last one, at {last}, needs KEK {kek}");
        add(
            "unreadable_texts",
            &what,
            "look for it in nodeseal keys list. If it was destroyed here, only a backup of the state directory from before brings it back (rotate.md, step 6); otherwise take it from a node that has it (nodeseal bundle request), or from a recovery file (nodeseal recover)",
        );
    }
    for what in &status.lost_keys {
        let todo = "restore a table with its key, with write = false (and opens_foreign = true, for what Nodeseal has not made); or, when the storage was migrated on all nodes and no backup that may be restored needs it, give it up: nodeseal reload --abandon";
        add("lost_key", what, todo);
    }
    if status.clock_doubted {
        let todo = "set the clock; if it is right, a KEK was made while it ran ahead: nodeseal keys rotate --activate";
        add("clock", "the clock is behind a KEK that is in use, or behind this release", todo);
    }
    if status.recovery_owed {
        add("recovery_file", "recovery.age is wrong, and could not be rewritten", "see the log of nodeseald");
    }
    if let Some(pending) = &status.pending_kek {
        let what = format!("KEK {} is in pre-activation since {}", pending.id, time(pending.created));
        let todo = match pending.must_be_shared {
            true => {
                "give it to the nodes that share the keys (nodeseal bundle make), then on each: nodeseal keys activate"
            }
            false => "nodeseal keys activate",
        };
        add("pending_key", &what, todo);
    }
    if let Some(what) = due(status).filter(|_| status.pending_kek.is_none()) {
        add("due", &what, "nodeseal keys rotate");
    }
    for pending in &status.pending {
        let (kind, why) = match (pending.is_reload(), pending.is_reseal()) {
            (true, _) => ("reload", ", since the file was refused: see config.refused in the log"),
            (false, true) => ("reseal", ""),
            (false, false) => ("restart", ""),
        };
        add(kind, &format!("{} of the configuration is not in force yet{why}", pending.key), &pending.until);
    }
    for provider in status.providers.iter().filter(|provider| is_lasting(provider)) {
        let said = provider.error.as_deref().unwrap_or("it fails");
        add(
            "providers",
            &format!("provider {} cannot be used: {said}", provider.name),
            "see docs/providers; after a change: nodeseal reload",
        );
    }
    for provider in status.providers.iter().filter(|provider| !is_lasting(provider)) {
        let silent = provider.answered_seconds_ago.unwrap_or(status.uptime_seconds);
        if let Some(said) = provider.error.as_deref().filter(|_| silent >= AWAY_SECONDS) {
            let what =
                format!("provider {} has done nothing that was asked for {} min: {said}", provider.name, silent / 60);
            add("providers", &what, "see its server and the way there; nodeseald keeps trying");
        }
    }
    if status.stops_writes {
        let what = "the providers have been unreachable for longer than write.on_outage allows, and kube-apiserver is told not to write";
        add("providers", what, "see what the providers say");
    }
    needs
}

/// What waiting does not end.
fn is_lasting(provider: &ProviderRow) -> bool {
    let class = provider.class.as_deref().and_then(Class::from_label);
    matches!(class, Some(Class::Denied | Class::Misconfigured | Class::NotFound | Class::Internal))
}

/// Why the keys are closed, and when they are tried again.
pub(crate) fn closed(status: &Status) -> Option<String> {
    let error = status.seal_error.as_ref()?;
    let named = code_in(error).map_or_else(String::new, |code| format!(" ({code})"));
    Some(format!("the keys are closed{named}, and are tried again {}", retry(status)))
}

/// As in "tried again in 12 s".
fn retry(status: &Status) -> String {
    match (&status.seal_waits_for_file, status.seal_retry_in_seconds) {
        (Some(file), _) => format!("once {file} has changed"),
        (None, Some(0)) => "now".to_owned(),
        (None, Some(seconds)) => format!("in {seconds} s"),
        (None, None) => "from time to time".to_owned(),
    }
}

/// Nodes that share a KEK do not replace it on their own.
fn due(status: &Status) -> Option<String> {
    let (due, now) = (status.due?, clock::now());
    if status.overdue {
        return Some(match due <= now {
            true => format!("the active KEK is due since {}", time(due)),
            false => "the active KEK is due because of its uses".to_owned(),
        });
    }
    let is_ours = status.rotates_by_itself == Some(false);
    (is_ours && due <= now.saturating_add(AHEAD_SECONDS)).then(|| format!("the active KEK is due at {}", time(due)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::report::{Pending, WithoutKek};

    fn status() -> Status {
        serde_json::from_value(json!({
            "healthy": true, "version": "", "pid": 1, "uptime_seconds": 1, "cluster": "", "socket": "", "key_id": null,
            "key_id_hash": null, "uses": null, "keys": 1, "keys_usable": 1, "seal_policy": "none", "warnings": [],
        }))
        .unwrap()
    }

    fn told(status: &Status) -> Vec<(&'static str, String)> {
        needs(status, false).into_iter().map(|need| (need.kind, need.to_string())).collect()
    }

    #[test]
    fn a_node_that_is_well_and_what_an_older_daemon_does_not_tell_need_nobody() {
        assert_eq!(needs(&status(), false), []);
        // It is replaced without being asked for.
        let due = Some(clock::now() + 3600);
        assert_eq!(needs(&Status { due, rotates_by_itself: Some(true), ..status() }, false), []);
        assert_eq!(needs(&Status { due, rotates_by_itself: None, ..status() }, false), []);
    }

    #[test]
    fn a_closed_node_says_its_code_its_remedy_and_when_it_tries_again() {
        let closed = |retry, file: Option<&str>| Status {
            seal_error: Some("it did not open: E-HSM-PIN: the token refused".to_owned()),
            seal_hint: Some("put the right PIN there".to_owned()),
            seal_retry_in_seconds: Some(retry),
            seal_waits_for_file: file.map(str::to_owned),
            ..status()
        };
        for (status, when) in [
            (closed(12, None), "tried again in 12 s"),
            (closed(0, None), "tried again now"),
            (closed(2, Some("/etc/pin")), "tried again once /etc/pin has changed"),
        ] {
            let told = told(&status);
            assert_eq!(told.len(), 1);
            assert!(told[0].1.contains("E-HSM-PIN") && told[0].1.contains(when), "{told:?}");
            assert!(told[0].1.ends_with(": put the right PIN there"), "{told:?}");
        }
    }

    #[test]
    fn a_provider_that_is_away_needs_somebody_after_a_quarter_of_an_hour() {
        let provider = |answered: Option<u64>, class: Option<&str>| ProviderRow {
            name: "far".to_owned(),
            kind: "vault".to_owned(),
            role: "optional".to_owned(),
            opens_foreign: false,
            key: None,
            version: None,
            answered_seconds_ago: answered,
            class: class.map(str::to_owned),
            error: class.map(|_| "no answer in time".to_owned()),
            held_back: false,
            login_ends_in_seconds: None,
            certificate_ends_in_seconds: None,
        };
        let told = |uptime_seconds, provider| told(&Status { uptime_seconds, providers: vec![provider], ..status() });
        let away = Some(Class::Unavailable.label());
        for (uptime, provider) in
            [(90_000, provider(Some(899), away)), (899, provider(None, away)), (90_000, provider(Some(9_000), None))]
        {
            assert!(told(uptime, provider).is_empty());
        }
        for (uptime, provider) in [(90_000, provider(Some(1_200), away)), (1_200, provider(None, away))] {
            let told = told(uptime, provider);
            assert!(told[0].0 == "providers" && told[0].1.contains("far") && told[0].1.contains("20 min"), "{told:?}");
        }
    }

    #[test]
    fn a_kek_is_told_to_be_due_with_the_day_and_ahead_of_it_where_nobody_replaces_it() {
        let mut status = Status { due: Some(0), ..status() };
        assert!(told(&status).is_empty());
        status.overdue = true;
        let since = "the active KEK is due since 1970-01-01T00:00:00Z: nodeseal keys rotate".to_owned();
        assert_eq!(told(&status), [("due", since)]);
        // By its uses, before its age.
        status.due = Some(u64::MAX);
        assert!(told(&status)[0].1.contains("because of its uses"));
        let soon = Status { overdue: false, due: Some(clock::now() + 3600), rotates_by_itself: Some(false), ..status };
        assert!(told(&soon)[0].1.contains("is due at "), "{:?}", told(&soon));
        let late = Status { due: Some(clock::now() + AHEAD_SECONDS + 3600), ..soon };
        assert_eq!(told(&late), []);
    }

    #[test]
    fn whoever_opens_what_another_plugin_has_made_comes_back_by_a_table_that_says_so() {
        // As `Keeper::lost_openers` says it.
        let what =
            "no configured provider has the kms-plugin key old, which opens ciphertexts that Nodeseal has not made";
        let told = told(&Status { lost_keys: vec![what.to_owned()], ..status() });
        assert!(told[0].1.contains("opens_foreign = true"), "with write = false alone it opens nothing: {told:?}");
    }

    #[test]
    fn every_need_is_of_a_known_kind_and_says_what_to_do() {
        let row = json!({
            "id": "ab", "state": "pre-activation", "key_id": "", "created": 0, "since": 0, "uses": 0, "shared": false,
            "wraps": 0, "check": "", "must_be_shared": false,
        });
        let row = serde_json::from_value(row).unwrap();
        let status = Status {
            seal_error: Some("closed".to_owned()),
            would_open: Some(false),
            awaits_bundle: true,
            keys: 2,
            keys_usable: 1,
            keys_known: true,
            without_kek: Some(WithoutKek { decrypts: 1, kek: "ab".to_owned(), last: 0 }),
            lost_keys: vec!["no configured provider has the key".to_owned()],
            clock_doubted: true,
            recovery_owed: true,
            pending_kek: Some(row),
            pending: vec![Pending::reload("provider"), Pending::reseal("seal.tpm2"), Pending::restart("log")],
            stops_writes: true,
            ..status()
        };
        let mut kinds: Vec<_> = needs(&status, true).iter().map(|need| need.kind).collect();
        assert!(needs(&status, true).iter().all(|need| !need.what.is_empty() && !need.todo.is_empty()));
        // A KEK is not to be made while there is one.
        kinds.insert(10, "due");
        assert_eq!(kinds, Need::KINDS);
    }
}
