//! The checks one after the other, each with its time: what hangs is told of, and the others run.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::check::Check;
use super::finding::Finding;
use super::scene::Scene;

/// Of one check: the daemon's status may take 10 s (`control::client`), a TPM in trouble more.
const CHECK_TIMEOUT: Duration = Duration::from_secs(11);
/// Of all. Less than half a minute, with what comes before and after.
const TIMEOUT: Duration = Duration::from_secs(28);

pub(super) fn all(scene: Scene, checks: &[&'static Check]) -> Vec<(&'static Check, Finding)> {
    within(scene, checks, CHECK_TIMEOUT, TIMEOUT)
}

/// A thread that hangs is left behind, and ends with the program.
fn within(scene: Scene, checks: &[&'static Check], each: Duration, whole: Duration) -> Vec<(&'static Check, Finding)> {
    let end = Instant::now() + whole;
    let scene = Arc::new(scene);
    let looked = |check: &'static Check| {
        let left = each.min(end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Finding::warn("not looked at: the checks before it took too long", "run it alone with --only");
        }
        let (done, answer) = channel();
        let scene = Arc::clone(&scene);
        let spawned = thread::Builder::new().spawn(move || {
            // Nobody listens any more to one that comes too late.
            let _ = done.send(check.run(&scene));
        });
        match spawned.map(|_| answer.recv_timeout(left)) {
            Ok(Ok(finding)) => finding,
            Ok(Err(_)) => Finding::warn(
                format!("no answer within {} s", left.as_secs()),
                "see whether a file system or the device hangs, then run it again with --only",
            ),
            Err(error) => Finding::warn(format!("cannot be looked at: {error}"), "free some memory or processes"),
        }
    };
    checks.iter().map(|check| (*check, looked(check))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::doctor::finding::{Impact, Outcome};
    use crate::ctl::doctor::tests::Fixture;

    static HANGS: Check = Check {
        id: "ND-998",
        title: "",
        impact: Impact::Serving,
        page: "",
        look: |_| loop {
            thread::park();
        },
    };
    static PASSES: Check =
        Check { id: "ND-999", title: "", impact: Impact::Serving, page: "", look: |_| Ok(Finding::pass("")) };

    #[test]
    fn a_check_that_hangs_is_a_warning_and_the_others_run() {
        let fixture = Fixture::healthy();
        let each = Duration::from_millis(50);
        let found = within(fixture.scene(), &[&HANGS, &PASSES], each, Duration::from_secs(20));
        assert_eq!(found.iter().map(|(_, found)| found.outcome).collect::<Vec<_>>(), [Outcome::Warn, Outcome::Pass]);
    }

    #[test]
    fn when_the_time_of_all_is_over_what_is_left_is_named() {
        let fixture = Fixture::healthy();
        let whole = Duration::from_millis(50);
        let found = within(fixture.scene(), &[&HANGS, &PASSES], Duration::from_secs(20), whole);
        assert!(found[1].1.why.starts_with("not looked at"), "{found:?}", found = found[1].1);
    }
}
