//! What the device engines are told by the configuration, and by nothing else: they read neither a TCTI string nor any other
//! setting from the environment. (A PKCS#11 module may read its own; that is its maker's affair.)
//!
//! Compiled without the features of the engines too, so that a configuration is checked the same way in every build.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::sandbox::{Access, Needs};
use crate::seal::token_key::TokenKey;

/// Handle of the shared storage root key: TCG TPM v2.0 Provisioning Guidance §7.8, table 2.
pub const DEFAULT_PARENT_HANDLE: u32 = 0x8100_0001;

/// First and last persistent handle that the owner may fill: TPM 2.0 Part 2 §7.5 (platform handles begin at 0x81800000).
pub const OWNER_PERSISTENT_HANDLES: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x817F_FFFF;

/// NV indices that belong to the owner: TCG Registry of Reserved TPM 2.0 Handles and Localities §2.2.2.
pub const OWNER_NV_INDICES: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01BF_FFFF;

/// Where the counter is unless the configuration says otherwise: "NS".
pub const DEFAULT_COUNTER_INDEX: u32 = 0x0180_4E53;

/// Settings of `[seal.tpm2]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSettings {
    /// Where the TPM is.
    pub device: TpmDevice,
    /// Where the storage root key is, or is put if there is none. One of [`OWNER_PERSISTENT_HANDLES`].
    pub parent_handle: u32,
    /// Without it a TPM made of software is refused: it protects nothing.
    pub allow_software_tpm: bool,
}

impl TpmSettings {
    /// The device; its library, which loads the transport when it is first used; and what the library's own cryptography reads.
    pub fn needs(&self) -> Needs {
        let needs = Needs::default()
            .libraries()
            .path("/etc/ssl".as_ref(), Access::Read, "configuration of the TPM library's cryptography")
            .path("/dev/urandom".as_ref(), Access::Read, "randomness for the TPM library's cryptography");
        match &self.device {
            TpmDevice::Path(device) => needs.path(device, Access::Device, "the TPM"),
            // Commands, and the control channel on the next port; 65534 is the last one that parses.
            TpmDevice::Swtpm { port } => needs.port(*port).port(port.saturating_add(1)),
        }
    }
}

/// A way to a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmDevice {
    /// A device file of the kernel, absolute. Only one with a resource manager (`/dev/tpmrm0`) can be shared.
    Path(PathBuf),
    /// swtpm on 127.0.0.1, with its control channel on the next port: where libtss2-tcti-swtpm looks for it.
    Swtpm {
        /// Port of the command channel.
        port: u16,
    },
}

/// Neither a device file nor a software TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TPM is an absolute path such as /dev/tpmrm0, or swtpm:port=N with N from 1 to 65534")]
pub struct TpmDeviceError;

impl FromStr for TpmDevice {
    type Err = TpmDeviceError;

    fn from_str(text: &str) -> Result<Self, TpmDeviceError> {
        if let Some(port) = text.strip_prefix("swtpm:port=") {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            return match port.parse() {
                Ok(port @ 1..=65534) if digits => Ok(Self::Swtpm { port }),
                _ => Err(TpmDeviceError),
            };
        }
        if text.starts_with('/') && !text.contains('\0') { Ok(Self::Path(text.into())) } else { Err(TpmDeviceError) }
    }
}

impl fmt::Display for TpmDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Swtpm { port } => write!(f, "swtpm:port={port}"),
        }
    }
}

/// Settings of `[seal.pkcs11]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Settings {
    /// The module, absolute.
    pub module: PathBuf,
    /// CKA_LABEL of the token. Slot numbers move; this does not.
    pub token_label: String,
    /// Its serial number, where two tokens have one label.
    pub token_serial: Option<String>,
    /// Holds the user's PIN, absolute.
    pub pin_file: PathBuf,
    /// CKA_LABEL of the wrapping key.
    pub key_label: String,
    /// Its CKA_ID, where two keys have one label. A key that is named by its id is never made.
    pub key_id: Option<Vec<u8>>,
    /// Makes the wrapping key when there is none of that label.
    pub make_key: bool,
    /// Also a key of which the token does not tell whether it can be read out.
    pub trust_key: bool,
    /// The one to use; absent: the first that passes its trial.
    pub mechanism: Option<Pkcs11Mechanism>,
    /// Files, folders and devices that the module works with.
    pub allow_paths: Vec<PathBuf>,
    /// TCP ports that the module connects to.
    pub allow_ports: Vec<u16>,
}

impl Pkcs11Settings {
    /// CKA_LABEL of the wrapping key unless told otherwise.
    pub const DEFAULT_KEY_LABEL: &str = "nodeseal";
    /// Bytes of a token's label: CK_TOKEN_INFO, PKCS#11 v3.0 §3.2.
    pub const TOKEN_LABEL_MAX: usize = 32;
    /// Bytes of a token's serial number: CK_TOKEN_INFO.
    pub const TOKEN_SERIAL_MAX: usize = 16;
    /// Bytes of CKA_LABEL and CKA_ID.
    pub const KEY_NAME_MAX: usize = TokenKey::NAME_MAX_BYTES;

    /// The module with what lies beside it, the PIN, and what the operator says that the module works with. `/etc` is read, since each
    /// vendor's configuration has another place in it.
    pub fn needs(&self) -> Needs {
        let needs = Needs::default()
            .libraries()
            .replaced_file(&self.module, "the PKCS#11 module")
            .replaced_file(&self.pin_file, "the PIN")
            .path("/etc".as_ref(), Access::Read, "configuration of the PKCS#11 module")
            // Of its own daemon, wherever that listens; and a token in the network has a name.
            .any_socket()
            .name_servers();
        let needs = self.allow_paths.iter().fold(needs, |needs, path| {
            // A folder that the module keeps, or a device of its.
            let access = if path.is_dir() { Access::Keep } else { Access::Device };
            needs.path(path, access, "seal.pkcs11.allow_paths")
        });
        self.allow_ports.iter().fold(needs, |needs, port| needs.port(*port))
    }
}

/// How a token encrypts 64 bytes for us. The number is its place in the blob and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pkcs11Mechanism {
    /// CKM_AES_GCM with a 256-bit key.
    AesGcm = 1,
    /// CKM_RSA_PKCS_OAEP with SHA-256 and MGF1-SHA-256.
    RsaOaepSha256 = 2,
    /// CKM_AES_CBC_PAD, then CKM_SHA256_HMAC over everything.
    AesCbcHmac = 3,
}

impl Pkcs11Mechanism {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::AesGcm, Self::RsaOaepSha256, Self::AesCbcHmac];

    /// As written in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AesGcm => "aes-gcm",
            Self::RsaOaepSha256 => "rsa-oaep-sha256",
            Self::AesCbcHmac => "aes-cbc-hmac",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_back_as_it_is_shown() {
        for text in ["/dev/tpmrm0", "/dev/tpm0", "swtpm:port=1", "swtpm:port=65534"] {
            assert_eq!(text.parse::<TpmDevice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nothing_but_a_path_or_a_local_swtpm_is_a_device() {
        for text in [
            "",
            "tpmrm0",
            "device:/dev/tpmrm0",
            "/dev/tpm\0rm0",
            "swtpm",
            "swtpm:port=",
            "swtpm:port=0",
            "swtpm:port=65535",
            "swtpm:port=+7",
            "swtpm:port=2321,host=10.0.0.1",
            "swtpm:host=10.0.0.1,port=2321",
            "mssim:port=2321",
        ] {
            assert_eq!(text.parse::<TpmDevice>(), Err(TpmDeviceError), "{text:?}");
        }
    }
}
