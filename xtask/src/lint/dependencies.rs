//! What the workspace depends on, against the rules of `deny.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{deny::Rules, license};
use crate::workspace;

/// Checks licences, banned and doubled crates, wildcards and sources; all faults are said at once.
pub fn check() -> Result<()> {
    let text =
        fs::read_to_string(workspace::root().join("deny.toml")).context("cannot read deny.toml")?;
    let rules = Rules::parse(&text)?;
    let mut args = vec!["--locked"];
    for target in rules.list("graph.targets") {
        args.extend(["--filter-platform", target]);
    }
    let packages = packages(&workspace::metadata(&args)?)?;
    let faults = faults(&packages, &rules);
    if !faults.is_empty() {
        bail!("{} against deny.toml:\n{}", faults.len(), faults.join("\n"));
    }
    eprintln!("{} packages keep the rules of deny.toml", packages.len());
    Ok(())
}

/// What matters of a package.
#[derive(Debug, Clone, Default)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for the packages of the workspace.
    source: Option<String>,
    /// Dependencies of any version that are not in the workspace.
    wildcards: Vec<String>,
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let package = |value: &Value| -> Option<Package> {
        let wildcards = value["dependencies"].as_array()?.iter();
        let wildcards =
            wildcards.filter(|dependency| dependency["req"] == "*" && dependency["path"].is_null());
        Some(Package {
            name: text(&value["name"])?,
            version: text(&value["version"])?,
            license: text(&value["license"]),
            source: text(&value["source"]),
            wildcards: wildcards
                .filter_map(|dependency| text(&dependency["name"]))
                .collect(),
        })
    };
    list.iter()
        .map(package)
        .collect::<Option<_>>()
        .context("cargo metadata describes a package without a name")
}

fn faults(packages: &[Package], rules: &Rules) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let Package { name, version, .. } = package;
        if rules.list("bans.deny").contains(name) {
            faults.push(format!("{name} {version} is banned (bans.deny)"));
        }
        faults.extend(source_fault(package, rules));
        faults.extend(license_fault(package, rules));
        if package.source.is_none() {
            let wildcards = package.wildcards.iter();
            faults.extend(
                wildcards.map(|other| {
                    format!("{name} depends on any version of {other} (bans.wildcards)")
                }),
            );
        }
    }
    faults.extend(doubled(packages, rules.list("bans.skip")));
    faults
}

fn source_fault(package: &Package, rules: &Rules) -> Option<String> {
    let source = package.source.as_ref()?;
    let registry = source.strip_prefix("registry+").unwrap_or_default();
    let known = rules
        .list("sources.allow-registry")
        .iter()
        .any(|allowed| allowed == registry);
    (!known).then(|| {
        format!(
            "{} {} comes from {source} (sources)",
            package.name, package.version
        )
    })
}

fn license_fault(package: &Package, rules: &Rules) -> Option<String> {
    let Package { name, version, .. } = package;
    let Some(expression) = &package.license else {
        return Some(format!("{name} {version} states no licence"));
    };
    match license::is_allowed(expression, rules.list("licenses.allow")) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{name} {version} is licensed '{expression}' (licenses.allow)"
        )),
        Err(error) => Some(format!(
            "{name} {version} is licensed '{expression}': {error}"
        )),
    }
}

/// Crates of which more than one version is left after the excused ones, and excuses that excuse nothing.
fn doubled(packages: &[Package], skip: &[String]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions
            .entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    let mut unused: BTreeSet<&String> = skip.iter().collect();
    let mut faults = Vec::new();
    for (name, versions) in versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
    {
        let mut left = Vec::new();
        for version in versions {
            match skip.iter().find(|entry| excuses(entry, name, version)) {
                Some(entry) => {
                    unused.remove(entry);
                }
                None => left.push(version),
            }
        }
        if left.len() > 1 {
            faults.push(format!(
                "{name} is there as {}: make them one, or excuse the older with '{name}@VERSION' in bans.skip",
                left.join(" and ")
            ));
        }
    }
    faults.extend(
        unused
            .into_iter()
            .map(|entry| format!("'{entry}' in bans.skip excuses nothing: remove it")),
    );
    faults
}

/// Whether an entry `name@version` names this version, which may go on after the entry's.
fn excuses(entry: &str, name: &str, version: &str) -> bool {
    entry.split_once('@').is_some_and(|(skipped, start)| {
        let rest = version.strip_prefix(start);
        skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [\"openssl\"]\nskip = [\"syn@2\"]\n\
                         [sources]\nallow-registry = [\"https://crates\"]\n";

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: Some("MIT".into()),
            source: Some("registry+https://crates".into()),
            wildcards: vec![],
        }
    }

    fn found(packages: &[Package]) -> String {
        faults(packages, &Rules::parse(RULES).unwrap()).join("\n")
    }

    #[test]
    fn good_packages_have_no_faults() {
        assert_eq!(
            found(&[
                package("syn", "2.0.1"),
                package("syn", "3.0.0"),
                package("a", "1.0.0")
            ]),
            ""
        );
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let excused = [package("syn", "2.0.1"), package("syn", "3.0.0")];
        let with = |package: Package| found(&[&excused[..], &[package]].concat());
        assert!(with(package("openssl", "1.0.0")).contains("banned"));
        assert!(with(package("syn", "1.0.0")).contains("syn is there as 1.0.0 and 3.0.0"));
        assert!(
            with(Package {
                license: None,
                ..package("a", "1.0.0")
            })
            .contains("no licence")
        );
        assert!(
            with(Package {
                license: Some("GPL-3.0-only".into()),
                ..package("a", "1.0.0")
            })
            .contains("GPL")
        );
        assert!(
            with(Package {
                source: Some("git+https://x".into()),
                ..package("a", "1.0.0")
            })
            .contains("git+")
        );
        let wild = Package {
            source: None,
            wildcards: vec!["b".into()],
            ..package("a", "1.0.0")
        };
        assert!(with(wild).contains("any version of b"));
        assert!(found(&[package("syn", "3.0.0")]).contains("excuses nothing"));
    }

    #[test]
    fn excuses_end_at_a_whole_number() {
        assert!(excuses("syn@2", "syn", "2.0.1") && excuses("x@0.3.4", "x", "0.3.4"));
        assert!(
            !excuses("syn@2", "syn", "20.0.1")
                && !excuses("syn@2", "sync", "2.0.1")
                && !excuses("syn", "syn", "2")
        );
    }
}
