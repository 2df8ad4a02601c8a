//! Opens the TPM for one operation and says what it is. Nothing outlives the operation: dropping a [`Context`] flushes every
//! object and session that was made through it, on the way of an error too.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use tss_esapi::constants::PropertyTag;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig};
use tss_esapi::{Context, TctiNameConf};

use super::fault::{At, Failure, Step};
use crate::seal::fault::FaultCode;
use crate::sealer::settings::{TpmDevice, TpmSettings};

/// TPM_PT_MANUFACTURER of software TPMs: libtpms and swtpm (`IBM`), Microsoft's simulator (`XYZ`), others (`SW`).
///
/// The vTPMs of clouds and hypervisors name their vendors (AMZN, GOOG, MSFT, VMW) and are taken for the hardware they stand for.
const SOFTWARE: [&str; 3] = ["IBM", "XYZ", "SW"];

/// A fresh context, after the guard against software TPMs.
pub(super) fn open(settings: &TpmSettings) -> Result<Context, Failure> {
    let mut context = open_any(settings)?;
    if !settings.allow_software_tpm {
        let manufacturer = manufacturer(&mut context)?;
        if is_software(&manufacturer) {
            return Err(Failure::refused(FaultCode::SoftwareTpm, format!("manufacturer {manufacturer}")));
        }
    }
    Ok(context)
}

/// A fresh context to whatever is there: to look at it, not to give it a secret.
pub(super) fn open_any(settings: &TpmSettings) -> Result<Context, Failure> {
    let tcti = match &settings.device {
        TpmDevice::Path(path) => {
            check_device(path)?;
            let text = path.to_str().ok_or_else(|| no_device(path, "its name is not UTF-8"))?;
            TctiNameConf::Device(DeviceConfig::from_str(text).at(Step::Connect)?)
        }
        TpmDevice::Swtpm { port } => {
            let address = format!("host=127.0.0.1,port={port}");
            TctiNameConf::Swtpm(NetworkTPMConfig::from_str(&address).at(Step::Connect)?)
        }
    };
    Context::new(tcti).at(Step::Connect)
}

/// Names the reason before the library hides it: it answers one code for a missing file, a closed one and a missing library.
fn check_device(path: &Path) -> Result<(), Failure> {
    let refuse = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => {
            Failure::refused(FaultCode::Busy, format!("{}: EBUSY, another program holds it", path.display()))
        }
        Some(errno) => no_device(path, &errno.to_string()),
        None => no_device(path, &error.to_string()),
    };
    if !fs::metadata(path).map_err(refuse)?.file_type().is_char_device() {
        return Err(no_device(path, "not a character device"));
    }
    OpenOptions::new().read(true).write(true).open(path).map_err(refuse)?;
    Ok(())
}

fn no_device(path: &Path, why: &str) -> Failure {
    Failure::refused(FaultCode::NoDevice, format!("{}: {why}", path.display()))
}

/// Whether the manufacturer is one of software TPMs.
pub(super) fn is_software(manufacturer: &str) -> bool {
    SOFTWARE.contains(&manufacturer)
}

/// TPM_PT_MANUFACTURER without its padding, such as `INTC`.
pub(super) fn manufacturer(context: &mut Context) -> Result<String, Failure> {
    let word = property(context, PropertyTag::Manufacturer)?;
    Ok(vendor_text(word))
}

fn vendor_text(word: u32) -> String {
    let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
    let text: String = word.to_be_bytes().iter().take_while(|byte| **byte != 0).map(shown).collect();
    text.trim_end().to_owned()
}

/// TPM_PT_FIRMWARE_VERSION_1 and _2 as four numbers, the way vendors write them.
pub(super) fn firmware(context: &mut Context) -> Result<String, Failure> {
    let (one, two) =
        (property(context, PropertyTag::FirmwareVersion1)?, property(context, PropertyTag::FirmwareVersion2)?);
    Ok(format!("{}.{}.{}.{}", one >> 16, one & 0xFFFF, two >> 16, two & 0xFFFF))
}

/// One TPM_PT. A TPM that has not got it answers 0 here: all that we ask for are mandatory (PC Client Platform TPM Profile §4.4).
pub(super) fn property(context: &mut Context, tag: PropertyTag) -> Result<u32, Failure> {
    Ok(context.get_tpm_property(tag).at(Step::Inquire)?.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manufacturer_is_read_as_text_and_never_breaks_a_line() {
        assert_eq!(vendor_text(0x494E_5443), "INTC");
        assert_eq!(vendor_text(0x4942_4D00), "IBM");
        assert_eq!(vendor_text(0x5357_2020), "SW");
        assert_eq!(vendor_text(0x410A_1B42), "A??B");
        assert!(is_software("IBM") && is_software("SW") && !is_software("INTC") && !is_software(""));
    }

    #[test]
    fn what_is_no_character_device_is_no_tpm_and_says_why() {
        let fault = |path: &str| check_device(Path::new(path)).unwrap_err().into_fault();
        let file = tempfile::NamedTempFile::new().unwrap();
        for (path, why) in [
            ("/nonexistent/tpmrm0", "ENOENT"),
            (file.path().to_str().unwrap(), "not a character device"),
            ("/", "not a character device"),
        ] {
            let fault = fault(path);
            assert_eq!(fault.code, FaultCode::NoDevice, "{path}");
            assert!(fault.detail.contains(why), "{}", fault.detail);
        }
        assert!(check_device(Path::new("/dev/null")).is_ok());
    }
}
