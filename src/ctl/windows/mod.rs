//! `nodeseal keys windows`: for how long something stored in etcd has needed each local KEK and each version of a provider's key, as
//! complete scans have seen it.
//!
//! Says what was seen and no more: before the first scan nothing was, and between two scans anything may have been. It decides nothing;
//! what lets a key go is `keys retire`.

mod chart;
mod compute;
mod svg;

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use self::compute::{Subject, Window};
use super::asked::Asked;
use super::common::Common;
use super::files::OutFile;
use super::output::{Done, print, time, unfit};
use super::schema;
use crate::control::{Answer, Request};
use crate::types::clock;

pub(super) fn run(common: &Common, svg: Option<&Path>) -> Done {
    let file = svg.map(OutFile::create).transpose()?;
    let asked = Asked::load(common)?;
    let Answer::Evidence { scans, .. } = asked.ask_too(&Request::Evidence {})? else { return Err(unfit()) };
    let table = match asked.ask(&Request::KeysList {})? {
        Answer::Keys(table) => table,
        _ => return Err(unfit()),
    };
    let now = clock::now();
    let windows = compute::windows(&table.keys, &scans);
    if let Some(file) = file {
        file.write(svg::drawing(&windows, now).as_bytes())?;
    }
    let rows: Vec<Row> = windows.iter().map(Row::new).collect();
    let last = scans.last().map(|scan| time(scan.at));
    let value = json!({ "scans": scans.len(), "scanned": last, "windows": rows, "svg": svg });
    print(common, schema::KEYS_WINDOWS, &value, || match scans.last() {
        None => "no scan of etcd is on record: `nodeseal etcd scan`".to_owned(),
        Some(scan) => {
            let saved = svg.map_or_else(String::new, |path| format!("\ndrawn into {}", path.display()));
            let seen = format!("of {} scans, the last one at {}", scans.len(), time(scan.at));
            format!("{}\n{seen}{saved}", chart::text(&windows, now))
        }
    })
}

/// A window as JSON has it.
#[derive(Serialize)]
struct Row {
    kind: &'static str,
    id: String,
    version: Option<String>,
    provider_kind: Option<String>,
    from: String,
    until: Option<String>,
    objects: u64,
}

impl Row {
    fn new(window: &Window) -> Self {
        let (kind, id, version, provider_kind) = match &window.subject {
            Subject::Kek(id) => ("kek", id.clone(), None, None),
            Subject::Key { kind, identity, version } => {
                ("provider_key", identity.clone(), Some(version.clone()), Some(kind.clone()))
            }
        };
        let (from, until) = (time(window.from), window.until.map(time));
        Self { kind, id, version, provider_kind, from, until, objects: window.objects }
    }
}
