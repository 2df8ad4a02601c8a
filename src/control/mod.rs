//! What the operator tool and the daemon say to each other, and how both speak to people.
//!
//! One line of JSON each way on the control socket (0600, root or our own user). Nothing secret ever crosses it.

mod client;
pub mod report;
pub mod say;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{ControlError, ask};
pub use report::{Answer, Status};
pub use server::serve;

/// Bytes of one line, either way.
pub const LINE_MAX_BYTES: u64 = 1024 * 1024;

/// What the operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// `bundle accept`
    BundleAccept {
        /// The file, in hexadecimal.
        bundle: String,
        /// As the operator compared it.
        fingerprint: String,
    },
    /// `bundle make`
    BundleMake {
        /// The file, in hexadecimal.
        request: String,
        /// As the operator compared it.
        fingerprint: String,
    },
    /// `bundle request`
    BundleRequest {
        /// What this node is called, for people.
        node: String,
    },
    /// `credentials seal`: only what is sealed already crosses the socket.
    CredentialStore {
        /// Its name.
        name: String,
        /// The payload of its file, in hexadecimal.
        sealed: String,
    },
    /// `keys activate`
    KeysActivate {
        /// Of a KEK in pre-activation.
        id: String,
    },
    /// `keys list`
    KeysList {},
    /// `keys retire`
    KeysRetire {
        /// Of a KEK that is not active.
        id: String,
        /// The id once more, typed by a person.
        confirm: String,
        /// Keep decrypting with it.
        compromised: bool,
    },
    /// `keys rotate`
    KeysRotate {},
    /// `reload`
    Reload {
        /// Also if a KEK is left that no provider opens.
        abandon: bool,
    },
    /// `reseal`
    Reseal {
        /// The device to move to; absent: the configured one.
        to: Option<String>,
        /// Whom the recovery file is encrypted to from now on; absent: as before, empty: nobody.
        recipients: Option<Vec<String>>,
    },
    /// `status`
    Status {},
}
