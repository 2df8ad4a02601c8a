//! Credentials in memory, in place of those that a node seals.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[cfg(feature = "vault")]
use nodeseal::provider::LoginTries;
use nodeseal::provider::{CredentialAnswer, Credentials, Mark};
use nodeseal::types::{CredentialName, Secret};

#[derive(Default)]
pub struct Memory {
    all: Mutex<BTreeMap<String, (Vec<u8>, Mark)>>,
    number: AtomicU64,
    #[cfg(feature = "vault")]
    tries: LoginTries,
    /// Refuses to seal.
    pub full: AtomicBool,
}

impl Memory {
    pub fn with(name: &str, secret: &str) -> Arc<Self> {
        let memory = Arc::new(Self::default());
        memory.set(name, secret);
        memory
    }

    pub fn set(&self, name: &str, secret: &str) {
        self.seal(name, secret.as_bytes());
    }

    fn seal(&self, name: &str, secret: &[u8]) {
        let mut mark = [1; Mark::BYTES];
        mark[..8].copy_from_slice(&self.number.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        self.all.lock().unwrap().insert(name.to_owned(), (secret.to_vec(), Mark::new(mark)));
    }

    /// What the process after this one has: all that is sealed, and what is known of logins.
    #[cfg(feature = "vault")]
    pub fn after_a_restart(&self, tries: LoginTries) -> Arc<Self> {
        let (all, number) = (self.all.lock().unwrap().clone(), self.number.load(Ordering::SeqCst));
        Arc::new(Self { all: Mutex::new(all), number: AtomicU64::new(number), full: AtomicBool::new(false), tries })
    }

    pub fn get(&self, name: &str) -> String {
        String::from_utf8(self.all.lock().unwrap()[name].0.clone()).unwrap()
    }
}

impl Credentials for Memory {
    fn open<'a>(&'a self, name: &'a CredentialName) -> CredentialAnswer<'a, (Secret, Mark)> {
        let found = self.all.lock().unwrap().get(name.as_str()).map(|(bytes, mark)| (Secret::copy_of(bytes), *mark));
        Box::pin(async move { found.ok_or_else(|| "no such credential".into()) })
    }

    #[cfg(feature = "vault")]
    fn tries(&self) -> &LoginTries {
        &self.tries
    }

    fn replace<'a>(&'a self, name: &'a CredentialName, from: Mark, secret: &'a Secret) -> CredentialAnswer<'a, ()> {
        Box::pin(async move {
            if self.all.lock().unwrap().get(name.as_str()).is_none_or(|(_, mark)| *mark != from) {
                return Err("it was sealed again".into());
            }
            if self.full.load(Ordering::SeqCst) {
                return Err("the disk is full".into());
            }
            self.seal(name.as_str(), secret.expose());
            Ok(())
        })
    }
}
