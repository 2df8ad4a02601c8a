//! Which objects to look at: those that a file names, of `nodeseal etcd scan --json --names` or of kube-apiserver's `StorageReadError`.
//!
//! Only keys are taken from it. What the objects are now is read from etcd once more. A file that has none of the two forms is refused,
//! and names that it leaves off are told.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::ctl::failed::Failed;
use crate::ctl::schema::ETCD_SCAN;
use crate::types::{Class, Explain, Explained};

/// Bytes of such a file. A scan names 100 objects a finding, of at most some hundred bytes each, and kube-apiserver 100 for each resource.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Keys of etcd.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) keys: BTreeSet<String>,
    /// Why there may be more.
    pub(super) notes: Vec<String>,
}

/// Why a file names no objects.
#[derive(Debug, thiserror::Error)]
pub(super) enum NamedError {
    #[error("the file is not the JSON of `nodeseal etcd scan`")]
    Scan,
    #[error("the scan in the file was made without --names, so it names no objects")]
    Nameless,
    #[error("the file is not JSON of kube-apiserver")]
    Status,
    #[error("the file has an answer of kube-apiserver that is not a StorageReadError, but {0}")]
    Reason(String),
    #[error("the file is empty")]
    Empty,
    #[error("the file is longer than 64 MiB")]
    Long,
}

impl Explained for NamedError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::Scan | Self::Nameless => "write it with: nodeseal etcd scan --json --names > FILE",
            Self::Reason(_) => {
                "kube-apiserver answers with StorageReadError to a list of objects, if its feature gate AllowUnsafeMalformedObjectDeletion is on"
            }
            Self::Status | Self::Empty | Self::Long => {
                "write it with `kubectl proxy` and `curl -s http://127.0.0.1:8001/api/v1/secrets > FILE`"
            }
        }
    }
}

/// Objects that findings of a scan are about.
pub(super) fn of_scan(path: &Path) -> Result<Named, Failed> {
    Ok(scan(&text(path)?)?)
}

/// Objects that kube-apiserver could not read.
pub(super) fn of_read_errors(path: &Path) -> Result<Named, Failed> {
    Ok(read_errors(&text(path)?)?)
}

fn text(path: &Path) -> Result<String, Failed> {
    let read = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_MAX_BYTES => return Err(NamedError::Long.into()),
        Ok(_) => std::fs::read_to_string(path),
        Err(error) => Err(error),
    };
    read.map_err(|error| {
        let error = std::io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
        Failed::new(&Explain::new(&error, Class::Misconfigured, "name a file that you may read"))
    })
}

#[derive(Deserialize)]
struct Scan {
    schema: String,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    id: String,
    resource: String,
    objects: u64,
    names: Vec<String>,
    names_left_off: u64,
}

fn scan(text: &str) -> Result<Named, NamedError> {
    let scan: Scan = serde_json::from_str(text).map_err(|_| NamedError::Scan)?;
    if scan.schema != ETCD_SCAN {
        return Err(NamedError::Scan);
    }
    if scan.findings.iter().any(|finding| finding.objects > 0 && finding.names.is_empty()) {
        return Err(NamedError::Nameless);
    }
    let mut named = Named::default();
    for finding in scan.findings {
        if finding.names_left_off > 0 {
            let Finding { id, resource, names_left_off, .. } = &finding;
            named
                .notes
                .push(format!("the scan leaves off {names_left_off} more objects of the finding {id} ({resource})"));
        }
        named.keys.extend(finding.names);
    }
    Ok(named)
}

/// apimachinery `meta/v1/types.go`, of which the aggregate of k8s.io/apiserver `storage/etcd3/corrupt_obj_deleter.go` is one.
#[derive(Deserialize)]
struct Status {
    kind: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    /// The resource.
    #[serde(default)]
    kind: String,
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    /// The key of etcd.
    #[serde(default)]
    field: String,
}

/// Of one list, or of several one after the other: a list is of one resource.
fn read_errors(text: &str) -> Result<Named, NamedError> {
    let mut named = Named::default();
    let mut is_empty = true;
    for status in serde_json::Deserializer::from_str(text).into_iter::<Status>() {
        let status = status.map_err(|_| NamedError::Status)?;
        is_empty = false;
        if status.kind != "Status" || status.reason != "StorageReadError" {
            let reason = if status.reason.is_empty() { status.kind } else { status.reason };
            return Err(NamedError::Reason(shown(&reason)));
        }
        for cause in status.details.causes {
            if cause.reason == "FieldValueTooMany" {
                let resource = shown(&status.details.kind);
                named.notes.push(format!(
                    "kube-apiserver names at most 100 objects of one list, and there are more {resource}"
                ));
            } else if !cause.field.is_empty() {
                named.keys.insert(cause.field);
            }
        }
    }
    if is_empty { Err(NamedError::Empty) } else { Ok(named) }
}

/// A word of a file that anybody may have written.
fn shown(word: &str) -> String {
    word.chars().filter(char::is_ascii_graphic).take(80).collect()
}

impl Named {
    /// What all of these keys begin with. Without any it is what no key of kube-apiserver begins with.
    pub(super) fn common(&self) -> &str {
        let (Some(first), Some(last)) = (self.keys.first(), self.keys.last()) else { return "\0" };
        let same = first.bytes().zip(last.bytes()).take_while(|(one, other)| one == other).count();
        &first[..first.floor_char_boundary(same)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kube-apiserver 1.36.3 answers to a list of two Secrets that it cannot read, with another one that it can.
    const READ_ERRORS: &str = include_str!("read-errors.json");

    fn keys(named: &Named) -> Vec<&str> {
        named.keys.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_keys_that_kube_apiserver_could_not_read_are_taken_from_its_answers() {
        let one = read_errors(READ_ERRORS).unwrap();
        assert_eq!(keys(&one), ["/registry/secrets/sealed/changed", "/registry/secrets/sealed/cut"]);
        assert_eq!((one.common(), one.notes.len()), ("/registry/secrets/sealed/c", 0));
        // Of a second list, of which there are more than it names.
        let more = r#"{"kind":"Status","reason":"StorageReadError","details":{"kind":"configmaps","causes":[
            {"reason":"UnexpectedServerResponse","field":"/registry/configmaps/a/b"},{"reason":"FieldValueTooMany"}]}}"#;
        let both = read_errors(&format!("{READ_ERRORS}\n{more}")).unwrap();
        assert_eq!((both.keys.len(), both.common()), (3, "/registry/"));
        assert!(both.notes[0].contains("more configmaps"), "{:?}", both.notes);
    }

    #[test]
    fn another_answer_of_kube_apiserver_is_refused_by_its_name() {
        for (text, expected) in [
            (r#"{"kind":"Status","reason":"Forbidden"}"#, "but Forbidden"),
            (r#"{"kind":"SecretList","items":[]}"#, "but SecretList"),
            ("{}", "not JSON"),
            ("Error from server", "not JSON"),
            (" \n", "empty"),
        ] {
            let error = read_errors(text).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_names_of_a_scan_are_taken_and_what_it_leaves_off_is_told() {
        let finding = |names: &str, left_off: u64| {
            format!(
                r#"{{"id":"moved","resource":"secrets","objects":2,"text":"x","next":"y","names":[{names}],"names_left_off":{left_off}}}"#
            )
        };
        let of =
            |finding: &str| scan(&format!(r#"{{"schema":"nodeseal.etcd-scan/1","objects":9,"findings":[{finding}]}}"#));
        assert_eq!(keys(&of(&finding("\"/registry/secrets/a/b\"", 0)).unwrap()), ["/registry/secrets/a/b"]);
        assert_eq!(of(&finding("\"/registry/secrets/a/b\"", 7)).unwrap().notes.len(), 1);
        assert!(matches!(of(&finding("", 0)), Err(NamedError::Nameless)));
        assert_eq!(of("").unwrap(), Named::default());
        assert!(matches!(scan(r#"{"schema":"nodeseal.status/1","findings":[]}"#), Err(NamedError::Scan)));
    }
}
