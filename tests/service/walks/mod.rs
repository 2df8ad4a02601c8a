//! docs/operations/recovery.md and the block of rotate.md that goes with it, executed: every command block that is marked there is
//! run as it stands, with the paths of a test. By root over the directory of the service's user, and by that user.

mod devices;
mod interrupted;
mod members;
mod node_root;
mod recovery_file;
mod sharing;

use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use test_support::client::Stored;
use test_support::node::{Node, Output, run};
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::alone::NODESEAL;

const PAGES: [&str; 2] =
    [include_str!("../../../docs/operations/recovery.md"), include_str!("../../../docs/operations/rotate.md")];

/// The lines of one block: the prompt's node, and the command.
fn walk(name: &str) -> Vec<(&'static str, &'static str)> {
    let mark = format!("<!-- walk: {name} -->\n```\n");
    let mut found = PAGES.iter().filter_map(|page| page.split_once(&mark));
    let (_, rest) = found.next().unwrap_or_else(|| panic!("no {name}"));
    let (block, _) = rest.split_once("```").unwrap();
    block.lines().map(|line| line.split_once("# ").unwrap()).collect()
}

/// Runs a block on the nodes of its prompts. Gives what each command printed.
fn run_walk(name: &str, safe: &Path, nodes: &mut [(&str, &mut dyn Place)]) -> Vec<String> {
    let mut printed: Vec<String> = Vec::new();
    for (prompt, command) in walk(name) {
        // `safe#` is no node of ours: any place will do.
        let index = nodes.iter().position(|(name, _)| *name == prompt).unwrap_or(0);
        let node = &mut *nodes[index].1;
        let out = match command {
            "systemctl stop nodeseal" => {
                node.stop_it();
                String::new()
            }
            "systemctl start nodeseal" => {
                node.start_it();
                String::new()
            }
            // Of a node that waits for its keys.
            "systemctl start --no-block nodeseal" => {
                node.start_without_keys();
                String::new()
            }
            // Our nodes make their own sockets, and start the sealer for each question.
            _ if command.starts_with("systemctl enable ") => String::new(),
            // What the operator would wait for: `nodeseald` tries again within half a minute.
            "nodeseal status --probe" => until(Duration::from_secs(45), command, || {
                let output = shell(command, safe, node);
                (output.code == 0).then_some(output.out)
            }),
            _ => {
                let command = with_fingerprint(command, &printed);
                let output = shell(&command, safe, node);
                assert_eq!(output.code, 0, "{name}: {command}: {output:?}\n{}", node.all_logs());
                output.out
            }
        };
        printed.push(out);
    }
    for (_, node) in nodes {
        assert_all_belongs_to_the_service(*node);
    }
    printed
}

/// The example's fingerprint becomes the last one that was printed.
fn with_fingerprint(command: &str, printed: &[String]) -> String {
    let mut marks = printed.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("fingerprint: "));
    command.replace("1f0c8-77ab3-e92d4-05b6f-c3a18-d64e2-9b7f0-2ce51", marks.next_back().unwrap_or_default())
}

fn shell(command: &str, safe: &Path, node: &dyn Place) -> Output {
    let by = node.by();
    let owner = by.owner().map_or_else(|| "-o $(id -u) -g $(id -g)".to_owned(), |user| format!("-o {user} -g {user}"));
    let command = command
        .replace("-o nodeseal -g nodeseal", &owner)
        .replace("/var/lib/nodeseal", &node.state_dir().display().to_string())
        .replace("/media/safe", &safe.display().to_string())
        .replace("nodeseal ", &format!("{} --config {} ", node.nodeseal().display(), node.config_file().display()));
    let mut sh = Command::new("sh");
    if by == By::Owner {
        sh.uid(USER).gid(USER);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    run(sh.arg("-ec").arg(command).env("PATH", format!("{}/bin:{path}", safe.display())))
}

/// No file of root's was left where the service is to write.
fn assert_all_belongs_to_the_service(node: &dyn Place) {
    let Some(user) = node.by().owner() else { return };
    let found = run(Command::new("find").arg(node.state_dir()).args(["!", "-uid", &user.to_string()]));
    assert_eq!((found.code, found.out.as_str()), (0, ""), "{:?}", node.by());
}

/// Who types the walks, and to whom the state directory belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Whoever runs the tests, for himself.
    Oneself,
    /// Root, and the directory is the service's, as docs/operations/install.md has it.
    Root,
    /// The service's user.
    Owner,
}

/// `daemon`, which every Linux has.
const USER: u32 = 1;

impl By {
    fn all() -> Vec<Self> {
        if nix::unistd::geteuid().is_root() { vec![Self::Root, Self::Owner] } else { vec![Self::Oneself] }
    }

    fn owner(self) -> Option<u32> {
        (self != Self::Oneself).then_some(USER)
    }
}

/// Where a walk is gone.
trait Place {
    fn by(&self) -> By;
    fn nodeseal(&self) -> PathBuf;
    fn state_dir(&self) -> PathBuf;
    fn config_file(&self) -> PathBuf;
    fn all_logs(&self) -> String;
    fn start_it(&mut self);
    fn start_without_keys(&mut self);
    fn stop_it(&mut self);
}

/// A node, and who types there.
struct Home {
    alone: Alone,
    by: By,
}

impl Deref for Home {
    type Target = Alone;

    fn deref(&self) -> &Alone {
        &self.alone
    }
}

impl DerefMut for Home {
    fn deref_mut(&mut self) -> &mut Alone {
        &mut self.alone
    }
}

impl Place for Home {
    fn by(&self) -> By {
        self.by
    }

    fn nodeseal(&self) -> PathBuf {
        self.alone.nodeseal()
    }

    fn state_dir(&self) -> PathBuf {
        self.state()
    }

    fn config_file(&self) -> PathBuf {
        self.config()
    }

    fn all_logs(&self) -> String {
        self.log()
    }

    fn start_it(&mut self) {
        self.start();
    }

    fn start_without_keys(&mut self) {
        self.start_locked();
        until(Duration::from_secs(30), "the node root opens", || {
            (self.tool(&["keys", "list"]).code == 0).then_some(())
        });
    }

    fn stop_it(&mut self) {
        self.stop();
    }
}

impl Place for Node {
    fn by(&self) -> By {
        By::Oneself
    }

    fn nodeseal(&self) -> PathBuf {
        NODESEAL.into()
    }

    fn state_dir(&self) -> PathBuf {
        self.state()
    }

    fn config_file(&self) -> PathBuf {
        self.config()
    }

    fn all_logs(&self) -> String {
        self.logs()
    }

    fn start_it(&mut self) {
        self.up();
    }

    fn start_without_keys(&mut self) {
        panic!("no test begins such a node by `dev`");
    }

    fn stop_it(&mut self) {
        self.stop();
    }
}

/// As the pages have it.
const MAKE_DIRECTORY: &str = "install -d -m 0700 -o nodeseal -g nodeseal /var/lib/nodeseal";

struct Ground {
    safe: tempfile::TempDir,
    by: By,
}

impl Ground {
    fn new(by: By) -> Self {
        let safe = tempfile::tempdir().unwrap();
        if by == By::Owner {
            chown(safe.path(), Some(USER), Some(USER)).unwrap();
        }
        Self { safe, by }
    }

    /// A configuration on a machine that is new.
    fn machine(&self, tpm: &Swtpm) -> Home {
        let alone = match self.by.owner() {
            Some(user) => Alone::prepare_for(tpm, user),
            None => Alone::prepare(tpm),
        };
        if self.by == By::Oneself {
            fs::remove_dir(alone.state()).unwrap();
        }
        Home { alone, by: self.by }
    }

    /// A node set up by the page's first walk, with a text of it.
    fn set_up(&self, tpm: &Swtpm) -> (Home, Stored) {
        let mut home = self.machine(tpm);
        self.walk("before", &mut home);
        let stored = home.client().store().unwrap();
        (home, stored)
    }

    fn walk(&self, name: &str, home: &mut Home) -> Vec<String> {
        run_walk(name, self.safe.path(), &mut [("cp-1", home)])
    }

    fn shell(&self, command: &str, node: &dyn Place) -> Output {
        shell(command, self.safe.path(), node)
    }
}

/// Each walk, by everybody who may type it.
fn by_all(test: impl Fn(&Ground)) {
    for by in By::all() {
        eprintln!("by {by:?}");
        test(&Ground::new(by));
    }
}

/// The folders of all node roots that are there.
fn roots(alone: &Alone) -> Vec<PathBuf> {
    fs::read_dir(alone.state().join("roots")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_walk_of_the_pages_is_run() {
    let marks = PAGES.iter().flat_map(|page| page.split("<!-- walk: ").skip(1));
    let named: Vec<&str> = marks.map(|rest| rest.split(' ').next().unwrap()).collect();
    assert!(named.len() > 10, "{named:?}");
    let here = [
        include_str!("mod.rs"),
        include_str!("devices.rs"),
        include_str!("node_root.rs"),
        include_str!("sharing.rs"),
        include_str!("members.rs"),
    ];
    for name in named {
        let is_run = here.iter().any(|text| text.contains(&format!("\"{name}\"")));
        assert!(is_run, "the walk {name} is run by no test");
    }
}

#[test]
fn the_page_on_installing_makes_the_directory_by_the_same_command() {
    assert!(include_str!("../../../docs/operations/install.md").contains(MAKE_DIRECTORY));
}
