//! One `[[provider]]` while it is being read: every mistake is noted with its path, and reading goes on.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::super::check::{Problems, absolute};
use super::super::mistakes::{self, Instead};
use super::super::sockets;
use super::TIMEOUT;
use crate::types::CredentialName;

/// Less than a round trip to anything that is not on this machine, and no call would ever succeed.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

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

    /// What is left, as the kind's own struct.
    pub(super) fn rest<T: DeserializeOwned>(&mut self) -> Option<T> {
        let rest = std::mem::take(&mut self.rest);
        let (found, mistakes) = mistakes::read(rest, Instead::Harmless, &["name", "kind", "required", "write"]);
        for (key, text) in &mistakes {
            match key.as_str() {
                "" => self.problems.add(&self.path, text),
                key => self.problem(key, text),
            }
        }
        found.filter(|_| mistakes.is_empty())
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
            self.problem(key, format!("required for method {method:?}"));
        }
        value
    }

    /// Keys that mean nothing for this method.
    pub(super) fn unused(&mut self, method: &str, keys: &[(&str, bool)]) -> Option<()> {
        let mut fine = Some(());
        for (key, _) in keys.iter().filter(|(_, present)| *present) {
            self.problem(&format!("auth.{key}"), format!("has no effect with method {method:?}"));
            fine = None;
        }
        fine
    }
}
