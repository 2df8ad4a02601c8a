//! The ground of a TPM: its handles, counted past the engine, and the removal of a storage root key that was not there before.

use std::str::FromStr;

use nodeseal::seal::fault::FaultCode;
use nodeseal::sealer::settings::{TpmDevice, TpmSettings};
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::Provision;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::CapabilityData;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig};
use tss_esapi::{Context, TctiNameConf};

use crate::Counts;

/// The codes of an edited blob: it is damaged, names another key or place, or does not load.
pub const EDITED: &[FaultCode] = &[
    FaultCode::Format,
    FaultCode::Foreign,
    FaultCode::SrkMissing,
    FaultCode::SrkChanged,
    FaultCode::SrkUnfit,
    FaultCode::Auth,
];

/// Another TPM's blob names another storage root key.
pub const FOREIGN_CODES: &[FaultCode] = &[FaultCode::Foreign, FaultCode::SrkChanged, FaultCode::SrkMissing];

/// Sealed by swtpm 0.7.1, the frozen vector of the blob's format.
pub const FOREIGN: &str = "\
4e5345414c54504d0001018100000101000b4ce2473e9ff663c00cdf3e93af4f9ad84a65089032afead134caf20edcca0d18008fcd2169ab92694e0c\
633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e004e0008000b0000041200208fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7\
ac1eddc1fddb0e001000201318822b68215451e689ccff0aaec6f22eab36ba6379bc3ea1d11a4a39ae9df4009e00203bed177e88e1eb5ca8afc7d6e7\
baed12e72424183d9a727bf1aa8ca4ff86d5be0010047152158792d04a19c9fa5ebd7a7679eaa4c96b3f228b85196c190468d3c7b3e5f734ef40d6ea\
81857cb7aff77577e62c6ebdf0d366ef6d387ff30a4abb800bf0da04b2663221f4b6060b173c3841d5260019a0cff1047120877569f7d7f5e5ae866c\
bbfdc28c165db22683287aaf4107fc4ce19716595e2b8d000349424d0012383231372e343133312e32322e3133383738de06e0e17896124b5062b087\
5188ca7f0aa11b7fd65ff0a992a34f41e64ef8d4";

/// First handle of each kind, TPM 2.0 Part 2 §7.5. Of sessions both kinds.
const KINDS: [(&str, u32); 5] = [
    ("NV indices", 0x0100_0000),
    ("loaded sessions", 0x0200_0000),
    ("saved sessions", 0x0300_0000),
    ("transient objects", 0x8000_0000),
    ("persistent objects", 0x8100_0000),
];

/// The TPM, past the engine.
pub struct Direct {
    settings: TpmSettings,
}

impl Direct {
    /// Touches nothing yet.
    pub const fn new(settings: TpmSettings) -> Self {
        Self { settings }
    }

    /// Handles of each kind.
    pub fn count(&self) -> Result<Counts, String> {
        KINDS.into_iter().map(|(kind, first)| Ok((kind, self.handles(first)?.len() as u64))).collect()
    }

    /// Whether there is a key at the storage root key's handle.
    pub fn has_srk(&self) -> Result<bool, String> {
        let at = self.settings.parent_handle;
        let there = self.handles(0x8100_0000)?;
        Ok(there.iter().any(|handle| matches!(handle, TpmHandle::Persistent(found) if u32::from(*found) == at)))
    }

    /// Removes the storage root key, which the owner may do.
    pub fn evict_srk(&self) -> Result<(), String> {
        let text = |error: tss_esapi::Error| error.to_string();
        let mut context = self.context()?;
        let handle = PersistentTpmHandle::new(self.settings.parent_handle).map_err(text)?;
        let object = context.tr_from_tpm_public(handle.into()).map_err(text)?;
        context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.evict_control(Provision::Owner, object, Persistent::Persistent(handle))
            })
            .map_err(text)?;
        Ok(())
    }

    fn handles(&self, first: u32) -> Result<Vec<TpmHandle>, String> {
        /// A TPM has fewer of each kind.
        const MANY: u32 = 254;
        let (data, _) =
            self.context()?.get_capability(CapabilityType::Handles, first, MANY).map_err(|error| error.to_string())?;
        match data {
            CapabilityData::Handles(list) => Ok(list.into_inner()),
            _ => Err("the TPM answered another question".to_owned()),
        }
    }

    fn context(&self) -> Result<Context, String> {
        let text = |error: tss_esapi::Error| error.to_string();
        let tcti = match &self.settings.device {
            TpmDevice::Path(path) => {
                TctiNameConf::Device(DeviceConfig::from_str(&path.display().to_string()).map_err(text)?)
            }
            TpmDevice::Swtpm { port } => {
                TctiNameConf::Swtpm(NetworkTPMConfig::from_str(&format!("host=127.0.0.1,port={port}")).map_err(text)?)
            }
        };
        Context::new(tcti).map_err(text)
    }
}
