//! Servers of k3s and RKE2: what they are told to tell kube-apiserver (`kube-apiserver-arg`), in their files and in their units.
//!
//! Read by the rules of k3s `pkg/configfilearg`: the file, then those of the folder beside it by their names. A later file's key replaces
//! those of earlier ones, unless it ends with `+`. The command line adds to what the files say. RKE2 is built from the same code.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::flags::Flags;
use super::{ENCRYPTION, Source, Started, Unseen, View};
use crate::ctl::machine::units::Unit;
use crate::ctl::machine::{Machine, Unread};

const ARGUMENT: &str = "kube-apiserver-arg";
/// In the environment of the unit.
const FILE_VARIABLE: &str = "K3S_CONFIG_FILE=";
const RKE2_FILE_VARIABLE: &str = "RKE2_CONFIG_FILE=";

struct Rancher {
    program: &'static str,
    server: &'static str,
    config: &'static str,
    /// Beginning of the names of its units.
    units: &'static str,
}

/// Folders of the servers.
pub(in crate::ctl) const SERVERS: [&str; 2] = ["/var/lib/rancher/k3s/server", "/var/lib/rancher/rke2/server"];
const ALL: [Rancher; 2] = [
    Rancher { program: "k3s", server: SERVERS[0], config: "/etc/rancher/k3s/config.yaml", units: "k3s" },
    Rancher { program: "rke2", server: SERVERS[1], config: "/etc/rancher/rke2/config.yaml", units: "rke2-server" },
];

pub(super) fn find(machine: &Machine) -> Vec<Result<Started, Unseen>> {
    ALL.iter().flat_map(|one| one.find(machine)).collect()
}

/// What the units say.
#[derive(Default)]
struct Told {
    words: Vec<String>,
    config: Option<String>,
}

impl Rancher {
    fn find(&self, machine: &Machine) -> Vec<Result<Started, Unseen>> {
        let is_here = !matches!(machine.meta(self.server), Err(Unread::Missing));
        let mut found = Vec::new();
        let mut told = Told::default();
        match self.units(machine) {
            Ok(Some(units)) => told = units,
            // By a file alone its flags may be known, and whether that is all of them is not.
            Ok(None) if is_here => found.push(Err(Unseen::NoUnit { server: self.server, units: self.units })),
            Ok(None) => {}
            Err(unseen) => found.push(Err(unseen)),
        }
        let path = told.config.as_deref().unwrap_or(self.config);
        let words = match files(machine, path) {
            Ok(words) => [words, told.words].concat(),
            // The files are what a doctor wants to hear of first.
            Err(unseen) => {
                found.insert(0, Err(unseen));
                return found;
            }
        };
        if !is_here && words.is_empty() {
            return found;
        }
        let mut flags = Flags(words.iter().map(|word| flag(word)).collect());
        // Its own file, with `secrets-encryption`.
        let own = format!("{}/cred/encryption-config.json", self.server);
        if flags.last(ENCRYPTION).is_none() && machine.meta(&own).is_ok() {
            flags.0.push(format!("--{ENCRYPTION}={own}"));
        }
        let started = Started { said_in: path.to_owned(), source: Source::Added, flags, view: View::Host };
        found.insert(0, Ok(started));
        found
    }

    /// `None` if there is no unit of a server.
    fn units(&self, machine: &Machine) -> Result<Option<Told>, Unseen> {
        let folder = |unread| Unseen::File { path: "a folder of units".to_owned(), unread };
        let mut told = None;
        for name in Unit::names(machine, self.units).map_err(folder)? {
            let Some(unit) = Unit::find(machine, &name) else { continue };
            let unclear = || Unseen::Form { path: name.clone(), wanted: "unit of a server" };
            let commands: Vec<Vec<&str>> = unit.lines("ExecStart").iter().map(|line| words(line)).collect();
            if !unit.unread.is_empty() {
                return Err(unclear());
            }
            if commands.iter().any(|words| words.contains(&"agent")) {
                continue;
            }
            let told: &mut Told = told.get_or_insert_default();
            for words in commands {
                // A script may say anything, and so may a variable.
                let is_it = |word: &&str| word.rsplit('/').next() == Some(self.program);
                if !words.iter().any(is_it) || !words.contains(&"server") || words.iter().any(|word| word.contains('$'))
                {
                    return Err(unclear());
                }
                told.words.extend(values(&words, &[ARGUMENT]));
                told.config = values(&words, &["config", "c"]).pop().or(told.config.take());
            }
            for text in self.environment(machine, &name, &unit)? {
                let variable = if self.program == "k3s" { FILE_VARIABLE } else { RKE2_FILE_VARIABLE };
                let named = words(&text).into_iter().find_map(|word| word.strip_prefix(variable)).map(str::to_owned);
                told.config = told.config.take().or(named);
            }
        }
        Ok(told)
    }

    /// What the unit sets, and its files.
    fn environment(&self, machine: &Machine, name: &str, unit: &Unit) -> Result<Vec<String>, Unseen> {
        let mut texts = unit.lines("Environment").to_vec();
        let stem = name.strip_suffix(".service").unwrap_or(name);
        for line in unit.lines("EnvironmentFile") {
            let path = line.trim_start_matches('-').replace("%N", stem).replace("%n", name);
            match machine.read(&path) {
                Ok(text) => texts.push(text.to_string()),
                Err(Unread::Missing) => {}
                Err(unread) => return Err(Unseen::File { path, unread }),
            }
        }
        Ok(texts)
    }
}

/// `NAME=VALUE` as kube-apiserver gets it: k3s takes leading dashes away, and a `+` or `-` behind the name (`config.GetArgs`).
fn flag(argument: &str) -> String {
    let argument = argument.trim_start_matches('-');
    let (name, value) = argument.split_once('=').unwrap_or((argument, "true"));
    format!("--{}={value}", name.trim_end_matches(['+', '-']))
}

/// Of a command line, without its quotes.
fn words(line: &str) -> Vec<&str> {
    let is_edge = |sign: char| sign.is_whitespace() || matches!(sign, '\'' | '"' | '\\');
    line.split(is_edge).filter(|word| !word.is_empty()).collect()
}

/// What options of these names are given: `--NAME VALUE` or `--NAME=VALUE`, with one dash or two.
fn values(words: &[&str], names: &[&str]) -> Vec<String> {
    let value = |(at, word): (usize, &&str)| {
        let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let value = value.or_else(|| words.get(at + 1).copied());
        names.contains(&name).then(|| value.unwrap_or_default().to_owned())
    };
    words.iter().enumerate().filter_map(value).collect()
}

/// The arguments that the configuration and the folder beside it have.
fn files(machine: &Machine, path: &str) -> Result<Vec<String>, Unseen> {
    let folder = format!("{path}.d");
    let is_one = |name: &String| {
        let name = name.to_ascii_lowercase();
        name.ends_with(".yaml") || name.ends_with(".yml")
    };
    let more = machine.names(&folder).map_err(|unread| Unseen::File { path: folder.clone(), unread })?;
    let more = more.into_iter().filter(is_one).map(|name| format!("{folder}/{name}"));
    // k3s takes a URL too.
    if !path.starts_with('/') {
        return Err(Unseen::Form { path: path.to_owned(), wanted: "file of this machine" });
    }
    let mut arguments = Vec::new();
    for (at, path) in std::iter::once(path.to_owned()).chain(more).enumerate() {
        match machine.read(&path) {
            Ok(text) => read_into(&mut arguments, &text).ok_or(Unseen::Form { path, wanted: "YAML" })?,
            Err(Unread::Missing) if at == 0 => {}
            Err(unread) => return Err(Unseen::File { path, unread }),
        }
    }
    Ok(arguments)
}

/// The keys of one file, in their order.
struct Keys(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    keys.push(entry);
                }
                Ok(Keys(keys))
            }
        }
        from.deserialize_map(InOrder)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn read_into(arguments: &mut Vec<String>, text: &str) -> Option<()> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Some(());
    }
    let Keys(keys) = serde_saphyr::from_str(text).ok()?;
    for (key, value) in keys.into_iter().filter(|(key, _)| key.strip_suffix('+').unwrap_or(key) == ARGUMENT) {
        if !key.ends_with('+') {
            arguments.clear();
        }
        match serde_json::from_value(value).ok()? {
            OneOrMany::One(word) => arguments.push(word),
            OneOrMany::Many(words) => arguments.extend(words),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(texts: &[&str]) -> Option<Vec<String>> {
        let mut arguments = Vec::new();
        texts.iter().try_for_each(|text| read_into(&mut arguments, text))?;
        Some(arguments)
    }

    #[test]
    fn the_arguments_of_k3s_are_found_in_each_of_its_forms() {
        let wanted = Some(vec!["encryption-provider-config=/a".to_owned()]);
        assert_eq!(arguments(&["kube-apiserver-arg: encryption-provider-config=/a\n"]), wanted);
        let text = "tls-san: [x]\nkube-apiserver-arg+:\n  - \"encryption-provider-config=/a\"\n";
        assert_eq!(arguments(&[text]), wanted);
        assert_eq!(arguments(&["# nothing\n"]), Some(Vec::new()));
        assert_eq!(arguments(&["[broken"]), None);
        for line in ["k3s server '--kube-apiserver-arg' 'a=/b'", "k3s server -kube-apiserver-arg=a=/b"] {
            assert_eq!(values(&words(line), &[ARGUMENT]), ["a=/b"]);
        }
        for argument in ["a=b", "--a=b", "a+=b", "a-=b"] {
            assert_eq!(flag(argument), "--a=b");
        }
    }

    #[test]
    fn a_later_key_replaces_and_one_with_a_plus_adds() {
        let of = |key: &str, word: &str| format!("{key}: [{word}]\n");
        let (set, add) = (|word| of("kube-apiserver-arg", word), |word| of("kube-apiserver-arg+", word));
        assert_eq!(arguments(&[&set("a=1"), &set("b=1")]).unwrap(), ["b=1"]);
        assert_eq!(arguments(&[&set("a=1"), &add("b=1")]).unwrap(), ["a=1", "b=1"]);
        assert_eq!(arguments(&[&set("a=1"), "tls-san: [x]\n"]).unwrap(), ["a=1"]);
    }
}
