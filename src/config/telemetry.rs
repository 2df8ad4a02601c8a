//! `[telemetry]`, checked: where the metrics are given out.

use std::net::SocketAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::problems::{Checked, Noted, Problems};
use super::sockets;
use crate::api::scrape::Place;

/// Beside the status socket, in the folder that a monitor's pod may mount and kube-apiserver's does not, and with its group.
const FILE_NAME: &str = "metrics.sock";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Telemetry {
    metrics: Option<String>,
}

/// `None`: switched off. What is wrong with the status socket is wrong with what follows from it.
pub(super) fn check(problems: &mut Problems, table: Telemetry, status_socket: Option<&Path>) -> Checked<Option<Place>> {
    const KEY: &str = "telemetry.metrics";
    let Some(text) = table.metrics else {
        let beside = status_socket.ok_or(Noted)?.with_file_name(FILE_NAME).display().to_string();
        // One that is too long for the kernel is nobody's mistake: nobody asked for it.
        return Ok(sockets::own(&mut Problems::default(), KEY, Some(beside), "").ok().map(Place::Unix));
    };
    if text == "off" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return sockets::own(problems, KEY, Some(path.to_owned()), "").map(|path| Some(Place::Unix(path)));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() && address.port() != 0 => Ok(Some(Place::Loopback(address))),
        Ok(address) if address.ip().is_loopback() => {
            problems.refuse(KEY, "write a port from 1 to 65535, such as \"127.0.0.1:9464\"")
        }
        Ok(address) => {
            let text = format!(
                "{} can be reached from other machines, and nobody is asked who he is there: write \"127.0.0.1:{}\", and let a \
                 proxy with TLS and a login pass it on",
                address.ip(),
                address.port()
            );
            problems.refuse(KEY, text)
        }
        Err(_) => {
            let instead = "is none of \"unix:/path/of/a.sock\", \"127.0.0.1:PORT\", \"[::1]:PORT\" and \"off\"";
            problems.refuse(KEY, format!("{text:?} {instead}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: Option<&str>) -> Result<Option<Place>, String> {
        let mut problems = Problems::default();
        let table = Telemetry { metrics: text.map(ToOwned::to_owned) };
        let place = check(&mut problems, table, Some(Path::new("/run/n/status.sock")));
        place.map_err(|Noted| problems.into_list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_a_word_it_is_a_socket_beside_that_of_the_status() {
        assert_eq!(checked(None), Ok(Some(Place::Unix("/run/n/metrics.sock".into()))));
        assert_eq!(checked(Some("unix:/run/x/m.sock")), Ok(Some(Place::Unix("/run/x/m.sock".into()))));
        assert_eq!(checked(Some("off")), Ok(None));
    }

    #[test]
    fn a_file_that_was_good_without_metrics_stays_good_where_their_socket_has_no_room() {
        let status = format!("/run/{}/status.sock", "n".repeat(84));
        let place = check(&mut Problems::default(), Telemetry { metrics: None }, Some(Path::new(&status)));
        assert!(matches!(place, Ok(None)));
    }

    #[test]
    fn of_the_network_only_the_machine_itself_can_be_let_in() {
        for own in ["127.0.0.1:9464", "127.1.2.3:1", "[::1]:9464"] {
            assert_eq!(checked(Some(own)), Ok(Some(Place::Loopback(own.parse().unwrap()))));
        }
        for (other, hint) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "127.0.0.1:9464"),
            ("10.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:0", "1 to 65535"),
            ("localhost:9464", "127.0.0.1:PORT"),
            (":9464", "127.0.0.1:PORT"),
            ("/run/x/m.sock", "unix:/path"),
            ("unix:run/m.sock", "absolute"),
            ("", "off"),
        ] {
            let problem = checked(Some(other)).unwrap_err();
            assert!(problem.contains("telemetry.metrics") && problem.contains(hint), "{other}: {problem}");
        }
    }
}
