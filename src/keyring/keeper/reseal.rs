//! Making anew what protects the same keys: the seal of the node root, by any device; the counter that guards the state; the
//! recipients of the recovery file. No key and no key_id changes, and each file is the old or the new one at every moment.

use std::sync::Arc;

use super::change::copy;
use super::handle::{Command, Reply, ResealOrder};
use super::{Keeper, trouble};
use crate::audit::{Event, emit};
use crate::keyring::error::KeeperError;
use crate::keyring::guard;
use crate::keyring::state_file::{Guard, State};
use crate::seal::root::SealedRoot;
use crate::store::Disk;

/// What the device gave for an order.
pub(super) struct Resealed {
    order: ResealOrder,
    sealed: Result<Sealed, KeeperError>,
}

struct Sealed {
    root: SealedRoot,
    /// A counter that was made for this order.
    guard: Option<Guard>,
}

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Asks the device; [`Keeper::resealed`] goes on.
    pub(super) fn reseal(&mut self, order: ResealOrder, reply: Reply<SealedRoot>) -> bool {
        let answer = reply.clone();
        let auth = Arc::clone(&self.counter_auth);
        let wanted = order.guard.filter(|index| self.state.guard.is_none_or(|guard| guard.index != *index));
        let asked = self.ask_device(move |question, sealer| {
            let root = question.reseal(sealer, order.to).map_err(KeeperError::Root);
            let sealed = root.and_then(|root| {
                let auth = copy(&auth).ok_or(KeeperError::Locked)?;
                let guard = wanted.map(|index| guard::make(sealer, index, &auth)).transpose()?;
                Ok(Sealed { root, guard })
            });
            Command::Resealed(answer, Box::new(Resealed { order, sealed }))
        });
        asked.map_or_else(|error| reply.send(Err(error)).is_ok(), |()| true)
    }

    /// The device has answered.
    pub(super) fn resealed(&mut self, Resealed { order, sealed }: Resealed) -> Result<SealedRoot, KeeperError> {
        self.device_is_asked = false;
        let Sealed { root, guard } = sealed?;
        root.save(&self.dir).map_err(KeeperError::Root)?;
        emit(&Event::SealRenewed { backend: order.to.backend().label(), policy: &root.policy.to_string() });
        let former = self.state.guard;
        let kept = former.filter(|former| order.guard == Some(former.index));
        let recipients = order.recipients.unwrap_or_else(|| self.state.recipients.clone());
        let next = State { guard: guard.or(kept), recipients, ..self.state.clone() };
        if next.guard != former || next.recipients != self.state.recipients {
            // A fresh counter has not been owed anything yet.
            self.guard_owed &= next.guard == former;
            self.change_state(next)?;
        }
        if let Some(left) = former.filter(|former| self.state.guard.is_none_or(|guard| guard.index != former.index)) {
            self.remove_counter(left);
        }
        Ok(root)
    }

    /// A counter that stays behind is untidy and harms nobody.
    fn remove_counter(&mut self, guard: Guard) {
        let auth = Arc::clone(&self.counter_auth);
        let removed = self.on_device(move |sealer| {
            let removed = copy(&auth).map_or(Ok(()), |auth| guard::remove(sealer, guard.index, &auth));
            // The value of whatever counter there is now is read when it is needed.
            Command::Counted(removed.map(|()| 0))
        });
        if let Err(error) = removed {
            trouble("remove the TPM's counter that is not used any more", &error);
        }
    }
}
