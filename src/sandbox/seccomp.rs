//! Which system calls a process may make. The policy is data (`policy/*.json`, a reason for each line); this puts it together.
//!
//! Two filters lie on each other, and the kernel takes the stricter answer. The first ends the process at a call that none of ours ever
//! makes and that an attacker wants. The second lets the listed ones through and answers ENOSYS to all others, as a kernel that does
//! not know them: a later C library then takes the older call, and an update of the machine does not end the service.
//!
//! `nodeseald` maps no file as a program either, since it writes files: what the C library would load late is loaded before
//! (`libraries`). The sealer of a TPM, which writes none, may still load libraries: the TPM's transport, and what a system's OpenSSL
//! asks for.
//!
//! A PKCS#11 module is foreign code that may make any harmless call, so its sealer has the first filter alone; so has the process that
//! starts sealers.

use seccompiler::{BpfMap, TargetArch};
use serde_json::{Value, json};

/// Linux's, on x86-64 and aarch64.
const ENOSYS: u32 = 38;

/// Whose calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `nodeseald`.
    Daemon,
    /// `nodeseal-sealer` with a TPM alone.
    TpmSealer,
    /// `nodeseal-sealer` with a module of somebody else.
    ModuleSealer,
    /// `nodeseal-sealer` that only starts sealers: programs are what it is for.
    Starter,
}

impl Policy {
    /// In the log and in the report.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Daemon => "nodeseald",
            Self::TpmSealer => "sealer",
            Self::ModuleSealer => "sealer-module",
            Self::Starter => "starter",
        }
    }

    const fn fatal(self) -> &'static [&'static str] {
        match self {
            Self::Daemon | Self::TpmSealer => &[FATAL, PROGRAMS],
            Self::ModuleSealer | Self::Starter => &[FATAL],
        }
    }

    const fn allowed(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Daemon => Some(&[COMMON, DAEMON]),
            Self::TpmSealer => Some(&[COMMON, LIBRARIES]),
            Self::ModuleSealer | Self::Starter => None,
        }
    }
}

const FATAL: &str = include_str!("policy/fatal.json");
const PROGRAMS: &str = include_str!("policy/programs.json");
const COMMON: &str = include_str!("policy/common.json");
const DAEMON: &str = include_str!("policy/nodeseald.json");
/// For who may write nothing: a file that is mapped as a program is one of the machine's.
const LIBRARIES: &str = include_str!("policy/libraries.json");

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Neither x86-64 nor aarch64.
    #[error("there is no policy for this processor")]
    Processor,
    /// A mistake in a file of ours.
    #[error("the policy cannot be read")]
    Policy(#[source] serde_json::Error),
    /// A mistake in a file of ours, or the kernel refused.
    #[error("the filter cannot be made or set")]
    Filter(#[source] seccompiler::Error),
}

/// Restricts the calling thread and those that it starts later.
pub(super) fn restrict(policy: Policy) -> Result<(), SeccompError> {
    let arch = std::env::consts::ARCH.try_into().map_err(|_| SeccompError::Processor)?;
    let filters = compile(policy, arch, std::env::consts::ARCH)?;
    // The fatal one first: after the second the call that sets a filter is itself refused.
    for name in ["fatal", "allowed"] {
        if let Some(filter) = filters.get(name) {
            seccompiler::apply_filter(filter).map_err(SeccompError::Filter)?;
        }
    }
    Ok(())
}

fn compile(policy: Policy, arch: TargetArch, processor: &str) -> Result<BpfMap, SeccompError> {
    let mut filters = json!({
        "fatal": {
            "mismatch_action": "allow",
            "match_action": "kill_process",
            "filter": rules(policy.fatal(), processor)?,
        }
    });
    if let Some(files) = policy.allowed() {
        filters["allowed"] = json!({
            "mismatch_action": { "errno": ENOSYS },
            "match_action": "allow",
            "filter": rules(files, processor)?,
        });
    }
    seccompiler::compile_from_json(filters.to_string().as_bytes(), arch).map_err(SeccompError::Filter)
}

/// The lines of these files that are for this processor. `only` and `unseen` are ours and not seccompiler's: older processors have
/// older calls, and no test can be made to execute some lines, which then says why.
fn rules(files: &[&str], processor: &str) -> Result<Vec<Value>, SeccompError> {
    let mut all = Vec::new();
    for file in files {
        let lines: Vec<Value> = serde_json::from_str(file).map_err(SeccompError::Policy)?;
        for mut line in lines {
            let mut take = |field| line.as_object_mut().and_then(|line| line.remove(field));
            let only = take("only");
            take("unseen");
            if only.is_none_or(|only| only == processor) {
                all.push(line);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const POLICIES: [Policy; 4] = [Policy::Daemon, Policy::TpmSealer, Policy::ModuleSealer, Policy::Starter];

    #[test]
    fn every_policy_is_made_for_every_processor() {
        for policy in POLICIES {
            for (arch, name) in [(TargetArch::x86_64, "x86_64"), (TargetArch::aarch64, "aarch64")] {
                let filters = compile(policy, arch, name).unwrap();
                assert_eq!(filters.contains_key("allowed"), policy.allowed().is_some());
                assert!(filters.values().all(|filter| filter.len() < 4096), "BPF_MAXINSNS");
            }
        }
    }

    #[test]
    fn every_line_has_a_reason_stands_once_and_is_in_the_order_of_the_alphabet() {
        for file in [FATAL, PROGRAMS, COMMON, DAEMON, LIBRARIES] {
            let lines: Vec<Value> = serde_json::from_str(file).unwrap();
            let names: Vec<_> = lines.iter().map(|line| line["syscall"].as_str().unwrap()).collect();
            assert!(names.is_sorted(), "{names:?}");
            for line in &lines {
                assert!(line["comment"].as_str().is_some_and(|comment| comment.len() > 5), "{line}");
            }
            let whole: BTreeSet<_> = lines.iter().map(|line| format!("{}{}", line["syscall"], line["args"])).collect();
            assert_eq!(whole.len(), lines.len(), "{names:?}");
        }
    }

    /// `make seccomp` ran the tests under strace(1) and wrote this: a line's call, its conditions, and who was seen to execute it.
    const EXECUTED: &str = include_str!("policy/executed.txt");

    /// As scripts/seccomp-count.py spells it.
    fn key(line: &Value) -> String {
        let argument = |argument: &Value| {
            let mask = argument["op"]["masked_eq"].as_u64().map(|mask| format!("&{mask}")).unwrap_or_default();
            format!(" {}{mask}={}", argument["index"], argument["val"])
        };
        let arguments = line["args"].as_array().into_iter().flatten();
        line["syscall"].as_str().unwrap().to_owned() + &arguments.map(argument).collect::<String>()
    }

    #[test]
    fn every_allowed_line_was_executed_or_says_why_no_test_can() {
        let recorded: BTreeSet<_> = EXECUTED
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        for file in [COMMON, DAEMON, LIBRARIES] {
            let lines: Vec<Value> = serde_json::from_str(file).unwrap();
            for line in lines.iter().filter(|line| line["only"] != "aarch64") {
                let (key, is_excused) = (key(line), line["unseen"].as_str().is_some_and(|why| why.len() > 5));
                assert!(recorded.contains(key.as_str()) != is_excused, "{key}: run `make seccomp`");
            }
        }
        let all: BTreeSet<_> = [COMMON, DAEMON, LIBRARIES]
            .iter()
            .flat_map(|file| serde_json::from_str::<Vec<Value>>(file).unwrap())
            .map(|line| key(&line))
            .collect();
        let gone: Vec<_> = recorded.iter().filter(|key| !all.contains(**key)).collect();
        assert!(gone.is_empty(), "{gone:?} stand in no policy any more: run `make seccomp`");
    }

    #[test]
    fn nothing_is_both_fatal_and_allowed() {
        let names = |files: &[&str]| -> BTreeSet<String> {
            let lines = rules(files, "x86_64").unwrap();
            lines.iter().map(|line| line["syscall"].as_str().unwrap().to_owned()).collect()
        };
        for policy in POLICIES {
            let Some(allowed) = policy.allowed() else { continue };
            assert_eq!(names(policy.fatal()).intersection(&names(allowed)).count(), 0);
        }
    }
}
