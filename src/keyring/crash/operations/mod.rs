//! Every operation that writes to the state directory, one entry each in [`OPERATIONS`].

mod work;

pub(super) use self::work::*;
use super::node::Node;
use super::running::Running;
use crate::keyring::KeeperError;
use crate::keyring::bundle::fingerprint;
use crate::keyring::keeper::KeeperHandle;
use crate::keyring::ring::RetireTo;

/// Something that a node does as a whole.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// From a disk without anything to where the operation begins. The node does not run then.
    pub(super) prepare: fn(&mut Node),
    pub(super) run: Run,
    /// Whether another key_id is reported afterwards.
    pub(super) moves: Moves,
}

/// How it is done.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Sets the node up; nothing was encrypted before.
    Init,
    /// On the state directory itself, while nothing runs.
    Offline(fn(&Node) -> Result<(), KeeperError>),
    /// By the running keeper.
    Online(fn(&Node, &Running) -> Result<(), Refused>),
    /// Sets the node up from its recovery file.
    Recover,
    /// The start of the keeper itself.
    Start,
}

/// What becomes of the key_id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// It may change when the operation comes through.
    May,
    /// It has changed when the node has started on a disk that is well.
    Must,
    Never,
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "init", prepare: |_| {}, run: Run::Init, moves: Moves::Never },
    Operation { name: "init after one that was killed", prepare: kill_init, run: Run::Init, moves: Moves::Never },
    Operation { name: "first start", prepare: set_up, run: Run::Start, moves: Moves::Never },
    Operation { name: "start", prepare: grow_and_rotate, run: Run::Start, moves: Moves::Never },
    Operation {
        name: "start with a destroyed KEK whose file is still there",
        prepare: half_destroy,
        run: Run::Start,
        moves: Moves::Never,
    },
    Operation {
        name: "start with a damaged state",
        prepare: |node| {
            grow_and_rotate(node);
            node.damage("state");
        },
        run: Run::Start,
        moves: Moves::May,
    },
    Operation {
        name: "start when a rotation is due",
        prepare: |node| {
            grow(node);
            node.clock += 365 * DAY;
        },
        run: Run::Start,
        moves: Moves::Must,
    },
    Operation {
        name: "start when a rotation is due and a KEK is pending",
        prepare: |node| {
            grow_and_rotate(node);
            node.clock += 365 * DAY;
        },
        run: Run::Start,
        moves: Moves::Must,
    },
    Operation {
        name: "keep what a scan of etcd has seen",
        prepare: grow,
        run: Run::Online(|_, running| keep_scan(running)),
        moves: Moves::Never,
    },
    Operation {
        name: "start with what a scan of etcd has seen",
        prepare: |node| {
            grow(node);
            node.live(|running| keep_scan(running).unwrap_or_else(|_| panic!("nothing stands in its way")));
        },
        run: Run::Start,
        moves: Moves::Never,
    },
    Operation {
        name: "rotate",
        prepare: grow,
        run: Run::Online(|_, running| Ok(running.handle.rotate().map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "activate",
        prepare: grow_and_rotate,
        run: Run::Online(|node, running| Ok(running.activate(node.target.unwrap(), false).map(|_| ())?)),
        moves: Moves::May,
    },
    Operation {
        name: "rotation that is due",
        prepare: |node| {
            grow(node);
            node.later = node.clock + 365 * DAY;
        },
        run: Run::Online(rotate_by_age),
        moves: Moves::Must,
    },
    Operation {
        name: "rotation that is due, to the pending KEK",
        prepare: |node| {
            grow_and_rotate(node);
            node.later = node.clock + 365 * DAY;
        },
        run: Run::Online(rotate_by_age),
        moves: Moves::Must,
    },
    Operation { name: "first KEK that a provider wraps", prepare: set_up_rooted, run: Run::Start, moves: Moves::Never },
    Operation { name: "start with a provider", prepare: grow_rooted, run: Run::Start, moves: Moves::Never },
    Operation {
        name: "rotation at the provider",
        prepare: grow_rooted,
        run: Run::Online(rotate_at_provider),
        // After a start it moves as soon as the provider was asked often enough.
        moves: Moves::May,
    },
    Operation {
        name: "retire as compromised",
        prepare: |node| {
            condemn_former(node);
            node.ledger.condemned = None;
        },
        run: Run::Online(|node, running| retire(node, running, RetireTo::Compromised)),
        moves: Moves::Never,
    },
    Operation {
        name: "destroy a KEK that was active",
        prepare: condemn_former,
        run: Run::Online(|node, running| retire(node, running, RetireTo::Destroyed)),
        moves: Moves::Never,
    },
    Operation {
        name: "destroy a pending KEK",
        prepare: |node| {
            grow_and_rotate(node);
            node.ledger.condemned = node.target;
        },
        run: Run::Online(|node, running| retire(node, running, RetireTo::Destroyed)),
        moves: Moves::Never,
    },
    Operation {
        name: "reseal",
        prepare: grow,
        run: Run::Online(|node, running| Ok(running.ask(|keeper| keeper.reseal(node.order())).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation { name: "reseal without a keeper", prepare: grow, run: Run::Offline(Node::reseal), moves: Moves::May },
    Operation { name: "init with recovery file and guard", prepare: insure, run: Run::Init, moves: Moves::Never },
    Operation {
        name: "rotate with recovery file and guard",
        prepare: |node| {
            insure(node);
            grow(node);
        },
        run: Run::Online(|_, running| Ok(running.ask(KeeperHandle::rotate).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "activate with recovery file and guard",
        prepare: |node| {
            insure(node);
            grow_and_rotate(node);
        },
        run: Run::Online(|node, running| Ok(running.activate(node.target.unwrap(), false).map(|_| ())?)),
        moves: Moves::May,
    },
    Operation {
        name: "destroy with recovery file and guard",
        prepare: |node| {
            insure(node);
            condemn_former(node);
        },
        run: Run::Online(|node, running| retire(node, running, RetireTo::Destroyed)),
        moves: Moves::Never,
    },
    Operation {
        name: "start with a damaged state, recovery file and guard",
        prepare: |node| {
            insure(node);
            grow_and_rotate(node);
            node.damage("state");
        },
        run: Run::Start,
        moves: Moves::May,
    },
    Operation {
        name: "reseal that brings recovery file and guard",
        prepare: |node| {
            grow(node);
            insure(node);
        },
        run: Run::Online(|node, running| Ok(running.ask(|keeper| keeper.reseal(node.order())).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation { name: "renew the root", prepare: grow, run: Run::Online(renew_root), moves: Moves::Never },
    Operation {
        name: "renew the root, with recovery file and guard",
        prepare: |node| {
            insure(node);
            grow_and_rotate(node);
        },
        run: Run::Online(renew_root),
        moves: Moves::Never,
    },
    Operation {
        name: "renew the root of a node with a provider",
        prepare: grow_rooted,
        run: Run::Online(renew_root),
        moves: Moves::Never,
    },
    Operation {
        name: "rotate in the layout of release 0.1",
        prepare: |node| {
            insure(node);
            grow(node);
            flatten(node);
        },
        run: Run::Online(|_, running| Ok(running.ask(KeeperHandle::rotate).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "ask for a bundle",
        prepare: grow,
        run: Run::Online(|_, running| Ok(running.ask(|keeper| keeper.bundle_request("cp-2".into())).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "make a bundle, with recovery file and guard",
        prepare: be_asked,
        run: Run::Online(|node, running| Ok(make_bundle(&node.file, running).map(|_| ())?)),
        moves: Moves::Never,
    },
    Operation {
        name: "accept a bundle, with recovery file and guard",
        prepare: be_given,
        run: Run::Online(accept),
        moves: Moves::May,
    },
    Operation {
        name: "add a member",
        prepare: meet_a_member,
        run: Run::Online(|node, running| {
            Ok(running.ask(|keeper| keeper.add_member(node.file.to_vec(), fingerprint(&node.file))).map(|_| ())?)
        }),
        moves: Moves::Never,
    },
    Operation {
        name: "make a bundle for a member, with recovery file and guard",
        prepare: know_a_member,
        run: Run::Online(|_, running| {
            Ok(running.ask(|keeper| keeper.bundle_for(MEMBER.parse().unwrap())).map(|_| ())?)
        }),
        moves: Moves::Never,
    },
    Operation {
        name: "accept a member's bundle, with recovery file and guard",
        prepare: be_given_by_a_member,
        run: Run::Online(|node, running| {
            Ok(running.ask(|keeper| keeper.bundle_accept(node.file.to_vec(), None)).map(|_| ())?)
        }),
        moves: Moves::May,
    },
    Operation { name: "recover an empty node", prepare: lose_all, run: Run::Recover, moves: Moves::Must },
    Operation {
        name: "recover beside keys that do not open",
        prepare: lose_root,
        run: Run::Recover,
        moves: Moves::Must,
    },
    Operation {
        name: "recover again after a recovery that was killed",
        prepare: kill_recover,
        run: Run::Recover,
        moves: Moves::Must,
    },
    Operation {
        name: "retire while another KEK does not open",
        prepare: damage_one_and_condemn_another,
        run: Run::Online(|node, running| retire(node, running, RetireTo::Compromised)),
        moves: Moves::Never,
    },
    Operation {
        name: "keep a neighbour's KEK",
        prepare: read_a_neighbour,
        run: Run::Online(keep_others),
        moves: Moves::Never,
    },
    Operation { name: "reserve uses", prepare: grow, run: Run::Online(reserve), moves: Moves::Never },
];
