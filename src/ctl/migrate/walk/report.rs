//! What the walk answers: under `--json` (docs/operations/json.md, `nodeseal.migrate-steps/1`), and for people.

use std::fmt::Write;

use serde::Serialize;

use super::steps::{DONE, NEXT, Route, Step};

#[derive(Debug, Serialize)]
pub(super) struct Walk {
    from: String,
    to: String,
    /// All steps are done.
    complete: bool,
    pub(super) steps: Vec<Step>,
}

impl Walk {
    pub(super) fn new(route: &Route, steps: Vec<Step>) -> Self {
        let (from, to) = match route {
            Route::Providers { old, new } => (old.clone(), new.clone()),
            Route::Plugin { socket } => (format!("unix://{socket}"), "nodeseal".to_owned()),
        };
        Self { from, to, complete: steps.iter().all(|step| step.state == DONE), steps }
    }

    pub(super) fn render(&self) -> String {
        let mut out = format!("from      {}\nto        {}\n\n", self.from, self.to);
        for (at, step) in self.steps.iter().enumerate() {
            let seen = if step.seen.is_empty() { String::new() } else { format!(": {}", step.seen) };
            let _ = writeln!(out, "{}. {:<6} {} ({}){seen}", at + 1, step.state, step.what, step.id);
            if step.state == NEXT {
                for line in &step.todo {
                    let _ = writeln!(out, "            {line}");
                }
            }
        }
        if self.complete {
            out.push_str("\nall steps are done\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::steps::LATER;
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/operations/json.md");

    fn walk() -> Walk {
        let step = |id, state, todo: &[&str]| Step {
            id,
            state,
            what: format!("do {id}"),
            seen: if state == LATER { String::new() } else { "seen".to_owned() },
            todo: todo.iter().map(|line| (*line).to_owned()).collect(),
        };
        let steps = vec![step("add", DONE, &[]), step("prove", NEXT, &["nodeseal status"]), step("write", LATER, &[])];
        Walk::new(&Route::Plugin { socket: "/run/other.sock".into() }, steps)
    }

    #[test]
    fn every_field_of_an_answer_stands_on_the_page_and_no_other() {
        let documented = |below: &str| {
            let section =
                PAGE.split("\n### ").find(|section| section.starts_with("nodeseal.migrate-steps/1\n")).unwrap();
            let paths =
                section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')?.0.strip_prefix(below));
            let mut paths: Vec<_> = paths.filter(|path| !path.contains('.')).map(str::to_owned).collect();
            paths.sort();
            paths
        };
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let walk = json!(walk());
        assert_eq!(fields(&walk), documented(""));
        assert_eq!(fields(&walk["steps"][0]), documented("steps[]."));
    }

    #[test]
    fn people_read_what_is_done_and_what_to_do_next() {
        let text = walk().render();
        assert!(text.starts_with("from      unix:///run/other.sock\nto        nodeseal\n"), "{text}");
        let lines = [
            "1. done   do add (add): seen\n",
            "2. next   do prove (prove): seen\n            nodeseal status\n",
            "3. later  do write (write)\n",
        ];
        assert!(lines.iter().all(|line| text.contains(line)) && !text.contains("all steps are done"), "{text}");
    }
}
