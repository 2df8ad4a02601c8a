//! Forms of values that several tables have: paths, ports, times, users, texts. A leaf of this folder but for the problems.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::problems::{Checked, Problems};
use crate::types::OVERFLOW_UID;

/// Names a file: absolute, and not a folder's root.
pub(super) fn absolute(problems: &mut Problems, key: &str, path: Option<String>, default: &str) -> Checked<PathBuf> {
    let path = PathBuf::from(path.unwrap_or_else(|| default.to_owned()));
    let shown = format!("{:?}", path.display().to_string());
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return problems.refuse(key, format!("{shown} has a zero byte in it, where the kernel would end it"));
    }
    if path.is_absolute() && path.file_name().is_some() {
        Ok(path)
    } else {
        problems.refuse(key, format!("{shown} is not an absolute path"))
    }
}

/// One that must be there. `what` it is.
pub(super) fn needed_path(problems: &mut Problems, key: &str, path: Option<String>, what: &str) -> Checked<PathBuf> {
    match path {
        Some(path) => absolute(problems, key, Some(path), ""),
        None => problems.refuse(key, format!("write {what}")),
    }
}

/// Absolute ones.
pub(super) fn paths(problems: &mut Problems, key: &str, paths: Option<Vec<String>>) -> Checked<Vec<PathBuf>> {
    let paths = paths.unwrap_or_default();
    let of = |(index, path)| absolute(problems, &format!("{key}[{index}]"), Some(path), "");
    // All of them, so that all mistakes are told.
    let found: Vec<_> = paths.into_iter().enumerate().map(of).collect();
    found.into_iter().collect()
}

/// Of TCP.
pub(super) fn ports(problems: &mut Problems, key: &str, ports: Option<Vec<i64>>) -> Checked<Vec<u16>> {
    let ports = ports.unwrap_or_default();
    let found: Option<Vec<_>> = ports.iter().map(|port| u16::try_from(*port).ok().filter(|port| *port != 0)).collect();
    found.map_or_else(|| problems.refuse(key, "are numbers from 1 to 65535"), Ok)
}

/// Printable ASCII of 1 to `max` characters.
pub(super) fn text(problems: &mut Problems, key: &str, text: String, max: usize) -> Checked<String> {
    let is_fine = (1..=max).contains(&text.len())
        && text.trim() == text
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_fine {
        return Ok(text);
    }
    problems.refuse(key, format!("is 1 to {max} printable ASCII characters without spaces at its ends"))
}

/// `bounds` in seconds.
pub(super) fn duration(
    problems: &mut Problems,
    key: &str,
    text: Option<String>,
    default: Duration,
    bounds: RangeInclusive<u64>,
) -> Checked<Duration> {
    let Some(text) = text else { return Ok(default) };
    let time = humantime::parse_duration(&text).ok().filter(|time| bounds.contains(&time.as_secs()));
    time.map_or_else(
        || {
            let [low, high] = [bounds.start(), bounds.end()].map(|seconds| Duration::from_secs(*seconds));
            let [low, high] = [low, high].map(|time| humantime::format_duration(time).to_string());
            problems.refuse(key, format!("{text:?} is not a time from {low} to {high}, such as \"2m\""))
        },
        Ok,
    )
}

/// The name or number of a user who is let in.
pub(super) fn uid_of(user: &toml::Value) -> Result<u32, String> {
    let uid = match user {
        // The last one is no user: (uid_t) -1 means "none" to the kernel.
        toml::Value::Integer(uid) => {
            u32::try_from(*uid).ok().filter(|uid| *uid != u32::MAX).ok_or_else(|| "is no uid".to_owned())
        }
        toml::Value::String(name) => match nix::unistd::User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) | Err(_) => Err(format!("there is no user {name:?} on this machine")),
        },
        _ => Err("is a user's name or a uid".to_owned()),
    }?;
    if uid == OVERFLOW_UID {
        let text = "is uid 65534, which stands for every user whom nodeseald's user namespace does not show: name the user \
                    that it really is, and write PrivateUsers=identity (systemd 257) or =no by a drop-in";
        return Err(text.to_owned());
    }
    Ok(uid)
}

/// A user, by name or number, for the schema.
pub(super) enum User {}

impl JsonSchema for User {
    fn schema_name() -> Cow<'static, str> {
        "User".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] })
    }
}
