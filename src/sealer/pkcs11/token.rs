//! One session on the one token that label and serial number name, logged in, and held open between questions.
//!
//! Slot numbers are never used: they move with every token that is plugged in.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};

use super::blob::printable;
use super::fault::{Failure, Step};
use super::login::Pins;
use super::pin::Pin;
use crate::seal::fault::{Fault, FaultCode};
use crate::sealer::settings::Pkcs11Settings;

/// A logged-in session. Closed when it drops.
pub(super) struct Token {
    pub(super) session: Session,
    pub(super) slot: Slot,
    pub(super) facts: Facts,
}

/// What the token says of itself, fit to be stored and shown.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) label: String,
    pub(super) serial: String,
    pub(super) manufacturer: String,
    pub(super) model: String,
    pub(super) firmware: String,
    pub(super) is_locked: bool,
}

impl Facts {
    fn of(info: &TokenInfo) -> Self {
        Self {
            label: printable(info.label()),
            serial: printable(info.serial_number()),
            manufacturer: printable(info.manufacturer_id()),
            model: printable(info.model()),
            firmware: info.firmware_version().to_string(),
            is_locked: info.user_pin_locked(),
        }
    }

    /// Tokens that are files. For `status` alone: nothing is refused for it.
    pub(super) fn is_software(&self) -> bool {
        let name = format!("{} {}", self.manufacturer, self.model).to_lowercase();
        ["softhsm", "mozilla", "nss", "kryoptic"].iter().any(|software| name.contains(software))
    }
}

impl Token {
    /// Finds it, opens a session, logs in.
    pub(super) fn open(
        library: &Pkcs11,
        settings: &Pkcs11Settings,
        pins: &mut Pins,
        pin: &Pin,
    ) -> Result<Self, Failure> {
        let (slot, info) = find(library, settings)?;
        let session = match library.open_rw_session(slot) {
            // A key that is there already needs no writing.
            Err(Error::Pkcs11(RvError::TokenWriteProtected, _)) => library.open_ro_session(slot),
            other => other,
        };
        let session = session.map_err(|error| Failure::new(Step::OpenSession, &error))?;
        pins.login(&session, &info, pin)?;
        Ok(Self { session, slot, facts: Facts::of(&info) })
    }
}

/// What the configured token says of itself, without a session.
pub(super) fn look(library: &Pkcs11, settings: &Pkcs11Settings) -> Result<Facts, Failure> {
    find(library, settings).map(|(_, info)| Facts::of(&info))
}

fn find(library: &Pkcs11, settings: &Pkcs11Settings) -> Result<(Slot, TokenInfo), Failure> {
    let slots = library.get_slots_with_token().map_err(|error| Failure::new(Step::FindToken, &error))?;
    let (mut tokens, mut silent) = (Vec::new(), Vec::new());
    for slot in slots {
        match library.get_token_info(slot) {
            Ok(info) => tokens.push((slot, info)),
            // Another token's trouble, or ours, and then ours is not found.
            Err(error) => silent.push(format!("slot {}: its token's info cannot be read: {error}", slot.id())),
        }
    }
    choose(tokens, settings, |info| (info.label().trim_end().to_owned(), info.serial_number().trim().to_owned()))
        .map_err(|fault| Failure::last(with_silent(fault, &silent)))
}

/// Where ours may be, if it is not among those that can be read.
fn with_silent(mut fault: Fault, silent: &[String]) -> Fault {
    for slot in silent {
        fault = Fault::new(fault.code, format!("{}; {slot}", fault.detail));
    }
    fault
}

fn choose<T>(
    tokens: Vec<(Slot, T)>,
    settings: &Pkcs11Settings,
    names: impl Fn(&T) -> (String, String),
) -> Result<(Slot, T), Fault> {
    let Pkcs11Settings { token_label, token_serial, .. } = settings;
    let seen =
        tokens.iter().map(|(_, token)| format!("{:?}", printable(&names(token).0))).collect::<Vec<_>>().join(", ");
    let mut of_label: Vec<_> = tokens.into_iter().filter(|(_, token)| names(token).0 == *token_label).collect();
    if of_label.is_empty() {
        let seen = if seen.is_empty() { String::new() } else { format!("; those there have {seen}") };
        return Err(Fault::new(FaultCode::HsmGone, format!("there is no token of the label {token_label:?}{seen}")));
    }
    let serials = of_label.iter().map(|(_, token)| printable(&names(token).1)).collect::<Vec<_>>().join(", ");
    if let Some(serial) = token_serial {
        of_label.retain(|(_, token)| names(token).1 == *serial);
    }
    match (of_label.pop(), of_label.len()) {
        (Some(token), 0) => Ok(token),
        (None, _) => Err(Fault::new(
            FaultCode::HsmToken,
            format!("none of them has that serial number; those there have {serials}"),
        )),
        (Some(_), others) => Err(Fault::new(
            FaultCode::HsmToken,
            format!("{} tokens have the label {token_label:?}; their serial numbers are {serials}", others + 1),
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::sealer::pkcs11) fn settings() -> Pkcs11Settings {
        Pkcs11Settings {
            module: "/usr/lib/none.so".into(),
            token_label: "a".into(),
            token_serial: None,
            pin_file: "/nonexistent".into(),
            key_label: "nodeseal".into(),
            key_id: None,
            make_key: true,
            trust_key: false,
            mechanism: None,
            allow_paths: Vec::new(),
            allow_ports: Vec::new(),
        }
    }

    fn chosen(tokens: &[(&str, &str)], serial: Option<&str>) -> Result<String, FaultCode> {
        let slots = (0u64..).map(|number| Slot::try_from(number).unwrap());
        let tokens = slots.zip(tokens.iter().map(|(label, serial)| ((*label).to_owned(), (*serial).to_owned())));
        let settings = Pkcs11Settings { token_serial: serial.map(str::to_owned), ..settings() };
        choose(tokens.collect(), &settings, Clone::clone).map(|(_, (_, serial))| serial).map_err(|fault| fault.code)
    }

    #[test]
    fn a_token_is_found_by_label_and_serial_and_by_nothing_else() {
        let tokens = [("b", "1"), ("a", "2"), ("a", "3"), ("", "")];
        assert_eq!(chosen(&tokens[..2], None), Ok("2".into()));
        assert_eq!(chosen(&tokens, Some("3")), Ok("3".into()));
        assert_eq!(chosen(&tokens, None), Err(FaultCode::HsmToken));
        assert_eq!(chosen(&tokens, Some("1")), Err(FaultCode::HsmToken));
        assert_eq!(chosen(&[("a", "2"), ("a", "2")], Some("2")), Err(FaultCode::HsmToken));
        assert_eq!(chosen(&tokens[..1], Some("2")), Err(FaultCode::HsmGone));
        assert_eq!(chosen(&[], None), Err(FaultCode::HsmGone));
    }

    #[test]
    fn a_token_that_is_not_found_is_told_with_those_that_are_and_with_the_slots_that_cannot_be_read() {
        let slots = (0u64..).map(|number| Slot::try_from(number).unwrap());
        let tokens = slots.zip([("b".to_owned(), String::new()), ("c\u{7}".to_owned(), String::new())]);
        let fault = choose(tokens.collect(), &settings(), Clone::clone).unwrap_err();
        let fault = with_silent(fault, &["slot 3: its token's info cannot be read: odd".to_owned()]);
        let told = "there is no token of the label \"a\"; those there have \"b\", \"c?\"; slot 3: its token's info cannot be \
                    read: odd";
        assert_eq!(fault.detail, told);
    }
}
