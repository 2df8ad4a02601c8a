//! `nodeseal bundle request|make|accept|show`: the keyring on its way to another control-plane node, through both running daemons.
//!
//! A file is made before the daemon is asked. Each file is written once and never over another. Two people, or one with two terminals, compare what is printed: the
//! fingerprints are what tells the right node from a wrong one.

use std::path::Path;

use serde_json::json;

use super::args::{BundleVerb, Common};
use super::exchange::{Shown, warn_of_providers};
use super::failed::Failed;
use super::files::{OutFile, WrongKind, read_file, read_kind};
use super::keys::render;
use super::output::{Done, ask, consent, has_recovery_file, load, print, print_done, time, unfit};
use super::rows::Keks;
use super::{next, schema};
use crate::config::Config;
use crate::control::consent::Act;
use crate::control::{Answer, Request, say};
use crate::keyring::bundle::{Bundle, BundleRequest, fingerprint};
use crate::keyring::exchanged::FileKind;
use crate::keyring::keeper::{KekRow, KeyTable};
use crate::keyring::member::{Identity, Standing};
use crate::keyring::ring::KekState;
use crate::types::{Class, Explain, hex};

pub(super) fn run(common: &Common, verb: &BundleVerb) -> Done {
    let config = load(common)?;
    match verb {
        BundleVerb::Request { out } => request(common, &config, out),
        BundleVerb::Make { member: Some(name), out, .. } => make_for(common, &config, name, out),
        BundleVerb::Make { file, fingerprint, out, member: None } => match (file, fingerprint) {
            (Some(file), Some(fingerprint)) => make(common, &config, file, fingerprint, out),
            // The command line asks for both.
            _ => Err(unfit()),
        },
        BundleVerb::Accept { file, fingerprint, receipt } => {
            accept(common, &config, file, fingerprint.as_deref(), *receipt)
        }
        BundleVerb::Show { file } => show(common, file),
    }
}

fn request(common: &Common, config: &Config, out: &Path) -> Done {
    let node = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let node: String = node.chars().filter(char::is_ascii_graphic).take(255).collect();
    // The file first: a request that cannot be kept must not take the place of the one before.
    let file = OutFile::create(out)?;
    let mark = file.fill(ask(config, &Request::BundleRequest { node })?)?;
    let next = [format!("on a node that has the keys: nodeseal bundle make REQUEST --fingerprint {mark} --out BUNDLE")];
    print_done(common, schema::BUNDLE_REQUEST, &json!({ "file": out, "fingerprint": mark }), &next, || {
        format!("wrote the request {}\nfingerprint: {mark}", out.display())
    })
}

fn make(common: &Common, config: &Config, file: &Path, given: &str, out: &Path) -> Done {
    let request = hex::encode(read_kind(file, FileKind::Request)?);
    let to_fill = OutFile::create(out)?;
    let _held = consent(config, Act::Bundle(given));
    let mark = to_fill.fill(ask(config, &Request::BundleMake { request, fingerprint: given.to_owned() })?)?;
    warn_of_providers(config);
    let value = json!({ "file": out, "fingerprint": mark, "member": null });
    let next = [format!("on the other node: nodeseal bundle accept BUNDLE --fingerprint {mark}")];
    print_done(common, schema::BUNDLE_MAKE, &value, &next, || {
        format!("wrote the bundle {}: only the TPM of the request opens it\nfingerprint: {mark}", out.display())
    })
}

fn make_for(common: &Common, config: &Config, name: &str, out: &Path) -> Done {
    let to_fill = OutFile::create(out)?;
    to_fill.fill(ask(config, &Request::BundleFor { name: name.to_owned() })?)?;
    warn_of_providers(config);
    let value = json!({ "file": out, "fingerprint": null, "member": name });
    let next = [format!("on {name}: nodeseal bundle accept BUNDLE")];
    print_done(common, schema::BUNDLE_MAKE, &value, &next, || {
        format!("wrote the bundle {}: only {name} opens it", out.display())
    })
}

fn accept(common: &Common, config: &Config, file: &Path, given: Option<&str>, receipt: bool) -> Done {
    let bundle = hex::encode(read_kind(file, FileKind::Bundle)?);
    let _held = given.map(|given| consent(config, Act::Accept(given)));
    let Answer::Keys(before) = ask(config, &Request::KeysList {})? else { return Err(unfit()) };
    let table = match ask(config, &Request::BundleAccept { bundle, fingerprint: given.map(str::to_owned) })? {
        Answer::Keys(table) => table,
        _ => return Err(unfit()),
    };
    for kek in left_alone(&before, &table) {
        say::warning(
            super::PROGRAM,
            &format!(
                "local KEK {kek} has encrypted and is only on this node: no other node can read that data. Give the others a bundle of this node, or migrate the storage here"
            ),
        );
    }
    if !receipt {
        let next = next::accepted(&before, &table, has_recovery_file(config));
        return print_done(common, schema::BUNDLE_ACCEPT, &Keks::new(&table), &next, || render(&table));
    }
    match ask(config, &Request::Receipt {})? {
        Answer::File(receipt) => print(common, schema::RECEIPT, &json!({ "receipt": receipt }), || receipt.clone()),
        _ => Err(unfit()),
    }
}

/// KEKs that encrypted until now, and that the other nodes lack.
fn left_alone<'a>(before: &KeyTable, after: &'a KeyTable) -> impl Iterator<Item = &'a str> {
    let is = |row: &KekRow, state: KekState| row.state == state.label();
    let was: Vec<String> = before
        .keys
        .iter()
        .filter(|row| is(row, KekState::Active) && !row.shared && row.uses > 0)
        .map(|row| row.id.clone())
        .collect();
    let stays = move |row: &&KekRow| was.contains(&row.id) && !is(row, KekState::Active) && !row.shared;
    after.keys.iter().filter(stays).map(|row| row.id.as_str())
}

/// What both operators compare, from the file itself.
fn show(common: &Common, path: &Path) -> Done {
    let bytes = read_file(path)?;
    let mark = fingerprint(&bytes);
    if let Ok(identity) = Identity::decode(&bytes) {
        return super::members::show(common, &identity, &mark);
    }
    if let Ok(Standing { cluster, from, expires, .. }) = Standing::decode(&bytes) {
        let from = from.fingerprint();
        let shown = Shown { from: Some(&from), expires: Some(expires), ..Shown::of("member-bundle", cluster.as_str()) };
        return print(common, schema::BUNDLE_SHOW, &shown.value(), || {
            format!("a bundle for a member, cluster {cluster}, good until {}\nsigned by: {from}", time(expires))
        });
    }
    let (kind, cluster, node, expires) = match (BundleRequest::decode(&bytes), Bundle::decode(&bytes)) {
        (Ok(BundleRequest { cluster, node, expires, .. }), _) => ("request", cluster, Some(node), expires),
        (_, Ok(Bundle { cluster, expires, .. })) => ("bundle", cluster, None, expires),
        (Err(error), Err(_)) => match FileKind::of(&bytes) {
            Some(found @ (FileKind::Receipt | FileKind::Recovery)) => {
                let error = WrongKind { found, wanted: FileKind::Bundle };
                return Err(Failed::new(&Explain::new(
                    &error,
                    Class::Corrupt,
                    "name a request, a bundle or the identity of a node",
                )));
            }
            Some(_) | None => return Err(error.into()),
        },
    };
    let shown = Shown {
        node: node.as_deref(),
        expires: Some(expires),
        fingerprint: Some(&mark),
        ..Shown::of(kind, cluster.as_str())
    };
    print(common, schema::BUNDLE_SHOW, &shown.value(), || {
        let whose = node.as_ref().map_or_else(String::new, |node| format!(" of node {node}"));
        format!("a {kind}{whose}, cluster {cluster}, good until {}\nfingerprint: {mark}", time(expires))
    })
}
