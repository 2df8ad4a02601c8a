//! All local KEKs of the node: which one encrypts, which ones decrypt, when the next one is due, and what of it is on disk.
//!
//! [`Keyring`] is the face towards the API: it answers from memory and never touches disk or device. [`keeper`] owns the state
//! directory, alone writes to it, and publishes a new snapshot only after what it names is safe on disk. [`ring`] is the pure
//! state machine below both.

mod attached;
pub mod bundle;
pub mod calendar;
mod cryptoperiod;
pub mod epoch;
mod error;
pub mod evidence;
pub mod exchanged;
pub mod export;
pub mod files;
pub mod fingerprint;
mod found;
mod guard;
pub mod home;
pub mod keeper;
pub mod kek_file;
mod kek_store;
mod live;
mod mac;
pub mod maker;
pub mod marks;
pub mod member;
mod open;
pub mod recovery;
pub mod ring;
pub mod rooted;
pub mod state_file;
mod uses;
pub mod wraps_file;

pub use attached::Attached;
pub use cryptoperiod::MaxAge;
pub use error::{KeeperError, KeyringError};
pub use found::{Founding, Marker, RecoverOrder, Recovered, Resume, abort_recovery, init, join, recover};
pub use home::Home;
pub use live::{Decrypted, Encrypted, Keyring, SealRefusal, Told, Unknown, WAITING_MAX};

pub use uses::{FIRST_BLOCK_USES, HARD_LIMIT_USES, RESERVED_BLOCK_USES, ROTATE_AT_USES, SHARERS_MAX};

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
