//! `nodeseal recover`: rebuilds this node's keyring from a recovery file, on a new TPM or token; or with `--verify` only proves that
//! the file would do.
//!
//! Offline. The identity comes from a file or from standard input, never from the command line. What is in the state directory is
//! moved into a folder of it and never overwritten.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, RecoverArgs};
use super::output::{become_owner, fail, harden, load, print, time};
use super::recipients::code_text;
use crate::config::{Config, OrderError};
use crate::control::{self, Answer, Request, say};
use crate::keyring::export::Export;
use crate::keyring::recovery::{self, FILE_MAX_BYTES, Identity, IdentityError, RecoveryError};
use crate::keyring::{self, Founding, KeeperError, Recovered, Resume};
use crate::store::StateDir;
use crate::types::{Class, KeyId, Secret, clock};

#[derive(Debug, thiserror::Error)]
enum RecoverError {
    #[error("the identity cannot be used")]
    Identity(#[source] IdentityError),
    #[error(transparent)]
    Keeper(KeeperError),
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the recovery file cannot be used")]
    Recovery(#[source] RecoveryError),
}

impl RecoverError {
    fn class(&self) -> Class {
        match self {
            Self::Identity(_) => Class::Denied,
            Self::Keeper(error) => error.class(),
            Self::Read { .. } => Class::NotFound,
            Self::Recovery(error) => error.class(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Identity(_) => {
                "give the printed recovery code, or the key file of age, on standard input or with --identity FILE"
            }
            Self::Keeper(error) => error.hint(),
            Self::Read { .. } => "name files that can be read: --file for recovery.age, --identity for the key",
            Self::Recovery(error) => error.hint(),
        }
    }
}

pub(super) fn run(common: &Common, args: &RecoverArgs) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(code) = harden() {
        return code;
    }
    let recovered = open(&config, args);
    let (identity, export) = match recovered {
        Ok(opened) => opened,
        Err(error) => return fail(&error, error.class(), error.hint()),
    };
    if args.verify {
        return verify(common, &config, &export);
    }
    let said = match args.recovery.read() {
        Ok(said) => said,
        Err(error) => return fail(&error, Class::Misconfigured, OrderError::HINT),
    };
    let is_said = said.is_some();
    let (recipients, code) = match said {
        Some(said) => (said.recipients, said.code),
        // The key that has just proved itself goes on opening the file.
        None => (vec![identity.recipient()], None),
    };
    // What was read until here may be root's own.
    if let Err(code) = become_owner(&config) {
        return code;
    }
    let resume = if args.keep_active { Resume::ActiveKek } else { Resume::NewKek };
    let sealer = config.sealer();
    let founding = Founding {
        cluster: &config.cluster,
        sealer: &sealer,
        to: config.seal.to(),
        guard: config.seal.guard,
        recipients: &recipients,
    };
    let dir = StateDir::create(&config.state_dir).map_err(KeeperError::Store);
    match dir.and_then(|dir| keyring::recover(&dir, &founding, export, resume, clock::now())) {
        Ok(recovered) => report(common, &config, &recovered, is_said, code.as_ref()),
        Err(error) => fail(&error, error.class(), error.hint()),
    }
}

fn open(config: &Config, args: &RecoverArgs) -> Result<(Identity, Export), RecoverError> {
    let path = args.file.clone().unwrap_or_else(|| config.state_dir.join(recovery::FILE));
    let file = read(&path)?;
    let identity = read_identity(args.identity.as_deref())?;
    let export = recovery::decrypt(&identity, file.expose()).or_else(|error| {
        // The state directory keeps a spare copy of it.
        let spare = args.file.is_none().then(|| read(&path.with_extension("age.prev")).ok()).flatten();
        spare.and_then(|file| recovery::decrypt(&identity, file.expose()).ok()).ok_or(error)
    });
    let export = export.map_err(RecoverError::Recovery)?;
    if export.cluster != config.cluster {
        return Err(RecoverError::Keeper(KeeperError::OtherCluster(export.cluster.to_string())));
    }
    Ok((identity, export))
}

fn read_identity(path: Option<&Path>) -> Result<Identity, RecoverError> {
    let text = match path {
        Some(path) => read(path)?,
        None => {
            let mut stdin = io::stdin();
            if stdin.is_terminal() {
                say::prompt(super::PROGRAM, "type the recovery code, then Ctrl-D on a line of its own");
            }
            read_from(&mut stdin).map_err(|source| RecoverError::Read { path: "standard input".into(), source })?
        }
    };
    Identity::parse(&text).map_err(RecoverError::Identity)
}

fn read(path: &Path) -> Result<Secret, RecoverError> {
    let fail = |source| RecoverError::Read { path: path.to_owned(), source };
    read_from(&mut File::open(path).map_err(fail)?).map_err(fail)
}

/// One buffer that never grows: what it held is wiped with it.
fn read_from(source: &mut impl Read) -> io::Result<Secret> {
    let limit = FILE_MAX_BYTES + 1024;
    let mut bytes = Vec::with_capacity(limit + 1);
    source.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(Secret::new(bytes))
}

/// Compares with the running daemon, where one runs.
fn verify(common: &Common, config: &Config, export: &Export) -> ExitCode {
    let running = match control::ask(&config.control_socket, &Request::KeysList {}) {
        Ok(Answer::Keys(table)) => Some(table),
        Ok(_) | Err(_) => None,
    };
    let keys: Vec<String> = export.keys.iter().map(|(id, _)| id.to_string()).collect();
    let lacking: Vec<String> = export.lacking().iter().map(ToString::to_string).collect();
    let usable = running.iter().flat_map(|table| &table.keys).filter(|row| row.state != "destroyed");
    let missing: Vec<String> = usable.map(|row| row.id.clone()).filter(|id| !keys.contains(id)).collect();
    let value = json!({
        "cluster": export.cluster.as_str(),
        "written": export.written,
        "keys": keys,
        "without_key": lacking,
        "compared_with_running_node": running.is_some(),
        "missing": missing,
    });
    let code = print(common, &value, || {
        let compared = match (running.is_some(), missing.len()) {
            (false, _) => "nodeseald does not run here: not compared with this node's keys".to_owned(),
            (true, 0) => "it has every KEK that this node has".to_owned(),
            (true, count) => format!("it lacks {count} KEKs that this node has: {}", missing.join(" ")),
        };
        let lacking = match lacking.is_empty() {
            true => String::new(),
            false => format!("\nlisted without a key: {}", lacking.join(" ")),
        };
        format!(
            "the recovery file opens: cluster {}, written {}, {} KEKs{lacking}\n{compared}\nnothing was written",
            export.cluster,
            time(export.written),
            keys.len(),
        )
    });
    if missing.is_empty() {
        return code;
    }
    say::warning(
        super::PROGRAM,
        "this copy of the recovery file is too old: copy recovery.age of the state directory again",
    );
    ExitCode::from(Class::NotFound.exit_code())
}

fn report(common: &Common, config: &Config, recovered: &Recovered, said: bool, code: Option<&Secret>) -> ExitCode {
    let key_id = KeyId::of_local_kek(&config.cluster, &recovered.kek);
    let value = json!({
        "kek": recovered.kek.to_string(),
        "key_id": key_id.as_str(),
        "keys": recovered.keks,
        "without_key": recovered.lacking.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "kept_in": recovered.kept_in,
        "recovery_code": code.and_then(|code| std::str::from_utf8(code.expose()).ok()),
    });
    print(common, &value, || {
        let kept = recovered.kept_in.as_ref().map_or_else(String::new, |folder| {
            format!("\nwhat was here before is kept in {}/{folder}", config.state_dir.display())
        });
        let recipients = match said {
            true => "",
            false => {
                "\nrecovery.age is for this one identity now; for others too: nodeseal reseal --recovery-recipient"
            }
        };
        format!(
            "{} KEKs are back, sealed by this node's {}; local KEK {} encrypts, key_id {key_id}{kept}{recipients}{}",
            recovered.keks,
            config.seal.backend,
            recovered.kek,
            code_text(code),
        )
    })
}
