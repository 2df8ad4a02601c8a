//! Which resources are migrated, and how each of them.

use super::args::PlanArgs;
use super::mistake::Mistake;
use crate::ctl::etcd::encryption_config;
use crate::ctl::failed::Failed;
use crate::envelope::Api;
use crate::etcd::wanted::{Wanted, Writer};
use crate::kube::{Client, Migrations, Resource, resources};

/// They end by themselves (kube-apiserver `--event-ttl`, 1 h), and kube-controller-manager migrates none.
const EVENTS: [&str; 2] = ["events", "events.events.k8s.io"];

/// Who has the objects written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// kube-controller-manager.
    Cluster,
    /// We do. Under KMS v1 with an annotation, since an object that does not change is not written there.
    Here { annotated: bool },
}

impl By {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Cluster => "storage-version-migration",
            Self::Here { annotated: false } => "rewrite",
            Self::Here { annotated: true } => "rewrite-with-annotation",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) resource: Resource,
    pub(super) by: By,
}

pub(super) struct Targets {
    pub(super) all: Vec<Target>,
    pub(super) migrations: Option<Migrations>,
    pub(super) notes: Vec<String>,
}

/// What was said of the resources.
struct Asked<'a> {
    named: &'a [String],
    wanted: Option<Wanted>,
    is_v1: bool,
    /// The cluster can do it, and may.
    by_cluster: bool,
}

pub(super) async fn find(client: &mut Client, args: &PlanArgs) -> Result<Targets, Failed> {
    // Of --kms-v1 no file of this machine knows anything.
    let wanted = if args.kms_v1 { None } else { encryption_config(args.encryption_config.as_deref())? };
    if wanted.is_none() && args.resources.is_empty() {
        return Err(Mistake::NoResources.into());
    }
    let migrations = Migrations::find(client).await?;
    let by_cluster = migrations.is_some() && !args.rewrite;
    let asked =
        Asked { named: &args.resources, wanted: wanted.map(|(_, wanted)| wanted), is_v1: args.kms_v1, by_cluster };
    let (served, away) = resources(client).await?;
    let (all, mut notes) = asked.among(&served);
    notes.extend(away.iter().map(|group| format!("the API group {group} does not answer, and was not looked at")));
    if all.is_empty() {
        return Err(Mistake::NothingServed.into());
    }
    Ok(Targets { all, migrations, notes })
}

impl Asked<'_> {
    fn among(&self, served: &[Resource]) -> (Vec<Target>, Vec<String>) {
        let mut notes = Vec::new();
        let mut all = Vec::new();
        for resource in served {
            let name = resource.name();
            let Some(by) = self.by(&name) else { continue };
            if EVENTS.contains(&name.as_str()) {
                notes.push(format!("{name} are left out: they end by themselves, by default after 1 h"));
            } else {
                all.push(Target { resource: resource.clone(), by });
            }
        }
        let named = self.wanted.iter().flat_map(Wanted::resources).filter(|_| self.named.is_empty());
        for name in self.named.iter().map(String::as_str).chain(named) {
            if !served.iter().any(|resource| resource.name() == name) {
                notes.push(format!(
                    "{name} is left out: the API server has no resource of that name that can be patched"
                ));
            }
        }
        notes.dedup();
        (all, notes)
    }

    /// `None`: not this one.
    fn by(&self, name: &str) -> Option<By> {
        let is_named = self.named.iter().any(|one| one == name);
        if !self.named.is_empty() && !is_named {
            return None;
        }
        let writer = self.wanted.as_ref().map(|wanted| wanted.of(name).first().copied().cloned());
        let is_v1 = match writer {
            Some(Some(writer)) => matches!(writer, Writer::Kms { api: Api::V1, .. }),
            // No rule is for it. Whoever names it may still want what is encrypted to be written in clear.
            Some(None) if !is_named => return None,
            Some(None) | None => self.is_v1,
        };
        Some(match (is_v1, self.by_cluster) {
            (true, _) => By::Here { annotated: true },
            (false, true) => By::Cluster,
            (false, false) => By::Here { annotated: false },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Vec<Resource> {
        let of = |plural: &str, group: &str| Resource {
            group: group.into(),
            version: "v1".into(),
            plural: plural.into(),
            namespaced: true,
        };
        vec![of("secrets", ""), of("configmaps", ""), of("events", ""), of("widgets", "example.com")]
    }

    fn wanted(rules: &str) -> Option<Wanted> {
        Some(Wanted::parse(&format!("kind: EncryptionConfiguration\nresources:\n{rules}")).unwrap())
    }

    fn names(targets: &[Target]) -> Vec<(String, &'static str)> {
        targets.iter().map(|one| (one.resource.name(), one.by.label())).collect()
    }

    #[test]
    fn every_resource_with_a_rule_is_migrated_and_what_ends_by_itself_is_not() {
        let rules = "- {resources: [secrets, gadgets.example.com], providers: [{kms: {name: a}}]}\n- {resources: ['*.*'], providers: [{kms: {apiVersion: v2, name: b}}]}\n";
        let asked = Asked { named: &[], wanted: wanted(rules), is_v1: false, by_cluster: true };
        let (all, notes) = asked.among(&served());
        let expected = [
            // In v1, where nothing that is unchanged is written.
            ("secrets", "rewrite-with-annotation"),
            ("configmaps", "storage-version-migration"),
            ("widgets.example.com", "storage-version-migration"),
        ];
        assert_eq!(names(&all), expected.map(|(name, by)| (name.to_owned(), by)));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("events are left out") && notes[1].starts_with("gadgets.example.com is left out"));
    }

    #[test]
    fn names_alone_are_enough_and_limit_what_a_configuration_says() {
        let named = ["secrets".to_owned()];
        let asked = Asked { named: &named, wanted: None, is_v1: false, by_cluster: false };
        assert_eq!(names(&asked.among(&served()).0), [("secrets".to_owned(), "rewrite")]);
        let rules = wanted("- {resources: [configmaps, secrets], providers: [{identity: {}}]}\n");
        let asked = Asked { named: &named, wanted: rules, is_v1: false, by_cluster: true };
        assert_eq!(names(&asked.among(&served()).0), [("secrets".to_owned(), "storage-version-migration")]);
    }
}
