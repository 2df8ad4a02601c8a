//! Words that every layer shares: identities, secret bytes, failure classes, the error chain, and the byte reader.
//!
//! Knows nothing of the rest of the house and performs no IO, except that [`random`] asks the kernel and [`Owner`] the machine's users.

mod api;
mod backend;
mod chain;
mod checked;
mod class;
pub mod clock;
mod explained;
pub mod hex;
mod ids;
mod incident;
pub mod lock;
pub mod mac;
mod owner;
mod policy;
pub mod random;
mod regular;
mod secret;
mod shown;
pub mod stack;
mod text;
pub mod wire;

pub use api::Api;
pub use backend::{Backend, BackendError, SealTo};
pub use chain::Chain;
pub use checked::Checked;
pub use class::Class;
pub use explained::{Explain, Explained};
pub use ids::{ClusterId, CredentialName, IdError, KekId, KeyId, MemberName, RequestUid, RootId, metric_hash};
pub use incident::{Incident, IncidentError};
pub use owner::{OVERFLOW_UID, Owner};
pub use policy::{PcrBank, PcrSet, PcrSetError, SealPolicy};
pub(crate) use regular::read_regular_text;
#[cfg(feature = "etcd")]
pub(crate) use regular::{open_regular, read_regular};
pub use secret::{Key, Secret};
pub use shown::is_shown;
#[cfg(any(feature = "azure", feature = "vault"))]
pub(crate) use text::checked_text;
