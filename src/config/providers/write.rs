//! `[write]`: when a new KEK has enough copies, and what happens without them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::Provider;
use crate::config::forms::duration;
use crate::config::problems::{Checked, Problems};
use crate::keyring::calendar::{EpochRule, Period};
use crate::keyring::rooted::{OnOutage, Rules};
use crate::provider::set::Role;

const ACTIVATION_DELAY: Duration = Duration::from_secs(120);
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// In mode "direct", where nothing can be written without them.
const DIRECT_OUTAGE: Duration = Duration::from_secs(300);

/// `[write]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Write {
    min_wraps: Option<i64>,
    epoch: Option<EpochForm>,
    on_outage: Option<String>,
    activation_delay: Option<String>,
    probe_every: Option<String>,
}

/// `epoch = 1` or `epoch = "every 90d"`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, or a text such as \"every 90d\"")]
enum EpochForm {
    Number(i64),
    Text(String),
}

pub(super) fn check(
    problems: &mut Problems,
    warnings: &mut Problems,
    table: Write,
    local_kek: bool,
    list: &[Provider],
) -> Checked<Rules> {
    let Write { min_wraps, epoch, on_outage, activation_delay, probe_every } = table;
    let min_wraps = check_min_wraps(problems, min_wraps, local_kek, list);
    let epoch = check_epoch(problems, warnings, epoch);
    let on_outage = check_outage(problems, on_outage.as_deref(), local_kek);
    let activation_delay = duration(problems, "write.activation_delay", activation_delay, ACTIVATION_DELAY, 0..=86_400);
    let probe_every = duration(problems, "write.probe_every", probe_every, PROBE_EVERY, 1..=3600);
    if probe_every.as_ref().is_ok_and(|every| *every < PROBE_EVERY) {
        warnings.add("write.probe_every", "with more than one probe a minute, a provider may rate-limit this node");
    }
    Ok(Rules {
        local_kek,
        min_wraps: min_wraps?,
        epoch: epoch?,
        on_outage: on_outage?,
        activation_delay: activation_delay?,
        probe_every: probe_every?,
    })
}

fn check_epoch(problems: &mut Problems, warnings: &mut Problems, form: Option<EpochForm>) -> Checked<EpochRule> {
    match form {
        None => Ok(EpochRule::default()),
        Some(EpochForm::Text(text)) => Period::parse(&text).map_or_else(
            || {
                let most = Period::MAX_DAYS;
                let text = format!("{text:?} is neither a number nor \"every 90d\", with 1 to {most} whole days");
                problems.refuse("write.epoch", text)
            },
            |period| Ok(EpochRule::Every(period)),
        ),
        Some(EpochForm::Number(number)) => {
            let Ok(number) = u32::try_from(number) else {
                return problems
                    .refuse("write.epoch", "is a number from 0 to 4294967295, or a text such as \"every 90d\"");
            };
            if EpochRule::may_be_of_calendar(number) {
                let text =
                    "above 2147483647 are the numbers of \"every 90d\" and the like: do not use both in one cluster";
                warnings.add("write.epoch", text);
            }
            Ok(EpochRule::Number(number))
        }
    }
}

fn check_min_wraps(
    problems: &mut Problems,
    min_wraps: Option<i64>,
    local_kek: bool,
    list: &[Provider],
) -> Checked<usize> {
    let writers = list.iter().filter(|provider| provider.role != Role::DecryptOnly).count();
    if writers == 0 && !list.is_empty() && !local_kek {
        problems.add(
            "provider",
            "every [[provider]] has write = false, and without a local KEK nothing would encrypt: leave `write` out of one of them",
        );
    }
    let min_wraps = usize::try_from(min_wraps.unwrap_or(1)).ok().filter(|min| (1..=writers.max(1)).contains(min));
    let Some(min_wraps) = min_wraps else {
        let text = format!("is 1 to {}, the number of providers that write", writers.max(1));
        return problems.refuse("write.min_wraps", text);
    };
    let keys = keys_of(list);
    if min_wraps > keys.max(1) {
        let plural = if keys == 1 { "" } else { "s" };
        problems.add("write.min_wraps", format!("is more than the {keys} key{plural} of the providers that write"));
    }
    Ok(min_wraps)
}

/// How many keys those that write have between them, as far as the file tells: two ways to one key wrap no KEK twice.
fn keys_of(list: &[Provider]) -> usize {
    let mut seen: Vec<&Provider> = Vec::new();
    for provider in list.iter().filter(|provider| provider.role != Role::DecryptOnly) {
        if !seen.iter().any(|other| other.settings.is_same_key(&provider.settings)) {
            seen.push(provider);
        }
    }
    seen.len()
}

fn check_outage(problems: &mut Problems, on_outage: Option<&str>, local_kek: bool) -> Checked<OnOutage> {
    match on_outage {
        None if local_kek => Ok(OnOutage::Coast),
        None => Ok(OnOutage::StopWritesAfter(DIRECT_OUTAGE)),
        Some("coast") => Ok(OnOutage::Coast),
        Some(text) => {
            let limit = text.strip_prefix("stop-writes-after ").and_then(|time| humantime::parse_duration(time).ok());
            match limit {
                Some(limit) => Ok(OnOutage::StopWritesAfter(limit)),
                None => problems
                    .refuse("write.on_outage", format!("{text:?} is neither \"coast\" nor \"stop-writes-after 10m\"")),
            }
        }
    }
}
