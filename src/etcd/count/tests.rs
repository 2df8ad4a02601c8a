use std::convert::Infallible;

use super::super::samples;
use super::*;

/// Says the same of every object, and how often it was asked.
struct Says(Verdict, usize);

impl Opener for Says {
    type Error = Infallible;

    fn open(&mut self, _: &Question<'_>) -> Result<Verdict, Infallible> {
        self.1 += 1;
        Ok(self.0)
    }
}

fn take(count: &mut Count, key: &str, value: &[u8], says: &mut Says) -> Counted {
    let stored = Stored { key: key.as_bytes(), value, mod_revision: 1 };
    count.take(stored, says).unwrap_or_else(|never| match never {})
}

#[test]
fn objects_are_counted_by_resource_transformer_provider_key_id_and_kek() {
    let mut count = Count::new("/registry/", Ask::Nothing);
    let mut says = Says(Verdict::Opens, 0);
    let values = [
        ("/registry/secrets/a/1", samples::v2(1, "ns1-a", 1).stored("nodeseal")),
        ("/registry/secrets/a/2", samples::v2(1, "ns1-a", 1).stored("nodeseal")),
        ("/registry/secrets/a/3", samples::v2(1, "ns1-a", 2).stored("nodeseal")),
        ("/registry/secrets/a/4", samples::v2(2, "ns1-a", 1).stored("nodeseal")),
        ("/registry/secrets/a/5", samples::v2(1, "ns1-b", 1).stored("nodeseal")),
        ("/registry/secrets/a/6", samples::v1("nodeseal", 1, 1)),
        ("/registry/configmaps/a/1", samples::v2(1, "ns1-a", 1).stored("nodeseal")),
        ("/registry/configmaps/a/2", b"k8s\0plain".to_vec()),
    ];
    for (key, value) in &values {
        take(&mut count, key, value, &mut says);
    }
    // kube-apiserver's own notes are objects too: an older one may have encrypted them.
    take(&mut count, "/registry/ranges/serviceips", b"k8s\0x", &mut says);
    let found: Vec<_> = count
        .groups()
        .iter()
        .map(|group| (group.resource.as_str(), group.means.label(), group.objects, group.seeds.count))
        .collect();
    let expected = [
        ("secrets", "kms:v2", 3, 2),
        ("secrets", "kms:v2", 1, 1),
        ("secrets", "kms:v2", 1, 1),
        ("secrets", "kms:v1", 1, 1),
        ("configmaps", "kms:v2", 1, 1),
        ("configmaps", "identity", 1, 0),
        ("ranges", "identity", 1, 0),
    ];
    assert_eq!(found, expected);
    assert_eq!((count.objects, says.1), (9, 0), "nothing is asked unless told to");
    assert_eq!(count.groups()[3].key_id.as_deref(), Some("ns1-a"), "inside of a v1 text");
}

#[test]
fn a_seed_is_asked_for_once_and_an_object_each_time() {
    let stored = samples::v2(1, "ns1-a", 1).stored("nodeseal");
    for (ask, asked) in [(Ask::Seeds, 1), (Ask::All, 5)] {
        let (mut count, mut says) = (Count::new("/registry/", ask), Says(Verdict::Opens, 0));
        for number in 0..5 {
            take(&mut count, &format!("/registry/secrets/a/{number}"), &stored, &mut says);
        }
        assert_eq!((says.1, count.groups()[0].opens.opens), (asked, 5));
    }
}

#[test]
fn one_object_that_was_moved_says_nothing_of_the_others_of_its_seed() {
    let stored = samples::v2(1, "ns1-a", 1).stored("nodeseal");
    let mut count = Count::new("/registry/", Ask::All);
    take(&mut count, "/registry/secrets/a/1", &stored, &mut Says(Verdict::Moved, 0));
    take(&mut count, "/registry/secrets/a/2", &stored, &mut Says(Verdict::Opens, 0));
    let opens = count.groups()[0].opens;
    assert_eq!((opens.moved, opens.opens), (1, 1));
}

#[test]
fn a_provider_that_is_away_is_waited_for_once_a_kek() {
    let (mut count, mut says) = (Count::new("/registry/", Ask::All), Says(Verdict::ProviderAway, 0));
    for salt in 0..9 {
        let stored = samples::v2(1, "ns1-a", salt).stored("nodeseal");
        take(&mut count, &format!("/registry/secrets/a/{salt}"), &stored, &mut says);
    }
    assert_eq!((says.1, count.groups()[0].opens.provider_away), (1, 9));
}

#[test]
fn a_text_that_somebody_has_changed_says_nothing_of_the_others_of_its_kek() {
    let (mut count, mut away) = (Count::new("/registry/", Ask::All), Says(Verdict::ProviderAway, 0));
    let changed = samples::EncryptedObject {
        annotations: [("a.wrap.example".to_owned(), vec![1])].into(),
        ..samples::v2(1, "ns1-a", 1)
    };
    take(&mut count, "/registry/secrets/a/1", &changed.stored("nodeseal"), &mut away);
    let mut opens = Says(Verdict::Opens, 0);
    take(&mut count, "/registry/secrets/a/2", &samples::v2(1, "ns1-a", 2).stored("nodeseal"), &mut opens);
    assert_eq!((count.groups()[0].opens.opens, opens.1), (1, 1));
}

#[test]
fn an_object_that_nobody_was_asked_about_says_nothing_of_the_others_of_its_seed() {
    let stored = samples::v2(1, "ns1-a", 1).stored("nodeseal");
    let mut count = Count::new("/registry/", Ask::All);
    take(&mut count, "/registry/secrets/a/1", &stored, &mut Says(Verdict::NotAsked, 0));
    take(&mut count, "/registry/secrets/a/2", &stored, &mut Says(Verdict::Opens, 0));
    let opens = count.groups()[0].opens;
    assert_eq!((opens.not_asked, opens.opens), (1, 1));
}

#[test]
fn what_looks_like_a_text_of_nodeseal_and_names_no_kek_is_told_apart_from_another_plugins() {
    let of = |key_id: &str, source: &[u8]| {
        let mut count = Count::new("/registry/", Ask::Nothing);
        let object = samples::EncryptedObject { source: source.to_vec(), ..samples::v2(1, key_id, 1) };
        take(&mut count, "/registry/secrets/a/1", &object.stored("nodeseal"), &mut Says(Verdict::Opens, 0));
        count.groups()[0].kek
    };
    assert_eq!(of("theirs", &[1; 90]), Kek::None);
    // A later release may have another format, or other key_ids.
    assert_eq!(of("ns1-a", &[1; 90]), Kek::Unread);
    assert_eq!(of("theirs", b"NSL\x02 and the rest"), Kek::Unread);
}

#[test]
fn beyond_the_bound_objects_are_still_counted_exactly() {
    let (mut count, mut says) = (Count::new("/registry/", Ask::Nothing), Says(Verdict::Opens, 0));
    let objects = GROUPS_MAX + 10;
    for number in 0..objects {
        let stored = samples::v2(1, &format!("ns1-{number}"), 1).stored("nodeseal");
        take(&mut count, "/registry/secrets/a/1", &stored, &mut says);
    }
    let rest: Vec<_> = count.groups().iter().filter(|group| group.is_rest()).collect();
    assert_eq!((rest.len(), rest[0].objects, rest[0].key_id.as_deref()), (1, 10, None));
    assert_eq!(count.groups().iter().map(|group| group.objects).sum::<u64>(), objects as u64);
}

#[test]
fn however_many_names_of_resources_lie_in_etcd_the_groups_are_bounded() {
    let (mut count, mut says) = (Count::new("/registry/", Ask::Nothing), Says(Verdict::Opens, 0));
    for number in 0..GROUPS_MAX + 1000 {
        take(&mut count, &format!("/registry/r{number}/a"), b"k8s\0x", &mut says);
    }
    assert_eq!(count.objects, GROUPS_MAX as u64 + 1000);
    assert!(count.groups().len() <= GROUPS_MAX + 1, "{}", count.groups().len());
}
