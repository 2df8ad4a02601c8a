//! `nodeseal credentials seal|list|remove`. A credential is sealed here, in the operator's own process, with the device's help; what goes to
//! the running daemon, or to disk, is sealed already.
//!
//! Read from standard input or from an open descriptor, never from the command line or the environment. One line break at the end
//! is left out: `echo` and editors add it.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use serde_json::json;

use super::args::{Common, CredentialsVerb};
use super::failed::Failed;
use super::output::{Done, act_as_owner, control_error, harden, load, once_free, print, print_done, time, unfit};
use super::terminal::Hidden;
use super::{next, schema};
use crate::config::Config;
use crate::control::{self, Answer, Request, say};
use crate::keyring::{Home, KeeperError};
use crate::provider::ProviderError;
use crate::seal::credential::CONTENT_MAX_BYTES;
use crate::seal::credentials::{self, CredentialKey, CredentialStoreError, list};
use crate::seal::root::{NodeRoot, RootError};
use crate::store::{OnlyLook, StateDir};
use crate::types::{Class, CredentialName, Explain, Explained, Secret, clock, hex};

/// What cannot be a login never takes the place of one that works.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error(transparent)]
    Credentials(CredentialStoreError),
    #[error("not sealed: provider {provider} cannot log in with it")]
    Form {
        provider: String,
        #[source]
        source: ProviderError,
    },
    #[error("cannot read the credential")]
    Read(#[source] io::Error),
    #[error("the node root cannot be used")]
    Root(#[source] RootError),
}

impl Explained for SealError {
    fn class(&self) -> Class {
        match self {
            Self::Credentials(error) => error.class(),
            Self::Form { .. } | Self::Read(_) => Class::Misconfigured,
            Self::Root(error) => error.class(),
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Credentials(error) => error.hint(),
            Self::Form { .. } => {
                "docs/providers shows the form that each method of logging in takes; an older credential of this name stays as it was"
            }
            Self::Read(_) => "give it on standard input, or as an open descriptor: --fd 3 3<FILE",
            Self::Root(error) => error.hint(),
        }
    }
}

pub(super) fn run(common: &Common, verb: &CredentialsVerb) -> Done {
    let config = load(common)?;
    act_as_owner(&config)?;
    match verb {
        CredentialsVerb::List => show(common, &config),
        CredentialsVerb::Remove { name } => remove(common, &config, &named(name)?),
        CredentialsVerb::Seal { name, fd } => {
            harden()?;
            seal(common, &config, &named(name)?, *fd)
        }
    }
}

fn named(name: &str) -> Result<CredentialName, Failed> {
    name.parse().map_err(|error| Failed::new(&Explain::new(&error, Class::Misconfigured, "choose another name")))
}

fn remove(common: &Common, config: &Config, name: &CredentialName) -> Done {
    refuse_used(name, &used_by(config, name))?;
    let request = Request::CredentialRemove { name: name.to_string() };
    let removed = once_free(|| match control::ask(&config.control_socket, &request) {
        Ok(Answer::CredentialRemoved {}) => Ok(Ok(())),
        Ok(_) => Ok(Err(unfit())),
        Err(error) if error.is_unreachable() => {
            let home = StateDir::open(&config.state_dir).and_then(Home::find).map_err(KeeperError::Store)?;
            Ok(credentials::remove(&home.root, name).map_err(Failed::from))
        }
        Err(error) => Ok(Err(control_error(&error))),
    });
    removed??;
    print_done(common, schema::CREDENTIALS_REMOVE, &json!({ "name": name.as_str() }), &[], || {
        format!("credential {name} is removed from this node; it is still good at the server until it is revoked there")
    })
}

fn refuse_used(name: &CredentialName, used_by: &[&str]) -> Result<(), Failed> {
    match used_by {
        [] => Ok(()),
        users => {
            let error = CredentialStoreError::Used { name: name.clone(), providers: users.join(", ") };
            Err(Failed::new(&error))
        }
    }
}

fn show(common: &Common, config: &Config) -> Done {
    let labels =
        StateDir::open_on(OnlyLook, &config.state_dir).and_then(Home::find).and_then(|home| list(&home.root))?;
    let rows: Vec<_> = labels
        .iter()
        .map(|label| {
            let used_by = used_by(config, &label.name);
            json!({ "name": label.name.as_str(), "sealed": time(label.sealed), "used_by": used_by })
        })
        .collect();
    print(common, schema::CREDENTIALS_LIST, &json!({ "credentials": rows }), || {
        let mut text = format!("{:<32}  {:<20}  USED BY\n", "CREDENTIAL", "SEALED");
        for label in &labels {
            let used_by = used_by(config, &label.name).join(", ");
            text += &format!("{:<32}  {:<20}  {used_by}\n", label.name.as_str(), time(label.sealed));
        }
        text
    })
}

/// Names of the providers that log in with it, by the configuration.
fn used_by<'a>(config: &'a Config, name: &CredentialName) -> Vec<&'a str> {
    let providers = config.providers.iter().flat_map(|providers| &providers.list);
    providers.filter(|provider| provider.credentials.contains(name)).map(|provider| provider.name.as_str()).collect()
}

fn seal(common: &Common, config: &Config, name: &CredentialName, fd: Option<u32>) -> Done {
    let sealed = read(fd).map_err(SealError::Read).and_then(|content| {
        check_form(config, name, &content)?;
        seal_content(config, name, &content)
    });
    let (key, payload) = sealed?;
    let request = Request::CredentialStore { name: name.to_string(), sealed: hex::encode(&payload) };
    // A nodeseald that starts has the directory before it has its socket: one of both is there in a moment.
    let stored = once_free(|| match control::ask(&config.control_socket, &request) {
        Ok(Answer::CredentialStored {}) => Ok(Ok(true)),
        Ok(_) => Ok(Err(unfit())),
        Err(error) if error.is_unreachable() => {
            let home = StateDir::open(&config.state_dir).and_then(Home::find).map_err(KeeperError::Store)?;
            let stored = key.store(&home.root, &payload, name, &config.cluster);
            Ok(stored.map(|()| false).map_err(Failed::from))
        }
        Err(error) => Ok(Err(control_error(&error))),
    });
    let has_daemon = stored??;
    let next = next::credential(name.as_str(), &used_by(config, name), has_daemon);
    print_done(common, schema::CREDENTIALS_SEAL, &json!({ "name": name.as_str() }), &next, || {
        format!("credential {name} is sealed to this node")
    })
}

/// By each provider of the configuration that logs in with it.
fn check_form(config: &Config, name: &CredentialName, content: &Secret) -> Result<(), SealError> {
    let providers = config.providers.iter().flat_map(|providers| &providers.list);
    for provider in providers.filter(|provider| provider.credentials.contains(name)) {
        let refused = |source| SealError::Form { provider: provider.name.clone(), source };
        provider.check_credential(name, content).map_err(refused)?;
    }
    Ok(())
}

fn seal_content(
    config: &Config,
    name: &CredentialName,
    content: &Secret,
) -> Result<(CredentialKey, Vec<u8>), SealError> {
    let home = StateDir::open_on(OnlyLook, &config.state_dir).and_then(Home::find);
    let home = home.map_err(RootError::Store).map_err(SealError::Root)?;
    let (root, _) = NodeRoot::open(&home.root, &config.sealer()).map_err(SealError::Root)?;
    let key = CredentialKey::of(&root, &config.cluster);
    let payload = key.seal(content, name, &config.cluster, clock::now()).map_err(SealError::Credentials)?;
    Ok((key, payload))
}

/// One buffer that never grows: what it held is wiped with it.
fn read(fd: Option<u32>) -> io::Result<Secret> {
    // One more than the longest with its line end, so that what is too long is seen to be.
    let mut bytes = Vec::with_capacity(CONTENT_MAX_BYTES + 3);
    let limit = CONTENT_MAX_BYTES as u64 + 2;
    match fd {
        // The one way to an open descriptor that takes no unsafe code (proc(5)).
        Some(number) => File::open(format!("/proc/self/fd/{number}"))?.take(limit).read_to_end(&mut bytes)?,
        None => {
            let stdin = io::stdin();
            let _hidden = Hidden::typing();
            if stdin.is_terminal() {
                say::prompt(super::PROGRAM, "type the credential (it is not shown), then Ctrl-D on a line of its own");
            }
            stdin.lock().take(limit).read_to_end(&mut bytes)?
        }
    };
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Secret::new(bytes))
}
