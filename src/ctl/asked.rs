//! Where nodeseald is asked by verbs that only look. One that runs goes on with the configuration that it has read, and what it says can be
//! had while somebody has broken the file.

use std::path::PathBuf;

use super::PROGRAM;
use super::common::Common;
use super::failed::Failed;
use crate::config::{self, Config};
use crate::control::metrics::Family;
use crate::control::{self, Answer, ControlError, Request, Status, say};

/// See the module.
pub(super) struct Asked {
    control: PathBuf,
    status: PathBuf,
    /// Or why there is none.
    pub(super) config: Result<Config, Failed>,
}

impl Asked {
    /// A file that is not there, or that others can change, names no sockets.
    pub(super) fn load(common: &Common) -> Result<Self, Failed> {
        let error = match config::load(&common.config) {
            Ok(config) => {
                let (control, status) = (config.control_socket.clone(), config.status_socket.clone());
                return Ok(Self { control, status, config: Ok(config) });
            }
            Err(error) => error,
        };
        let failed = Failed::config(&error);
        match config::sockets_despite(&common.config, &error) {
            Some((control, status)) => Ok(Self { control, status, config: Err(failed) }),
            None => Err(failed),
        }
    }

    /// The status, by whichever socket may be opened.
    pub(super) fn status(&self) -> Result<Box<Status>, Unanswered> {
        match self.look(&Request::Status {})? {
            Answer::Status(status) => Ok(status),
            _ => Err(Unanswered::Other(ControlError::Protocol)),
        }
    }

    /// The status and what was counted, which a daemon of an older release does not tell.
    pub(super) fn metrics(&self) -> Result<(Box<Status>, Vec<Family>), Unanswered> {
        match self.look(&Request::Metrics {}) {
            Ok(Answer::Metrics { status, measured }) => Ok((status, measured)),
            Ok(_) => Err(Unanswered::Other(ControlError::Protocol)),
            Err(Unanswered::Other(ControlError::Refused(_))) => Ok((self.status()?, Vec::new())),
            Err(why) => Err(why),
        }
    }

    fn look(&self, request: &Request) -> Result<Answer, Unanswered> {
        match control::ask_either(&self.control, &self.status, request) {
            Ok(answer) => {
                self.warn();
                Ok(answer)
            }
            Err(error) if self.config.is_err() && error.is_away() => Err(Unanswered::Config),
            Err(error) => Err(Unanswered::Other(error)),
        }
    }

    /// The status once more, of one that has told it.
    pub(super) fn status_after(&self) -> Result<Box<Status>, Failed> {
        match self.ask_too(&Request::Status {})? {
            Answer::Status(status) => Ok(status),
            _ => Err(super::output::unfit()),
        }
    }

    /// Another answer of one that has told its status.
    pub(super) fn ask_too(&self, request: &Request) -> Result<Answer, Failed> {
        control::ask(&self.control, request).map_err(|error| Failed::control(&error))
    }

    /// Any other answer.
    pub(super) fn ask(self, request: &Request) -> Result<Answer, Failed> {
        match control::ask(&self.control, request) {
            Ok(answer) => {
                self.warn();
                Ok(answer)
            }
            Err(error) if error.is_away() => Err(self.config.err().unwrap_or_else(|| Failed::control(&error))),
            Err(error) => {
                self.warn();
                Err(Failed::control(&error))
            }
        }
    }

    fn warn(&self) {
        if let Err(failed) = &self.config {
            let text = "nodeseald keeps the configuration that it has read, but would not start with the present one";
            say::warning(PROGRAM, &format!("{text}: {}", failed.text()));
        }
    }
}

/// Why there is no status.
pub(super) enum Unanswered {
    /// The daemon was looked for by what could be read of a configuration with mistakes.
    Config,
    Other(ControlError),
}

impl Unanswered {
    pub(super) fn failed(self, asked: Asked) -> Failed {
        match self {
            Self::Other(error) => Failed::control(&error),
            Self::Config => asked.config.err().unwrap_or_else(super::output::unfit),
        }
    }
}
