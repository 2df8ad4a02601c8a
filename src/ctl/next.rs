//! What has to be done after a change, in the order in which it is to be done: the lines `next:`, and the list of that name under
//! `--json`. One sentence each, and for a command the whole command.

use super::output::time;
use crate::control::report::Pending;
use crate::keyring::keeper::{KekRow, KeyTable};
use crate::keyring::ring::{KekState, RetireTo};
use crate::types::clock::UnixSeconds;

const COPY: &str = "copy recovery.age to another place";
const BACK_UP: &str = "back up the state directory: this node has no recovery file";
pub(super) const START: &str = "start nodeseald; then `nodeseal status --probe`";

fn of(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|step| (*step).to_owned()).collect()
}

fn is(row: &KekRow, state: KekState) -> bool {
    row.state == state.label()
}

/// Nodes that share the active KEK read nothing that is written under one that they lack.
pub(super) fn rotated(key: &KekRow, has_recovery_file: bool) -> Vec<String> {
    let mut next = of(&[if has_recovery_file { COPY } else { BACK_UP }]);
    next.extend(match key.must_be_shared {
        false => of(&["nodeseal keys activate"]),
        true => of(&[
            "other nodes have the active KEK and need this one before it is activated; on each of them: nodeseal bundle request --out FILE; then here: nodeseal bundle make FILE --fingerprint GROUPS --out FILE",
            "when all have accepted their bundle, on each node: nodeseal keys activate",
        ]),
    });
    next
}

/// With providers the key_id names their keys, and does not move.
pub(super) fn activated(table: &KeyTable) -> Vec<String> {
    let Some(active) = table.keys.iter().find(|row| is(row, KekState::Active)) else { return Vec::new() };
    let mut next = Vec::new();
    if active.shared {
        next.push("on each other node that has this KEK: nodeseal keys activate".to_owned());
    }
    next.push(
        match active.wraps {
            0 => "wait a minute until kube-apiserver writes with it, then migrate the storage (rotate.md, from step 3)",
            _ => "the key_id stays, so kube-apiserver rewrites nothing. Before you retire the former KEK: raise write.epoch on all nodes, reload, and follow rotate.md from step 3 on",
        }
        .to_owned(),
    );
    next
}

/// What the operator has said in place of a scan, or besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    WithoutScan,
    /// There are no backups of etcd from before this time.
    BackupsBefore(UnixSeconds),
}

/// `row` is the KEK as it is now.
pub(super) fn retired(id: &str, to: RetireTo, is_dry: bool, proof: Said, row: Option<&KekRow>) -> Vec<String> {
    if is_dry {
        let how = match to {
            RetireTo::Destroyed => "",
            RetireTo::Compromised => " --compromised",
            RetireTo::GivenUp => " --give-up",
            RetireTo::GoneEverywhere => " --not-shared",
        };
        let proof = match proof {
            Said::Nothing => String::new(),
            Said::WithoutScan => " --without-scan".to_owned(),
            Said::BackupsBefore(at) => format!(" --backups-before {}", time(at)),
        };
        return vec![format!("to do it: nodeseal keys retire {id} --confirm {id}{how}{proof}")];
    }
    let shared =
        row.is_some_and(|row| row.shared).then(|| "the other nodes still have it: retire it there too".to_owned());
    let mut next = match to {
        RetireTo::Destroyed | RetireTo::GoneEverywhere => {
            of(&["copy recovery.age to another place again, and destroy older copies: they contain the KEK"])
        }
        RetireTo::Compromised => vec![format!(
            "migrate the storage (rotate.md, from step 4), scan it (`nodeseal etcd scan`), then destroy the KEK: nodeseal keys retire {id} --confirm {id} --backups-before DATE"
        )],
        RetireTo::GivenUp => of(&["when another one is wanted: nodeseal keys rotate"]),
    };
    next.extend(shared);
    next
}

pub(super) fn accepted(before: &KeyTable, after: &KeyTable, has_recovery_file: bool) -> Vec<String> {
    let mut next = of(&[if has_recovery_file { COPY } else { BACK_UP }]);
    if before.keys.is_empty() {
        next.push("nodeseal status --probe; then start kube-apiserver here, if it has waited for the keys".to_owned());
    }
    if after.keys.iter().any(|row| is(row, KekState::PreActivation)) {
        next.push("when all nodes have accepted their bundle, on each node: nodeseal keys activate".to_owned());
    }
    next
}

/// `used_by`: providers of the configuration that log in with it.
pub(super) fn credential(name: &str, used_by: &[&str], has_daemon: bool) -> Vec<String> {
    match (used_by, has_daemon) {
        ([], _) => vec![format!("name it under the [[provider]] that logs in with it ({name}), then: nodeseal reload")],
        (_, false) => of(&[START]),
        (used_by, true) => {
            vec![format!("nodeseald uses it within seconds; check {}: nodeseal status", used_by.join(", "))]
        }
    }
}

pub(super) fn member_added(name: &str) -> Vec<String> {
    vec![
        format!("on {name}, unless it knows this node: nodeseal members add with the identity of this one"),
        "when all nodes know each other: nodeseal keys rotate --members DIR".to_owned(),
    ]
}

pub(super) fn member_removed(name: &str) -> Vec<String> {
    vec![
        format!("on each other node: nodeseal members remove '{}'", name.replace('\'', r"'\''")),
        format!(
            "{name} keeps the keys that it has: if it must not read new data, make another KEK for the others (nodeseal keys rotate)"
        ),
    ]
}

/// Each thing once.
pub(super) fn reloaded(pending: &[Pending]) -> Vec<String> {
    let mut next: Vec<String> = Vec::new();
    for Pending { until, .. } in pending {
        if !next.contains(until) {
            next.push(until.clone());
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::kek_ids::tests::row;

    fn active(shared: bool, wraps: usize) -> KeyTable {
        let row = KekRow { state: KekState::Active.label().to_owned(), shared, wraps, ..row("ab") };
        KeyTable { key_id: String::new(), keys: vec![row] }
    }

    #[test]
    fn a_kek_that_others_need_goes_to_them_before_it_is_activated() {
        let shared = KekRow { must_be_shared: true, ..row("ab") };
        let steps = rotated(&shared, true);
        let at = |word: &str| steps.iter().position(|step| step.contains(word)).unwrap();
        assert!(at("copy recovery.age") < at("bundle make") && at("bundle make") < at("keys activate"), "{steps:?}");
        assert_eq!(rotated(&row("ab"), false), [BACK_UP, "nodeseal keys activate"]);
    }

    #[test]
    fn after_an_activation_the_other_nodes_turn_before_the_storage_is_migrated() {
        assert_eq!(activated(&active(true, 0)).len(), 2);
        assert!(activated(&active(true, 0))[0].contains("each other node"));
        let alone = activated(&active(false, 0));
        assert!(alone.len() == 1 && alone[0].contains("migrate the storage"), "{alone:?}");
        // The key_id names the providers' keys: nothing is rewritten by it.
        assert!(!activated(&active(false, 2))[0].contains("migrate"));
    }

    #[test]
    fn a_dry_run_gives_the_command_that_does_it() {
        for (to, flag) in [
            (RetireTo::Destroyed, ""),
            (RetireTo::Compromised, " --compromised"),
            (RetireTo::GivenUp, " --give-up"),
            (RetireTo::GoneEverywhere, " --not-shared"),
        ] {
            let told = retired("abcd", to, true, Said::Nothing, None);
            assert_eq!(told, [format!("to do it: nodeseal keys retire abcd --confirm abcd{flag}")]);
        }
        let shared = KekRow { shared: true, ..row("ab") };
        assert!(retired("ab", RetireTo::Destroyed, false, Said::Nothing, Some(&shared))[1].contains("other nodes"));
    }

    #[test]
    fn what_waits_for_the_same_is_told_once() {
        let pending = [Pending::restart("log"), Pending::reseal("seal.tpm2"), Pending::restart("listen")];
        assert_eq!(reloaded(&pending), ["restart nodeseald", "nodeseal reseal"]);
    }
}
