//! Whether all API servers write under one key, and under which.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::args::PlanArgs;
use super::mistake::Mistake;
use super::shown::Shown;
use crate::config::{self, ConfigError};
use crate::control::{self, Answer, ControlError, Request};
use crate::ctl::common::Common;
use crate::ctl::failed::Failed;
use crate::kube::{Client, KeyMark, KubeError, Looked, api_servers, look};
use crate::types::{Chain, metric_hash};

/// Between two looks. kube-apiserver asks its plugin at `/readyz` at most every 20 s (`kmsPluginHealthzPositiveTTL`).
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// An API server and what it says.
pub(super) struct Seen {
    pub(super) server: String,
    /// That its plugin has told it.
    pub(super) key_id_hash: Option<String>,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It uses the key, as of now.
    Agrees,
    /// It uses another one, or did when it last asked its plugin.
    Differs(String),
    /// Nobody knows.
    Unread(String),
}

pub(super) struct Ready {
    /// That objects are written under.
    pub(super) key_id_hash: String,
    pub(super) mark: KeyMark,
    pub(super) servers: Vec<Seen>,
    pub(super) how: How,
}

/// How it is known that every API server writes under the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Each has said so.
    Agreed,
    /// Not yet: one has said otherwise.
    Not(String),
    /// One cannot be asked; the time that KEP-3299 gives has to pass, or has passed.
    Waiting { why: String, is_over: bool },
}

/// All API servers, and what keeps them from being all.
struct Servers {
    clients: Vec<Client>,
    unknown: Option<String>,
}

/// Waits until all agree, but no longer than was asked for. With `sleeps`, also for the time of KEP-3299 if one cannot be asked.
pub(super) async fn wait(common: &Common, args: &PlanArgs, client: &mut Client, sleeps: bool) -> Result<Ready, Failed> {
    let expected = expected(common, args)?;
    let mut servers = Servers::find(args, client).await?;
    let mut first: Vec<Option<u64>> = vec![None; servers.clients.len()];
    let deadline = Instant::now() + Duration::from_secs(u64::from(args.wait) * 60);
    let mut shown = Shown::new(!common.json);
    loop {
        let looks = servers.look(&mut first, expected.as_deref()).await?;
        let how = how(&looks, servers.unknown.as_deref());
        let is_over = Instant::now() >= deadline;
        let how = match how {
            How::Waiting { why, .. } => How::Waiting { why, is_over },
            other => other,
        };
        let waits_on = match &how {
            How::Agreed => false,
            How::Not(_) => !is_over,
            How::Waiting { .. } => sleeps && !is_over,
        };
        if !waits_on {
            let common_hash = || one_hash(&looks);
            let hash = expected.clone().or_else(common_hash);
            return match hash.as_deref().and_then(KeyMark::of).zip(hash.clone()) {
                Some((mark, key_id_hash)) => Ok(Ready { key_id_hash, mark, servers: looks, how }),
                // Which of them is right is not known either.
                None => match how {
                    How::Not(first) => Err(Mistake::Differ { minutes: args.wait, first }.into()),
                    How::Agreed | How::Waiting { .. } => Err(Mistake::NoKey.into()),
                },
            };
        }
        shown.line(|| {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs();
            let why = match &how {
                How::Agreed => "",
                How::Not(why) | How::Waiting { why, .. } => why,
            };
            format!("waiting for up to {left} s: {why}")
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What must be reported: as was said, or as this node's nodeseald reports it.
fn expected(common: &Common, args: &PlanArgs) -> Result<Option<String>, Failed> {
    if let Some(hash) = &args.key_id_hash {
        return match KeyMark::of(hash) {
            Some(_) => Ok(Some(hash.clone())),
            None => Err(Mistake::Hash(hash.chars().filter(char::is_ascii_graphic).take(80).collect()).into()),
        };
    }
    let away = |why: &dyn std::error::Error| Failed::from(Mistake::Away(Chain(why).to_string()));
    let config = match config::load(&common.config) {
        // A machine without nodeseald has none, and asks the API servers alone.
        Err(ConfigError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        // Where there is one, what they agree on may be the old key: nobody has told them of the new one.
        other => other.map_err(|error| away(&error))?,
    };
    match control::ask(&config.control_socket, &Request::Status {}) {
        Ok(Answer::Status(status)) => {
            let key_id = status.key_id.as_deref().ok_or_else(|| Mistake::Away("its keys are not open".to_owned()))?;
            Ok(Some(metric_hash(key_id)))
        }
        Ok(_) => Err(away(&ControlError::Protocol)),
        Err(error) => Err(away(&error)),
    }
}

impl Servers {
    async fn find(args: &PlanArgs, client: &mut Client) -> Result<Self, Failed> {
        if !args.api_servers.is_empty() {
            let clients = args.api_servers.iter().map(|server| client.to(server.clone())).collect();
            return Ok(Self { clients, unknown: None });
        }
        let itself = |client: &Client| vec![client.to(client.server().clone())];
        match api_servers(client).await {
            Ok(found) if found.is_empty() => {
                let unknown = Some(
                    "the API servers have not entered themselves into the cluster: name them with --api-servers".into(),
                );
                Ok(Self { clients: itself(client), unknown })
            }
            Ok(found) => {
                Ok(Self { clients: found.into_iter().map(|server| client.to(server)).collect(), unknown: None })
            }
            Err(error) if error.status() == Some(403) => {
                let unknown =
                    Some("the user may not read which API servers there are: name them with --api-servers".into());
                Ok(Self { clients: itself(client), unknown })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn look(&mut self, first: &mut [Option<u64>], expected: Option<&str>) -> Result<Vec<Seen>, KubeError> {
        let mut seen = Vec::new();
        for (client, first) in self.clients.iter_mut().zip(first) {
            let mut looked = look(client).await;
            // Its certificate may have its address and not the name of the service.
            if let Some(other) = looked.as_ref().err().and_then(|error| client.by_address(error)) {
                *client = other;
                looked = look(client).await;
            }
            let server = client.server().to_string();
            seen.push(match looked {
                Err(error) if error.status() == Some(401) => return Err(error),
                Err(error) => {
                    let why = Chain(&error).to_string();
                    // `/readyz`: the server is there, and its plugin or something else is not.
                    let verdict = match error.status() {
                        Some(500..) => Verdict::Differs(format!("it is not ready: {why}")),
                        _ => Verdict::Unread(why),
                    };
                    Seen { server, key_id_hash: None, verdict }
                }
                Ok(looked) => {
                    let since = *first.get_or_insert(looked.asked_at.unwrap_or(u64::MAX));
                    judged(server, &looked, since, expected)
                }
            });
        }
        if expected.is_none() {
            judge_together(&mut seen);
        }
        Ok(seen)
    }
}

/// One API server. `since` is when it was first asked, by its own clock.
fn judged(server: String, looked: &Looked, since: u64, expected: Option<&str>) -> Seen {
    if looked.providers.is_empty() {
        let why = format!("{server} reports no key_id: it uses KMS v1, or no KMS plugin");
        return Seen { server, key_id_hash: None, verdict: Verdict::Unread(why) };
    }
    if let Some(expected) = expected {
        let is_expected = looked.providers.values().any(|reported| reported.key_id_hash == expected);
        let newest = looked.providers.values().max_by(|a, b| a.at.total_cmp(&b.at)).map(|one| one.key_id_hash.clone());
        let (key_id_hash, verdict) = match is_expected {
            true => (Some(expected.to_owned()), Verdict::Agrees),
            false => (newest, Verdict::Differs(format!("{server} does not report {} yet", short(expected)))),
        };
        return Seen { server, key_id_hash, verdict };
    }
    let mut reported = looked.providers.values();
    match (reported.next(), reported.next()) {
        // The number of seconds since 1970 has 31 bits, and is exact.
        #[expect(clippy::cast_precision_loss, reason = "of 31 bits")]
        (Some(only), None) if only.at >= since as f64 => {
            Seen { server, key_id_hash: Some(only.key_id_hash.clone()), verdict: Verdict::Agrees }
        }
        (Some(only), None) => {
            let why = format!("{server} has not asked its KMS plugin since this began");
            Seen { server, key_id_hash: Some(only.key_id_hash.clone()), verdict: Verdict::Differs(why) }
        }
        _ => {
            let why = format!("{server} has several KMS plugins: say which key is meant, with --key-id-hash");
            Seen { server, key_id_hash: None, verdict: Verdict::Unread(why) }
        }
    }
}

/// Without a key that is expected, all must report the first one's.
fn judge_together(seen: &mut [Seen]) {
    let Some(first) = seen.iter().find_map(|one| one.key_id_hash.clone()) else { return };
    for one in seen {
        if one.verdict == Verdict::Agrees && one.key_id_hash.as_ref() != Some(&first) {
            one.verdict = Verdict::Differs(format!("{} reports another key_id than the others", one.server));
        }
    }
}

fn one_hash(seen: &[Seen]) -> Option<String> {
    let mut hashes: Vec<_> = seen.iter().filter_map(|one| one.key_id_hash.clone()).collect();
    hashes.sort();
    hashes.dedup();
    if hashes.len() == 1 { hashes.pop() } else { None }
}

fn how(seen: &[Seen], unknown: Option<&str>) -> How {
    let differs = seen.iter().find_map(|one| match &one.verdict {
        Verdict::Differs(why) => Some(why.clone()),
        Verdict::Agrees | Verdict::Unread(_) => None,
    });
    let unread = || {
        seen.iter().find_map(|one| match &one.verdict {
            Verdict::Unread(why) => Some(why.clone()),
            Verdict::Agrees | Verdict::Differs(_) => None,
        })
    };
    match differs {
        Some(why) => How::Not(why),
        None => match unread().or_else(|| unknown.map(str::to_owned)) {
            Some(why) => How::Waiting { why, is_over: false },
            None => How::Agreed,
        },
    }
}

/// As `nodeseal etcd scan` shows it.
fn short(hash: &str) -> &str {
    hash.get(..19).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Reported;

    fn looked(providers: &[(&str, &str, f64)]) -> Looked {
        let of =
            |&(name, hash, at): &(&str, &str, f64)| (name.to_owned(), Reported { key_id_hash: hash.to_owned(), at });
        Looked { providers: providers.iter().map(of).collect(), asked_at: Some(1000) }
    }

    fn verdicts(looks: &[Looked], expected: Option<&str>) -> (Vec<Seen>, How) {
        let judge = |(at, looked): (usize, &Looked)| judged(format!("https://{at}"), looked, 1000, expected);
        let mut seen: Vec<_> = looks.iter().enumerate().map(judge).collect();
        if expected.is_none() {
            judge_together(&mut seen);
        }
        let how = how(&seen, None);
        (seen, how)
    }

    #[test]
    fn a_key_that_is_expected_must_be_the_newest_of_a_plugin_at_each_server() {
        let new = looked(&[("nodeseal", "new", 900.0), ("other", "x", 1001.0)]);
        assert_eq!(verdicts(&[new.clone(), new.clone()], Some("new")).1, How::Agreed);
        let old = looked(&[("nodeseal", "old", 1001.0)]);
        assert!(matches!(verdicts(&[new.clone(), old], Some("new")).1, How::Not(why) if why.contains("https://1")));
        let none = looked(&[]);
        assert!(matches!(verdicts(&[new, none], Some("new")).1, How::Waiting { .. }));
    }

    #[test]
    fn without_an_expected_key_only_what_was_told_since_the_beginning_counts() {
        let of = |hash, at| looked(&[("nodeseal", hash, at)]);
        assert_eq!(verdicts(&[of("a", 1000.0), of("a", 1002.5)], None).1, How::Agreed);
        // Told before the key was changed, perhaps.
        assert!(matches!(verdicts(&[of("a", 1000.0), of("a", 999.0)], None).1, How::Not(_)));
        let (seen, how) = verdicts(&[of("a", 1000.0), of("b", 1000.0)], None);
        assert!(matches!(how, How::Not(_)) && one_hash(&seen).is_none());
        let several = looked(&[("a", "a", 1001.0), ("b", "b", 1001.0)]);
        assert!(matches!(verdicts(&[several], None).1, How::Waiting { why, .. } if why.contains("--key-id-hash")));
    }

    #[test]
    fn an_api_server_that_nobody_can_name_is_not_taken_for_one_that_agrees() {
        let (seen, _) = verdicts(&[looked(&[("nodeseal", "new", 1001.0)])], Some("new"));
        assert!(matches!(how(&seen, Some("they have not entered themselves")), How::Waiting { is_over: false, .. }));
    }

    #[test]
    fn a_nodeseald_that_is_set_up_here_and_does_not_answer_is_not_taken_for_none() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            plan: PlanArgs,
        }
        let plan =
            |words: &[&str]| <Cli as clap::Parser>::parse_from([&["plan", "--kubeconfig", "/x"], words].concat()).plan;
        let folder = tempfile::tempdir().unwrap();
        let common = Common { config: folder.path().join("nodeseal.toml"), json: true };
        assert_eq!(expected(&common, &plan(&[])).ok(), Some(None), "this machine has none");
        let hash = format!("sha256:{}", "a".repeat(64));
        let socket = folder.path().join("control.sock");
        let answers = format!("version = 1\ncluster = \"c\"\ncontrol.socket = {socket:?}\n");
        for text in [answers.as_str(), "cluster = 1\n"] {
            std::fs::write(&common.config, text).unwrap();
            let refused =
                expected(&common, &plan(&[])).err().map(|failed| failed.text().to_owned()).unwrap_or_default();
            assert!(refused.contains("does not say which key_id"), "{refused}");
            assert_eq!(expected(&common, &plan(&["--key-id-hash", &hash])).ok(), Some(Some(hash.clone())));
        }
    }
}
