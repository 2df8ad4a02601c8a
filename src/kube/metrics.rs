//! Which key_id an API server has last been told by its KMS plugins: of Prometheus' text one metric is read (k8s.io/apiserver
//! `value/encrypt/envelope/metrics`).
//!
//! A series stays after the key_id has moved, so of one provider the newest time counts. kube-apiserver notes it before it takes a new
//! seed, which can fail; `/readyz` asks the plugin and fails if it did, and so it is asked first.

use std::collections::BTreeMap;

use super::client::{Ask, Client};
use super::error::KubeError;

const METRIC: &str = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";

/// What a provider of kube-apiserver's configuration has told it last.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// Of the key_id, as in [`crate::types::metric_hash`].
    pub key_id_hash: String,
    /// When, in seconds since 1970 by the server's clock.
    pub at: f64,
}

/// What one API server says of its plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// By the name of the provider.
    pub providers: BTreeMap<String, Reported>,
    /// The server's clock when it was asked, in seconds since 1970.
    pub asked_at: Option<u64>,
}

/// Asks one API server.
pub async fn look(client: &mut Client) -> Result<Looked, KubeError> {
    let ready = client.ask(Ask::get("/readyz")).await?;
    let metrics = client.ask(Ask { accept: "text/plain", ..Ask::get("/metrics") }).await?;
    let text = std::str::from_utf8(&metrics.body).map_err(|_| client.unfit("its metrics are no text"))?;
    Ok(Looked { providers: parse(text), asked_at: ready.date })
}

/// Of each provider the newest.
fn parse(text: &str) -> BTreeMap<String, Reported> {
    let mut providers: BTreeMap<String, Reported> = BTreeMap::new();
    for (provider, reported) in text.lines().filter_map(line) {
        match providers.get(&provider) {
            Some(before) if before.at >= reported.at => {}
            _ => {
                providers.insert(provider, reported);
            }
        }
    }
    providers
}

/// `METRIC{name="value",…} VALUE`
fn line(line: &str) -> Option<(String, Reported)> {
    let mut rest = line.strip_prefix(METRIC)?.strip_prefix('{')?;
    let (mut provider, mut hash) = (None, None);
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let (value, behind) = unquoted(quoted)?;
        match name {
            "provider_name" => provider = Some(value),
            "key_id_hash" => hash = Some(value),
            _ => {}
        }
        rest = behind.strip_prefix(',').unwrap_or(behind);
        if rest.starts_with('}') {
            break;
        }
    }
    let at = rest.strip_prefix('}')?.split_whitespace().next()?.parse().ok()?;
    Some((provider?, Reported { key_id_hash: hash?, at })).filter(|(_, reported)| reported.at.is_finite())
}

/// A label's value and what stands behind it (Prometheus, "Exposition formats": `\\`, `\"` and `\n`).
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match signs.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_provider_the_newest_key_id_counts() {
        let text = "\
# HELP apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds [ALPHA] The last time in seconds
# TYPE apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds gauge
apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{apiserver_id_hash=\"sha256:a\",key_id_hash=\"sha256:new\",provider_name=\"nodeseal\"} 1.674865558833728e+09
apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{apiserver_id_hash=\"sha256:a\",key_id_hash=\"sha256:old\",provider_name=\"nodeseal\"} 1.674865498e+09
apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{apiserver_id_hash=\"\",key_id_hash=\"sha256:c\",provider_name=\"a \\\"b\\\" {c},d=\"} 5 1700000000000
apiserver_envelope_encryption_key_id_hash_total{key_id_hash=\"sha256:x\",provider_name=\"nodeseal\"} 9
";
        let found = parse(text);
        let of = |name: &str| (found[name].key_id_hash.as_str(), found[name].at);
        assert_eq!(of("nodeseal"), ("sha256:new", 1_674_865_558.833_728));
        assert_eq!(of("a \"b\" {c},d="), ("sha256:c", 5.0));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_line_of_another_form_is_left_out() {
        for rest in [
            "",
            " 5",
            "{} 5",
            "{provider_name=\"a\",key_id_hash=\"b\"}",
            "{provider_name=\"a\",key_id_hash=\"b\"} NaN",
            "{provider_name=\"a\",key_id_hash=\"b} 5",
            "{provider_name=\"a\"} 5",
            "_more{provider_name=\"a\",key_id_hash=\"b\"} 5",
        ] {
            assert_eq!(parse(&format!("{METRIC}{rest}\n")).len(), 0, "{rest}");
        }
        assert_eq!(parse(&format!("{METRIC}{{provider_name=\"a\",key_id_hash=\"b\",}} 5")).len(), 1);
    }
}
