//! The PKCS#11 engine: has a token encrypt 64 bytes under a key that the token does not give away.
//!
//! One module, one session, held open between questions, since logging in can take seconds and some tokens count it. When the
//! token went away meanwhile, everything is closed and opened anew, once for each question.
//!
//! Refuses to spend the token's tries on a PIN that it refused or may have counted, a module that others could replace, a key that can be read out of
//! the token, and to report success before what it sealed came back the same. It destroys no object but one that it has itself
//! made and found useless, and it never falls back to OAEP with SHA-1.
//!
//! What is encrypted is `secret ‖ HMAC-SHA256(authValue, "nodeseal pkcs11 v1\0" ‖ head ‖ secret)`: a token has no authValue of an
//! object as a TPM has, and this gives the same answer to a wrong one.

pub mod blob;
mod fault;
mod handles;
mod key;
mod login;
mod mechanism;
mod module;
mod pin;
mod shared;
mod token;
mod tries;

use std::time::Duration;

use hmac::Mac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::blob::{Blob, Head};
use self::fault::Failure;
use self::key::Wanted;
use self::login::Pins;
use self::module::Module;
use self::token::Token;
use super::settings::Pkcs11Settings;
use super::{Sealer, SharedKeys};
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::protocol::{Auth, DeviceBlob, DeviceInfo};
use crate::store::RunFile;
use crate::types::mac::hmac_sha256;
use crate::types::{Key, SealPolicy};

/// Between losing a token and asking for it again: what a client library needs to notice.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Begins what the authValue authenticates.
const TAG_LABEL: &[u8] = b"nodeseal pkcs11 v1\0";

/// Bytes of the payload: secret and tag.
const PAYLOAD_BYTES: usize = 2 * Key::LEN;

/// One token behind one module.
pub struct Pkcs11 {
    settings: Pkcs11Settings,
    pins: Pins,
    // In this order: a session is closed before its module is finalised.
    token: Option<Token>,
    module: Option<Module>,
}

impl Pkcs11 {
    /// For a process that answers one question after the other, and remembers what the token refused. Touches nothing yet.
    pub fn new(settings: Pkcs11Settings) -> Self {
        Self { pins: Pins::new(settings.pin_file.clone(), true), settings, token: None, module: None }
    }

    /// For a process that answers one question and ends. It makes up for having no memory by trusting the token's: see `login`.
    pub fn for_one_question(settings: Pkcs11Settings) -> Self {
        Self { pins: Pins::new(settings.pin_file.clone(), false), ..Self::new(settings) }
    }

    /// Remembers in this file too which PIN the token may have counted, for the next engine and the next process of this boot.
    #[must_use]
    pub fn remembering_in(mut self, file: &RunFile) -> Self {
        self.pins.remember_in(file.clone());
        self
    }

    /// Does it with the session that is open, and once more with a new one if that may help.
    fn run<T>(&mut self, work: impl Fn(&Module, &Token, &Pkcs11Settings) -> Result<T, Failure>) -> Result<T, Fault> {
        let was_open = self.token.is_some();
        let failure = match self.attempt(&work) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        // What a session says that has lost its token can be anything, "there is no such key" included.
        let stale = was_open && is_of_the_machine(failure.fault().code);
        if !stale && !failure.may_pass() {
            return Err(failure.into_fault());
        }
        self.token = None;
        std::thread::sleep(REOPEN_PAUSE);
        self.attempt(&work).map_err(|failure| {
            self.token = None;
            failure.into_fault()
        })
    }

    fn attempt<T>(
        &mut self,
        work: impl Fn(&Module, &Token, &Pkcs11Settings) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.token.is_none() {
            // Before anything is touched.
            let pin = self.pins.read()?;
            let module = fresh(&mut self.module, &self.settings)?;
            self.token = Some(Token::open(module.library(), &self.settings, &mut self.pins, &pin)?);
        }
        match (&self.module, &self.token) {
            (Some(module), Some(token)) => work(module, token, &self.settings),
            _ => Err(Failure::last(Fault::new(FaultCode::Internal, "no session"))),
        }
    }

    fn seal_once(
        module: &Module,
        token: &Token,
        wanted: &Wanted<'_>,
        secret: &Key,
        auth: &Auth,
    ) -> Result<Blob, Failure> {
        let wrapping = key::for_sealing(module.library(), token, wanted)?;
        let facts = token.facts.clone();
        let head = Head {
            mechanism: wrapping.mechanism,
            key_label: wanted.label.to_owned(),
            key_id: wrapping.id,
            token: [facts.label, facts.serial, facts.manufacturer, facts.model],
        };
        let bytes = head.encode();
        let mut payload = Zeroizing::new([0; PAYLOAD_BYTES]);
        payload[..Key::LEN].copy_from_slice(secret.expose());
        payload[Key::LEN..].copy_from_slice(&*tag(auth, &bytes, secret.expose()));
        let sealed = mechanism::encrypt(&token.session, &wrapping.handles, &bytes, &*payload)?;
        Ok(Blob { head, sealed })
    }

    /// Seals and opens again. What will be stored is what is proved. Gives the CKA_ID of the key that was used too.
    fn seal_and_prove(
        &mut self,
        wanted: &Wanted<'_>,
        secret: &Key,
        auth: &Auth,
    ) -> Result<(Vec<u8>, DeviceBlob), Fault> {
        let bytes = self.run(|module, token, _| Self::seal_once(module, token, wanted, secret, auth))?.encode();
        let stored = decode(&bytes).map_err(|fault| unproved(&fault))?;
        let back = self
            .run(|_, token, settings| Self::unseal_once(token, &stored, auth, settings.trust_key))
            .map_err(|fault| unproved(&fault))?;
        if !bool::from(back.expose().ct_eq(secret.expose())) {
            return Err(Fault::new(FaultCode::Verify, "other bytes came back"));
        }
        let blob = DeviceBlob::new(bytes);
        let blob = blob.ok_or_else(|| Fault::new(FaultCode::Internal, "the sealed blob is too long"))?;
        Ok((stored.head.key_id, blob))
    }

    fn unseal_once(token: &Token, blob: &Blob, auth: &Auth, trust: bool) -> Result<Key, Failure> {
        let handles = key::named(&token.session, &blob.head, trust)?;
        let head = blob.head.encode();
        let payload = match mechanism::decrypt(&token.session, &handles, &head, &blob.sealed) {
            Err(failure) if failure.is_of_text() => return Err(Self::whose_fault(token, &blob.head, trust, failure)),
            other => other?,
        };
        let foreign = || Failure::last(Fault::new(FaultCode::HsmForeign, "other bytes than a payload came out"));
        let (secret, stored) = payload.split_at_checked(Key::LEN).ok_or_else(foreign)?;
        let secret = Key::copy_of(secret).filter(|_| payload.len() == PAYLOAD_BYTES).ok_or_else(foreign)?;
        if !bool::from(tag(auth, &head, secret.expose()).ct_eq(stored)) {
            return Err(Failure::last(Fault::new(FaultCode::Auth, "")));
        }
        Ok(secret)
    }

    /// Asks the token whether it is well, since its answer did not tell a text that does not open from a device that is broken.
    fn whose_fault(token: &Token, head: &Head, trust: bool, failure: Failure) -> Failure {
        let health =
            key::named(&token.session, head, trust).and_then(|handles| mechanism::trial(&token.session, &handles));
        match health {
            Ok(_) => {
                let detail = format!("{}; the token is healthy", failure.into_fault().detail);
                Failure::last(Fault::new(FaultCode::HsmForeign, detail))
            }
            Err(_) => failure,
        }
    }
}

impl Sealer for Pkcs11 {
    /// A token's key is found by its label, which the configuration names: a pin says nothing about it.
    fn seal(
        &mut self,
        secret: &Key,
        auth: &Auth,
        policy: &SealPolicy,
        _pin: Option<&DeviceBlob>,
    ) -> Result<DeviceBlob, Fault> {
        if *policy != SealPolicy::None {
            return Err(Fault::new(FaultCode::NotCompiledIn, "a token has no policies: only a TPM has PCRs"));
        }
        let settings = self.settings.clone();
        self.seal_and_prove(&Wanted::of(&settings), secret, auth).map(|(_, blob)| blob)
    }

    fn unseal(&mut self, blob: &DeviceBlob, auth: &Auth) -> Result<Key, Fault> {
        let blob = decode(blob.as_bytes())?;
        self.run(|_, token, settings| Self::unseal_once(token, &blob, auth, settings.trust_key))
    }

    fn describe(&mut self) -> Result<DeviceInfo, Fault> {
        // A locked token cannot be logged in to, and that is what is asked.
        if self.token.is_none() {
            let module = fresh(&mut self.module, &self.settings).map_err(Failure::into_fault)?;
            let facts = token::look(module.library(), &self.settings).map_err(Failure::into_fault)?;
            if facts.is_locked {
                return Ok(info(facts, String::new()));
            }
        }
        self.run(|module, token, settings| {
            let name = key::name(&token.session, settings)?;
            token::look(module.library(), settings).map(|facts| info(facts, name))
        })
    }

    fn shared(&mut self) -> Option<&mut dyn SharedKeys> {
        Some(self)
    }
}

/// The module, loaded if it is not, and initialised anew.
fn fresh<'a>(module: &'a mut Option<Module>, settings: &Pkcs11Settings) -> Result<&'a Module, Failure> {
    let module = match module {
        Some(module) => module,
        None => module.insert(Module::load(&settings.module)?),
    };
    module.restart()?;
    Ok(module)
}

fn info(facts: token::Facts, root_key_name: String) -> DeviceInfo {
    DeviceInfo {
        backend: "pkcs11".to_owned(),
        software: facts.is_software(),
        manufacturer: facts.manufacturer,
        firmware: facts.firmware,
        root_key_name,
        lockout_counter: 0,
        lockout_max: 0,
        in_lockout: facts.is_locked,
    }
}

fn tag(auth: &Auth, head: &[u8], secret: &[u8; Key::LEN]) -> Zeroizing<[u8; Key::LEN]> {
    let mac = hmac_sha256(auth.expose());
    let mac = mac.chain_update(TAG_LABEL).chain_update(head).chain_update(secret);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn decode(bytes: &[u8]) -> Result<Blob, Fault> {
    Blob::decode(bytes).map_err(|error| Fault::new(FaultCode::Format, error.to_string()))
}

/// Faults that an old session may report without being right about it.
fn is_of_the_machine(code: FaultCode) -> bool {
    use FaultCode as F;
    matches!(code, F::HsmGone | F::HsmKey | F::HsmToken | F::HsmMechanism | F::HsmAnswer)
}

/// A fault while proving a new seal: of the token's state it stays what it is, of the seal itself it says that the token did not
/// keep its word.
fn unproved(fault: &Fault) -> Fault {
    let code = match fault.code {
        FaultCode::Auth | FaultCode::HsmForeign | FaultCode::Format => FaultCode::Verify,
        other => other,
    };
    Fault::new(code, fault.detail.clone())
}
