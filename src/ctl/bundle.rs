//! `nodeseal bundle request|make|accept`: the keyring on its way to another control-plane node, through both running daemons.
//!
//! Each file is written once and never over another. Two people, or one with two terminals, compare what is printed: the
//! fingerprints are what tells the right node from a wrong one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::args::{BundleVerb, Common};
use super::keys::render;
use super::output::{ask, fail, load, print, unfit};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::keyring::bundle::fingerprint;
use crate::types::Class;

/// Bytes. A bundle of the largest keyring whose line the control socket takes (`control::LINE_MAX_BYTES`, in hexadecimal).
const FILE_MAX_BYTES: u64 = crate::control::LINE_MAX_BYTES / 2 - 1024;

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is too long for a request or a bundle", path = path.display())]
    TooLong { path: PathBuf },
    #[error("cannot write {path}", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl FileError {
    const HINT: &'static str =
        "name a file that can be read, and for --out one that does not exist in a folder that can be written to";
}

pub(super) fn run(common: &Common, verb: &BundleVerb) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let done = match verb {
        BundleVerb::Request { out } => request(common, &config, out),
        BundleVerb::Make { file, fingerprint, out } => make(common, &config, file, fingerprint, out),
        BundleVerb::Accept { file, fingerprint } => accept(common, &config, file, fingerprint),
    };
    done.unwrap_or_else(|code| code)
}

fn request(common: &Common, config: &Config, out: &Path) -> Result<ExitCode, ExitCode> {
    let node = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let node: String = node.chars().filter(char::is_ascii_graphic).take(255).collect();
    let mark = write_file(out, ask(config, &Request::BundleRequest { node })?)?;
    let path = out.display();
    Ok(print(common, &json!({ "file": out, "fingerprint": mark }), || {
        format!(
            "wrote the request {path}\nfingerprint: {mark}\nnext, on a node that has the keys: nodeseal bundle make REQUEST --fingerprint … --out BUNDLE"
        )
    }))
}

fn make(common: &Common, config: &Config, file: &Path, given: &str, out: &Path) -> Result<ExitCode, ExitCode> {
    let request = hex::encode(read_file(file).map_err(|error| file_error(&error))?);
    let answer = ask(config, &Request::BundleMake { request, fingerprint: given.to_owned() })?;
    let mark = write_file(out, answer)?;
    let path = out.display();
    Ok(print(common, &json!({ "file": out, "fingerprint": mark }), || {
        format!(
            "wrote the bundle {path}: only the TPM of the request opens it\nfingerprint: {mark}\nnext, on the other node: nodeseal bundle accept BUNDLE --fingerprint …"
        )
    }))
}

fn accept(common: &Common, config: &Config, file: &Path, given: &str) -> Result<ExitCode, ExitCode> {
    let bundle = hex::encode(read_file(file).map_err(|error| file_error(&error))?);
    match ask(config, &Request::BundleAccept { bundle, fingerprint: given.to_owned() })? {
        Answer::Keys(table) => Ok(print(common, &table, || render(&table))),
        _ => Err(unfit()),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX_BYTES { Err(FileError::TooLong { path: path.to_owned() }) } else { Ok(bytes) }
}

/// Writes the file of an answer; gives its fingerprint.
fn write_file(path: &Path, answer: Answer) -> Result<String, ExitCode> {
    let Answer::File(hex) = answer else { return Err(unfit()) };
    let bytes = hex::decode(hex).map_err(|_| unfit())?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(|source| file_error(&FileError::Write { path: path.to_owned(), source }))?;
    Ok(fingerprint(&bytes))
}

fn file_error(error: &FileError) -> ExitCode {
    fail(error, Class::Misconfigured, FileError::HINT)
}
