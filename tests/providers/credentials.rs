//! Credentials in memory, in place of those that a node seals.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nodeseal::provider::{CredentialAnswer, Credentials};
use nodeseal::types::Secret;

#[derive(Default)]
pub struct Memory {
    all: Mutex<BTreeMap<String, Vec<u8>>>,
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
        self.all.lock().unwrap().insert(name.to_owned(), secret.as_bytes().to_vec());
    }

    pub fn get(&self, name: &str) -> String {
        String::from_utf8(self.all.lock().unwrap()[name].clone()).unwrap()
    }
}

impl Credentials for Memory {
    fn open<'a>(&'a self, name: &'a str) -> CredentialAnswer<'a, Secret> {
        let found = self.all.lock().unwrap().get(name).map(|bytes| Secret::copy_of(bytes));
        Box::pin(async move { found.ok_or_else(|| "no such credential".into()) })
    }

    fn replace<'a>(&'a self, name: &'a str, secret: &'a Secret) -> CredentialAnswer<'a, ()> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Err("the disk is full".into());
            }
            self.all.lock().unwrap().insert(name.to_owned(), secret.expose().to_vec());
            Ok(())
        })
    }
}
