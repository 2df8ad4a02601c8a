//! `nodeseal doctor` on a real node: before `init`, with the daemon up, and with it down. What each check finds is tested where it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use test_support::node::Output;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// What each check came to.
fn results(output: &Output) -> BTreeMap<String, String> {
    let answer = output.json();
    let checks = answer["checks"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    checks.iter().map(|check| (text(&check["id"]), text(&check["status"]))).collect()
}

fn assert_results(output: &Output, wanted: &[(&str, &str)]) {
    let found = results(output);
    for (id, status) in wanted {
        assert_eq!(found[*id], *status, "{id}: {}", output.out);
    }
}

/// Path, time of the last change, mode and content of all that is below a folder.
fn all_below(folder: &Path) -> BTreeMap<String, (i64, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path.display().to_string(), (meta.ctime_nsec(), meta.mode(), content));
        if meta.is_dir() {
            found.extend(all_below(&path));
        }
    }
    found
}

#[test]
fn the_doctor_works_before_init_with_the_daemon_up_and_with_it_down_and_changes_nothing() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let doctor = |alone: &Alone| {
        let begun = Instant::now();
        let before = all_below(&alone.state());
        let output = alone.tool(&["doctor", "--json"]);
        assert_eq!(all_below(&alone.state()), before, "something was changed");
        assert!(begun.elapsed() < Duration::from_secs(30));
        let answer = output.json();
        let fails = answer["counts"]["fail"].as_u64().unwrap();
        assert_eq!((output.code, answer["ok"].as_bool()), (i32::from(fails > 0), Some(fails == 0)), "{output:?}");
        output
    };
    let device = [("ND-102", "pass"), ("ND-103", "warn"), ("ND-104", "pass")];
    let fresh = doctor(&alone);
    assert_results(&fresh, &[("ND-001", "warn"), ("ND-002", "warn"), ("ND-003", "skip"), ("ND-004", "skip")]);
    assert_results(&fresh, &[("ND-201", "skip"), ("ND-203", "skip"), ("ND-208", "skip")]);
    assert_results(&fresh, &device);

    assert_eq!(alone.tool(&["init", "--no-recovery"]).code, 0);
    alone.start();
    let up = doctor(&alone);
    assert_results(&up, &[("ND-002", "pass"), ("ND-003", "pass"), ("ND-004", "pass"), ("ND-005", "pass")]);
    assert_results(&up, &[("ND-201", "pass"), ("ND-202", "pass"), ("ND-203", "warn"), ("ND-205", "pass")]);
    assert_results(&up, &[("ND-206", "pass"), ("ND-208", "pass"), ("ND-111", "pass")]);
    assert_results(&up, &device);

    assert_eq!(alone.stop(), 0);
    let down = doctor(&alone);
    assert_results(&down, &[("ND-002", "pass"), ("ND-003", "fail"), ("ND-004", "skip"), ("ND-201", "pass")]);
    assert_results(&down, &device);
    assert_eq!(down.code, 1);
}

#[test]
fn a_tpm_that_is_gone_is_a_failure_and_a_doctor_that_cannot_run_says_so() {
    let tpm = Swtpm::start();
    let alone = Alone::prepare(&tpm);
    drop(tpm);
    let output = alone.tool(&["doctor", "--only", "nd-102,ND-002"]);
    assert_eq!(output.code, 1, "{output:?}");
    let lines: Vec<&str> = output.out.lines().collect();
    assert!(lines[0].starts_with("WARN  ND-002  ") && output.out.contains("FAIL  ND-102  "), "{output:?}");
    assert!(!output.out.contains('\x1b') && output.out.contains("do: "), "{output:?}");
    assert!(output.out.ends_with("2 checks: 0 passed, 1 warned, 1 failed, 0 skipped\n"), "{output:?}");
    let unknown = alone.tool(&["doctor", "--only", "ND-999", "--json"]);
    assert_eq!((unknown.code, unknown.json()["exit"].as_u64()), (2, Some(2)), "{unknown:?}");
}
