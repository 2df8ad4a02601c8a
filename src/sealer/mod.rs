//! The sealer: the one process that talks to the sealing device, and does nothing else.
//!
//! [`Sealer`] is the joint between its server loop and a device engine. It refuses to know what the sealed bytes are for: it has
//! neither the host secret nor any key made from it, so that a device or a parser taken over gains one half of the node root only.

pub mod server;
pub mod settings;
#[cfg(feature = "tpm2")]
pub mod tpm2;

use crate::seal::fault::Fault;
use crate::seal::protocol::{Auth, DeviceBlob, DeviceInfo};
use crate::types::{Key, SealPolicy};

/// A device that binds 32 bytes to this machine.
///
/// Synchronous and `&mut`: one thread owns one device and does one thing at a time.
pub trait Sealer {
    /// Seals, opens again what came out, compares, and only then answers. The blob is useless on any other machine.
    fn seal(&mut self, secret: &Key, auth: &Auth, policy: &SealPolicy) -> Result<DeviceBlob, Fault>;

    /// The bytes that were sealed, if device, policy and `auth` are the same as then. A failure changes nothing.
    fn unseal(&mut self, blob: &DeviceBlob, auth: &Auth) -> Result<Key, Fault>;

    /// Facts for `status`. Touches no key.
    fn describe(&mut self) -> Result<DeviceInfo, Fault>;
}

/// Stands in where no engine was compiled in, and says so.
#[cfg(not(feature = "tpm2"))]
pub struct NotCompiledIn;

#[cfg(not(feature = "tpm2"))]
impl Sealer for NotCompiledIn {
    fn seal(&mut self, _: &Key, _: &Auth, _: &SealPolicy) -> Result<DeviceBlob, Fault> {
        Err(not_compiled_in())
    }

    fn unseal(&mut self, _: &DeviceBlob, _: &Auth) -> Result<Key, Fault> {
        Err(not_compiled_in())
    }

    fn describe(&mut self) -> Result<DeviceInfo, Fault> {
        Err(not_compiled_in())
    }
}

#[cfg(not(feature = "tpm2"))]
fn not_compiled_in() -> Fault {
    Fault::new(crate::seal::fault::FaultCode::NotCompiledIn, "tpm2")
}
