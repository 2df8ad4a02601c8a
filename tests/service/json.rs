//! docs/operations/json.md and what the verbs print under `--json`, held to each other: each answer has the documented fields and no
//! other, each of its documented type.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;
use test_support::node::{Node, Output};
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

const PAGE: &str = include_str!("../../docs/operations/json.md");

/// Types by the paths of fields.
type Fields = BTreeMap<String, String>;

/// The tables of the page, by their headings: schemas, and objects that several of them have.
fn documented() -> BTreeMap<String, Fields> {
    let sections = PAGE.split("\n### ").skip(1);
    let fields = |section: &str| {
        section
            .lines()
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(path, rest)| (path.to_owned(), rest.split(" |").next().unwrap().to_owned()))
            .collect()
    };
    sections.map(|section| (section.lines().next().unwrap().to_owned(), fields(section))).collect()
}

/// A look at one object, by one table.
struct Look<'a> {
    page: &'a BTreeMap<String, Fields>,
    fields: &'a Fields,
    what: &'a str,
}

impl Look<'_> {
    /// What begins with this path, one step below it.
    fn below(&self, prefix: &str) -> BTreeSet<&str> {
        let rest = self.fields.keys().filter_map(|path| path.strip_prefix(prefix));
        rest.filter(|name| !name.is_empty() && !name.contains(['.', '['])).collect()
    }

    fn object(&self, prefix: &str, value: &Value, ignored: &[&str]) {
        let object = value.as_object().unwrap_or_else(|| panic!("{}: {prefix} is no object: {value}", self.what));
        let there: BTreeSet<&str> = object.keys().map(String::as_str).filter(|key| !ignored.contains(key)).collect();
        assert_eq!(there, self.below(prefix), "{}: fields of the answer and of the page: {value}", self.what);
        for (name, value) in object.iter().filter(|(name, _)| !ignored.contains(&name.as_str())) {
            let path = format!("{prefix}{name}");
            self.value(&path, &self.fields[&path], value);
        }
    }

    fn value(&self, path: &str, kind: &str, value: &Value) {
        if let Some(kind) = kind.strip_suffix(" or null") {
            if !value.is_null() {
                self.value(path, kind, value);
            }
            return;
        }
        if let Some(kind) = kind.strip_prefix("list of ") {
            let list = value.as_array().unwrap_or_else(|| panic!("{}: {path} is no list: {value}", self.what));
            return list.iter().for_each(|value| self.value(&format!("{path}[]"), kind, value));
        }
        if let Some(kind) = kind.strip_prefix("map of ") {
            let map = value.as_object().unwrap_or_else(|| panic!("{}: {path} is no map: {value}", self.what));
            return map.values().for_each(|value| self.value(path, kind, value));
        }
        let text = value.as_str().unwrap_or_default();
        let fits = match kind {
            "text" => !text.is_empty() && !is_time(text),
            "time" => is_time(text),
            "id" => text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "number" => value.is_u64(),
            "boolean" => value.is_boolean(),
            "any" => true,
            "object" => return self.object(&format!("{path}."), value, &[]),
            named => {
                let fields = self.page.get(named).unwrap_or_else(|| panic!("the page knows no type {named}"));
                return Look { page: self.page, fields, what: self.what }.object("", value, &[]);
            }
        };
        assert!(fits, "{}: {path} is to be {kind}: {value}", self.what);
    }
}

fn is_time(text: &str) -> bool {
    let form = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    form.eq(b"0000-00-00T00:00:00Z".iter().copied())
}

/// Answers that were held to the page.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// The answer is one object on one line that fits the page, and of this schema.
    fn take(&mut self, schema: &str, output: &Output) -> Value {
        assert_eq!(output.out.lines().count(), 1, "{output:?}");
        let (page, answer) = (documented(), output.json());
        let schema = format!("nodeseal.{schema}/1");
        assert_eq!(answer["schema"].as_str(), Some(schema.as_str()), "{output:?}");
        let fields = page.get(&schema).unwrap_or_else(|| panic!("the page has no {schema}"));
        Look { page: &page, fields, what: &schema }.object("", &answer, &["schema"]);
        self.0.insert(schema);
        answer
    }

    /// The same of a verb that was done.
    fn done(&mut self, schema: &str, output: &Output) -> Value {
        assert_eq!(output.code, 0, "{output:?}");
        self.take(schema, output)
    }

    /// The same of a verb that was refused: what is on standard output is what is on standard error, and the exit code is in it.
    fn refused(&mut self, code: i32, output: &Output) -> Value {
        assert_eq!(output.code, code, "{output:?}");
        let told = self.take("error", output);
        assert_eq!(told["exit"].as_i64(), Some(code.into()), "{told}");
        if code != 64 {
            let error = format!("nodeseal: error: {}\n", told["error"].as_str().unwrap());
            let hint = format!("nodeseal: hint: {}\n", told["hint"].as_str().unwrap());
            assert!(output.err.contains(&error) && output.err.ends_with(&hint), "{output:?}");
            let chain: Vec<&str> =
                told["chain"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
            assert_eq!(chain.join(": "), told["error"].as_str().unwrap());
        }
        told
    }
}

/// A node that was set up with a recovery code, which runs; and a file with the code.
fn running(tpm: &Swtpm, seen: &mut Seen) -> (Alone, String) {
    let mut alone = Alone::prepare(tpm);
    let code = alone.home().join("code").display().to_string();
    let set_up = seen.done("init", &alone.tool(&["init", "--recovery-code", "--json"]));
    fs::write(&code, set_up["recovery_code"].as_str().unwrap()).unwrap();
    assert!(set_up["next"].as_array().unwrap().len() > 2, "{set_up}");
    alone.start();
    (alone, code)
}

fn json(alone: &Alone, args: &[&str]) -> Output {
    alone.tool(&[args, &["--json"]].concat())
}

#[test]
fn every_answer_of_a_node_by_itself_has_the_documented_fields_and_no_other() {
    let (tpm, mut seen) = (Swtpm::start(), Seen::default());
    let (mut alone, code) = running(&tpm, &mut seen);
    seen.done("config-check", &json(&alone, &["config", "check"]));
    seen.done("config-show", &json(&alone, &["config", "show"]));
    seen.done("version", &json(&alone, &["version"]));
    seen.done("status", &json(&alone, &["status"]));
    seen.done("status", &json(&alone, &["status", "--probe", "--device", "--deep"]));
    seen.done("metrics", &json(&alone, &["metrics"]));
    seen.done("doctor", &json(&alone, &["doctor", "--only", "ND-002,ND-003"]));
    seen.done("reload", &json(&alone, &["reload"]));
    seen.done("debug", &json(&alone, &["debug", "status"]));
    seen.done("debug", &json(&alone, &["debug", "on", "--minutes", "1", "--incident", "INC-1"]));
    let list = seen.done("keys-list", &json(&alone, &["keys", "list"]));
    let first = list["keys"][0]["id"].as_str().unwrap();
    seen.done("keys-show", &json(&alone, &["keys", "show", first]));
    let drawing = alone.home().join("windows.svg").display().to_string();
    seen.done("keys-windows", &json(&alone, &["keys", "windows", "--svg", &drawing]));
    assert!(fs::read_to_string(&drawing).unwrap().ends_with("</svg>\n"));
    assert_ne!(json(&alone, &["keys", "windows", "--svg", &drawing]).code, 0, "never over a file that is there");
    seen.done("keys-rotate", &json(&alone, &["keys", "rotate"]));
    seen.done("keys-activate", &json(&alone, &["keys", "activate"]));
    seen.done("keys-retire", &json(&alone, &["keys", "retire", first, "--dry-run", "--without-scan"]));
    let marked = ["keys", "retire", first, "--confirm", first, "--compromised"];
    assert_eq!(seen.done("keys-retire", &json(&alone, &marked))["key"]["state"], "compromised");
    let retired =
        seen.done("keys-retire", &json(&alone, &["keys", "retire", first, "--confirm", first, "--without-scan"]));
    assert_eq!((retired["key"]["state"].as_str(), retired["to"].as_str()), (Some("destroyed"), Some("destroyed")));
    seen.done("keys-activate", &json(&alone, &["keys", "rotate", "--activate"]));
    seen.done("reseal", &json(&alone, &["reseal"]));
    seen.done("rotate-root", &json(&alone, &["rotate-root", "--dry-run"]));
    seen.done("rotate-root", &json(&alone, &["rotate-root"]));
    seen.done("recover-verify", &json(&alone, &["recover", "--verify", "--identity", &code]));
    seen.done("credentials-list", &json(&alone, &["credentials", "list"]));
    // Standard input is empty here, and so is the credential.
    let from =
        format!("exec 3<{code}; exec \"$0\" --config {} credentials seal x --fd 3 --json", alone.config().display());
    let mut shell = std::process::Command::new("sh");
    seen.done("credentials-seal", &test_support::node::run(shell.args(["-c", &from]).arg(alone.nodeseal())));
    seen.done("credentials-list", &json(&alone, &["credentials", "list"]));
    seen.done("credentials-remove", &json(&alone, &["credentials", "remove", "x"]));
    // A copy that is too old is an answer, and no success.
    let copy = alone.home().join("copy.age");
    fs::copy(alone.state().join("recovery.age"), &copy).unwrap();
    assert_eq!(json(&alone, &["keys", "rotate"]).code, 0);
    let old = json(&alone, &["recover", "--verify", "--file", &copy.display().to_string(), "--identity", &code]);
    assert_eq!((old.code, seen.take("recover-verify", &old)["missing"].as_array().unwrap().len()), (66, 1));
    assert_eq!(alone.stop(), 0);
    seen.done("reseal", &json(&alone, &["reseal", "--accept-rollback"]));
    tpm.tool("tpm2_clear -c p");
    let back = seen.done("recover", &json(&alone, &["recover", "--identity", &code, "--recovery-code"]));
    assert!(back["next"].as_array().unwrap().len() > 2, "{back}");
    let kinds = ["credentials-list", "keys-retire", "rotate-root"];
    assert!(kinds.iter().all(|kind| seen.0.contains(&format!("nodeseal.{kind}/1"))));
}

#[test]
fn every_answer_of_nodes_that_exchange_keys_has_the_documented_fields_and_no_other() {
    let (one, two, mut seen) = (Swtpm::start(), Swtpm::start(), Seen::default());
    let (first, _) = running(&one, &mut seen);
    let mut second = Alone::prepare(&two);
    seen.done("init", &json(&second, &["init", "--join", "--no-recovery"]));
    second.start_locked();
    let waits = |second: &Alone| json(second, &["keys", "list"]).code == 0;
    until(Duration::from_secs(30), "the node root opens", || waits(&second).then_some(()));
    seen.done("keys-list", &json(&second, &["keys", "list"]));
    let status = json(&second, &["status"]);
    assert_eq!((status.code, seen.take("status", &status)["awaits_bundle"].as_bool()), (69, Some(true)));
    let path = |name: &str| first.home().join(name).display().to_string();
    let (request, bundle, identity) = (path("request"), path("bundle"), path("identity"));
    let asked = seen.done("bundle-request", &json(&second, &["bundle", "request", "--out", &request]));
    let mark = asked["fingerprint"].as_str().unwrap();
    let make = ["bundle", "make", &request, "--fingerprint", mark, "--out", &bundle];
    let made = seen.done("bundle-make", &json(&first, &make));
    for file in [&request, &bundle] {
        seen.done("bundle-show", &json(&first, &["bundle", "show", file]));
    }
    let accept = ["bundle", "accept", &bundle, "--fingerprint", made["fingerprint"].as_str().unwrap()];
    seen.done("bundle-accept", &json(&second, &accept));
    seen.done("members-list", &json(&first, &["members", "list"]));
    let own =
        seen.done("members-identity", &json(&second, &["members", "identity", "--name", "b", "--out", &identity]));
    seen.done("bundle-show", &json(&first, &["bundle", "show", &identity]));
    let mark = own["fingerprint"].as_str().unwrap();
    seen.done("members-add", &json(&first, &["members", "add", &identity, "--fingerprint", mark]));
    let theirs = path("theirs");
    let own = seen.done("members-identity", &json(&first, &["members", "identity", "--name", "a", "--out", &theirs]));
    let mark = own["fingerprint"].as_str().unwrap();
    seen.done("members-add", &json(&second, &["members", "add", &theirs, "--fingerprint", mark]));
    let folder = path("rotation");
    let rotated = seen.done("keys-rotate", &json(&first, &["keys", "rotate", "--members", &folder]));
    assert_eq!((rotated["members"][0].as_str(), rotated["next"].as_array().unwrap().len()), (Some("b"), 2));
    let standing = format!("{folder}/b.bundle");
    seen.done("bundle-show", &json(&first, &["bundle", "show", &standing]));
    seen.done("receipt", &json(&second, &["bundle", "accept", &standing, "--receipt"]));
    let again = path("again");
    seen.done("bundle-make", &json(&first, &["bundle", "make", "--member", "b", "--out", &again]));
    seen.done("members-list", &json(&first, &["members", "list"]));
    seen.done("members-remove", &json(&first, &["members", "remove", "b"]));
}

#[test]
fn the_line_of_dev_has_the_documented_fields_and_no_other() {
    let mut node = Node::prepare("", "");
    let line = node.begin().recv_timeout(Duration::from_secs(60)).unwrap();
    let ready = Output { code: 0, out: line, err: String::new() };
    let told = Seen::default().done("dev", &ready);
    assert_eq!((told["event"].as_str(), told["config"].as_str()), (Some("ready"), node.config().to_str()));
}

#[test]
fn every_refusal_is_one_object_with_its_code_its_hint_and_its_exit_code() {
    let (tpm, mut seen) = (Swtpm::start(), Seen::default());
    let mut alone = Alone::prepare(&tpm);
    // By the tool itself.
    let unsaid = seen.refused(78, &json(&alone, &["init"]));
    assert!(unsaid["hint"].as_str().unwrap().contains("--recovery-code"), "{unsaid}");
    for verb in [&["status"][..], &["keys", "list"], &["keys", "rotate"], &["status", "--deep"]] {
        let away = seen.refused(69, &json(&alone, verb));
        assert!(away["hint"].as_str().unwrap().contains("start nodeseald"), "{away}");
    }
    // Of the device, by the tool and by the daemon.
    assert_eq!(alone.tool(&["init", "--recovery-code"]).code, 0);
    tpm.tool("tpm2_clear -c p");
    let gone = seen.refused(77, &json(&alone, &["reseal"]));
    assert_eq!(gone["code"], "E-SRK-MISSING", "{gone}");
    alone.start_locked();
    alone.await_event("seal.refused", "E-SRK-MISSING");
    let closed = seen.refused(69, &json(&alone, &["keys", "list"]));
    assert_eq!(closed["class"], "unavailable", "{closed}");
    // A wrong code, and a file that is not there.
    let wrong = alone.home().join("wrong").display().to_string();
    seen.refused(66, &json(&alone, &["recover", "--verify", "--identity", &wrong]));
    fs::write(&wrong, "nonsense").unwrap();
    seen.refused(77, &json(&alone, &["recover", "--verify", "--identity", &wrong]));
    // A configuration with mistakes, by whatever verb reads it.
    alone.extra = "listen.mode = \"0666\"".into();
    alone.write_config(&tpm);
    for verb in [&["config", "check"][..], &["keys", "rotate"], &["reseal"]] {
        let told = seen.refused(78, &json(&alone, verb));
        assert_eq!(told["problems"][0]["key"], "listen.mode", "{told}");
    }
    seen.refused(78, &json(&alone, &["dev", "--dir", "/nonexistent/x"]));
    // The command line.
    for args in [&["frobnicate"][..], &["keys"], &["keys", "retire"], &["status", "--nope"], &["dev"], &[]] {
        let told = seen.refused(64, &json(&alone, args));
        assert_eq!(told["class"], "usage", "{told}");
        assert!(told["hint"].as_str().unwrap().starts_with("usage: nodeseal"), "{told}");
    }
    // Without it nobody reads JSON.
    assert_eq!(alone.tool(&["frobnicate"]).out, "");
}
