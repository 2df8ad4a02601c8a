//! What a node does that was rebuilt from its recovery file: under which keys it writes, and what it remembers of providers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};

use super::*;
use crate::keyring::bundle::{self, BundleError, BundleRequest};
use crate::keyring::epoch::ProviderMemory;
use crate::keyring::export::Export;
use crate::keyring::keeper::KekRow;
use crate::keyring::recovery::Identity;
use crate::keyring::ring::{Entry, Ring};
use crate::keyring::rooted::{OnOutage, Rooted, Rules};
use crate::provider::set::{Member, Providers, Role, Strategy};
use crate::provider::{
    Answer, Context, ErrorKind, Kek, KeyIdentity, KeyState, KeyVersion, ProviderError, ProviderKind, Wrapped,
};
use crate::types::Explained;

/// A provider that can go away.
#[derive(Clone, Default)]
struct Provider {
    is_away: Arc<AtomicBool>,
    version: Arc<AtomicU64>,
}

fn order(resume: Resume) -> RecoverOrder {
    RecoverOrder { resume, give_up_device: false }
}

impl Provider {
    fn rooted(&self) -> Arc<Rooted> {
        let member = Member::new("p", Role::Required, Arc::new(self.clone()));
        let rules = Rules {
            local_kek: true,
            min_wraps: 1,
            epoch: crate::keyring::calendar::EpochRule::default(),
            on_outage: OnOutage::Coast,
            activation_delay: Duration::ZERO,
            probe_every: Duration::from_millis(5),
        };
        Arc::new(Rooted::new(runtime(), Providers::new(vec![member], Strategy::Ordered), rules))
    }

    fn state(&self) -> Result<KeyState, ProviderError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(ProviderError::new(ErrorKind::Away, ""));
        }
        let version = self.version.load(Ordering::SeqCst).to_string();
        Ok(KeyState { identity: KeyIdentity::new("k").unwrap(), version: KeyVersion::new(version).unwrap() })
    }
}

impl Kek for Provider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { self.state() })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            let KeyState { identity, version } = self.state()?;
            Ok(Wrapped::new(ProviderKind::Vault, identity, version, key.expose().to_vec()).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            self.state()?;
            Ok(Key::copy_of(wrapped.text()).unwrap())
        })
    }
}

fn runtime() -> Handle {
    static RUNTIME: std::sync::OnceLock<Handle> = std::sync::OnceLock::new();
    let begin = || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    };
    RUNTIME.get_or_init(begin).clone()
}

impl Node {
    /// With a recovery file for this identity.
    fn insured(identity: &Identity) -> Self {
        let node = Self::new();
        let recipients = [identity.recipient()];
        node.found(&recipients, |dir, founding| init(dir, founding, 0)).unwrap();
        node
    }

    fn found<T>(
        &self,
        recipients: &[recovery::Recipient],
        found: impl FnOnce(&StateDir, &Founding<'_>) -> Result<T, KeeperError>,
    ) -> Result<T, KeeperError> {
        let (cluster, sealer) = (cluster(), self.sealer());
        let founding =
            Founding { cluster: &cluster, sealer: &sealer, to: TO, guard: None, replace_counter: false, recipients };
        found(&self.open_dir(), &founding)
    }

    fn start_with(&self, provider: &Provider) -> Running {
        let (keyring, handle, body) = keeper::new(Settings {
            disk: RealDisk,
            state_dir: self.state_dir(),
            cluster: cluster(),
            sealer: self.sealer(),
            max_age: MaxAge::DEFAULT,
            guard: None,
            pin_file: None,
            now: || 0,
            is_synchronised: || true,
        });
        keyring.begin_with(Some(provider.rooted()));
        Running { keyring, handle, thread: Some(thread::spawn(body)) }
    }

    fn recovery_file(&self) -> Vec<u8> {
        std::fs::read(self.state_dir().join(recovery::FILE)).unwrap()
    }
}

/// Another machine with another device, and the file's keys.
fn rebuilt(export: Export, resume: Resume) -> Result<Node, KeeperError> {
    let node = Node::new();
    let recovered = node.found(&[], |dir, founding| recover(dir, founding, export, order(resume), 0));
    recovered.map(|_| node)
}

fn read(identity: &Identity, file: &[u8]) -> Export {
    let (export, made_by) = recovery::decrypt(identity, file).unwrap();
    assert!(made_by.is_some());
    export
}

fn until(what: &str, is: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < give_up, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Running {
    fn active(&self) -> KekRow {
        self.key_id();
        self.handle.list().unwrap().keys.remove(0)
    }

    fn reports(&self, key_id: &KeyId) -> bool {
        self.keyring.key_id_now().as_ref() == Some(key_id)
    }
}

/// A node with a provider, after a rotation there: what it wrote, and what it left.
fn life(identity: &Identity, provider: &Provider) -> (Node, Encrypted, KeyId) {
    let node = Node::insured(identity);
    let running = node.start_with(provider);
    until("the provider wraps the first KEK", || running.encrypt().is_ok());
    let left = running.key_id();
    provider.version.store(2, Ordering::SeqCst);
    until("a rotation at the provider moves the key_id", || !running.reports(&left));
    let text = running.encrypt().unwrap();
    drop(running);
    (node, text, left)
}

#[test]
fn a_recovered_node_that_keeps_its_active_kek_encrypts_with_copies_while_its_providers_are_away() {
    let (identity, provider) = (Identity::generate(), Provider::default());
    let (node, text, _) = life(&identity, &provider);
    provider.is_away.store(true, Ordering::SeqCst);
    let again = rebuilt(read(&identity, &node.recovery_file()), Resume::ActiveKek).unwrap();
    let running = again.start_with(&provider);
    let new = running.encrypt().unwrap();
    assert_eq!((&new.key_id, &new.attached), (&text.key_id, &text.attached), "as before the loss");
    assert!(new.attached.iter().count() > 0);
}

#[test]
fn a_recovered_node_with_a_new_kek_encrypts_while_its_providers_are_away_and_with_copies_when_they_are_back() {
    let (identity, provider) = (Identity::generate(), Provider::default());
    let (node, text, _) = life(&identity, &provider);
    provider.is_away.store(true, Ordering::SeqCst);
    let again = rebuilt(read(&identity, &node.recovery_file()), Resume::NewKek).unwrap();
    let running = again.start_with(&provider);
    assert_eq!(running.key_id(), text.key_id, "what it reported last");
    let alone = running.encrypt().unwrap();
    assert_eq!(alone.attached.iter().count(), 0, "no provider has a copy of the new KEK");
    provider.is_away.store(false, Ordering::SeqCst);
    until("the provider is back", || running.encrypt().unwrap().attached.iter().count() > 0);
    let new = running.encrypt().unwrap();
    assert_eq!(new.key_id, text.key_id);
    assert!(new.attached.iter().count() > 0);
}

#[test]
fn a_key_id_that_was_left_before_the_loss_does_not_come_back_after_it() {
    let (identity, provider) = (Identity::generate(), Provider::default());
    let (node, text, left) = life(&identity, &provider);
    // The version before the last rotation, as a provider would tell that was restored from a backup.
    provider.version.store(0, Ordering::SeqCst);
    for resume in [Resume::NewKek, Resume::ActiveKek] {
        let export = read(&identity, &node.recovery_file());
        let again = rebuilt(export, resume).unwrap();
        let running = again.start_with(&provider);
        until("the provider wraps", || running.encrypt().is_ok());
        thread::sleep(Duration::from_millis(50));
        assert!(running.reports(&text.key_id) && !running.reports(&left), "{resume:?}");
    }
}

fn entry(byte: u8, uses_reserved: u64, shared: bool) -> Entry {
    Entry { id: KekId::from_bytes([byte; 16]), created: 0, uses_reserved, shared }
}

fn export(active: Entry) -> Export {
    let keys = vec![(active.id, Key::copy_of(&[7; 32]).unwrap())];
    let (roots, copies) = (ProviderMemory::default(), Vec::new());
    Export { cluster: cluster(), written: 0, roots, ring: Ring::new(active, 0), keys, copies }
}

#[test]
fn a_kek_that_is_kept_counts_on_from_what_its_node_may_have_used() {
    // What a file says that was written at the last change of keys, and what may have been used of the share until the loss.
    let share = HARD_LIMIT_USES / SHARERS_MAX;
    for (said, at_least) in [(65_536, share / 2), (share / 2 + 1, share / 2 + 1)] {
        let node = rebuilt(export(entry(1, said, true)), Resume::ActiveKek).unwrap();
        let active = node.start(|| 0).active();
        assert!(active.shared && (at_least..share).contains(&active.uses), "{active:?}");
    }
}

#[test]
fn a_kek_that_is_kept_is_one_that_other_nodes_have() {
    let node = rebuilt(export(entry(1, 65_536, false)), Resume::ActiveKek).unwrap();
    let active = node.start(|| 90 * DAY).active();
    assert!(active.shared && active.id == entry(1, 0, false).id.to_string(), "and is not replaced without being asked");
}

#[test]
fn a_kek_that_was_used_too_much_is_not_shared_and_one_that_is_shared_already_goes_on_being_given() {
    let request = BundleRequest {
        cluster: cluster(),
        nonce: [1; 32],
        expires: 1,
        node: "cp-2".into(),
        half: [0; 64],
        // None that keys can be made for: whoever gets as far as that is not refused before.
        parent: vec![1],
    };
    let request = request.encode();
    let give = |running: &Running| {
        running.key_id();
        running.handle.bundle_make(request.clone(), bundle::fingerprint(&request)).unwrap_err()
    };
    let node = Node::set_up();
    node.set_uses(ROTATE_AT_USES / SHARERS_MAX + 1);
    assert!(matches!(give(&node.start(|| 0)), KeeperError::Bundle(BundleError::NoUsesLeft)));
    // Its successor goes to the others in a bundle, when a rotation is due.
    let node = rebuilt(export(entry(1, ROTATE_AT_USES / SHARERS_MAX + 1, true)), Resume::ActiveKek).unwrap();
    assert!(matches!(give(&node.start(|| 0)), KeeperError::Parent(_)));
}

#[test]
fn a_kek_without_uses_for_a_share_is_not_kept_and_nothing_is_written() {
    let share = HARD_LIMIT_USES / SHARERS_MAX;
    let node = Node::new();
    let refused = node.found(&[], |dir, founding| {
        recover(dir, founding, export(entry(1, share, false)), order(Resume::ActiveKek), 0)
    });
    let error = refused.unwrap_err();
    assert!(error.hint().contains("--keep-active"), "{error:?}");
    let names: BTreeSet<_> = files(&node.state_dir()).into_iter().map(|(path, _)| path).collect();
    assert!(names.iter().all(|path| path.ends_with("lock")), "{names:?}");
}
