//! `nodeseal members identity|add|list|remove`: the other nodes of the cluster, each compared once.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, MembersVerb};
use super::files::{OutFile, read_kind};
use super::output::{ask, consent, fail, load, print, unfit};
use crate::config::Config;
use crate::control::consent::Act;
use crate::control::{Answer, Request};
use crate::keyring::exchanged::FileKind;
use crate::keyring::keeper::MemberRow;
use crate::keyring::member::Identity;
use crate::types::{Class, MemberName};

pub(super) fn run(common: &Common, verb: &MembersVerb) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let done = match verb {
        MembersVerb::Add { file, fingerprint, replace } => add(common, &config, file, fingerprint, *replace),
        MembersVerb::Identity { out, name } => identity(common, &config, out, name.as_deref()),
        MembersVerb::List => table(common, &config, &Request::MembersList {}),
        MembersVerb::Remove { name } => table(common, &config, &Request::MembersRemove { name: name.clone() }),
    };
    done.unwrap_or_else(|code| code)
}

fn identity(common: &Common, config: &Config, out: &Path, name: Option<&str>) -> Result<ExitCode, ExitCode> {
    let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = name.map_or_else(|| host().to_ascii_lowercase(), str::to_owned);
    if let Err(error) = name.parse::<MemberName>() {
        return Err(fail(&error, Class::Misconfigured, "choose another name: --name"));
    }
    let file = OutFile::create(out)?;
    let mark = file.fill(ask(config, &Request::MembersIdentity { name: name.clone() })?)?;
    let path = out.display();
    Ok(print(common, &json!({ "file": out, "name": name, "fingerprint": mark }), || {
        format!(
            "wrote the identity of {name} to {path}\nfingerprint: {mark}\nnext, on each other node: nodeseal members add FILE --fingerprint …"
        )
    }))
}

fn add(common: &Common, config: &Config, file: &Path, given: &str, replace: bool) -> Result<ExitCode, ExitCode> {
    let identity = hex::encode(read_kind(file, FileKind::Identity)?);
    let _held = consent(config, Act::Member(given));
    table(common, config, &Request::MembersAdd { identity, fingerprint: given.to_owned(), replace })
}

fn table(common: &Common, config: &Config, request: &Request) -> Result<ExitCode, ExitCode> {
    let members = members(config, request)?;
    Ok(print(common, &json!({ "members": members }), || render(&members)))
}

/// The members, in the answer to this request.
pub(super) fn members(config: &Config, request: &Request) -> Result<Vec<MemberRow>, ExitCode> {
    match ask(config, request)? {
        Answer::Members(members) => Ok(members),
        _ => Err(unfit()),
    }
}

fn render(members: &[MemberRow]) -> String {
    if members.is_empty() {
        return "this node knows no members".to_owned();
    }
    let line = |row: &MemberRow| {
        let owes = if row.owes_receipt { "  (has not shown yet that it has the KEK in pre-activation)" } else { "" };
        format!("{:<24}  {}{owes}", row.name, row.fingerprint)
    };
    let lines: Vec<String> = members.iter().map(line).collect();
    format!("{:<24}  FINGERPRINT\n{}", "MEMBER", lines.join("\n"))
}

/// What an identity says of itself.
pub(super) fn show(common: &Common, identity: &Identity, mark: &str) -> ExitCode {
    let Identity { name, cluster, .. } = identity;
    let value = json!({ "kind": "identity", "cluster": cluster.as_str(), "node": name.as_str(), "fingerprint": mark });
    print(common, &value, || format!("the identity of node {name}, cluster {cluster}\nfingerprint: {mark}"))
}
