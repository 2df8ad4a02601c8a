use super::*;

/// Nothing of it is done, and the cluster is as it was.
fn before() -> Facts {
    let writes = Runs { writes: true, answers: true, ..Runs::default() };
    Facts {
        old: Provider { name: "attic".into(), is_written: true, runs: Some(writes) },
        new: Provider { name: "hall".into(), ..Provider::default() },
        is_pending: false,
        key_id_waits: None,
        wraps_owed: 0,
        is_asked: Some(true),
        servers: Servers::Agree,
        migrated: Migrated::Not,
        all_by_new: Err(NoProof::Never),
        has_seen_none: false,
        none_by_old: Err(NoProof::Needed { objects: 9 }),
        config: "nodeseal.toml".into(),
        flag: String::new(),
        cluster: " --kubeconfig admin.conf".into(),
        etcd: String::new(),
    }
}

/// The step that is next, and what it says to do; all before it must be done and all behind it later.
fn next(route: &Route, facts: &Facts) -> (&'static str, Vec<String>) {
    let steps = steps(route, facts);
    let at = steps.iter().position(|step| step.state != DONE).unwrap_or(steps.len());
    assert!(steps.iter().skip(at + 1).all(|step| step.state == LATER && step.todo.is_empty()), "{steps:?}");
    assert!(steps.iter().take(at).all(|step| step.todo.is_empty() && !step.seen.is_empty()), "{steps:?}");
    steps.get(at).map_or(("", Vec::new()), |step| (step.id, step.todo.clone()))
}

type Change = (&'static str, &'static str, fn(&mut Facts));

/// Walks: each change leads to a step, of which a line is expected.
fn walk(route: &Route, mut facts: Facts, changes: &[Change]) {
    for (number, (expected, line, change)) in changes.iter().enumerate() {
        change(&mut facts);
        let (id, todo) = next(route, &facts);
        assert_eq!(id, *expected, "change {number}: {todo:?}");
        assert!(line.is_empty() || todo.iter().any(|one| one.contains(line)), "change {number}: {todo:?}");
    }
}

fn hall(facts: &mut Facts) -> &mut Runs {
    facts.new.runs.get_or_insert_default()
}

fn attic(facts: &mut Facts) -> &mut Runs {
    facts.old.runs.get_or_insert_default()
}

#[test]
fn the_way_from_one_provider_to_another_is_walked_step_by_step() {
    let route = Route::Providers { old: "attic".into(), new: "hall".into() };
    walk(
        &route,
        before(),
        &[
            ("add", "name = \"hall\"", |_| {}),
            ("add", "nodeseal reload", |facts| facts.new.is_written = true),
            ("prove", "nodeseal status", |facts| facts.new.runs = Some(Runs::default())),
            ("prove", "", |facts| hall(facts).trouble = Some("connection refused".into())),
            ("write", "hall of nodeseal.toml: write = true", |facts| {
                (hall(facts).trouble, hall(facts).answers) = (None, true);
            }),
            ("key-id", "wait", |facts| {
                hall(facts).writes = true;
                facts.key_id_waits = Some("a new version is seen for 30 s".into());
            }),
            ("key-id", "wait", |facts| (facts.key_id_waits, facts.wraps_owed) = (None, 2)),
            ("key-id", "wait", |facts| {
                facts.wraps_owed = 0;
                facts.servers = Servers::Differ("https://b does not report it yet".into());
            }),
            ("migrate", "nodeseal migrate run --kubeconfig admin.conf --scan", |facts| facts.servers = Servers::Agree),
            ("migrate", "", |facts| facts.migrated = Migrated::Running),
            ("migrate", "kubectl describe", |facts| facts.migrated = Migrated::Failed),
            ("scan", "nodeseal etcd scan", |facts| facts.migrated = Migrated::Done),
            // A scan from before the migration, or somebody has put old objects back.
            ("scan", "if it counts some again: nodeseal migrate run", |facts| {
                facts.all_by_new = Err(NoProof::Needed { objects: 1 })
            }),
            ("stop", "attic of nodeseal.toml: write = false", |facts| facts.all_by_new = Ok(())),
            // The key_id moves once more, and all begins again under it.
            ("leave", "wait", |facts| {
                attic(facts).writes = false;
                (facts.migrated, facts.all_by_new) = (Migrated::Not, Err(NoProof::Early));
                facts.servers = Servers::Differ("https://b does not report it yet".into());
            }),
            ("leave", "migrate run", |facts| facts.servers = Servers::Agree),
            ("leave", "later: nodeseal etcd scan", |facts| {
                (facts.migrated, facts.none_by_old) = (Migrated::Done, Err(NoProof::Early));
            }),
            ("remove", "delete the table attic", |facts| facts.none_by_old = Ok(())),
            ("remove", "nodeseal reload --abandon --backups-before DATE", |facts| {
                facts.old.is_written = false;
            }),
            ("", "", |facts| facts.old.runs = None),
            // What is behind does not hide that the new one has failed since.
            ("prove", "", |facts| hall(facts).trouble = Some("denied".into())),
        ],
    );
}

#[test]
fn the_way_from_another_plugin_is_walked_step_by_step() {
    let route = Route::Plugin { socket: "/run/other.sock".into() };
    let old = Provider { name: "old".into(), ..Provider::default() };
    let start = Facts { old, is_asked: Some(false), servers: Servers::Differ("no".into()), ..before() };
    walk(
        &route,
        start,
        &[
            ("add", "socket = \"/run/other.sock\"", |_| {}),
            ("add", "opens_foreign = true", |_| {}),
            ("add", "nodeseal reload", |facts| facts.old.is_written = true),
            ("add", "opens_foreign = true", |facts| facts.old.runs = Some(Runs::default())),
            ("prove", "", |facts| attic(facts).opens_foreign = true),
            ("take-place", "mv -T", |facts| attic(facts).answers = true),
            ("key-id", "wait", |facts| facts.is_asked = Some(true)),
            ("migrate", "migrate run", |facts| facts.servers = Servers::Agree),
            ("scan", "nodeseal etcd scan", |facts| {
                (facts.migrated, facts.none_by_old) = (Migrated::Done, Err(NoProof::Early));
            }),
            // By other means than ours.
            ("scan", "", |facts| (facts.migrated, facts.has_seen_none) = (Migrated::Not, true)),
            ("remove", "delete the table old", |facts| (facts.none_by_old, facts.has_seen_none) = (Ok(()), true)),
            ("remove", "--abandon", |facts| facts.old.is_written = false),
            ("", "", |facts| facts.old.runs = None),
            // It does not begin again as time goes by.
            ("", "", |facts| {
                (facts.migrated, facts.none_by_old) = (Migrated::Not, Err(NoProof::Old { seconds: 90_000 }));
            }),
        ],
    );
}

#[test]
fn what_the_api_servers_cannot_say_does_not_end_the_way() {
    let route = Route::Plugin { socket: "/run/other.sock".into() };
    let runs = Some(Runs { writes: false, opens_foreign: true, answers: true, trouble: None });
    let old = Provider { name: "old".into(), is_written: true, runs };
    // KMS v1 reports no key_id.
    let facts = Facts { old, servers: Servers::Unknown("it uses KMS v1".into()), ..before() };
    assert_eq!(next(&route, &facts).0, "migrate");
    // Where its configuration is not known, the API servers alone say which plugin they ask.
    assert_eq!(next(&route, &Facts { is_asked: None, ..facts.clone() }).0, "take-place");
    assert_eq!(next(&route, &Facts { is_asked: None, servers: Servers::Agree, ..facts }).0, "migrate");
}

#[test]
fn a_configuration_that_is_not_in_force_is_told_before_the_key_id() {
    let route = Route::Providers { old: "attic".into(), new: "hall".into() };
    let runs = Some(Runs { writes: true, answers: true, ..Runs::default() });
    let new = Provider { name: "hall".into(), is_written: true, runs };
    let (id, todo) = next(&route, &Facts { new, is_pending: true, ..before() });
    assert!(id == "key-id" && todo[1].contains("nodeseal reload"), "{id}: {todo:?}");
}
