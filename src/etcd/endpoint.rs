//! Where an etcd listens: `https://HOST:PORT`, `http://HOST:PORT` on this machine alone, or `unix:///PATH` for kine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// etcd's own (`--listen-client-urls`).
const DEFAULT_PORT: u16 = 2379;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// With TLS.
    Tls {
        /// DNS name or IP address, without brackets.
        host: String,
        /// TCP.
        port: u16,
        /// What its certificate must name.
        name: ServerName<'static>,
    },
    /// In clear, to a loopback address.
    Clear {
        /// `127.0.0.1`, `::1` or `localhost`.
        host: String,
        /// TCP.
        port: u16,
    },
    /// A socket of kine.
    Unix(PathBuf),
}

/// Why a text is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No scheme that is known.
    #[error("write it as https://HOST:2379, http://127.0.0.1:2379 or unix:///PATH")]
    Form,
    /// Secrets that are not encrypted yet would travel in clear.
    #[error(
        "http:// is accepted only for 127.0.0.1, [::1] and localhost: objects that are not encrypted would travel in clear"
    )]
    Clear,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(EndpointError::Form) };
        }
        if let Some(rest) = text.strip_prefix("https://") {
            let (host, port) = host_and_port(rest)?;
            let name = ServerName::try_from(host.to_owned()).map_err(|_| EndpointError::Form)?;
            return Ok(Self::Tls { host: host.to_owned(), port, name });
        }
        let (host, port) = host_and_port(text.strip_prefix("http://").ok_or(EndpointError::Form)?)?;
        if !matches!(host, "127.0.0.1" | "::1" | "localhost") {
            return Err(EndpointError::Clear);
        }
        Ok(Self::Clear { host: host.to_owned(), port })
    }
}

fn host_and_port(text: &str) -> Result<(&str, u16), EndpointError> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(EndpointError::Form)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(EndpointError::Form)?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        return Err(EndpointError::Form);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(EndpointError::Port)?,
    };
    Ok((host, port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Tls { host, port, .. } => write!(f, "https://{}:{port}", bracketed(host)),
            Self::Clear { host, port } => write!(f, "http://{}:{port}", bracketed(host)),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_as_for_etcdctl_and_nothing_travels_in_clear() {
        for (text, shown) in [
            ("https://etcd-1.example:2380", "https://etcd-1.example:2380"),
            ("https://10.0.0.1", "https://10.0.0.1:2379"),
            ("https://[fd00::1]:2379/", "https://[fd00::1]:2379"),
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("unix:///run/kine.sock", "unix:///run/kine.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("127.0.0.1:2379", EndpointError::Form),
            ("http://10.0.0.1:2379", EndpointError::Clear),
            ("https://a:0", EndpointError::Port),
            ("https://user@a", EndpointError::Form),
            ("https://", EndpointError::Form),
            ("unix://kine.sock", EndpointError::Form),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
