//! Address of a provider: scheme, host and port, and nothing else.

use std::fmt;
#[cfg(feature = "azure")]
use std::net::Ipv4Addr;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls::pki_types::ServerName;

#[cfg(any(feature = "azure", feature = "vault"))]
use super::tls::TrustAnchors;
#[cfg(any(feature = "azure", feature = "vault"))]
use crate::sandbox::Needs;

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither scheme.
    #[error("an address begins with https://")]
    Scheme,
    /// In clear, to another machine.
    #[error("http:// is taken only for 127.0.0.1 and [::1], where a proxy of this machine listens")]
    Clear,
    /// A path, a query, a user.
    #[error("an address is https://host:port and nothing behind it")]
    Excess,
    /// No name that TLS could check.
    #[error("the host is neither a DNS name nor an IP address")]
    Host,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// Where a provider listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// An IPv6 address without its brackets.
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    tls: bool,
}

impl Address {
    pub(in super::super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The port, the name service where the host is a name, and what the roots are read from, which is done without TLS too.
    #[cfg(any(feature = "azure", feature = "vault"))]
    pub(in super::super) fn needs(&self, roots: &TrustAnchors) -> Needs {
        let needs = roots.needs().port(self.port);
        if self.host.parse::<IpAddr>().is_ok() { needs } else { needs.name_service() }
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.tls
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// Whether both are the same place, however it is spoken to there.
    #[cfg(feature = "azure")]
    pub(in super::super) fn is_at(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }

    /// Where the SDK of AWS goes, which has checked it: its chain of logins asks services of the machine in clear.
    #[cfg(any(test, feature = "aws"))]
    pub(in super::super) fn of_parts(tls: bool, host: &str, port: u16) -> Result<Self, AddressError> {
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| AddressError::Host)?;
        Ok(Self { host: host.to_owned(), port, server_name, tls })
    }

    /// The same, looked up by another name than the one that TLS checks.
    #[cfg(test)]
    pub(super) fn called(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    /// As the parties name the place, which speak of no other scheme.
    #[cfg(feature = "azure")]
    pub(in super::super) fn https_url(&self) -> String {
        if self.port == 443 {
            format!("https://{}", self.host_in_url())
        } else {
            format!("https://{}", self.authority())
        }
    }

    /// For the header `Host`, without the port that the scheme has anyway.
    pub(super) fn host_header(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host_in_url(),
            _ => self.authority(),
        }
    }

    fn host_in_url(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() { format!("[{}]", self.host) } else { self.host.clone() }
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host_in_url(), self.port)
    }
}

/// Where a virtual machine of Azure, and no other machine, asks who it is (IMDS). In clear: this address is never routed.
#[cfg(feature = "azure")]
pub(in super::super) fn instance_metadata() -> Address {
    let address = Ipv4Addr::new(169, 254, 169, 254);
    let server_name = ServerName::IpAddress(IpAddr::V4(address).into());
    Address { host: address.to_string(), port: 80, server_name, tls: false }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(AddressError::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', ' ']) {
            return Err(AddressError::Excess);
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(AddressError::Host)?;
                host.parse::<Ipv6Addr>().map_err(|_| AddressError::Host)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(AddressError::Port)?) })
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port != 0).ok_or(AddressError::Port)?
            }
            Some(_) => return Err(AddressError::Port),
        };
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| AddressError::Host)?;
        let here = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if tls || here { Ok(Self { host: host.to_owned(), port, server_name, tls }) } else { Err(AddressError::Clear) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for (text, shown) in [
            ("https://vault.example:8200", "https://vault.example:8200"),
            ("https://vault.example/", "https://vault.example:443"),
            ("https://10.0.0.1:1", "https://10.0.0.1:1"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
            ("http://127.0.0.1:8200", "http://127.0.0.1:8200"),
            ("http://[::1]:8200", "http://[::1]:8200"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("vault.example:8200", AddressError::Scheme),
            ("http://vault.example:8200", AddressError::Clear),
            ("http://localhost:8200", AddressError::Clear),
            ("https://vault.example/v1", AddressError::Excess),
            ("https://me:word@vault.example", AddressError::Excess),
            ("https://", AddressError::Host),
            ("https://[vault]", AddressError::Host),
            ("https://a b", AddressError::Excess),
            ("https://vault:0", AddressError::Port),
            ("https://vault:+1", AddressError::Port),
            ("https://vault:65536", AddressError::Port),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
