//! Nodeseal: a Kubernetes KMS plugin rooted in the node's own hardware.
//!
//! # Layers
//!
//! A module may use only those in the rows above its own; modules of one row do not know each other. `tests/house`
//! reads every `use crate::` and fails on an upward or sideways one.
//!
//! | row | modules | what they are |
//! |---|---|---|
//! | 0 | [`types`] [`http2`] | ids, secret bytes, failure classes; a connection as a client |
//! | 1 | [`envelope`] [`store`] [`audit`] [`sandbox`] [`kms`] [`telemetry`] | pure bytes; atomic files; events; what the process may not do; the KMS messages and a call of them; what was done, in numbers |
//! | 2 | [`seal`] [`socket`] | client of the sealer, node root; how a unix socket is bound, and who may come in |
//! | 3 | [`sealer`] [`provider`] | the process behind it: device engines; keys that live elsewhere |
//! | 4 | [`keyring`] [`etcd`] [`kube`] | local KEKs, states, rotation, key_id; what is stored in etcd; a client of kube-apiserver |
//! | 5 | [`api`] | the KMS API on its socket; alone names tonic |
//! | 6 | [`config`] | the file, checked |
//! | 7 | [`control`] | what the operator tool and the daemon say to each other |
//! | 8 | [`daemon`] [`ctl`] | the programs |

// One file has leave, and says why; `tests/house` finds any other.
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "a test has no key, listens, and leaves files as a crash would")
)]

pub mod api;
pub mod audit;
pub mod config;
pub(crate) mod control;
pub mod ctl;
pub mod daemon;
pub mod envelope;
#[cfg(feature = "etcd")]
pub mod etcd;
pub(crate) mod http2;
pub mod keyring;
pub(crate) mod kms;
#[cfg(feature = "etcd")]
pub mod kube;
pub mod provider;
pub mod sandbox;
pub mod seal;
pub mod sealer;
pub(crate) mod socket;
pub mod store;
pub mod telemetry;
pub mod types;
