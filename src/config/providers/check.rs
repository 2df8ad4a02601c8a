//! `[[provider]]`: each table by its kind, and what they are to each other.

use std::collections::BTreeSet;
use std::path::Path;

use super::decrypt::{self, Decrypt};
use super::kinds;
use super::settings::{Beside, Found, Provider, Providers};
use super::table::Table;
use super::write::{self, Write};
use crate::config::problems::{Checked, Noted, Problems};
use crate::config::seal::Seal;
use crate::provider::set::Role;

/// All annotations of a text have 32 KiB, a wrap up to 5 (`envelope::WRAPS_MAX_BYTES`, `provider::wrapped`).
const PROVIDERS_MAX: usize = 6;
/// Characters of a provider's name, which stands in logs and metrics.
const NAME_MAX: usize = 63;

/// Nothing if there are no providers.
pub(in crate::config) fn check(
    problems: &mut Problems,
    warnings: &mut Problems,
    tables: Option<Vec<toml::Table>>,
    write: Option<Write>,
    decrypt: Option<Decrypt>,
    has_local_kek: bool,
) -> Checked<Option<Providers>> {
    let tables = tables.unwrap_or_default();
    if tables.is_empty() {
        let tables = [("write", write.is_some()), ("decrypt", decrypt.is_some())];
        for (key, _) in tables.iter().filter(|(_, present)| *present) {
            problems.add(key, "has no effect without a [[provider]]");
        }
        if !has_local_kek {
            problems.add("local_kek.enabled", "without a local KEK there must be a [[provider]]");
        }
        return Ok(None);
    }
    if tables.len() > PROVIDERS_MAX {
        problems.add("provider", format!("there are {}; at most {PROVIDERS_MAX} are allowed", tables.len()));
    }
    let mut names = BTreeSet::new();
    let count = tables.len();
    let list: Vec<Provider> = tables
        .into_iter()
        .enumerate()
        .filter_map(|(index, table)| one(Table::new(problems, path_of(index), table), &mut names).ok())
        .collect();
    let strategy = decrypt::check(problems, &decrypt.unwrap_or_default());
    warn_of_ways(warnings, &list);
    let rules = write::check(problems, warnings, write.unwrap_or_default(), has_local_kek, &list);
    if list.len() < count {
        return Err(Noted);
    }
    Ok(Some(Providers { list, strategy: strategy?, rules: rules? }))
}

fn path_of(index: usize) -> String {
    format!("provider[{index}]")
}

fn one(mut table: Table<'_>, names: &mut BTreeSet<String>) -> Checked<Provider> {
    let name = table.text("name", "choose a name, for logs and status");
    let required = table.flag("required", true);
    let writes = table.flag("write", true);
    let (written, proved) = (table.written(&[]), table.written(&["timeout"]));
    let kind = table.text("kind", &kinds::named());
    let name = name.and_then(|name| check_name(&mut table, name, names));
    let role = match (required?, writes?) {
        (_, false) => Role::DecryptOnly,
        (true, true) => Role::Required,
        (false, true) => Role::Optional,
    };
    let Found { settings, credentials, files, tokens } = kinds::check(&mut table, &kind?)?;
    Ok(Provider { name: name?, role, settings, credentials, files, tokens, written, proved })
}

fn check_name(table: &mut Table<'_>, name: String, names: &mut BTreeSet<String>) -> Checked<String> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !fits {
        return table.refuse("name", format!("is 1 to {NAME_MAX} characters of a-z, 0-9 and '-'"));
    }
    if !names.insert(name.clone()) {
        return table.refuse("name", format!("{name:?} is used twice"));
    }
    Ok(name)
}

/// What providers need of the rest of the file.
pub(in crate::config) fn check_beside(
    problems: &mut Problems,
    warnings: &mut Problems,
    list: &[Provider],
    seal: &Seal,
    own_sockets: &[&Path],
) {
    for (index, provider) in list.iter().enumerate() {
        let mut beside = Beside { problems, warnings, path: path_of(index), seal, own_sockets };
        provider.settings.of_kind().check_beside(&mut beside);
    }
}

/// Two ways to one key are fine, and may be a mistake: between them they make one copy.
fn warn_of_ways(warnings: &mut Problems, list: &[Provider]) {
    for (index, provider) in list.iter().enumerate() {
        let first = list[..index].iter().find(|first| first.settings.is_same_key(&provider.settings));
        if let Some(first) = first {
            let said = format!("names the key of `{}`: these are two ways to one key, which counts once", first.name);
            warnings.add(&path_of(index), said);
        }
    }
}
