//! `nodeseal config show`: the values in force, and where each comes from.

use serde_json::json;

use super::common::Common;
use super::files::read_file;
use super::output::{Done, load, print};
use super::schema;
use crate::config::{Shown, in_force};

pub(super) fn run(common: &Common) -> Done {
    let config = load(common)?;
    let text = read_file(&config.path)?;
    let rows = in_force(&config, &String::from_utf8_lossy(&text));
    print(common, schema::CONFIG_SHOW, &json!({ "file": config.path, "settings": rows }), || render(&rows))
}

/// Like TOML with whole paths. What has no value in force is left out.
fn render(rows: &[Shown]) -> String {
    let lines = rows.iter().filter(|row| !row.value.is_null()).map(|row| {
        let setting = format!("{} = {}", row.key, row.value);
        let from = row.line.map_or_else(|| "default".to_owned(), |line| format!("line {line}"));
        format!("{setting:<64}  # {from}")
    });
    lines.collect::<Vec<_>>().join("\n")
}
