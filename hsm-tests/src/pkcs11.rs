//! The ground of a token: a throwaway key label, counts of its objects, and their removal, all past the engine.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use nodeseal::seal::fault::{Fault, FaultCode};
use nodeseal::seal::protocol::Auth;
use nodeseal::seal::token_key::TokenKey;
use nodeseal::sealer::Sealer;
use nodeseal::sealer::settings::Pkcs11Settings;
use nodeseal::types::{Key, hex, random};

use crate::{Counts, right_auth, secret};

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

/// Tries a key that machines share, under a second label that is destroyed again.
pub fn try_shared(engine: &mut dyn Sealer, direct: &Direct) -> Result<String, String> {
    if !direct.settings.make_key {
        return Ok("not tried, since no key may be made".to_owned());
    }
    let label = format!("{}-shared", direct.settings.key_label);
    let tried = wrap_shared(engine, &label);
    let destroyed = direct.destroy(&label)?;
    match tried {
        Ok(()) => Ok(format!("{destroyed} key objects of its own destroyed")),
        Err(fault) if fault.code == FaultCode::HsmMechanism => Ok(format!("not offered: {}", fault.detail)),
        Err(fault) => Err(fault.to_string()),
    }
}

fn wrap_shared(engine: &mut dyn Sealer, label: &str) -> Result<(), Fault> {
    let wrong = |what: &str| Fault::new(FaultCode::Verify, what);
    let named = |id| TokenKey::new(label, id).ok_or_else(|| wrong("the label is too long"));
    let shared = engine.shared().ok_or_else(|| wrong("the engine shares no keys"))?;
    let key = shared.find(&named(None)?, true)?;
    if shared.find(&named(None)?, false)? != key {
        return Err(wrong("another key is found than was made"));
    }
    let (used, blob) = shared.wrap(&named(None)?, &right_auth(), &secret())?;
    if used != key || shared.unwrap(&key, &right_auth(), &blob)?.expose() != secret().expose() {
        return Err(wrong("another key, or other bytes"));
    }
    let other = Key::copy_of(&[7; Key::LEN]).map(Auth::new).ok_or_else(|| wrong("32 bytes"))?;
    let refusals = [
        (shared.unwrap(&key, &other, &blob), FaultCode::Auth),
        (shared.unwrap(&named(Some(vec![7; 16]))?, &right_auth(), &blob), FaultCode::HsmForeign),
    ];
    for (result, code) in refusals {
        match result {
            Err(fault) if fault.code == code => {}
            Err(fault) => return Err(fault),
            Ok(_) => return Err(wrong("it opens for another binding or key")),
        }
    }
    Ok(())
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
        self.destroy(&self.settings.key_label)
    }

    fn destroy(&self, label: &str) -> Result<usize, String> {
        let session = self.session()?;
        let label = Attribute::Label(label.as_bytes().to_vec());
        let keys = session.find_objects(&[label]).map_err(|error| error.to_string())?;
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
