//! Answers the operator's questions from keyring, keeper and configuration.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::reload::Reloader;
use crate::config::{self, OrderError};
use crate::control::report::{ProviderRow, Refusal};
use crate::control::{Answer, Request, Status};
use crate::keyring::keeper::{KeeperHandle, RootsReport};
use crate::keyring::ring::RetireTo;
use crate::keyring::rooted::Rooted;
use crate::keyring::{KeeperError, Keyring};
use crate::provider::set::{Member, Role};
use crate::seal::root::SealedRoot;
use crate::types::{Class, IdError, KekId};

pub(super) struct Operator {
    pub(super) reloader: Arc<Reloader>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) keeper: KeeperHandle,
    pub(super) started: Instant,
}

impl Operator {
    pub(super) fn answer(&self, request: Request) -> Answer {
        match request {
            Request::BundleAccept { bundle, fingerprint } => match hex::decode(bundle) {
                Ok(bundle) => self.keeper.bundle_accept(bundle, fingerprint).map_or_else(refused, Answer::Keys),
                Err(error) => not_hex(&error),
            },
            Request::BundleMake { request, fingerprint } => match hex::decode(request) {
                Ok(request) => {
                    self.keeper.bundle_make(request, fingerprint).map_or_else(refused, |file| as_file(&file))
                }
                Err(error) => not_hex(&error),
            },
            Request::BundleRequest { node } => {
                self.keeper.bundle_request(node).map_or_else(refused, |file| as_file(&file))
            }
            Request::CredentialStore { name, sealed } => self.store_credential(&name, &sealed),
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
            Request::Reload { abandon } => match self.reloader.reload(&HashSet::new(), abandon, "nodeseal reload") {
                Ok(()) => Answer::Reloaded {},
                Err(error) => Answer::Refused(Refusal::new(&error, error.class(), error.hint())),
            },
            Request::Reseal { to, recipients } => self.reseal(to.as_deref(), recipients),
        }
    }

    fn store_credential(&self, name: &str, sealed: &str) -> Answer {
        match (name.parse(), hex::decode(sealed)) {
            (Ok(name), Ok(sealed)) => {
                self.keeper.store_credential(name, sealed).map_or_else(refused, |()| Answer::CredentialStored {})
            }
            (Err(error), _) => Answer::Refused(Refusal::new(&error, Class::Misconfigured, "choose another name")),
            (_, Err(error)) => not_hex(&error),
        }
    }

    /// Under the policy that the file names now: the operator has just changed it.
    fn reseal(&self, to: Option<&str>, recipients: Option<Vec<String>>) -> Answer {
        let config = match config::load(&self.reloader.config().path) {
            Ok(config) => config,
            Err(error) => return Answer::Refused(Refusal::new(&error, error.class(), error.hint())),
        };
        match config.seal.order(to, recipients) {
            Ok(order) => self.keeper.reseal(order).map_or_else(refused, |root| resealed(&root)),
            Err(problem) => Answer::Refused(Refusal::new(&problem, Class::Misconfigured, OrderError::HINT)),
        }
    }

    fn status(&self) -> Status {
        let config = self.reloader.config();
        let overview = self.keeper.overview().ok();
        // After the keeper's answer: what it calls done is what is reported.
        let key_id = self.keyring.key_id_now();
        let rooted = self.keyring.rooted();
        let roots = overview.as_ref().map(|overview| overview.roots.clone()).unwrap_or_default();
        let stops_writes = self.keyring.stops_writes();
        Status {
            healthy: key_id.is_some() && !stops_writes,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            cluster: config.cluster.to_string(),
            socket: config.listen.socket.display().to_string(),
            key_id_hash: key_id.as_ref().map(|key_id| key_id.metric_hash()),
            key_id: key_id.map(|key_id| key_id.to_string()),
            uses: self.keyring.uses(),
            keys: overview.as_ref().map_or(0, |overview| overview.keks),
            keys_usable: overview.as_ref().map_or(0, |overview| overview.usable),
            seal_backend: overview.as_ref().and_then(|overview| overview.backend).map(|backend| backend.to_string()),
            seal_policy: overview.as_ref().map(|overview| overview.policy.to_string()),
            guarded: overview.as_ref().is_some_and(|overview| overview.guarded),
            recovery_recipients: overview.map_or_else(Vec::new, |overview| overview.recipients),
            mode: mode(rooted.as_deref()).to_owned(),
            providers: rooted.iter().flat_map(|rooted| rows(rooted, &roots)).collect(),
            wraps_owed: roots.owed,
            texts_short_of_wraps: roots.short_texts,
            waits: roots.waits,
            outage_seconds: rooted.map_or(0, |rooted| rooted.outage().as_secs()),
            stops_writes,
            sandbox: Some(self.reloader.confined().enforced_now()),
            warnings: config.warnings.iter().map(ToString::to_string).collect(),
        }
    }
}

const fn mode(rooted: Option<&Rooted>) -> &'static str {
    match rooted {
        None => "hardware only",
        Some(rooted) if rooted.rules.local_kek => "rooted",
        Some(_) => "direct",
    }
}

fn rows(rooted: &Rooted, roots: &RootsReport) -> Vec<ProviderRow> {
    let row = |member: &Member| {
        let record = roots.records.iter().find(|record| record.name == member.name() && record.kind == member.kind());
        let current = record.map(|record| record.observed.current());
        let health = member.health();
        ProviderRow {
            name: member.name().to_owned(),
            kind: member.kind().label().to_owned(),
            role: match member.role() {
                Role::Required => "required",
                Role::Optional => "optional",
                Role::DecryptOnly => "decrypt-only",
            }
            .to_owned(),
            key: current.map(|key| key.identity.to_string()),
            version: current.map(|key| key.version.to_string()),
            answered_seconds_ago: health.answered.map(|ago| ago.as_secs()),
            class: health.failure.as_ref().map(|(class, _)| class.label().to_owned()),
            error: health.failure.map(|(_, error)| error),
            held_back: health.is_open,
        }
    };
    rooted.providers.members().iter().map(row).collect()
}

fn refused(error: KeeperError) -> Answer {
    Answer::Refused(Refusal::new(&error, error.class(), error.hint()))
}

fn resealed(root: &SealedRoot) -> Answer {
    let backend = root.backend().map_or_else(String::new, |backend| backend.to_string());
    Answer::Resealed { backend, policy: root.policy.to_string() }
}

fn as_file(bytes: &[u8]) -> Answer {
    Answer::File(hex::encode(bytes))
}

fn not_hex(error: &hex::FromHexError) -> Answer {
    Answer::Refused(Refusal::new(error, Class::Misconfigured, "use `nodeseal` of this release"))
}

fn bad_id(error: &IdError) -> Answer {
    Answer::Refused(Refusal::new(error, Class::NotFound, "list the KEKs: `nodeseal keys list`"))
}
