//! When the certificates end that servers have shown, for the operator alone: whether one is good is for rustls to say, before this looks
//! at it. Only the time is read of it, no name.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::types::clock::{self, UnixSeconds};

/// Of one provider, which has a few hosts: the service, and those that it logs in at.
const HOSTS_MAX: usize = 8;

/// By host, as each was shown last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::provider) struct Shown(Arc<Mutex<Vec<(String, UnixSeconds)>>>);

impl Shown {
    /// The first of a chain to end counts: none of it works without the others.
    pub(super) fn note(&self, host: &str, chain: &[CertificateDer<'_>]) {
        let Some(end) = chain.iter().filter_map(|certificate| end_of(certificate)).min() else { return };
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = hosts.iter_mut().find(|(known, _)| known == host) {
            *known = end;
        } else if hosts.len() < HOSTS_MAX {
            hosts.push((host.to_owned(), end));
        }
    }

    /// Until the first of them ends. Zero: it has.
    pub(in crate::provider) fn lasts(&self) -> Option<Duration> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = hosts.iter().map(|(_, end)| *end).min()?;
        Some(Duration::from_secs(end.saturating_sub(clock::now())))
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate in DER (RFC 5280 §4.1), or `None` for what is none.
fn end_of(certificate: &[u8]) -> Option<UnixSeconds> {
    let (mut certificate, _) = expect(certificate, SEQUENCE)?;
    (certificate, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(certificate, VERSION) {
        certificate = rest;
    }
    // Serial number, algorithm and issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, certificate) = expect(certificate, tag)?;
    }
    let (validity, _) = expect(certificate, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    let text = std::str::from_utf8(time).ok()?;
    // RFC 5280 §4.1.2.5: years up to 2049 have two digits, and seconds and `Z` are always there.
    let text = match (tag, text.get(..2)?) {
        (UTC_TIME, year) if year < "50" => format!("20{year}{}", text.get(2..)?),
        (UTC_TIME, year) => format!("19{year}{}", text.get(2..)?),
        (GENERALIZED_TIME, _) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, time) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(8, 10)?, part(10, 12)?, part(12, 14)?));
    let written = format!("{}-{}-{}T{}:{}:{}{}", date.0, date.1, date.2, time.0, time.1, time.2, text.get(14..)?);
    let end = humantime::parse_rfc3339(&written).ok()?;
    Some(end.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
}

/// Content and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Tag, content, and what follows. Lengths of up to two bytes more than one: 64 KiB, the most that TLS carries.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec!["kms.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    /// `date -u -d 2030-03-04 +%s`, and of 2051, which is written in the other form.
    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_and_of_a_torn_one_not_at_all() {
        assert_eq!(end_of(&certificate(2030)), Some(1_898_812_800));
        assert_eq!(end_of(&certificate(2051)), Some(2_561_500_800));
        let whole = certificate(2030);
        for length in 0..whole.len() {
            assert_eq!(end_of(&whole[..length]), None, "{length}");
        }
        // Each byte may be another one: it ends, and with a time or none.
        for at in 0..whole.len() {
            let mut other = whole.to_vec();
            other[at] ^= 0xff;
            let _ = end_of(&other);
        }
    }

    #[test]
    fn of_all_hosts_and_of_each_chain_the_first_to_end_counts_and_a_new_one_replaces_the_old_one() {
        let shown = Shown::default();
        assert_eq!(shown.lasts(), None);
        let lasts = |year: UnixSeconds| shown.lasts().unwrap().as_secs().abs_diff(year - clock::now()) < 5;
        shown.note("a", &[certificate(2051), certificate(2030)]);
        assert!(lasts(1_898_812_800));
        shown.note("b", &[certificate(2051)]);
        assert!(lasts(1_898_812_800));
        shown.note("a", &[certificate(2051)]);
        assert!(lasts(2_561_500_800));
    }
}
