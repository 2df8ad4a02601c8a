//! `hsm-test`: tries a real device, prints what it saw, and leaves the device as it was.
#![allow(clippy::disallowed_methods, reason = "a blob is written to be looked at")]

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hsm_tests::{Ground, Report, pkcs11, right_auth, run, secret, tpm2};
use nodeseal::seal::fault::FaultCode;
use nodeseal::seal::protocol::DeviceBlob;
use nodeseal::sealer::Sealer;
use nodeseal::sealer::pkcs11::Pkcs11;
use nodeseal::sealer::settings::{DEFAULT_PARENT_HANDLE, Pkcs11Mechanism, Pkcs11Settings, TpmDevice, TpmSettings};
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::store::RunFile;
use nodeseal::types::{PcrBank, PcrSet, SealPolicy, hex};

/// EX_SOFTWARE of sysexits.h: the device does not do what it must.
const FAILED: u8 = 70;
/// EX_UNAVAILABLE: nothing could be tried.
const UNAVAILABLE: u8 = 69;

#[derive(Parser)]
#[command(
    version,
    about = "Tries whether a TPM or a PKCS#11 token can seal for Nodeseal, and leaves nothing behind on it"
)]
struct Cli {
    #[command(subcommand)]
    device: Device,
}

#[derive(Subcommand)]
enum Device {
    /// Try a token
    Pkcs11(Token),
    /// Try a TPM
    Tpm2 {
        /// Such as /dev/tpmrm0
        #[arg(long)]
        device: TpmDevice,
        /// Also try one that is made of software
        #[arg(long)]
        allow_software: bool,
    },
    /// Answer seal FILE, unseal FILE, describe and name, line by line, for tests
    #[command(hide = true)]
    Answer(Token),
}

#[derive(Args)]
struct Token {
    /// The vendor's library, absolute
    #[arg(long)]
    module: PathBuf,
    /// The token's label
    #[arg(long)]
    token: String,
    /// Its serial number
    #[arg(long)]
    serial: Option<String>,
    /// The file with the user's PIN, absolute
    #[arg(long)]
    pin_file: PathBuf,
    /// Instead of the first that works
    #[arg(long, value_parser = mechanism)]
    mechanism: Option<Pkcs11Mechanism>,
    /// Of the wrapping key
    #[arg(long, hide = true)]
    key_label: Option<String>,
    /// Of the wrapping key
    #[arg(long, hide = true, value_parser = digits)]
    key_id: Option<Digits>,
    /// Makes no key
    #[arg(long, hide = true)]
    no_make_key: bool,
    /// As a process that ends after one question
    #[arg(long, hide = true)]
    one_question: bool,
    /// Which PIN the token may have counted is remembered there
    #[arg(long, hide = true)]
    tries: Option<PathBuf>,
}

#[derive(Clone)]
struct Digits(Vec<u8>);

fn digits(text: &str) -> Result<Digits, String> {
    hex::decode(text).map(Digits).map_err(|error| error.to_string())
}

fn mechanism(text: &str) -> Result<Pkcs11Mechanism, String> {
    let known = Pkcs11Mechanism::ALL.into_iter().find(|known| known.label() == text);
    known.ok_or_else(|| "is aes-gcm, rsa-oaep-sha256 or aes-cbc-hmac".to_owned())
}

impl Token {
    fn settings(&self) -> Result<Pkcs11Settings, String> {
        Ok(Pkcs11Settings {
            module: self.module.clone(),
            token_label: self.token.clone(),
            token_serial: self.serial.clone(),
            pin_file: self.pin_file.clone(),
            key_label: self.key_label.clone().map_or_else(pkcs11::throwaway_label, Ok)?,
            key_id: self.key_id.clone().map(|digits| digits.0),
            make_key: !self.no_make_key,
            trust_key: false,
            mechanism: self.mechanism,
            allow_paths: Vec::new(),
            allow_ports: Vec::new(),
        })
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().device {
        Device::Pkcs11(token) => token.settings().and_then(try_token),
        Device::Tpm2 { device, allow_software } => {
            try_tpm(TpmSettings { device, parent_handle: DEFAULT_PARENT_HANDLE, allow_software_tpm: allow_software })
        }
        Device::Answer(token) => token.settings().and_then(|settings| {
            let one = token.one_question;
            let engine = if one { Pkcs11::for_one_question(settings) } else { Pkcs11::new(settings) };
            answer(match token.tries.as_deref().and_then(RunFile::open) {
                Some(file) => engine.remembering_in(&file),
                None => engine,
            })
        }),
    };
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(UNAVAILABLE)
        }
    }
}

fn try_token(settings: Pkcs11Settings) -> Result<usize, String> {
    println!("trying the token {:?} with the key label {}", settings.token_label, settings.key_label);
    let mut engine = Pkcs11::new(settings.clone());
    // The engine loads first, since it looks whether that is safe.
    engine.describe().map_err(|fault| format!("{fault}\nhint: {}", fault.code.hint()))?;
    let direct = pkcs11::Direct::new(settings.clone())?;
    let before = direct.count()?;
    let pcrs = pcr_policy(&[0])?;
    let mut report = run(
        &mut engine,
        &Ground {
            reopen: &|| Box::new(Pkcs11::new(settings.clone())),
            count: &|| direct.count(),
            foreign: (hex::decode(pkcs11::FOREIGN).map_err(|error| error.to_string())?, pkcs11::FOREIGN_CODES),
            unoffered: (pcrs, FaultCode::NotCompiledIn),
            edited: pkcs11::EDITED,
        },
    );
    report.add(
        "a key that machines share wraps, and what it wrapped opens for its own binding and key alone",
        pkcs11::try_shared(&mut engine, &direct),
    );
    let cleaned = direct.clean_up().and_then(|keys| {
        let after = direct.count()?;
        if after == before {
            Ok(format!("{keys} key objects destroyed"))
        } else {
            Err(format!("{before:?}, then {after:?}"))
        }
    });
    report.add("the token is as it was before", cleaned);
    drop(engine);
    direct.close();
    finish(&report)
}

fn try_tpm(settings: TpmSettings) -> Result<usize, String> {
    println!("trying the TPM {}", settings.device);
    let mut engine = Tpm2::new(settings.clone());
    engine.describe().map_err(|fault| format!("{fault}\nhint: {}", fault.code.hint()))?;
    let direct = tpm2::Direct::new(settings.clone());
    let (before, had_srk) = (direct.count()?, direct.has_srk()?);
    // Registers of the dynamic root of trust: all ones until one is launched (PC Client Platform TPM Profile §4.6.2).
    let pcrs = pcr_policy(&[20])?;
    let mut report = run(
        &mut engine,
        &Ground {
            reopen: &|| Box::new(Tpm2::new(settings.clone())),
            count: &|| direct.count(),
            foreign: (hex::decode(tpm2::FOREIGN).map_err(|error| error.to_string())?, tpm2::FOREIGN_CODES),
            unoffered: (pcrs, FaultCode::PcrBank),
            edited: tpm2::EDITED,
        },
    );
    let cleaned = (|| {
        let made = !had_srk && direct.has_srk()?;
        if made {
            direct.evict_srk()?;
        }
        let after = direct.count()?;
        match (after == before, made) {
            (false, _) => Err(format!("{before:?}, then {after:?}")),
            (true, true) => Ok("the storage root key was made for this, and is evicted".to_owned()),
            (true, false) if had_srk => Ok("the storage root key was there before".to_owned()),
            (true, false) => Ok("no storage root key was made".to_owned()),
        }
    })();
    report.add("the TPM is as it was before", cleaned);
    finish(&report)
}

fn finish(report: &Report) -> Result<usize, String> {
    println!("{report}");
    Ok(report.failed())
}

fn pcr_policy(numbers: &[u8]) -> Result<SealPolicy, String> {
    let pcrs = PcrSet::from_numbers(numbers).map_err(|error| error.to_string())?;
    Ok(SealPolicy::Pcr { bank: PcrBank::Sha256, pcrs })
}

/// One line of answer for each line of question.
fn answer(mut engine: Pkcs11) -> Result<usize, String> {
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let (verb, file) = line.split_once(' ').unwrap_or((&line, ""));
        let read = || std::fs::read(file).ok().and_then(DeviceBlob::new).ok_or_else(|| format!("no blob in {file}"));
        let told = match verb {
            "seal" => match engine.seal(&secret(), &right_auth(), &SealPolicy::None, None) {
                Ok(blob) => std::fs::write(file, blob.as_bytes())
                    .map(|()| "ok".to_owned())
                    .map_err(|error| error.to_string())?,
                Err(fault) => fault.to_string(),
            },
            "unseal" => match engine.unseal(&read()?, &right_auth()) {
                Ok(key) if key.expose() == secret().expose() => "ok".to_owned(),
                Ok(_) => "other bytes".to_owned(),
                Err(fault) => fault.to_string(),
            },
            "describe" => match engine.describe() {
                Ok(info) => format!("ok {info:?}"),
                Err(fault) => fault.to_string(),
            },
            _ => return Err(format!("{verb:?} is no question")),
        };
        println!("{told}");
        std::io::stdout().flush().map_err(|error| error.to_string())?;
    }
    Ok(0)
}
