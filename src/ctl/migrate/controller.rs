//! Resources that the cluster migrates by itself: one StorageVersionMigration for each, made by name, and then waited for.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::mistake::Mistake;
use super::report::{DONE, Done, FAILED, RUNNING, WAITING};
use super::shown::Shown;
use super::targets::Target;
use crate::ctl::failed::Failed;
use crate::kube::{Client, KeyMark, Migration, Migrations, State};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Without one that has begun. kube-controller-manager looks at a new one at once, and waits a minute at most for a resource that it does
/// not know yet.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

pub(super) const fn state(state: State) -> &'static str {
    match state {
        State::Waiting => WAITING,
        State::Running => RUNNING,
        State::Done => DONE,
        State::Failed => FAILED,
    }
}

/// Whether all of these resources are migrated under this key.
pub(super) fn has_all(known: &[Migration], targets: &[&Target], mark: &KeyMark) -> bool {
    targets.iter().all(|target| of(known, target, mark).is_some_and(|one| one.state == State::Done))
}

/// What has ended, for all of these resources. `again`: what is done does not count.
pub(super) async fn migrate(
    client: &mut Client,
    migrations: &Migrations,
    targets: &[&Target],
    (mark, again): (&KeyMark, bool),
    is_shown: bool,
) -> Result<Vec<Done>, Failed> {
    for old in migrations.list(client).await? {
        // Of a key that is no longer written with; or given up, which kube-controller-manager never tries again.
        if again || old.mark != mark.as_str() || old.state == State::Failed {
            migrations.remove(client, &old).await?;
        }
    }
    for target in targets {
        migrations.make(client, &target.resource, mark).await?;
    }
    let mut shown = Shown::new(is_shown);
    let begun = Instant::now();
    loop {
        let now = migrations.list(client).await?;
        let ours: Vec<_> = targets.iter().map(|target| (*target, of(&now, target, mark))).collect();
        if let Some((target, _)) = ours.iter().find(|(_, found)| found.is_none()) {
            return Err(Mistake::Removed(target.resource.name()).into());
        }
        let found: Vec<_> = ours.iter().filter_map(|(target, found)| Some((*target, (*found)?))).collect();
        if found.iter().all(|(_, one)| matches!(one.state, State::Done | State::Failed)) {
            return Ok(found.into_iter().map(|(target, one)| done(target, one)).collect());
        }
        if found.iter().all(|(_, one)| one.state == State::Waiting) && begun.elapsed() >= BEGIN_TIMEOUT {
            return Err(Mistake::NobodyBegins { minutes: BEGIN_TIMEOUT.as_secs() / 60 }.into());
        }
        shown.line(|| {
            let ended = found.iter().filter(|(_, one)| one.state == State::Done).count();
            let running = found.iter().filter(|(_, one)| one.state == State::Running);
            let names: Vec<_> = running.map(|(target, _)| target.resource.name()).take(3).collect();
            let what = if names.is_empty() { "none has begun".to_owned() } else { names.join(", ") };
            format!("{ended} of {} resources are migrated; now: {what}", found.len())
        });
        sleep(LOOK_EVERY).await;
    }
}

fn of<'a>(all: &'a [Migration], target: &Target, mark: &KeyMark) -> Option<&'a Migration> {
    all.iter().find(|one| one.mark == mark.as_str() && one.resource == target.resource.name())
}

fn done(target: &Target, one: &Migration) -> Done {
    let (resource, by) = (target.resource.name(), target.by.label());
    let migration = Some(one.name.clone());
    Done { resource, by, state: state(one.state), objects: None, failed: 0, names: Vec::new(), migration }
}
