//! One `[[provider]]` while it is being read: every mistake is noted with its path, and reading goes on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::super::check::{Problems, absolute};
use super::super::sockets;
use super::TIMEOUT;
use crate::types::CredentialName;

/// Less than a round trip to anything that is not on this machine, and no call would ever succeed.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// More mistakes than a table has keys, each of which may have to be put right twice.
const TURNS_MAX: usize = 64;

/// What serde says of a table, taken apart. The words are those of serde and toml; where they change, the key is told and the text is
/// theirs.
struct Mistake {
    path: Vec<String>,
    text: String,
    /// Nothing: the key is not known.
    instead: Option<toml::Value>,
}

impl Mistake {
    fn of(error: &toml::de::Error) -> Self {
        let message = error.message().lines().next().unwrap_or_default();
        let shown = error.to_string();
        let within = shown.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`')).unwrap_or_default();
        let mut path: Vec<String> = within.split('.').filter(|key| !key.is_empty()).map(ToOwned::to_owned).collect();
        let field = |start: &str| Some(message.strip_prefix(start)?.split_once('`')?.0.to_owned());
        if let Some(field) = field("missing field `") {
            path.push(field);
            let instead = Some(toml::Value::String(String::new()));
            return Self { path, text: "is missing".to_owned(), instead };
        }
        if let Some(field) = field("unknown field `") {
            let known = message.split_once(", ").map_or_else(String::new, |(_, known)| format!(": {known}"));
            path.push(field);
            return Self { path, text: format!("is not known here{known}"), instead: None };
        }
        let expected = message.rsplit_once("expected ").map_or("", |(_, expected)| expected);
        let instead = match expected {
            expected if expected.contains("string") => toml::Value::String(String::new()),
            expected if expected.contains("sequence") => toml::Value::Array(Vec::new()),
            expected if expected.contains("boolean") => toml::Value::Boolean(false),
            expected if expected.contains("struct") || expected.contains("map") => {
                toml::Value::Table(toml::Table::new())
            }
            _ => toml::Value::Integer(0),
        };
        Self { path, text: message.to_owned(), instead: Some(instead) }
    }
}

/// `None` where there is no such place.
fn put(table: &mut toml::Table, path: &[String], value: Option<toml::Value>) -> Option<()> {
    let (key, rest) = path.split_first()?;
    if rest.is_empty() {
        match value {
            Some(value) => table.insert(key.clone(), value),
            None => Some(table.remove(key)?),
        };
        return Some(());
    }
    put(table.get_mut(key)?.as_table_mut()?, rest, value)
}

pub(super) struct Table<'a> {
    problems: &'a mut Problems,
    /// Such as `provider[0]`.
    path: String,
    rest: toml::Table,
}

#[cfg_attr(not(feature = "vault"), allow(dead_code, reason = "a build with fewer kinds needs less of it"))]
impl<'a> Table<'a> {
    pub(super) fn new(problems: &'a mut Problems, path: String, table: toml::Table) -> Self {
        Self { problems, path, rest: table }
    }

    pub(super) fn problem(&mut self, key: &str, text: impl Into<String>) {
        let path = format!("{}.{key}", self.path);
        self.problems.add(&path, text);
    }

    /// What has not been taken out yet and is none of these, as text.
    pub(super) fn written(&self, but: &[&str]) -> String {
        let mut rest = self.rest.clone();
        rest.retain(|key, _| !but.contains(&key));
        rest.to_string()
    }

    /// Takes a text out that must be there.
    pub(super) fn text(&mut self, key: &str, what: &str) -> Option<String> {
        match self.rest.remove(key) {
            Some(toml::Value::String(text)) => return Some(text),
            Some(_) => self.problem(key, "is a text"),
            None => self.problem(key, format!("write {what}")),
        }
        None
    }

    /// Takes a flag out.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> Option<bool> {
        match self.rest.remove(key) {
            None => Some(default),
            Some(toml::Value::Boolean(flag)) => Some(flag),
            Some(_) => {
                self.problem(key, "is true or false");
                None
            }
        }
    }

    /// What is left, as the kind's own struct. serde stops at the first mistake: it is told, something harmless is put in its place, and
    /// the next one is looked for.
    pub(super) fn rest<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut rest = std::mem::take(&mut self.rest);
        let mut told = BTreeSet::new();
        for _ in 0..TURNS_MAX {
            let error: toml::de::Error = match rest.clone().try_into() {
                Ok(found) if told.is_empty() => return Some(found),
                Ok(_) => return None,
                Err(error) => error,
            };
            let Mistake { path, text, instead } = Mistake::of(&error);
            let key = path.join(".");
            if told.insert(key.clone()) {
                match key.as_str() {
                    "" => self.problems.add(&self.path, text),
                    key => self.problem(key, text),
                }
            }
            put(&mut rest, &path, instead)?;
        }
        None
    }

    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, text: &str) -> Option<T> {
        let path = format!("{}.{key}", self.path);
        self.problems.keep(&path, text.parse().map_err(|error| format!("{text:?}: {error}")))
    }

    /// `Some(None)` when it is absent.
    #[expect(clippy::option_option, reason = "a mistake, nothing, something")]
    pub(super) fn maybe<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &str,
        text: Option<String>,
    ) -> Option<Option<T>> {
        text.map_or(Some(None), |text| self.parsed(key, &text).map(Some))
    }

    pub(super) fn file(&mut self, key: &str, file: String) -> Option<PathBuf> {
        let path = format!("{}.{key}", self.path);
        absolute(self.problems, &path, Some(file), "")
    }

    /// `Some(None)` when it is absent.
    #[expect(clippy::option_option, reason = "a mistake, nothing, something")]
    pub(super) fn maybe_file(&mut self, key: &str, file: Option<String>) -> Option<Option<PathBuf>> {
        file.map_or(Some(None), |file| self.file(key, file).map(Some))
    }

    /// Of somebody else.
    pub(super) fn socket(&mut self, key: &str, path: String) -> Option<PathBuf> {
        let key = format!("{}.{key}", self.path);
        sockets::of_another(self.problems, &key, path)
    }

    pub(super) fn timeout(&mut self, text: Option<String>) -> Option<Duration> {
        let Some(text) = text else { return Some(TIMEOUT) };
        let time = humantime::parse_duration(&text).ok().filter(|time| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(time));
        if time.is_none() {
            self.problem("timeout", format!("{text:?} is not a time from 100ms to 1m, such as \"5s\""));
        }
        time
    }

    /// The name of a credential of this method.
    pub(super) fn credential(&mut self, method: &str, name: Option<String>) -> Option<CredentialName> {
        let name = self.needed("auth.credential", method, name)?;
        self.parsed("auth.credential", &name)
    }

    /// A key that this method cannot do without.
    pub(super) fn needed(&mut self, key: &str, method: &str, value: Option<String>) -> Option<String> {
        if value.is_none() {
            self.problem(key, format!("method {method:?} needs it"));
        }
        value
    }

    /// Keys that mean nothing for this method.
    pub(super) fn unused(&mut self, method: &str, keys: &[(&str, bool)]) -> Option<()> {
        let mut fine = Some(());
        for (key, _) in keys.iter().filter(|(_, present)| *present) {
            self.problem(&format!("auth.{key}"), format!("means nothing for method {method:?}"));
            fine = None;
        }
        fine
    }
}
