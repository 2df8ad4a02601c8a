//! How the rest of the program asks the keeper: questions over a channel, each with its own way back.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::arrival::{Asked, Message};
use super::openers::Next;
use super::request::{
    Activation, CheckReport, KekRow, KeyTable, MemberRow, Overview, Proof, RenewOrder, Renewed, Reply, Request,
    ResealOrder, Seen,
};
use crate::keyring::KeeperError;
use crate::keyring::evidence::Scan;
use crate::keyring::export::Export;
use crate::keyring::ring::RetireTo;
use crate::provider::Mark;
use crate::provider::set::Specimen;
use crate::seal::root::SealedRoot;
use crate::types::{CredentialName, KekId, MemberName, Secret};

/// `status` is for when something is wrong, and must not hang with it.
const OVERVIEW_TIMEOUT: Duration = Duration::from_secs(1);

/// Above the two minutes that two questions to a device may take, and below what `nodeseal` waits for (`control::client`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(140);

/// Asks the keeper. Cheap to clone; every question blocks until it is answered.
#[derive(Clone)]
pub struct KeeperHandle(pub(super) Sender<Message>);

impl KeeperHandle {
    /// All KEKs with their states.
    pub fn list(&self) -> Result<KeyTable, KeeperError> {
        self.ask(Request::List)
    }

    /// Makes a KEK in pre-activation.
    pub fn rotate(&self) -> Result<KekRow, KeeperError> {
        self.ask(Request::Rotate)
    }

    /// Turns to a KEK in pre-activation.
    pub fn activate(&self, activation: Activation) -> Result<KeyTable, KeeperError> {
        self.ask(|reply| Request::Activate(activation, reply))
    }

    /// What this node shows of itself to the others.
    pub fn identity(&self, name: MemberName) -> Result<Vec<u8>, KeeperError> {
        self.ask(|reply| Request::Identity(name, reply))
    }

    /// Another node, whose fingerprint the operator has compared.
    pub fn add_member(&self, file: Vec<u8>, fingerprint: String) -> Result<Vec<MemberRow>, KeeperError> {
        self.ask(|reply| Request::AddMember(file, fingerprint, false, reply))
    }

    /// The same, also in place of a member of that name that had another TPM.
    pub fn replace_member(&self, file: Vec<u8>, fingerprint: String) -> Result<Vec<MemberRow>, KeeperError> {
        self.ask(|reply| Request::AddMember(file, fingerprint, true, reply))
    }

    /// The other nodes that this one knows.
    pub fn members(&self) -> Result<Vec<MemberRow>, KeeperError> {
        self.ask(Request::Members)
    }

    /// Gives it no key any more, and takes none from it.
    pub fn remove_member(&self, name: String) -> Result<Vec<MemberRow>, KeeperError> {
        self.ask(|reply| Request::RemoveMember(name, reply))
    }

    /// All keys, for one member alone.
    pub fn bundle_for(&self, name: MemberName) -> Result<Vec<u8>, KeeperError> {
        self.ask(|reply| Request::BundleFor(name, reply))
    }

    /// That this node has the KEK in pre-activation, or else the active one.
    pub fn receipt(&self) -> Result<Vec<u8>, KeeperError> {
        self.ask(Request::Receipt)
    }

    /// Lets the device open the root once, and looks at every file.
    pub fn check(&self) -> Result<CheckReport, KeeperError> {
        self.ask(Request::Check)
    }

    /// Another node root under the same keys.
    pub fn renew_root(&self, order: RenewOrder) -> Result<Renewed, KeeperError> {
        self.ask(|reply| Request::RenewRoot(order, reply))
    }

    /// Seals the KEKs of a recovery file that this node lacks. Gives their ids.
    pub fn restore(&self, export: Export) -> Result<Vec<KekId>, KeeperError> {
        self.ask(|reply| Request::Restore(Box::new(export), reply))
    }

    /// Marks or destroys a KEK that is not active. The caller has asked for confirmation.
    pub fn retire(&self, id: KekId, to: RetireTo, proof: Proof) -> Result<KeyTable, KeeperError> {
        self.ask(|reply| Request::Retire(id, to, proof, reply))
    }

    /// What was seen of etcd.
    pub fn evidence(&self) -> Result<Seen, KeeperError> {
        self.ask(Request::Evidence)
    }

    /// A complete scan of a running etcd.
    pub fn scanned(&self, scan: Scan) -> Result<Seen, KeeperError> {
        self.ask(|reply| Request::Scanned(scan, reply))
    }

    /// A recovery file was opened to see what it opens.
    pub fn rehearsed(&self) -> Result<Seen, KeeperError> {
        self.ask(Request::Rehearsed)
    }

    /// Counts, and the policy of the seal. Does not wait for a device that is asked to open the keys.
    pub fn overview(&self) -> Result<Overview, KeeperError> {
        self.ask_within(OVERVIEW_TIMEOUT, Request::Overview)
    }

    /// A request for the keys of another node; `node` is this one's name, for people.
    pub fn bundle_request(&self, node: String) -> Result<Vec<u8>, KeeperError> {
        self.ask(|reply| Request::AskForBundle(node, reply))
    }

    /// All keys, for the node that made the request. The operator has compared the request's fingerprint.
    pub fn bundle_make(&self, request: Vec<u8>, fingerprint: String) -> Result<Vec<u8>, KeeperError> {
        self.ask(|reply| Request::BundleMake(request, fingerprint, reply))
    }

    /// Takes over the keys of another node: of a member, or of one whose bundle's fingerprint the operator has compared.
    pub fn bundle_accept(&self, bundle: Vec<u8>, fingerprint: Option<String>) -> Result<KeyTable, KeeperError> {
        self.ask(|reply| Request::BundleAccept(bundle, fingerprint, reply))
    }

    /// Stores a credential that was sealed under this node's root.
    pub fn store_credential(&self, name: CredentialName, payload: Vec<u8>) -> Result<(), KeeperError> {
        self.ask(|reply| Request::CredentialStore(name, payload, reply))
    }

    /// Removes a credential that no provider uses.
    pub fn remove_credential(&self, name: CredentialName) -> Result<(), KeeperError> {
        self.ask(|reply| Request::CredentialRemove(name, reply))
    }

    /// The bytes that were sealed under this name, and what tells this sealing from others.
    pub fn open_credential(&self, name: CredentialName) -> Result<(Secret, Mark), KeeperError> {
        self.ask(|reply| Request::CredentialOpen(name, reply))
    }

    /// Seals other bytes under this name, in place of this sealing and of no other one.
    pub fn replace_credential(&self, name: CredentialName, from: Mark, content: Secret) -> Result<(), KeeperError> {
        self.ask(|reply| Request::CredentialReplace(name, from, content, reply))
    }

    /// Other providers from now on, or none. With `abandon`, keys that none of them has are given up, if nothing stored needs them.
    pub fn configure(&self, next: impl Into<Next>, abandon: Option<Proof>) -> Result<(), KeeperError> {
        self.ask(|reply| Request::Configure(next.into(), abandon, reply))
    }

    /// Seals the node root anew, and what goes with it.
    pub fn reseal(&self, order: ResealOrder) -> Result<SealedRoot, KeeperError> {
        self.ask(|reply| Request::Reseal(order, reply))
    }

    /// Of each key of a provider, something that it has made: for whoever wants to count as a way to it.
    pub fn specimens(&self) -> Result<Vec<Specimen>, KeeperError> {
        self.ask(Request::Specimens)
    }

    /// Lets the thread end.
    pub fn stop(&self) {
        let _ = self.0.send(Message::Stop);
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, KeeperError> {
        self.ask_within(ANSWER_TIMEOUT, request)
    }

    /// An answer that does not come leaves open whether what was begun is done: the disk or the device may still go on.
    fn ask_within<T>(&self, limit: Duration, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, KeeperError> {
        let (reply, answer) = channel();
        let (asked, give_up) = Asked::new(request(reply));
        self.0.send(Message::Request(asked)).map_err(|_| KeeperError::Locked)?;
        match answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(KeeperError::Locked),
            Err(RecvTimeoutError::Timeout) if give_up.is_in_time() => Err(KeeperError::NotBegun(limit)),
            Err(RecvTimeoutError::Timeout) => Err(KeeperError::Hung(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_in_time_is_given_up_and_not_done_later() {
        let limit = Duration::from_millis(20);
        let (sender, keeper) = channel();
        let handle = KeeperHandle(sender);
        let answer = handle.ask_within(limit, Request::List).map(drop);
        assert!(matches!(answer, Err(KeeperError::NotBegun(waited)) if waited == limit));
        let Ok(Message::Request(asked)) = keeper.try_recv() else { panic!("it was sent") };
        assert!(asked.begin().is_none(), "nobody waits for it any more");
    }

    #[test]
    fn what_was_begun_and_is_not_answered_in_time_may_be_done() {
        let (sender, keeper) = channel();
        let begun = std::thread::spawn(move || {
            let Ok(Message::Request(asked)) = keeper.recv() else { panic!("it was sent") };
            // Held, and with it the way back.
            (asked.begin(), keeper)
        });
        let answer = KeeperHandle(sender).ask_within(Duration::from_secs(1), Request::List).map(drop);
        assert!(begun.join().unwrap().0.is_some());
        assert!(matches!(answer, Err(KeeperError::Hung(_) | KeeperError::NotBegun(_))), "{answer:?}");
    }
}
