//! A node that runs, as its callers and its operator see it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::node::Node;
use super::provider::FOREIGN;
use crate::envelope::{Api, Wraps};
use crate::keyring::keeper::{Activation, KeeperHandle, KekRow, KeyTable};
use crate::keyring::ring::MoveError;
use crate::keyring::{Encrypted, KeeperError, Keyring, KeyringError};
use crate::types::KekId;

const DEK: &[u8] = b"0123456789abcdef0123456789abcdef";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local!(static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap());
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Several times the pause after which the keeper tries again in a test.
const FAULT_TIMEOUT: Duration = Duration::from_millis(300);

/// A node that runs.
pub(super) struct Running {
    pub(super) keyring: Arc<Keyring>,
    pub(super) handle: KeeperHandle,
    pub(super) clock: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    pub(super) fn new(
        keyring: Arc<Keyring>,
        handle: KeeperHandle,
        clock: Arc<AtomicU64>,
        thread: thread::JoinHandle<()>,
    ) -> Self {
        Self { keyring, handle, clock, thread: Some(thread) }
    }

    /// How the first attempt to open the keys ended. A caller gives up before it on a machine that is busy.
    pub(super) fn first_attempt(&self) -> Result<(), KeyringError> {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            match block_on(self.keyring.key_id()) {
                Err(KeyringError::Locked) if self.keyring.is_opening() && Instant::now() < give_up => {}
                ended => return ended.map(|_| ()),
            }
        }
    }

    /// The keeper tries again by itself, after half a second and later.
    pub(super) fn opens_by_itself(&self) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while self.keyring.key_id_now().is_none() {
            assert!(Instant::now() < give_up, "the keys do not open by themselves once the disk is well");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn has_provider(&self) -> bool {
        self.keyring.rooted().is_some()
    }

    pub(super) fn table(&self) -> KeyTable {
        self.handle.list().unwrap()
    }

    pub(super) fn row(&self, state: &str) -> Option<KekRow> {
        self.table().keys.into_iter().find(|row| row.state == state)
    }

    pub(super) fn kek(&self, state: &str) -> KekId {
        self.row(state).unwrap().id.parse().unwrap()
    }

    /// Asks until the device, which may still have something to count, is free.
    pub(super) fn ask<T>(&self, ask: impl Fn(&KeeperHandle) -> Result<T, KeeperError>) -> Result<T, KeeperError> {
        loop {
            match ask(&self.handle) {
                Err(KeeperError::Busy) => thread::sleep(Duration::from_millis(1)),
                answer => return answer,
            }
        }
    }

    /// Turns to a pending KEK; `not_shared` insists where the other nodes do not have it.
    pub(super) fn activate(&self, id: KekId, not_shared: bool) -> Result<KeyTable, KeeperError> {
        self.handle.activate(Activation { id: Some(id), not_shared, ..Activation::default() })
    }

    /// Makes a KEK unless one is pending, and turns to it.
    pub(super) fn renew(&self) -> Result<(), KeeperError> {
        match self.ask(KeeperHandle::rotate) {
            Ok(_) | Err(KeeperError::Move(MoveError::Pending)) => {}
            Err(error) => return Err(error),
        }
        // With a provider the keeper may have turned to it by itself.
        let Some(row) = self.row("pre-activation") else { return Ok(()) };
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match self.activate(row.id.parse().unwrap(), true) {
                Err(KeeperError::Move(MoveError::Active)) if self.has_provider() => return Ok(()),
                // They are no more, says the operator.
                Err(KeeperError::NoReceipt(names)) => names.split(", ").for_each(|name| {
                    self.ask(|keeper| keeper.remove_member(name.to_owned())).unwrap();
                }),
                // The provider is about to wrap it.
                Err(KeeperError::Unwrapped { .. }) if Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(1));
                }
                other => return other.map(|_| ()),
            }
        }
    }

    /// Whether it comes, also when something fails in between. A fault is got over within moments, or not at all while it lasts.
    pub(super) fn until(&self, node: &Node, is: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        let mut struck = None;
        while !is() {
            if node.was_struck() && started.elapsed() > FAULT_TIMEOUT + *struck.get_or_insert(started.elapsed()) {
                return false;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "it does not come");
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits for what comes by itself. The keeper is asked now and then, as `status` does.
    pub(super) fn wait_for(&self, what: &str, is: impl Fn() -> bool) {
        let give_up = Instant::now() + Duration::from_secs(10);
        let mut pause = Duration::from_millis(1);
        while !is() {
            assert!(Instant::now() < give_up, "{what}");
            drop(self.handle.list());
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    pub(super) fn encrypt(&self) -> Result<Encrypted, KeyringError> {
        block_on(self.keyring.encrypt(Api::V2, DEK))
    }

    /// As the scan of etcd asks.
    #[cfg(feature = "etcd")]
    pub(super) fn tried(&self, old: &Encrypted) -> Result<bool, KeyringError> {
        let opened = block_on(self.keyring.try_v2(old.key_id.as_str(), old.attached.wraps().unwrap(), &old.text))?;
        Ok(opened.same_as(DEK))
    }

    /// What another plugin has made, in both APIs.
    pub(super) fn opens_foreign(&self) -> Result<bool, KeyringError> {
        let text = b"made by another plugin";
        let v1 = block_on(self.keyring.decrypt_v1(text))?;
        let v2 = block_on(self.keyring.decrypt_v2("theirs", Wraps::default(), text))?;
        Ok([v1, v2].iter().all(|opened| opened.plaintext.same_as(&FOREIGN) && opened.key_id.is_none()))
    }

    pub(super) fn decrypt(&self, old: &Encrypted) -> Result<bool, KeyringError> {
        let opened = block_on(self.keyring.decrypt_v2(old.key_id.as_str(), old.attached.wraps().unwrap(), &old.text))?;
        Ok(opened.plaintext.same_as(DEK))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the keeper has panicked");
    }
}
