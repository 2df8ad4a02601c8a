//! Objects that are written from here: page by page, not faster than was asked for, and from where an earlier run has ended.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::mistake::Mistake;
use super::report::{DONE, Done, FAILED};
use super::shown::Shown;
use super::targets::{By, Target};
use crate::ctl::failed::Failed;
use crate::kube::{Client, Item, KubeError, Page, Pages, Progress, Record, Resource, touch};
use crate::types::{Chain, is_shown};

/// Objects that fail one after the other: then it is not the objects.
const ROW_MAX: u32 = 10;
/// Names that are kept of those that failed.
const NAMES_MAX: usize = 100;

/// A run over one or more resources.
pub(super) struct Rewriting<'a> {
    pub(super) client: &'a mut Client,
    pub(super) record: Record,
    /// Between two objects.
    pub(super) pace: Duration,
    pub(super) is_shown: bool,
}

impl Rewriting<'_> {
    /// All objects of one resource.
    pub(super) async fn resource(&mut self, target: &Target) -> Result<Done, Failed> {
        let name = target.resource.name();
        let begun = self.record.resources.get(&name).cloned().unwrap_or_default();
        // What failed is tried once more, with all that stands around it.
        let begun = if begun.finished && begun.failed > 0 { Progress::default() } else { begun };
        let mut one = One {
            resource: &target.resource,
            annotation: matches!(target.by, By::Here { annotated: true }).then(|| self.record.annotation()),
            done_before: begun.last.clone(),
            listed: String::new(),
            progress: begun,
            names: Vec::new(),
            row: 0,
            next: Instant::now(),
            pace: self.pace,
        };
        let mut shown = Shown::new(self.is_shown);
        let mut pages = Pages::default();
        while !one.progress.finished {
            match pages.next(self.client, &target.resource).await? {
                None => one.progress.finished = true,
                Some(page) => {
                    let written = one.page(self.client, &page, &mut shown).await;
                    // Also when it has broken off: so far it is done.
                    self.record.resources.insert(name.clone(), one.progress.clone());
                    self.record.write(self.client).await?;
                    written?;
                }
            }
        }
        self.record.resources.insert(name.clone(), one.progress.clone());
        self.record.write(self.client).await?;
        let Progress { written, failed, .. } = one.progress;
        let state = if failed == 0 { DONE } else { FAILED };
        let by = target.by.label();
        Ok(Done { resource: name, by, state, objects: Some(written), failed, names: one.names, migration: None })
    }
}

struct One<'a> {
    resource: &'a Resource,
    /// What an object gets, and has if this run has written it.
    annotation: Option<String>,
    /// Up to this one an earlier run, or an earlier list, has done it. What was made there since then is under the present key.
    done_before: String,
    /// The last one of this list.
    listed: String,
    progress: Progress,
    names: Vec<String>,
    /// How many have failed one after the other.
    row: u32,
    next: Instant,
    pace: Duration,
}

impl One<'_> {
    async fn page(&mut self, client: &mut Client, page: &Page, shown: &mut Shown) -> Result<(), Failed> {
        if page.begins_again {
            self.done_before = self.progress.last.clone();
            self.listed.clear();
        }
        for (at, item) in page.items.iter().enumerate() {
            let place = item.place();
            // Whoever continued from one of them would leave others out.
            if place <= self.listed {
                return Err(Mistake::Order(self.resource.name()).into());
            }
            self.listed.clone_from(&place);
            if place <= self.done_before {
                continue;
            }
            if self.annotation.as_ref().is_some_and(|annotation| item.has(annotation)) {
                self.progress.written += 1;
            } else {
                self.item(client, item, &place).await?;
            }
            self.progress.last = place;
            let left = page.left + u64::try_from(page.items.len() - at - 1).unwrap_or_default();
            shown.line(|| line(&self.resource.name(), self.progress.written + self.progress.failed, left));
        }
        Ok(())
    }

    async fn item(&mut self, client: &mut Client, item: &Item, place: &str) -> Result<(), Failed> {
        sleep_until(self.next).await;
        self.next = Instant::now().max(self.next) + self.pace;
        match touch(client, self.resource, item, self.annotation.as_deref()).await {
            Ok(_) => {
                self.progress.written += 1;
                self.row = 0;
            }
            Err(error) if is_of_object(&error) => {
                self.row += 1;
                if self.row >= ROW_MAX {
                    let (resource, last) = (self.resource.name(), Chain(&error).to_string());
                    return Err(Mistake::Row { count: self.row, resource, last }.into());
                }
                self.progress.failed += 1;
                if self.names.len() < NAMES_MAX {
                    let place: String = place.chars().map(|sign| if is_shown(sign) { sign } else { '?' }).collect();
                    let status = error.status().unwrap_or_default();
                    self.names.push(format!("{place} (HTTP status {status})"));
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Whether the next object may do better: a webhook or the object itself says no. 500 is what a webhook that fails comes to.
fn is_of_object(error: &KubeError) -> bool {
    error.status().is_some_and(|status| !matches!(status, 401 | 429 | 502..=504))
}

fn line(resource: &str, done: u64, left: u64) -> String {
    format!("{resource}: {done} of {} objects", done + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_one_object_does_not_end_the_run_and_a_server_that_is_away_does() {
        let refused = |status| KubeError::Refused {
            server: "https://a:1".into(),
            what: "PATCH /x".into(),
            status,
            reason: String::new(),
            about: None,
        };
        for status in [400, 403, 404, 409, 413, 422, 500] {
            assert!(is_of_object(&refused(status)), "{status}");
        }
        for status in [401, 429, 502, 503, 504] {
            assert!(!is_of_object(&refused(status)), "{status}");
        }
        assert!(!is_of_object(&KubeError::Busy));
    }
}
