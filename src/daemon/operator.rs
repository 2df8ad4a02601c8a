//! Answers the operator's questions from keyring, keeper and configuration.

use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "etcd")]
use super::opener::Opener;
use super::reload::Reloader;
use crate::audit::{debug, log};
use crate::config;
use crate::control::consent::{Act, NoConsent};
use crate::control::metrics;
use crate::control::report::{DebugReport, HARDWARE_ONLY, ProviderRow, Refusal, WithoutKek};
use crate::control::{Answer, Answering, Request, Status};
#[cfg(feature = "etcd")]
use crate::etcd::question::{Question, Verdict};
use crate::keyring::evidence::{Evidence, Scan};
use crate::keyring::keeper::{Activation, KeeperHandle, Proof, ProvidersReport, ResealOrder, Seen};
use crate::keyring::ring::RetireTo;
use crate::keyring::rooted::Rooted;
use crate::keyring::{KeeperError, Keyring, Unknown};
use crate::provider::set::{Member, Role};
use crate::seal::credentials::CredentialStoreError;
use crate::seal::root::{Parent, SealedRoot};
use crate::types::{Class, CredentialName, Explain, Explained, IdError, KekId, MemberName, hex};

pub(super) struct Operator {
    #[cfg(feature = "etcd")]
    pub(super) opener: Opener,
    pub(super) reloader: Arc<Reloader>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) keeper: KeeperHandle,
    pub(super) started: Instant,
}

/// A build that knows nothing of etcd.
#[cfg(not(feature = "etcd"))]
#[derive(Debug, thiserror::Error)]
#[error("this nodeseald was compiled without the feature etcd")]
struct NoEtcd;

#[cfg(not(feature = "etcd"))]
impl Explained for NoEtcd {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        "use a release with it, or count without asking: `nodeseal etcd scan --open none`"
    }
}

impl Answering for Operator {
    #[cfg(feature = "etcd")]
    fn opened(&self, question: &Question<'_>) -> Verdict {
        self.opener.opened(question)
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            // Of a member it is known whose it is.
            Request::BundleAccept { fingerprint: Some(mark), .. } if !self.is_consented(Act::Accept(&mark)) => {
                self.no_consent()
            }
            Request::BundleAccept { bundle, fingerprint } => match hex::decode(bundle) {
                Ok(bundle) => self.keeper.bundle_accept(bundle, fingerprint).map_or_else(refused, Answer::Keys),
                Err(error) => not_hex(&error),
            },
            Request::BundleMake { fingerprint, .. } if !self.is_consented(Act::Bundle(&fingerprint)) => {
                self.no_consent()
            }
            Request::BundleMake { request, fingerprint } => match hex::decode(request) {
                Ok(request) => {
                    self.keeper.bundle_make(request, fingerprint).map_or_else(refused, |file| as_file(&file))
                }
                Err(error) => not_hex(&error),
            },
            Request::BundleFor { name } => self
                .with_member(&name, |keeper, name| keeper.bundle_for(name).map_or_else(refused, |file| as_file(&file))),
            Request::MembersAdd { fingerprint, .. } if !self.is_consented(Act::Member(&fingerprint)) => {
                self.no_consent()
            }
            Request::MembersAdd { identity, fingerprint, replace } => match hex::decode(identity) {
                Ok(file) if replace => {
                    self.keeper.replace_member(file, fingerprint).map_or_else(refused, Answer::Members)
                }
                Ok(file) => self.keeper.add_member(file, fingerprint).map_or_else(refused, Answer::Members),
                Err(error) => not_hex(&error),
            },
            Request::MembersIdentity { name } => self
                .with_member(&name, |keeper, name| keeper.identity(name).map_or_else(refused, |file| as_file(&file))),
            Request::MembersList {} => self.keeper.members().map_or_else(refused, Answer::Members),
            Request::MembersRemove { name } => self.keeper.remove_member(name).map_or_else(refused, Answer::Members),
            Request::Receipt {} => self.keeper.receipt().map_or_else(refused, |file| as_file(&file)),
            Request::BundleRequest { node } => {
                self.keeper.bundle_request(node).map_or_else(refused, |file| as_file(&file))
            }
            Request::CredentialRemove { name } => self.remove_credential(&name),
            Request::CredentialStore { name, sealed } => self.store_credential(&name, &sealed),
            Request::DebugOn { minutes, incident } => debug_on(minutes, &incident),
            Request::DebugOff {} => {
                debug::off();
                debug_report(debug::running())
            }
            Request::DebugStatus {} => debug_report(debug::running()),
            Request::RotateRoot { dry_run, without_recovery_file } => self.rotate_root(dry_run, without_recovery_file),
            #[cfg(feature = "etcd")]
            Request::EtcdOpen {} if self.keyring.key_id_now().is_none() => refused(KeeperError::Locked),
            #[cfg(feature = "etcd")]
            Request::EtcdOpen {} => Answer::EtcdOpening {},
            #[cfg(not(feature = "etcd"))]
            Request::EtcdOpen {} => Answer::Refused(Refusal::new(&NoEtcd)),
            Request::StatusDeep {} => self.keeper.check().map_or_else(refused, Answer::Checked),
            Request::Metrics {} => Answer::Metrics { status: Box::new(self.status()), measured: metrics::measured() },
            Request::Status {} => Answer::Status(Box::new(self.status())),
            Request::KeysList {} => self.keeper.list().map_or_else(refused, Answer::Keys),
            Request::KeysRotate {} => self.keeper.rotate().map_or_else(refused, Answer::Key),
            Request::KeysActivate { id, not_shared, receipts, when_all_have } => {
                self.activate(id, not_shared, &receipts, when_all_have)
            }
            Request::KeysRetire { id, confirm, compromised, give_up, not_shared, without_scan, backups_before } => {
                match id.parse::<KekId>() {
                    Ok(_) if confirm != id => refused(KeeperError::Confirmation),
                    Ok(id) => {
                        let to = RetireTo::said(compromised, give_up, not_shared);
                        self.keeper
                            .retire(id, to, Proof::said(without_scan, backups_before))
                            .map_or_else(refused, Answer::Keys)
                    }
                    Err(error) => bad_id(&error),
                }
            }
            Request::Evidence {} => self.keeper.evidence().map_or_else(refused, evidence),
            Request::Rehearsed {} => self.keeper.rehearsed().map_or_else(refused, evidence),
            Request::EtcdScanned { scan } => match hex::decode(scan).ok().and_then(|scan| Scan::decode(&scan).ok()) {
                Some(scan) => self.keeper.scanned(scan).map_or_else(refused, evidence),
                None => refused(KeeperError::UnfitScan),
            },
            Request::Reload { abandon, without_scan, backups_before } => {
                let proof = abandon.then(|| Proof::said(without_scan, backups_before));
                match self.reloader.reload(proof, "nodeseal reload") {
                    Ok(()) => Answer::Reloaded { pending: self.reloader.pending(self.keeper.overview().ok().as_ref()) },
                    Err(error) => Answer::Refused(Refusal::new(&error)),
                }
            }
            Request::Reseal { recipients: Some(whom), .. } if !self.is_consented(Act::Recovery(&whom)) => {
                self.no_consent()
            }
            Request::Reseal { to, recipients, new_parent } => {
                let parent = if new_parent { Parent::New } else { Parent::Same };
                self.reseal(to.as_deref(), recipients, parent)
            }
        }
    }
}

impl Operator {
    fn no_consent(&self) -> Answer {
        let error = NoConsent(self.reloader.config().state_dir);
        Answer::Refused(Refusal::new(&error))
    }

    fn is_consented(&self, export: Act<'_>) -> bool {
        export.is_consented(&self.reloader.config().state_dir)
    }

    fn activate(&self, id: Option<String>, not_shared: bool, receipts: &[String], when_all_have: bool) -> Answer {
        let id = match id.map(|id| id.parse()).transpose() {
            Ok(id) => id,
            Err(error) => return bad_id(&error),
        };
        match receipts.iter().map(hex::decode).collect() {
            Ok(receipts) => self
                .keeper
                .activate(Activation { id, not_shared, when_all_have, receipts })
                .map_or_else(refused, Answer::Keys),
            Err(error) => not_hex(&error),
        }
    }

    fn with_member(&self, name: &str, ask: impl FnOnce(&KeeperHandle, MemberName) -> Answer) -> Answer {
        match name.parse() {
            Ok(name) => ask(&self.keeper, name),
            Err(error) => bad_name(&error),
        }
    }

    /// What runs may log in with it, whatever the file says by now.
    fn remove_credential(&self, name: &str) -> Answer {
        let name: CredentialName = match name.parse() {
            Ok(name) => name,
            Err(error) => return bad_name(&error),
        };
        let config = self.reloader.config();
        let providers = config.providers.iter().flat_map(|providers| &providers.list);
        let users = providers.filter(|provider| provider.credentials.contains(&name));
        let users: Vec<_> = users.map(|provider| provider.name.as_str()).collect();
        if !users.is_empty() {
            return Answer::Refused(Refusal::new(&CredentialStoreError::Used { name, providers: users.join(", ") }));
        }
        self.keeper.remove_credential(name).map_or_else(refused, |()| Answer::CredentialRemoved {})
    }

    fn store_credential(&self, name: &str, sealed: &str) -> Answer {
        match (name.parse(), hex::decode(sealed)) {
            (Ok(name), Ok(sealed)) => {
                self.keeper.store_credential(name, sealed).map_or_else(refused, |()| Answer::CredentialStored {})
            }
            (Err(error), _) => bad_name(&error),
            (_, Err(error)) => not_hex(&error),
        }
    }

    /// Under the policy that the file names now: the operator has just changed it.
    fn reseal(&self, to: Option<&str>, recipients: Option<Vec<String>>, parent: Parent) -> Answer {
        let config = match config::load(&self.reloader.config().path) {
            Ok(config) => config,
            Err(error) => return Answer::Refused(Refusal::new(&error)),
        };
        match config.seal.order(to, recipients) {
            Ok(order) => {
                let order = ResealOrder { parent, ..order };
                self.keeper.reseal(order).map_or_else(refused, |root| resealed(&root))
            }
            Err(problem) => Answer::Refused(Refusal::new(&problem)),
        }
    }

    fn rotate_root(&self, dry_run: bool, without_recovery_file: bool) -> Answer {
        let config = match config::load(&self.reloader.config().path) {
            Ok(config) => config,
            Err(error) => return Answer::Refused(Refusal::new(&error)),
        };
        let order = config.seal.renew_order(dry_run, without_recovery_file);
        self.keeper.renew_root(order).map_or_else(refused, |renewed| Answer::root_rotated(&renewed))
    }

    /// What the endpoint gives to whoever collects it.
    pub(super) fn metrics(&self) -> String {
        metrics::text(metrics::families(&self.status(), false, metrics::measured()))
    }

    fn status(&self) -> Status {
        let config = self.reloader.config();
        let overview = self.keeper.overview();
        let hung =
            overview.as_ref().err().filter(|error| matches!(error, KeeperError::Hung(_) | KeeperError::NotBegun(_)));
        let hung = hung.map(|error| format!("{error}: {}", error.hint()));
        let overview = overview.ok();
        // After the keeper's answer: what it calls done is what is reported.
        let key_id = self.keyring.key_id_now();
        let rooted = self.keyring.rooted();
        let roots = overview.as_ref().map(|overview| overview.roots.clone()).unwrap_or_default();
        let pending = self.reloader.pending(overview.as_ref());
        let stops_writes = self.keyring.stops_writes();
        let refusal = self.keyring.refusal();
        let told = self.keyring.told();
        Status {
            healthy: self.keyring.would_encrypt() && !stops_writes,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            cluster: config.cluster.to_string(),
            socket: config.listen.socket.display().to_string(),
            key_id_hash: key_id.as_ref().map(|key_id| key_id.metric_hash()),
            key_id: key_id.map(|key_id| key_id.to_string()),
            uses: self.keyring.uses(),
            overdue: overview.as_ref().is_some_and(|overview| overview.is_overdue),
            due: overview.as_ref().and_then(|overview| overview.due),
            rotates_by_itself: overview.as_ref().map(|overview| overview.rotates_by_itself),
            pending_kek: overview.as_ref().and_then(|overview| overview.pending.clone()),
            clock_doubted: overview.as_ref().is_some_and(|overview| overview.is_clock_doubted),
            rehearsal_lacks_kek: overview.as_ref().is_some_and(|overview| overview.rehearsal_lacks_kek),
            etcd_scanned: overview.as_ref().and_then(|overview| overview.scanned),
            recovery_rehearsed: overview.as_ref().and_then(|overview| overview.rehearsed),
            recovery_written: overview
                .as_ref()
                .filter(|overview| !overview.recipients.is_empty())
                .and_then(|overview| overview.recovery_written),
            recovery_owed: overview.as_ref().is_some_and(|overview| overview.is_recovery_owed),
            awaits_bundle: overview.as_ref().is_some_and(|overview| overview.awaits_bundle),
            seal_error: refusal.as_ref().map(|refusal| refusal.error.clone()),
            seal_retry_in_seconds: refusal.as_ref().map(|refusal| seconds_until(refusal.retry_at)),
            seal_waits_for_file: refusal
                .as_ref()
                .and_then(|refusal| Some(refusal.waits_for.as_ref()?.display().to_string())),
            seal_hint: refusal.map(|refusal| refusal.hint.clone()),
            keys_known: overview.is_some(),
            keys: overview.as_ref().map_or(0, |overview| overview.keks),
            keys_usable: overview.as_ref().map_or(0, |overview| overview.usable),
            seal_backend: overview.as_ref().and_then(|overview| overview.backend).map(|backend| backend.to_string()),
            seal_policy: overview.as_ref().map(|overview| overview.policy.to_string()),
            would_open: overview.as_ref().map(|overview| overview.would_open),
            guarded: overview.as_ref().is_some_and(|overview| overview.guarded),
            recovery_maker: overview.as_ref().map(|overview| overview.recovery_maker.clone()),
            recovery_recipients: overview.map_or_else(Vec::new, |overview| overview.recipients),
            mode: mode(rooted.as_deref()).to_owned(),
            providers: rooted.iter().flat_map(|rooted| rows(rooted, &roots)).collect(),
            wraps_owed: roots.owed,
            texts_short_of_wraps: roots.short_texts,
            lost_keys: roots.lost.clone(),
            waits: roots.waits,
            epoch: roots.epoch,
            epoch_turns: roots.epoch_turns,
            outage_seconds: rooted.map_or(0, |rooted| rooted.outage().as_secs()),
            stops_writes,
            decrypts_refused: told.refused.into_iter().map(|(class, count)| (class.to_owned(), count)).collect(),
            without_kek: told.unknown.map(|Unknown { count: decrypts, kek, at: last }| WithoutKek {
                decrypts,
                kek: kek.to_string(),
                last,
            }),
            log_lines_dropped: log::dropped(),
            sandbox: Some(self.reloader.confined().enforced_now()),
            warnings: config.warnings.iter().map(ToString::to_string).chain(roots.lost).chain(hung).collect(),
            pending,
        }
    }
}

/// Begun ones count: 0 is now.
fn seconds_until(moment: Instant) -> u64 {
    let rest = moment.saturating_duration_since(Instant::now()).as_millis().div_ceil(1000);
    u64::try_from(rest).unwrap_or(u64::MAX)
}

fn mode(rooted: Option<&Rooted>) -> &'static str {
    match rooted {
        Some(rooted) if !rooted.writes() => HARDWARE_ONLY,
        Some(rooted) if !rooted.rules.local_kek => "direct",
        Some(_) => "rooted",
        None => HARDWARE_ONLY,
    }
}

fn rows(rooted: &Rooted, roots: &ProvidersReport) -> Vec<ProviderRow> {
    let row = |member: &Member| {
        let record = roots.records.iter().find(|record| record.is_named(member.name(), member.kind()));
        let current = record.map(|record| record.observed.current());
        let (health, ends) = (member.health(), member.ends());
        ProviderRow {
            name: member.name().to_owned(),
            kind: member.kind().label().to_owned(),
            role: match member.role() {
                Role::Required => "required",
                Role::Optional => "optional",
                Role::DecryptOnly => "decrypt-only",
            }
            .to_owned(),
            opens_foreign: member.opens_foreign(),
            key: current.map(|key| key.identity.to_string()),
            version: current.map(|key| key.version.to_string()),
            answered_seconds_ago: health.answered.map(|ago| ago.as_secs()),
            class: health.failure.as_ref().map(|(class, _)| class.label().to_owned()),
            error: health.failure.map(|(_, error)| error),
            held_back: health.is_open,
            login_ends_in_seconds: ends.login.map(|left| left.as_secs()),
            certificate_ends_in_seconds: ends.certificate.map(|left| left.as_secs()),
        }
    };
    rooted.providers.members().iter().map(row).collect()
}

fn evidence(Seen { evidence: Evidence { rehearsed, scans }, turned }: Seen) -> Answer {
    Answer::Evidence { rehearsed, scans, turned }
}

fn debug_on(minutes: u8, incident: &str) -> Answer {
    match incident.parse() {
        Ok(incident) => match debug::on(minutes, incident) {
            Ok(running) => debug_report(Some(running)),
            Err(error) => Answer::Refused(Refusal::new(&error)),
        },
        Err(error) => bad_name(&error),
    }
}

fn debug_report(running: Option<debug::Running>) -> Answer {
    let until = running.as_ref().map(|running| running.until);
    let incident = running.map(|running| running.incident.to_string());
    Answer::Debug(DebugReport { level: log::level().label().to_owned(), incident, until })
}

fn bad_name(error: &(dyn std::error::Error + 'static)) -> Answer {
    Answer::Refused(Refusal::new(&Explain::new(error, Class::Misconfigured, "choose another name")))
}

fn refused(error: KeeperError) -> Answer {
    Answer::Refused(Refusal::new(&error))
}

fn resealed(root: &SealedRoot) -> Answer {
    let backend = root.backend().map_or_else(String::new, |backend| backend.to_string());
    Answer::Resealed { backend, policy: root.policy.to_string() }
}

fn as_file(bytes: &[u8]) -> Answer {
    Answer::File(hex::encode(bytes))
}

fn not_hex(error: &hex::HexError) -> Answer {
    Answer::Refused(Refusal::new(&Explain::new(error, Class::Misconfigured, "use `nodeseal` of this release")))
}

fn bad_id(error: &IdError) -> Answer {
    Answer::Refused(Refusal::new(&Explain::new(error, Class::NotFound, "list the KEKs: `nodeseal keys list`")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;
    use crate::keyring::calendar::EpochRule;
    use crate::keyring::rooted::{OnOutage, Rules};
    use crate::provider::kms_plugin::{KmsPlugin, KmsPluginSettings};
    use crate::provider::set::{Providers, Strategy};
    use crate::types::Api;

    #[test]
    fn a_node_on_which_no_provider_writes_is_one_of_hardware_only_whatever_its_mode_was() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let settings = KmsPluginSettings {
            socket: "/run/x.sock".into(),
            api: Api::V2,
            key: crate::provider::KeyIdentity::new("k").unwrap(),
            allow_uids: Vec::new(),
            opens_foreign: false,
            timeout: Duration::from_secs(1),
            own_sockets: Vec::new(),
        };
        for local_kek in [true, false] {
            let rules = Rules {
                local_kek,
                min_wraps: 1,
                epoch: EpochRule::Number(0),
                on_outage: OnOutage::Coast,
                activation_delay: Duration::ZERO,
                probe_every: Duration::from_secs(60),
            };
            let member = Member::new("k", Role::DecryptOnly, Arc::new(KmsPlugin::new(settings.clone())));
            let providers = Providers::new(vec![member], Strategy::Ordered);
            let rooted = Rooted::new(runtime.handle().clone(), providers, rules);
            assert_eq!(mode(Some(&rooted)), HARDWARE_ONLY, "local_kek = {local_kek}");
        }
    }
}
