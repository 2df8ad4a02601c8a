//! Answers the operator's questions from keyring, keeper and configuration.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Config};
use crate::control::report::Refusal;
use crate::control::{Answer, Request, Status};
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::ring::RetireTo;
use crate::keyring::{KeeperError, Keyring};
use crate::types::{Class, IdError, KekId};

pub(super) struct Operator {
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,
    pub(super) keeper: KeeperHandle,
    pub(super) started: Instant,
}

impl Operator {
    pub(super) fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status {} => Answer::Status(Box::new(self.status())),
            Request::KeysList {} => self.keeper.list().map_or_else(refused, Answer::Keys),
            Request::KeysRotate {} => self.keeper.rotate().map_or_else(refused, Answer::Key),
            Request::KeysActivate { id } => match id.parse() {
                Ok(id) => self.keeper.activate(id).map_or_else(refused, Answer::Keys),
                Err(error) => bad_id(&error),
            },
            Request::KeysRetire { id, confirm, compromised } => match id.parse::<KekId>() {
                Ok(_) if confirm != id => refused(KeeperError::Confirmation),
                Ok(id) => {
                    let to = if compromised { RetireTo::Compromised } else { RetireTo::Destroyed };
                    self.keeper.retire(id, to).map_or_else(refused, Answer::Keys)
                }
                Err(error) => bad_id(&error),
            },
            Request::Reseal {} => self.reseal(),
        }
    }

    /// Under the policy that the file names now: the operator has just changed it.
    fn reseal(&self) -> Answer {
        match config::load(&self.config.path) {
            Ok(config) => self
                .keeper
                .reseal(config.seal.to())
                .map_or_else(refused, |root| Answer::Resealed { policy: root.policy.to_string() }),
            Err(error) => Answer::Refused(Refusal::new(&error, error.class(), error.hint())),
        }
    }

    fn status(&self) -> Status {
        let key_id = self.keyring.key_id_now();
        let overview = self.keeper.overview().ok();
        Status {
            healthy: key_id.is_some(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            cluster: self.config.cluster.to_string(),
            socket: self.config.listen.socket.display().to_string(),
            key_id_hash: key_id.as_ref().map(|key_id| key_id.metric_hash()),
            key_id: key_id.map(|key_id| key_id.to_string()),
            uses: self.keyring.uses(),
            keys: overview.as_ref().map_or(0, |overview| overview.keks),
            keys_usable: overview.as_ref().map_or(0, |overview| overview.usable),
            seal_policy: overview.map(|overview| overview.policy.to_string()),
            warnings: self.config.warnings.iter().map(ToString::to_string).collect(),
        }
    }
}

fn refused(error: KeeperError) -> Answer {
    Answer::Refused(Refusal::new(&error, error.class(), error.hint()))
}

fn bad_id(error: &IdError) -> Answer {
    Answer::Refused(Refusal::new(error, Class::NotFound, "list the KEKs: `nodeseal keys list`"))
}
