//! Making anew what protects the same keys: the seal of the node root, by any device; the counter that guards the state; the
//! recipients of the recovery file. No key and no key_id changes, and each file is the old or the new one at every moment.

use std::sync::Arc;

use super::Keeper;
use super::arrival::{Arrival, Resealed};
use super::books::Change;
use super::errands::Holder;
use super::request::{Reply, ResealOrder};
use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::guard::{self, Stranger};
use crate::keyring::state_file::{SealMark, State};
use crate::seal::root::SealedRoot;
use crate::store::Disk;

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device; [`Keeper::resealed`] goes on.
    pub(super) fn reseal(&mut self, order: ResealOrder, reply: Reply<SealedRoot>) -> bool {
        let asked = self.begin_reseal(order, reply.clone());
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    fn begin_reseal(&mut self, order: ResealOrder, reply: Reply<SealedRoot>) -> Result<(), KeeperError> {
        let auth = Arc::clone(&self.derived.counter_auth);
        let wanted = order.guard.filter(|index| self.state().guard.is_none_or(|guard| guard.index != *index));
        if let Some(index) = wanted.filter(|_| self.state().guard.is_none()) {
            // A counter that is there, and that no state knows of, would make this state an old one.
            let guard_to_come = Some(index);
            self.change(Change::of_memory(State { guard_to_come, ..self.state().clone() }))?;
        }
        let is_ours =
            order.replace_counter || wanted.is_some_and(|index| self.state().left_counters.contains_key(&index));
        let stranger = if is_ours { Stranger::Replaced } else { Stranger::Refused };
        self.ask_device(Holder::Operator, move |question, sealer| {
            let root = question.reseal(sealer, order.to, order.parent).map_err(KeeperError::Root);
            let sealed = root.and_then(|root| {
                let auth = auth.copy();
                let make = |index| guard::make(sealer, index, &auth, stranger, &root.blob);
                let guard = wanted.map(make).transpose()?;
                Ok((root, guard))
            });
            Arrival::Resealed(reply, Box::new(Resealed { order, sealed }))
        })
    }

    /// The device has answered. The state knows of the new seal before it is there, and of nothing else afterwards: an older one that
    /// is put back is noticed.
    pub(super) fn resealed(&mut self, Resealed { order, sealed }: Resealed) -> Result<SealedRoot, KeeperError> {
        let (root, guard) = sealed?;
        let mark = SealMark::of(&root);
        self.change(Change::of_memory(State { next_seal: Some(mark), ..self.state().clone() }))?;
        root.save(&self.books.home.root).map_err(KeeperError::Root)?;
        self.derived.pin = root.blob.clone();
        emit(&Event::SealRenewed { backend: order.to.backend().label(), policy: &root.policy.to_string() });
        let former = self.state().guard;
        let kept = former.filter(|former| order.guard == Some(former.index));
        let recipients = order.recipients.unwrap_or_else(|| self.state().recipients.clone());
        let is_of_keys = recipients != self.state().recipients;
        let guard = guard.or(kept);
        // A fresh counter has not been owed anything yet.
        self.books.is_count_owed &= guard == former;
        let seal = Some(mark);
        let next = State { seal, next_seal: None, recipients, ..self.state().guarded_by(guard) };
        self.change(Change { is_of_keys, ..Change::of_memory(next) })?;
        Ok(root)
    }
}
