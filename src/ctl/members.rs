//! `nodeseal members identity|add|list|remove`: the other nodes of the cluster, each compared once.

use std::path::Path;

use serde_json::json;

use super::args::{Common, MembersVerb};
use super::exchange::Shown;
use super::failed::Failed;
use super::files::{OutFile, read_kind};
use super::output::{Done, ask, consent, load, print, print_done, unfit};
use super::{next, schema};
use crate::config::Config;
use crate::control::consent::Act;
use crate::control::{Answer, Request};
use crate::keyring::exchanged::FileKind;
use crate::keyring::keeper::MemberRow;
use crate::keyring::member::Identity;
use crate::types::{Class, Explain, MemberName, hex};

pub(super) fn run(common: &Common, verb: &MembersVerb) -> Done {
    let config = load(common)?;
    match verb {
        MembersVerb::Add { file, fingerprint, replace } => add(common, &config, file, fingerprint, *replace),
        MembersVerb::Identity { out, name } => identity(common, &config, out, name.as_deref()),
        MembersVerb::List => {
            let members = members(&config, &Request::MembersList {})?;
            print(common, schema::MEMBERS_LIST, &json!({ "members": members }), || render(&members))
        }
        MembersVerb::Remove { name } => {
            let members = members(&config, &Request::MembersRemove { name: name.clone() })?;
            let next = next::member_removed(name);
            print_done(common, schema::MEMBERS_REMOVE, &json!({ "members": members }), &next, || render(&members))
        }
    }
}

fn identity(common: &Common, config: &Config, out: &Path, name: Option<&str>) -> Done {
    let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = name.map_or_else(|| host().to_ascii_lowercase(), str::to_owned);
    if let Err(error) = name.parse::<MemberName>() {
        return Err(Failed::new(&Explain::new(&error, Class::Misconfigured, "choose another name: --name")));
    }
    let file = OutFile::create(out)?;
    let mark = file.fill(ask(config, &Request::MembersIdentity { name: name.clone() })?)?;
    let value = json!({ "file": out, "name": name, "fingerprint": mark });
    let next = [format!("on each other node: nodeseal members add FILE --fingerprint {mark}")];
    print_done(common, schema::MEMBERS_IDENTITY, &value, &next, || {
        format!("wrote the identity of {name} to {}\nfingerprint: {mark}", out.display())
    })
}

fn add(common: &Common, config: &Config, file: &Path, given: &str, replace: bool) -> Done {
    let bytes = read_kind(file, FileKind::Identity)?;
    // What cannot be read is the daemon's to refuse.
    let name = Identity::decode(&bytes).map_or_else(|_| "the other node".to_owned(), |it| it.name.to_string());
    let identity = hex::encode(bytes);
    let _held = consent(config, Act::Member(given));
    let members = members(config, &Request::MembersAdd { identity, fingerprint: given.to_owned(), replace })?;
    let next = next::member_added(&name);
    print_done(common, schema::MEMBERS_ADD, &json!({ "members": members }), &next, || render(&members))
}

/// The members, in the answer to this request.
pub(super) fn members(config: &Config, request: &Request) -> Result<Vec<MemberRow>, Failed> {
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
pub(super) fn show(common: &Common, identity: &Identity, mark: &str) -> Done {
    let Identity { name, cluster, .. } = identity;
    let shown = Shown { node: Some(name.as_str()), fingerprint: Some(mark), ..Shown::of("identity", cluster.as_str()) };
    print(common, schema::BUNDLE_SHOW, &shown.value(), || {
        format!("the identity of node {name}, cluster {cluster}\nfingerprint: {mark}")
    })
}
