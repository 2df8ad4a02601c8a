//! The sealer: the one process that talks to the sealing device, and does nothing else.
//!
//! [`Sealer`] is the joint between its server loop and a device engine. It refuses to know what the sealed bytes are for: it has
//! neither the host secret nor any key made from it, so that a device or a parser taken over gains one half of the node root only.

mod devices;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
pub mod server;
pub mod settings;
#[cfg(feature = "tpm2")]
pub mod tpm2;
pub mod watch;

pub use devices::Devices;

use crate::seal::fault::Fault;
use crate::seal::protocol::{Auth, CounterStep, DeviceBlob, DeviceInfo};
use crate::seal::token_key::TokenKey;
use crate::types::{Key, SealPolicy};

/// A device that binds 32 bytes to this machine.
///
/// Synchronous and `&mut`: one thread owns one device and does one thing at a time.
pub trait Sealer {
    /// Seals, opens again what came out, compares, and only then answers. The blob is useless on any other machine. With a pin, only
    /// under the key that this one was sealed under, where that can be another one than the device's own.
    fn seal(
        &mut self,
        secret: &Key,
        auth: &Auth,
        policy: &SealPolicy,
        pin: Option<&DeviceBlob>,
    ) -> Result<DeviceBlob, Fault>;

    /// The bytes that were sealed, if device, policy and `auth` are the same as then. A failure changes nothing.
    fn unseal(&mut self, blob: &DeviceBlob, auth: &Auth) -> Result<Key, Fault>;

    /// Facts for `status`. Touches no key.
    fn describe(&mut self) -> Result<DeviceInfo, Fault>;

    /// Counters that only grow, where the device has them.
    fn counters(&mut self) -> Option<&mut dyn Counters> {
        None
    }

    /// Opening what other machines made for this device, where it can.
    fn importer(&mut self) -> Option<&mut dyn Importer> {
        None
    }

    /// Keys that several machines share, where the device is one that they can all reach.
    fn shared(&mut self) -> Option<&mut dyn SharedKeys> {
        None
    }
}

/// Wraps under keys that have names, on any machine that shares the device. What is wrapped is bound to `auth`, which is no secret.
pub trait SharedKeys {
    /// The one key of this name, tried, with its id. Makes it only when that is asked for and there is none.
    fn find(&mut self, key: &TokenKey, make: bool) -> Result<TokenKey, Fault>;

    /// As [`Sealer::seal`], with the key that was used.
    fn wrap(&mut self, key: &TokenKey, auth: &Auth, secret: &Key) -> Result<(TokenKey, DeviceBlob), Fault>;

    /// The mirror of [`SharedKeys::wrap`]. Refuses a text of another key than this one.
    fn unwrap(&mut self, key: &TokenKey, auth: &Auth, blob: &DeviceBlob) -> Result<Key, Fault>;
}

/// Counters that nothing can set back: not a restored disk, and not their own removal.
pub trait Counters {
    /// One step, and the value after it. The pin is a seal under the key that hides the authValue on its way.
    fn count(&mut self, step: CounterStep, index: u32, auth: &Auth, pin: Option<&DeviceBlob>) -> Result<u64, Fault>;
}

/// Takes in what another machine made for this device alone.
pub trait Importer {
    /// The key to make it for: TPMT_PUBLIC (TPM 2.0 Part 2 §12.2.4) of the storage root key. With a pin, of the one that this was
    /// sealed under.
    fn parent(&mut self, pin: Option<&DeviceBlob>) -> Result<Vec<u8>, Fault>;

    /// Opens it. Leaves nothing in the device. The argument is an encoded duplicate (docs/formats.md, "Duplicate"); the pin as in
    /// [`Importer::parent`].
    fn import(&mut self, duplicate: &[u8], auth: &Auth, pin: Option<&DeviceBlob>) -> Result<Key, Fault>;
}
