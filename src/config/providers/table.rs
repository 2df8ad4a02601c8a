//! One `[[provider]]` while it is being read: every mistake is noted with its path, and reading continues.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::config::forms::absolute;
use crate::config::mistakes::{self, Instead};
use crate::config::problems::{Checked, Noted, Problems};
use crate::config::sockets;
use crate::types::CredentialName;

/// Of one call with its login. What a request of kube-apiserver waits for is bounded besides (`provider::set::ATTEMPT`).
const TIMEOUT: Duration = Duration::from_secs(5);
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

    /// There is no value.
    pub(super) fn refuse<T>(&mut self, key: &str, text: impl Into<String>) -> Checked<T> {
        self.problem(key, text);
        Err(Noted)
    }

    /// What has not been taken out yet and is none of these, as text.
    pub(super) fn written(&self, but: &[&str]) -> String {
        let mut rest = self.rest.clone();
        rest.retain(|key, _| !but.contains(&key));
        rest.to_string()
    }

    /// Takes a text out that must be there.
    pub(super) fn text(&mut self, key: &str, what: &str) -> Checked<String> {
        match self.rest.remove(key) {
            Some(toml::Value::String(text)) => Ok(text),
            Some(_) => self.refuse(key, "is a text"),
            None => self.refuse(key, format!("write {what}")),
        }
    }

    /// Takes a flag out.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> Checked<bool> {
        match self.rest.remove(key) {
            None => Ok(default),
            Some(toml::Value::Boolean(flag)) => Ok(flag),
            Some(_) => self.refuse(key, "is true or false"),
        }
    }

    /// What is left, as the kind's own struct.
    pub(super) fn rest<T: DeserializeOwned>(&mut self) -> Checked<T> {
        let rest = std::mem::take(&mut self.rest);
        let (found, mistakes) = mistakes::read(rest, Instead::Harmless, &["name", "kind", "required", "write"]);
        for (key, text) in &mistakes {
            match key.as_str() {
                "" => self.problems.add(&self.path, text),
                key => self.problem(key, text),
            }
        }
        found.filter(|_| mistakes.is_empty()).ok_or(Noted)
    }

    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, text: &str) -> Checked<T> {
        let path = format!("{}.{key}", self.path);
        self.problems.keep(&path, text.parse().map_err(|error| format!("{text:?}: {error}")))
    }

    /// One that may be absent.
    pub(super) fn maybe<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &str,
        text: Option<String>,
    ) -> Checked<Option<T>> {
        text.map(|text| self.parsed(key, &text)).transpose()
    }

    pub(super) fn file(&mut self, key: &str, file: String) -> Checked<PathBuf> {
        let path = format!("{}.{key}", self.path);
        absolute(self.problems, &path, Some(file), "")
    }

    /// One that may be absent.
    pub(super) fn maybe_file(&mut self, key: &str, file: Option<String>) -> Checked<Option<PathBuf>> {
        file.map(|file| self.file(key, file)).transpose()
    }

    /// Of somebody else.
    pub(super) fn socket(&mut self, key: &str, path: String) -> Checked<PathBuf> {
        let key = format!("{}.{key}", self.path);
        sockets::of_another(self.problems, &key, path)
    }

    pub(super) fn timeout(&mut self, text: Option<String>) -> Checked<Duration> {
        let Some(text) = text else { return Ok(TIMEOUT) };
        let time = humantime::parse_duration(&text).ok().filter(|time| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(time));
        time.map_or_else(
            || self.refuse("timeout", format!("{text:?} is not a time from 100ms to 1m, such as \"5s\"")),
            Ok,
        )
    }

    /// The name of a credential of this method.
    pub(super) fn credential(&mut self, method: &str, name: Option<String>) -> Checked<CredentialName> {
        let name = self.needed("auth.credential", method, name)?;
        self.parsed("auth.credential", &name)
    }

    /// A key that this method cannot do without.
    pub(super) fn needed(&mut self, key: &str, method: &str, value: Option<String>) -> Checked<String> {
        value.map_or_else(|| self.refuse(key, format!("required for method {method:?}")), Ok)
    }

    /// Keys that mean nothing for this method.
    pub(super) fn unused(&mut self, method: &str, keys: &[(&str, bool)]) -> Checked<()> {
        let mut fine = Ok(());
        for (key, _) in keys.iter().filter(|(_, present)| *present) {
            fine = self.refuse(&format!("auth.{key}"), format!("has no effect with method {method:?}"));
        }
        fine
    }
}
