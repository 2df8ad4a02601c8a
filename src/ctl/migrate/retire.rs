//! Which KEKs nothing stored needs any more, by the scan that has just been made.

use std::time::Duration;

use super::report::Retirable;
use super::shown::Shown;
use crate::control::{Answer, Request};
use crate::ctl::common::Common;
use crate::ctl::failed::Failed;
use crate::ctl::output::{ask, load, time, unfit};
use crate::keyring::evidence::{Evidence, NoProof, SETTLED_SECONDS, Subject};
use crate::keyring::keeper::KekRow;
use crate::keyring::ring::KekState;
use crate::types::{KekId, clock};

pub(super) struct Retirement {
    pub(super) all: Vec<Retirable>,
    /// kube-apiserver may have written under an old key until shortly before the scan.
    pub(super) is_early: bool,
}

/// Seconds. nodeseald counts from what it has seen itself in whole seconds, and a scan that is a moment early counts for nothing.
const MARGIN_SECONDS: u64 = 5;

/// Until a scan can prove something: kube-apiserver may write under an old key for some minutes after it was told of another one
/// ([`SETTLED_SECONDS`]).
pub(super) fn wait_until_settled(common: &Common) -> Result<(), Failed> {
    let config = load(common)?;
    let Answer::Evidence { turned, .. } = ask(&config, &Request::Evidence {})? else { return Err(unfit()) };
    let mut shown = Shown::new(!common.json);
    loop {
        let at = turned.saturating_add(SETTLED_SECONDS + MARGIN_SECONDS);
        let left = at.saturating_sub(clock::now()).min(SETTLED_SECONDS + MARGIN_SECONDS);
        if left == 0 {
            return Ok(());
        }
        shown.line(|| format!("everything is migrated; the scan begins in {left} s, when `keys retire` goes by it"));
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// As `keys retire --dry-run` would say it of each, but for the backups, of which only the operator knows.
pub(super) fn find(common: &Common) -> Result<Retirement, Failed> {
    let config = load(common)?;
    let Answer::Keys(table) = ask(&config, &Request::KeysList {})? else { return Err(unfit()) };
    let Answer::Evidence { rehearsed, scans, .. } = ask(&config, &Request::Evidence {})? else {
        return Err(unfit());
    };
    let evidence = Evidence { rehearsed, scans };
    let now = clock::now();
    let mut found = Retirement { all: Vec::new(), is_early: false };
    for row in table.keys.iter().filter(|row| may_go(row)) {
        let Ok(id) = row.id.parse::<KekId>() else { continue };
        match evidence.proves(Subject::Kek(&id), row.written_until, Some(now), now) {
            Ok(()) => found.all.push(retirable(row)),
            Err(NoProof::Early) => found.is_early = true,
            Err(_) => {}
        }
    }
    Ok(found)
}

fn may_go(row: &KekRow) -> bool {
    let states = [KekState::Deactivated.label(), KekState::Compromised.label()];
    states.contains(&row.state.as_str()) && !row.under_key_id && !row.may_return
}

pub(super) fn retirable(row: &KekRow) -> Retirable {
    let not_shared = if row.shared { " --not-shared" } else { "" };
    let command = format!("nodeseal keys retire {0} --confirm {0}{not_shared} --backups-before DATE", row.id);
    let unneeded_since = time(row.unneeded_since.or(row.scanned).unwrap_or_default());
    Retirable { id: row.id.clone(), unneeded_since, shared: row.shared, command }
}
