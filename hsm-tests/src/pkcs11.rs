//! The ground of a token: a throwaway key label, counts of its objects, and their removal, all past the engine.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use nodeseal::seal::fault::FaultCode;
use nodeseal::sealer::settings::Pkcs11Settings;
use nodeseal::types::random;

use crate::Counts;

/// The codes of an edited blob: it is damaged, names another key, or does not authenticate.
pub const EDITED: &[FaultCode] = &[FaultCode::Format, FaultCode::HsmKey, FaultCode::HsmForeign, FaultCode::Auth];

/// Another token's blob names a key that is not here.
pub const FOREIGN_CODES: &[FaultCode] = &[FaultCode::HsmKey];

/// Of a token that does not exist.
pub const FOREIGN: &str = "\
4e5345414c50313100010100086e6f64657365616c0010000102030405060708090a0b0c0d0e0f0007616e6f74686572000131000f536f667448\
534d2070726f6a656374000a536f667448534d207632111111111111111111111111005022222222222222222222222222222222222222222222\
22222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222\
5a150717e50751a34e8c76ac4818979497cab94db38a00b7f877f80acd12d497";

/// A label that no key has.
pub fn throwaway_label() -> Result<String, String> {
    let random: [u8; 6] = random::array().map_err(|error| error.to_string())?;
    Ok(format!("nodeseal-hsm-test-{}", hex::encode(random)))
}

/// The token, past the engine.
pub struct Direct {
    library: Pkcs11,
    settings: Pkcs11Settings,
}

impl Direct {
    /// Loads the module. The engine has looked whether it is safe.
    pub fn new(settings: Pkcs11Settings) -> Result<Self, String> {
        let library = Pkcs11::new(&settings.module).map_err(|error| error.to_string())?;
        Ok(Self { library, settings })
    }

    /// Objects of the token.
    pub fn count(&self) -> Result<Counts, String> {
        let session = self.session()?;
        let of = |template: &[Attribute]| {
            let found = session.find_objects(template).map_err(|error| error.to_string())?;
            Ok::<_, String>(u64::try_from(found.len()).unwrap_or(u64::MAX))
        };
        Ok(Counts::from([
            ("token objects", of(&[Attribute::Token(true)])?),
            ("session objects", of(&[Attribute::Token(false)])?),
            ("keys of ours", of(&[self.label()])?),
        ]))
    }

    /// Destroys the keys of the throwaway label. Gives how many there were.
    pub fn clean_up(&self) -> Result<usize, String> {
        let session = self.session()?;
        let keys = session.find_objects(&[self.label()]).map_err(|error| error.to_string())?;
        for key in &keys {
            session.destroy_object(*key).map_err(|error| error.to_string())?;
        }
        Ok(keys.len())
    }

    /// C_Finalize, after which nothing of ours is left in the process.
    pub fn close(self) {
        let _ = self.library.finalize();
    }

    fn label(&self) -> Attribute {
        Attribute::Label(self.settings.key_label.as_bytes().to_vec())
    }

    fn session(&self) -> Result<Session, String> {
        let text = |error: Error| error.to_string();
        match self.library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(text(error)),
        }
        for slot in self.library.get_slots_with_token().map_err(text)? {
            let Ok(info) = self.library.get_token_info(slot) else { continue };
            let serial = self.settings.token_serial.as_deref().unwrap_or(info.serial_number().trim());
            if info.label().trim_end() != self.settings.token_label || info.serial_number().trim() != serial {
                continue;
            }
            let session = self.library.open_rw_session(slot).map_err(text)?;
            let mut pin = std::fs::read(&self.settings.pin_file).map_err(|error| error.to_string())?;
            if pin.last() == Some(&b'\n') {
                pin.pop();
            }
            return match session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin))) {
                Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
                Err(error) => Err(text(error)),
            };
        }
        Err("the token is not there".to_owned())
    }
}
